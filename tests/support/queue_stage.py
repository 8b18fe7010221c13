"""A user of the queue that is told what to do, and knows what must be there.

    queue_stage.py owner|attached WORKER_PORT METASTORE_PORT

Reads commands from its standard input, a line each, and answers each with one line:

    load DO JOURNAL   fork a child that does nothing but idle, put, get or clear, or
                      everything (mix): PID
    launch DO JOURNAL the same, without waiting until it has begun
    inline DO JOURNAL the same in this process, until it is killed
    stop PID          end that child: "ended CODE"
    work              put a row and get it back: "worked SECONDS"
    verify JOURNAL    compare all rows with what was written down: "verified ROWS"
    clear JOURNAL     clear all rows that are written down: "cleared ROWS"
    clear_all         clear every row: "cleared ROWS"
    stats             the worker's counters, JSON
    init, reinit      "ready SECONDS"; reinit closes before
    leave             close and stay: "left"
    close             and end: "closed"

A load writes down what it tries and what was acknowledged, so that also after its death
it is known what must be there. An error of the library is answered with "told SECONDS
TEXT"; wrong bytes are an AssertionError and end the process with a traceback.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import transfer_queue as tq
from transfer_queue.utils.yuanrong_utils import require_worker_host
from yr.datasystem import BlockClient

PARTITION = "p"
KEYS = 12
SIZES = (100, 5_000, 300_000, 2_000_000)
ARENA_MB = int(os.environ.get("TQ_STAGE_ARENA_MB", "128"))
TOLD = 3  # A load's exit code when the library reported an error.


def value_of(key: str, version: int) -> torch.Tensor:
    size = SIZES[(zlib.crc32(key.encode()) + version) % len(SIZES)]
    return value_of_size(key, version, size)


def value_of_size(key: str, version: int, size: int) -> torch.Tensor:
    """Bytes that only this key and version have; they begin with the version."""
    seed = zlib.crc32(f"{key} {version}".encode())
    words = np.arange(size // 4, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(
        seed
    )
    words[0] = version
    return torch.from_numpy(words.view(np.int32))


def version_of(key: str, value: torch.Tensor) -> int:
    """After a look at every byte."""
    version = int(value[0])
    right = value_of_size(key, version, 4 * len(value))
    assert torch.equal(value, right), f"wrong bytes of {key}"
    return version


class Journal:
    """What one load did. Lines reach the kernel at once: a kill loses none."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(path, flags, 0o600)

    def note(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def expected(path: str) -> dict[str, set[int]]:
    """The versions that each key may have; 0: it may be absent."""
    may_be: dict[str, set[int]] = {}
    for line in Path(path).read_text().splitlines():
        what, key, version = line.split()
        versions = may_be.setdefault(key, {0})
        if what == "trying":
            versions.add(int(version))
        else:
            may_be[key] = {int(version)}
    return may_be


def put(journal: Journal, key: str, version: int) -> None:
    journal.note("trying", key, version)
    tq.kv_put(key, PARTITION, {"v": value_of(key, version)})
    journal.note("done", key, version)


def clear(journal: Journal, key: str) -> None:
    journal.note("trying", key, 0)
    tq.kv_clear(key, PARTITION)
    journal.note("done", key, 0)


class Mix:
    """Puts, gets, holds and clears, in an arena that may be full.

    It alone has its keys, so it knows what each of them must be.
    """

    KEYS = 24
    HELD = 8

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal = journal
        self._random = random.Random(name)
        self._keys = [f"{name}_{i}" for i in range(self.KEYS)]
        self._versions: dict[str, int] = {}
        self._held: list[tuple[str, int, torch.Tensor]] = []
        self._version = 0

    def step(self) -> None:
        key = self._random.choice(self._keys)
        chance = self._random.random()
        if chance < 0.45:
            self._put(key)
        elif chance < 0.9 and key in self._versions:
            self._get(key)
        elif chance >= 0.9:
            clear(self._journal, key)
            self._versions.pop(key, None)

    def _put(self, key: str) -> None:
        self._version += 1
        size = self._random.choice((1000, 100_000, 3_000_000, 8_000_000))
        value = value_of_size(key, self._version, size)
        self._journal.note("trying", key, self._version)
        try:
            tq.kv_put(key, PARTITION, {"v": value})
        except Exception as error:
            if "no space in arena" not in str(error):
                raise
            self._journal.note("done", key, self._versions.get(key, 0))
            self._held.clear()
            return
        self._journal.note("done", key, self._version)
        self._versions[key] = self._version

    def _get(self, key: str) -> None:
        value = tq.kv_batch_get(key, PARTITION)["v"].unbind()[0]
        assert version_of(key, value) == self._versions[key], f"{key} is old"
        self._held.append((key, self._versions[key], value))
        if len(self._held) > self.HELD:
            key, version, value = self._held.pop(0)
            assert version_of(key, value) == version, f"a held {key} has changed"


def do(what: str, path: str) -> None:
    """One thing, as long as whoever started this lives."""
    journal, name, version = Journal(path), Path(path).stem, 1
    keys = [f"{name}_{i}" for i in range(KEYS)]
    for key in keys if what in ("idle", "get") else ():
        put(journal, key, version)
    print("loading", flush=True)
    parent = os.getppid()
    mix = Mix(journal, name)
    while os.getppid() == parent:
        if what == "mix":
            mix.step()
        elif what == "idle":
            time.sleep(0.2)
        elif what == "put":
            put(journal, keys[version % KEYS], version)
        elif what == "get":
            values = tq.kv_batch_get(keys, PARTITION)["v"].unbind()
            for key, value in zip(keys, values, strict=True):
                assert version_of(key, value) == 1
        else:
            put(journal, keys[version % KEYS], version)
            clear(journal, keys[version % KEYS])
        version += 1


def do_until_told(what: str, path: str) -> int:
    try:
        do(what, path)
    except AssertionError:
        raise
    except Exception as error:
        print(f"load: {error}", file=sys.stderr, flush=True)
        return TOLD
    return 0


def fork_load(what: str, path: str, wait: bool) -> int:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(write_end, 1)
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
            code = do_until_told(what, path)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(write_end)
    if wait:
        os.read(read_end, 100)  # It is loading, or has ended.
    os.close(read_end)
    return pid


def stop_load(pid: int) -> str:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    return f"ended {os.waitstatus_to_exitcode(status)}"


def verify(path: str) -> int:
    here = set(tq.kv_list(PARTITION).get(PARTITION, {}))
    for key, versions in expected(path).items():
        if key not in here:
            assert 0 in versions, f"{key} is lost: {versions}"
            continue
        value = tq.kv_batch_get(key, PARTITION)["v"].unbind()[0]
        assert version_of(key, value) in versions, f"{key} has an old value"
    return len(here)


class Stage:
    """Answers commands. Owner: the process."""

    def __init__(self, is_owner: bool, worker_port: int, metastore_port: int) -> None:
        section = {
            "worker_port": worker_port,
            "metastore_port": metastore_port,
            "worker_args": f"--shared_memory_size_mb {ARENA_MB}",
        }
        self._conf: dict[str, Any] | None = None
        if is_owner:
            self._conf = {"backend": {"Yuanrong": section}}
        self._port = worker_port
        self._works = 0
        self._journal = Journal(os.devnull)

    def answer(self, command: str, *words: str) -> str:
        begin = time.monotonic()
        try:
            return str(getattr(self, command)(*words))
        except AssertionError:
            raise
        except Exception as error:
            text = str(error).replace("\n", " ")
            return f"told {time.monotonic() - begin:.3f} {text}"

    def init(self) -> str:
        begin = time.monotonic()
        tq.init(self._conf)
        return f"ready {time.monotonic() - begin:.3f}"

    def reinit(self) -> str:
        tq.close()
        return self.init()

    def leave(self) -> str:
        tq.close()
        return "left"

    def load(self, what: str, path: str) -> int:
        return fork_load(what, path, True)

    def launch(self, what: str, path: str) -> int:
        return fork_load(what, path, False)

    def inline(self, what: str, path: str) -> str:
        do(what, path)
        return "never"

    def stop(self, pid: str) -> str:
        return stop_load(int(pid))

    def work(self) -> str:
        self._works += 1
        begin = time.monotonic()
        key = f"work{os.getpid()}"
        put(self._journal, key, self._works)
        value = tq.kv_batch_get(key, PARTITION)["v"].unbind()[0]
        assert version_of(key, value) == self._works
        return f"worked {time.monotonic() - begin:.3f}"

    def verify(self, path: str) -> str:
        return f"verified {verify(path)}"

    def clear(self, path: str) -> str:
        keys = list(expected(path))
        if keys:
            tq.kv_clear(keys, PARTITION)
        return f"cleared {len(keys)}"

    def clear_all(self) -> str:
        keys = list(tq.kv_list(PARTITION).get(PARTITION, {}))
        tq.kv_clear(keys, PARTITION)
        return f"cleared {len(keys)}"

    def stats(self) -> str:
        host = require_worker_host(self._port)
        client = BlockClient(host, self._port, 5000, 5000)
        text = str(client.stats())
        client.close()
        return text


def main(role: str, worker_port: str, metastore_port: str) -> None:
    stage = Stage(role == "owner", int(worker_port), int(metastore_port))
    for line in sys.stdin:
        words = line.split()
        if words == ["close"]:
            tq.close()
        print("closed" if words == ["close"] else stage.answer(*words), flush=True)
        if words == ["close"]:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
