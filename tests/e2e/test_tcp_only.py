"""A process that reaches the worker by TCP only, as from another container.

It has the controller's socket, but not the worker's: its folder is hidden by a mount in
a namespace of the process's own. Everything else is as in any process of the queue.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from e2e import Site, expect_line, finish, tell

# The columns: `ragged` and `dense` have 30 MB each, `small` shares a part with others.
# What every value must be follows from its row and a seed, in every process alike.
COLUMNS = """
import numpy as np

ROWS, MB = 24, 1 << 20

def rows_of(seed):
    dice = np.random.default_rng(seed)
    lengths = dice.integers(1, 2 * 30 * MB // 8 // ROWS, ROWS)
    return [
        torch.from_numpy(dice.integers(0, 1 << 62, int(n))) for n in lengths
    ], torch.from_numpy(
        dice.integers(0, 255, (ROWS, 30 * MB // ROWS), dtype=np.uint8)
    )

def put(partition, seed):
    ragged, dense = rows_of(seed)
    fields = {
        "ragged": torch.nested.as_nested_tensor(ragged, layout=torch.jagged),
        "dense": dense,
        "small": torch.arange(ROWS) + seed,
    }
    keys = [f"k{n}" for n in range(ROWS)]
    tq.kv_batch_put(keys, partition, TensorDict(fields, batch_size=[ROWS]))

def check(partition, seed, wanted=tuple(range(ROWS))):
    ragged, dense = rows_of(seed)
    back = tq.kv_batch_get([f"k{n}" for n in wanted], partition)
    for row, got in zip(wanted, back["ragged"].unbind(), strict=True):
        assert torch.equal(got, ragged[row]), ("ragged", row)
    for row, got in zip(wanted, back["dense"].unbind(), strict=True):
        assert torch.equal(got, dense[row]), ("dense", row)
    assert back["small"].tolist() == [row + seed for row in wanted]
    back["dense"].unbind()[0].zero_()  # It is the reader's own.

def worker():
    from transfer_queue import interface
    manager = interface.get_client().storage_manager
    return manager._connected()
"""

OWNER = (
    COLUMNS
    + """
tq.init(conf(worker_args="--shared_memory_size_mb 512"))
assert worker().uses_shared_memory
put("shared", 1)
say("ready")
wait_for_line()
check("tcp", 2)
check("tcp", 2, (5, 0, 23))
tq.kv_clear([f"k{n}" for n in range(ROWS)], "tcp")
say("cleared")
wait_for_line()
assert not any(tq.kv_list().values()), tq.kv_list()
tq.close()
say("closed")
"""
)

TCP_ONLY = (
    COLUMNS
    + """
tq.init()
assert not worker().uses_shared_memory
check("shared", 1)
check("shared", 1, (7, 3))
put("tcp", 2)
check("tcp", 2)
say("put")
wait_for_line()
assert not tq.kv_list().get("tcp")
tq.kv_clear([f"k{n}" for n in range(ROWS)], "shared")
tq.close()
"""
)


# Over TCP it is the worker's patience, not the end of the process, that tells.
MORTAL_OWNER = (
    COLUMNS
    + """
import json
tq.init(conf(worker_args="--shared_memory_size_mb 256 --client_dead_timeout_s 3"))
say("ready")
wait_for_line()
used = lambda: json.loads(worker().stats())["memory_used_bytes"]
full = used()
check("kept", 3, (0, 23))
say("full")
wait_for_line()
end = time.monotonic() + 15
while used() > full - 60 * MB and time.monotonic() < end:
    time.sleep(0.1)
assert used() == full - 60 * MB, (full, used())
check("kept", 3)
tq.close()
say("closed")
"""
)

MORTAL = (
    COLUMNS
    + """
tq.init()
assert not worker().uses_shared_memory
put("kept", 3)
parts = worker().block_create([30 * MB])
never_put = worker().block_seal(parts)
unsealed = worker().block_create([30 * MB])
say("done")
time.sleep(60)
"""
)


def start_without_the_workers_socket(site: Site, code: str) -> subprocess.Popen[str]:
    """As Site.start(), where the folder of the worker's Unix socket is empty."""
    if os.geteuid() != 0:
        pytest.fail("only root can hide the socket: run this test as root")
    (socket,) = site.runtime.glob("**/worker.sock")
    hide = f'set -e\nmount -t tmpfs none "{socket.parent}"\nexec "$@"'
    return site.start(code, within=("unshare", "--mount", "sh", "-c", hide, "sh"))


def test_large_columns_travel_between_processes_with_and_without_shared_memory(
    site: Site,
) -> None:
    owner = site.start(OWNER)
    expect_line(owner, "ready")
    other = start_without_the_workers_socket(site, TCP_ONLY)
    expect_line(other, "put")
    tell(owner)
    expect_line(owner, "cleared")
    tell(other)
    done = finish(other)
    assert done.code == 0, done.err
    tell(owner)
    expect_line(owner, "closed")


def test_what_a_killed_process_over_tcp_had_not_put_is_freed(site: Site) -> None:
    owner = site.start(MORTAL_OWNER)
    expect_line(owner, "ready")
    other = start_without_the_workers_socket(site, MORTAL)
    expect_line(other, "done")
    tell(owner)
    expect_line(owner, "full")
    other.kill()
    other.communicate()
    tell(owner)
    expect_line(owner, "closed")
