"""A store that is full: puts wait for their turn, and nothing is lost."""

from __future__ import annotations

import pytest
from e2e import Site, expect_line, finish, tell


def test_a_producer_faster_than_its_consumer_loses_nothing(site: Site) -> None:
    """Four times the arena goes through it, by producers of small and of large puts."""
    owner = site.start(
        """
        import threading
        tq.init(conf(put_wait_s=30))
        errors = []

        def produce(name, rows, puts):
            try:
                for n in range(puts):
                    data = torch.full((rows, 1 << 18), n % 251, dtype=torch.uint8)
                    keys = [f"{name}{n}_{row}" for row in range(rows)]
                    fields = TensorDict({"v": data}, batch_size=[rows])
                    tq.kv_batch_put(keys, name, fields)
            except Exception as error:
                errors.append(error)

        def consume(name, rows, puts):
            for n in range(puts):
                keys = [f"{name}{n}_{row}" for row in range(rows)]
                while True:
                    try:
                        got = tq.kv_batch_get(keys, name)["v"]
                        break
                    except ValueError:
                        if errors:
                            return
                        time.sleep(0.002)
                if not bool((got == n % 251).all()):
                    errors.append(f"{name}{n} is wrong")
                del got
                tq.kv_clear(keys, name)

        jobs = [("small", 1, 400), ("large", 60, 12)]
        threads = [
            threading.Thread(target=work, args=job)
            for job in jobs for work in (produce, consume)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        tq.close()
        """
    )
    done = finish(owner, timeout_s=240)
    assert done.code == 0, done.err


def test_a_put_that_waited_in_vain_says_so_and_may_be_told_not_to_wait(
    site: Site,
) -> None:
    owner = site.start(
        """
        tq.init(conf(put_wait_s=0.5))
        for n in range(60):
            tq.kv_put(f"k{n}", "p", {"v": torch.zeros(1 << 20, dtype=torch.uint8)})
        start = time.monotonic()
        try:
            big = torch.zeros(20 << 20, dtype=torch.uint8)
            tq.kv_put("big", "p", {"v": big})
        except RuntimeError as error:
            assert "Shared memory no space in arena" in str(error), error
        else:
            raise AssertionError("it cannot fit")
        assert time.monotonic() - start >= 0.5
        tq.kv_clear([f"k{n}" for n in range(60)], "p")
        tq.kv_put("big", "p", {"v": big})
        tq.close()
        try:
            tq.init(conf(put_wait_s=float("inf")))
        except ValueError as error:
            assert "put_wait_s must be a number of seconds" in str(error)
        else:
            raise AssertionError("for ever cannot be had")
        """
    )
    done = finish(owner)
    assert done.code == 0, done.err


def test_rows_that_are_left_of_large_blocks_do_not_fill_the_store(site: Site) -> None:
    """Of every block one row stays. All in all more is put than the store holds, by
    two processes at a time, while others read what stays."""
    owner = site.start(
        """
        import threading
        tq.init(conf())
        errors = []

        def value(turn):
            return torch.full((64, 1 << 16), turn % 251, dtype=torch.uint8)

        def work(name):
            try:
                for turn in range(40):
                    keys = [f"{name}{turn}_{row}" for row in range(64)]
                    texts = tq_objects([{"turn": turn}] * 64)
                    fields = TensorDict(
                        {"v": value(turn), "small": value(turn)[:, :7].clone()},
                        batch_size=[64],
                    )
                    fields["object"] = texts
                    tq.kv_batch_put(keys, name, fields)
                    tq.kv_clear(keys[:turn % 64] + keys[turn % 64 + 1:], name)
                    check(name, turn // 2)
            except Exception as error:
                errors.append(error)

        def tq_objects(values):
            from tensordict import NonTensorStack
            return NonTensorStack(*values)

        def check(name, turn):
            got = tq.kv_batch_get([f"{name}{turn}_{turn % 64}"], name)
            assert got["object"][0] == {"turn": turn}, got["object"]
            assert bool((got["v"].values() == turn % 251).all())
            assert bool((got["small"].values() == turn % 251).all())

        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        for name in "ab":
            for turn in range(40):
                check(name, turn)
        tq.close()
        """
    )
    done = finish(owner, timeout_s=240)
    assert done.code == 0, done.err


@pytest.mark.parametrize("stage", ["copied", "moved"])
def test_a_process_killed_while_it_compacts_loses_nothing(
    site: Site, stage: str
) -> None:
    """Killed when its copy of the rows is stored and nobody knows of it yet, or right
    after the queue has taken it."""
    owner = site.start(
        """
        import json
        from yr.datasystem import BlockClient
        tq.init(conf())
        say("ready")
        wait_for_line()
        rows = tq.kv_list("p")["p"]
        for key in rows:
            turn, row = map(int, key.split("_"))
            assert row == 0
            assert bool((tq.kv_batch_get(key, "p")["v"].values() == turn).all())
        say("right", len(rows))
        tq.kv_clear(list(rows), "p")
        client = BlockClient(
            "127.0.0.1", int(os.environ["TQ_TEST_WORKER_PORT"]), 5000, 5000
        )
        end = time.monotonic() + 30
        while json.loads(client.stats())["memory_used_bytes"] > 0:
            assert time.monotonic() < end, client.stats()
            time.sleep(0.05)
        client.close()
        tq.close()
        """
    )
    expect_line(owner, "ready")
    victim = site.start(
        """
        from transfer_queue._queue import QueueClient
        tq.init()
        kv_move = QueueClient.kv_move

        def stop_there(self, *arguments):
            if os.environ["TQ_TEST_STAGE"] == "moved":
                kv_move(self, *arguments)
            say("there")
            time.sleep(600)

        QueueClient.kv_move = stop_there
        for turn in range(100):
            keys = [f"{turn}_{row}" for row in range(64)]
            data = torch.full((64, 1 << 16), turn, dtype=torch.uint8)
            tq.kv_batch_put(keys, "p", TensorDict({"v": data}, batch_size=[64]))
            tq.kv_clear(keys[1:], "p")
            say("put", turn)
        """,
        environment={"TQ_TEST_STAGE": stage},
    )
    puts = 0
    while expect_line(victim, "") != "there":
        puts += 1
    victim.kill()
    victim.wait()
    tell(owner)
    expect_line(owner, f"right {puts}")
    done = finish(owner)
    assert done.code == 0, done.err
