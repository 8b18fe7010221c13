"""The controller killed again and again while clients work: nothing acknowledged is
lost, nothing else is there, and nobody sees an error."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from e2e import Site, expect_line, finish, tell

KILLS = 100
CLIENTS = 3

# One client: puts, tags, clears and gets in a partition of its own, and a table of what
# was acknowledged. Every put is answered, so the table is exact.
CLIENT = """
import os, random, select, sys
me = int(os.environ["CLIENT"])
partition = f"p{me}"
rng = random.Random(me)
tq.init(conf())
say("ready")
table, rounds = {}, 0

def check(keys):
    got = tq.kv_batch_get(keys, partition)
    for position, key in enumerate(keys):
        value = table[key][0]
        assert torch.equal(got["v"][position], torch.full((300,), value)), key

def one_round():
    global rounds
    rounds += 1
    choice = rng.random()
    if choice < 0.5 or len(table) < 8:
        keys = [f"k{rng.randrange(60)}" for _ in range(4)]
        keys = list(dict.fromkeys(keys))
        data = torch.full((len(keys), 300), rounds)
        tags = [{"round": rounds}] * len(keys)
        fields = TensorDict({"v": data}, batch_size=len(keys))
        tq.kv_batch_put(keys, partition, fields, tags)
        for key in keys:
            table[key] = (rounds, {**table.get(key, (0, {}))[1], "round": rounds})
    elif choice < 0.65:
        key = rng.choice(list(table))
        tq.kv_put(key, partition, tag={"only": rounds})
        table[key] = (table[key][0], {**table[key][1], "only": rounds})
    elif choice < 0.8:
        keys = rng.sample(list(table), 3)
        tq.kv_clear(keys, partition)
        for key in keys:
            del table[key]
    else:
        check(rng.sample(list(table), 4))

def compare():
    listed = tq.kv_list(partition).get(partition, {})
    assert listed == {key: tags for key, (_, tags) in table.items()}, "not the same"
    check(list(table))

while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(20):
        one_round()
wait_for_line()
compare()
say("rounds", rounds)
wait_for_line()
tq.kv_clear(list(table), partition)
tq.close()
"""


def child_of(pid: int) -> int:
    """0 while there is none."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(text[0]) if text else 0


def test_100_kills_of_the_controller_lose_nothing(site: Site) -> None:
    owner = site.start(
        """
        tq.init(conf())
        say("ready")
        wait_for_line()
        tq.close()
        """
    )
    expect_line(owner, "ready")
    supervisor = site.pids_of("transfer_queue_controller")[0]
    clients = [
        site.start(CLIENT, environment={"CLIENT": str(i)}) for i in range(CLIENTS)
    ]
    for client in clients:
        expect_line(client, "ready")
    rng = random.Random(1)
    killed = 0
    while killed < KILLS:
        time.sleep(rng.uniform(0.0, 0.25))
        child = child_of(supervisor)
        if child:
            os.kill(child, signal.SIGKILL)
            killed += 1
        for client in clients:
            assert client.poll() is None, finish(client).err
    for client in clients:
        tell(client)
        rounds = int(expect_line(client, "rounds").split()[1])
        assert rounds > KILLS
    for client in clients:
        tell(client)
        done = finish(client)
        assert done.code == 0, done.err
    tell(owner)
    done = finish(owner)
    assert done.code == 0, done.err
