"""Hosts of a test's own: network namespaces on a bridge.

    switch   a namespace with the bridge and one end of each host's cable
    host i   a namespace with the address 192.168.0.i, as in the guide, and fd00::i

A namespace is held by a process and goes with it, with its interfaces: nothing of this
is seen on the machine itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

NETWORK = "192.168.0"


def why_impossible() -> str | None:
    """What is missing for network namespaces; None: nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft", "nsenter", "unshare"):
        if shutil.which(program) is None:
            return f"network namespaces need the program {program}"
    return None


class Namespace:
    """Owner: its Network."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "\n"  # It has its namespace now.
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._holder.pid

    @property
    def within(self) -> list[str]:
        """A command that runs another here, whose words are appended."""
        return ["nsenter", "--target", str(self.pid), "--net", "--"]

    def run(self, *words: str) -> None:
        subprocess.run([*self.within, *words], check=True, timeout=30)

    def end(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@dataclass(frozen=True)
class Host:
    """One end of a cable."""

    number: int
    namespace: Namespace
    switch: Namespace

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def address_v6(self) -> str:
        return f"fd00::{self.number:x}"

    @property
    def within(self) -> Sequence[str]:
        return self.namespace.within

    def cut(self) -> None:
        """Nothing goes to or from here, and nobody is told."""
        self.switch.run("ip", "link", "set", self._port, "down")

    def heal(self) -> None:
        self.switch.run("ip", "link", "set", self._port, "up")

    def lose(self, percent: int) -> None:
        """So many of the packets that come here are lost, by chance."""
        begin = "add table netdev loss; add chain netdev loss in"
        hook = "{ type filter hook ingress device eth0 priority 0; }"
        rule = f"add rule netdev loss in numgen random mod 100 < {percent} drop"
        self.namespace.run("nft", f"{begin} {hook}; {rule}")

    def lose_nothing(self) -> None:
        self.namespace.run("nft", "delete table netdev loss")

    def slow(self, mbit: int) -> None:
        """What goes from here in large packets is no more than so much a second; the
        rest, as the members' renewals are, passes."""
        begin = "add table netdev slow; add chain netdev slow out"
        hook = f"{{ type filter hook ingress device {self._port} priority 0; }}"
        limit = f"limit rate over {mbit * 125} kbytes/second burst 256 kbytes drop"
        rule = f"add rule netdev slow out meta length > 1000 {limit}"
        self.switch.run("nft", f"{begin} {hook}; {rule}")

    def fast(self) -> None:
        """As before slow()."""
        self.switch.run("nft", "delete table netdev slow")

    def plug_in(self) -> None:
        cable = ["ip", "link", "add", self._port, "type", "veth", "peer", "name"]
        self.switch.run(*cable, "eth0", "netns", str(self.namespace.pid))
        self.switch.run("ip", "link", "set", self._port, "master", "bridge0", "up")
        self.namespace.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        six = f"{self.address_v6}/64"  # At once: nobody else has it.
        self.namespace.run("ip", "addr", "add", six, "dev", "eth0", "nodad")
        self.namespace.run("ip", "link", "set", "eth0", "up")

    @property
    def _port(self) -> str:
        return f"port{self.number}"


class Network:
    """So many hosts that reach each other. Owner: its fixture."""

    def __init__(self, count: int) -> None:
        self._namespaces = [Namespace()]
        switch = self._namespaces[0]
        switch.run("ip", "link", "add", "bridge0", "type", "bridge")
        switch.run("ip", "link", "set", "bridge0", "up")
        self.hosts: list[Host] = []
        for number in range(1, count + 1):
            self._namespaces.append(Namespace())
            self.hosts.append(Host(number, self._namespaces[-1], switch))
            self.hosts[-1].plug_in()

    def end(self) -> None:
        for namespace in self._namespaces:
            namespace.end()
