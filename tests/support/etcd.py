"""A real etcd, of a test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

UNPACKED = Path(__file__).parents[2] / "build/etcd/usr/bin/etcd"
START_S = 30.0

ASK = """
import http.client, ssl, sys
kind, address, method, path, body = sys.argv[1:]
if kind == "tls":
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(address, timeout=2, context=context)
else:
    connection = http.client.HTTPConnection(address, timeout=2)
connection.request(method, path, body or None)
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""

Start = Callable[..., "subprocess.Popen[str]"]


def etcd_program() -> str | None:
    """None: there is none here."""
    return str(UNPACKED) if UNPACKED.exists() else shutil.which("etcd")


class Etcd:
    """One server at `address`, whose data outlives it. Owner: its fixture.

    `start` runs a command; `within` is one that runs another where the address is.
    With a certificate, which is its own authority, it speaks TLS."""

    def __init__(
        self,
        start: Start,
        within: Sequence[str],
        folder: Path,
        address: str,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._start = start
        self._within = within
        self._folder = folder
        self._certificate = certificate
        self.address = address
        self.start()

    def start(self) -> None:
        program = etcd_program()
        assert program is not None
        host, _, port = self.address.rpartition(":")
        peer = f"http://{host}:{int(port) + 1}"
        own = f"{'https' if self._certificate else 'http'}://{self.address}"
        tls: tuple[str, ...] = ()
        if self._certificate:
            certificate, key = map(str, self._certificate)
            tls = ("--cert-file", certificate, "--key-file", key)
        self._process = self._start(
            *(*self._within, program, "--name", "one"),
            *("--data-dir", str(self._folder), "--logger", "zap"),
            *("--log-level", "error"),
            *("--listen-client-urls", own, "--advertise-client-urls", own, *tls),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"one={peer}"),
        )
        self._await_health()

    def kill(self) -> None:
        """As kill -9 does."""
        self._process.kill()
        self._process.wait(timeout=START_S)

    def ask_for_password(self, user: str, password: str) -> None:
        """From now on; `user` may do everything, as root does."""
        self.post("auth/user/add", name="root", password=password)
        self.post("auth/user/grant", user="root", role="root")
        self.post("auth/user/add", name=user, password=password)
        self.post("auth/user/grant", user=user, role="root")
        self.post("auth/enable")

    def post(self, path: str, **fields: str) -> None:
        answer = self._request("POST", f"/v3/{path}", json.dumps(fields))
        assert answer.startswith("200 "), answer

    def _await_health(self) -> None:
        end = time.monotonic() + START_S
        while '"true"' not in self._request("GET", "/health", ""):
            assert time.monotonic() < end, "etcd did not come up"
            time.sleep(0.1)

    def _request(self, *request: str) -> str:
        """Status and body; what went wrong, if there is none."""
        kind = "tls" if self._certificate else "plain"
        words = (sys.executable, "-c", ASK, kind, self.address, *request)
        done = subprocess.run(
            [*self._within, *words], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr
