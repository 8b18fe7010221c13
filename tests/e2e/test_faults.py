"""What is promised when something breaks, each promise tested by breaking it."""

from __future__ import annotations

import os
import signal
import time

from e2e import Site, expect_line, finish, tell


def test_a_killed_controller_is_named_within_5_seconds_and_init_works_again(
    site: Site,
) -> None:
    owner = site.start(
        """
        tq.init(conf())
        tq.kv_put("a", "p", {"v": 1})
        say("ready")
        wait_for_line()
        start = time.monotonic()
        try:
            tq.kv_batch_get("a", "p")
        except RuntimeError as error:
            say(time.monotonic() - start < 5, error)
        try:
            tq.init(conf())
        except RuntimeError as error:
            say("gone" in str(error) and "tq.close()" in str(error))
        tq.close()
        tq.init(conf())
        tq.kv_put("a", "p", {"v": 2})
        assert list(tq.kv_batch_get("a", "p")["v"]) == [2]
        tq.close()
        """
    )
    expect_line(owner, "ready")
    for pid in site.pids_of("transfer_queue_controller"):
        os.kill(pid, signal.SIGKILL)
    tell(owner)
    line = expect_line(owner, "True ")
    assert "controller" in line
    assert f"unix:{site.session}/controller.sock" in line
    expect_line(owner, "True")
    done = finish(owner)
    assert done.code == 0, done.err


def test_a_killed_worker_loses_nothing(site: Site) -> None:
    owner = site.start(
        """
        tq.init(conf())
        big = torch.arange(3_000_000, dtype=torch.int32)
        tq.kv_put("a", "p", {"v": big})
        view = tq.kv_batch_get("a", "p")["v"]
        say("ready")
        wait_for_line()
        tq.kv_put("b", "p", {"v": big + 1})
        back = tq.kv_batch_get(["a", "b"], "p")["v"].unbind()
        assert torch.equal(back[0], big) and torch.equal(back[1], big + 1)
        assert torch.equal(view.unbind()[0], big)
        tq.close()
        """
    )
    expect_line(owner, "ready")
    _, child = sorted(site.pids_of("datasystem_worker"))
    os.kill(child, signal.SIGKILL)
    tell(owner)
    done = finish(owner)
    assert done.code == 0, done.err


def test_a_full_arena_is_an_error_at_once_and_clear_makes_room(site: Site) -> None:
    done = site.run(
        """
        tq.init(conf())
        some = {"v": torch.zeros(20_000_000, dtype=torch.uint8)}
        error = None
        stored = 0
        start = time.monotonic()
        while error is None and stored < 10:
            try:
                tq.kv_put(f"k{stored}", "p", some)
                stored += 1
            except RuntimeError as caught:
                error = caught
        assert time.monotonic() - start < 10
        assert 1 <= stored <= 3, stored
        text = str(error)
        assert "code: [Out of memory], msg: [Shared memory no space in arena" in text
        assert list(tq.kv_list("p")["p"]) == [f"k{n}" for n in range(stored)]
        for turn in range(20):
            tq.kv_clear("k0", "p")
            tq.kv_put("k0", "p", some)
        tq.close()
        """
    )
    assert done.code == 0, done.err


def test_ctrl_c_ends_a_waiting_call_within_100_ms(site: Site) -> None:
    owner = site.start(
        """
        tq.init(conf())
        say("ready")
        wait_for_line()
        say("calling")
        try:
            tq.kv_list()
        except KeyboardInterrupt:
            say("interrupted", time.monotonic())
        say("handler", __import__("signal").getsignal(2).__name__)
        wait_for_line()
        assert tq.kv_list() == {}
        tq.close()
        """
    )
    expect_line(owner, "ready")
    controllers = site.pids_of("transfer_queue_controller")
    for pid in controllers:
        os.kill(pid, signal.SIGSTOP)
    tell(owner)
    expect_line(owner, "calling")
    time.sleep(0.3)
    sent = time.monotonic()
    os.kill(owner.pid, signal.SIGINT)
    caught = float(expect_line(owner, "interrupted").split()[1])
    for pid in controllers:
        os.kill(pid, signal.SIGCONT)
    assert caught - sent < 0.1
    # Python's own handler: the library installs none.
    assert expect_line(owner, "handler").endswith("default_int_handler")
    tell(owner)
    done = finish(owner)
    assert done.code == 0, done.err


def test_a_call_ends_at_its_time_limit_and_says_so(site: Site) -> None:
    owner = site.start(
        """
        tq.init({**conf(), "controller": {"timeout_s": 0.5}})
        say("ready")
        wait_for_line()
        start = time.monotonic()
        try:
            tq.kv_list()
        except RuntimeError as error:
            say(0.4 < time.monotonic() - start < 2.0, error)
        wait_for_line()
        tq.close()
        """
    )
    expect_line(owner, "ready")
    controllers = site.pids_of("transfer_queue_controller")
    for pid in controllers:
        os.kill(pid, signal.SIGSTOP)
    tell(owner)
    line = expect_line(owner, "True ")
    for pid in controllers:
        os.kill(pid, signal.SIGCONT)
    assert "did not answer kv_list in time" in line
    assert "controller.timeout_s" in line
    tell(owner)
    done = finish(owner)
    assert done.code == 0, done.err


def test_a_forked_child_keeps_what_it_has_and_uses_the_queue(site: Site) -> None:
    done = site.run(
        """
        import numpy as np
        tq.init(conf())
        half = 1_000_000
        big = torch.arange(2 * half, dtype=torch.int32)
        fields = TensorDict({"big": big.reshape(2, -1), "x": torch.arange(2)}, [2])
        tq.kv_batch_put(["a", "b"], "p", fields)
        view = tq.kv_batch_get(["a", "b"], "p")
        for turn in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    assert np.array_equal(view["big"].values().numpy(), big.numpy())
                    view["x"].zero_()
                    tq.kv_put(f"child {turn}", "p", {"v": big})
                    again = tq.kv_batch_get(["b", "a"], "p", "big")["big"]
                    swapped = torch.cat([big[half:], big[:half]])
                    assert torch.equal(again.values(), swapped)
                    tq.close()  # Detaches; the parent owns the queue.
                    code = 0
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
            back = tq.kv_batch_get(f"child {turn}", "p")["v"]
            assert torch.equal(back.values(), big)
            tq.kv_clear(f"child {turn}", "p")
        assert view["x"].tolist() == [0, 1]
        assert torch.equal(view["big"].values(), big)
        tq.close()
        """
    )
    assert done.code == 0, done.err


def test_a_program_may_end_with_live_tensors_and_without_close(site: Site) -> None:
    done = site.run(
        """
        tq.init(conf())
        tq.kv_put("a", "p", {"v": torch.zeros(4_000_000)})
        kept = tq.kv_batch_get("a", "p")
        import asyncio
        more = asyncio.run(tq.async_kv_batch_get("a", "p"))
        """
    )
    assert done.code == 0, done.err
    # tensordict makes torch say this with some versions of the two.
    said = [line for line in done.err.splitlines() if "is_fx_tracing" not in line]
    assert said == []


def test_tensors_outlive_close(site: Site) -> None:
    done = site.run(
        """
        tq.init(conf())
        big = torch.arange(4_000_000, dtype=torch.int32)
        tq.kv_put("a", "p", {"v": big})
        kept = tq.kv_batch_get("a", "p")["v"].unbind()[0]
        tq.close()
        assert torch.equal(kept, big)
        kept.add_(1)
        tq.init(conf())
        tq.kv_put("a", "p", {"v": big * 0})
        assert torch.equal(kept, big + 1)
        tq.close()
        """
    )
    assert done.code == 0, done.err


def test_threads_and_loops_of_one_process_share_the_client(site: Site) -> None:
    done = site.run(
        """
        import asyncio, threading
        tq.init(conf())
        failures = []
        async def use(name):
            for turn in range(30):
                await tq.async_kv_put(name, "p", {"v": torch.full((1000,), turn)})
                back = await tq.async_kv_batch_get(name, "p")
                assert (back["v"].values() == turn).all()
        def run(name):
            try:
                asyncio.run(use(name))
            except BaseException as error:
                failures.append(error)
        threads = [threading.Thread(target=run, args=(f"t{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for turn in range(30):
            tq.kv_put("main", "p", {"v": turn})
            assert list(tq.kv_batch_get("main", "p")["v"]) == [turn]
        for thread in threads:
            thread.join()
        assert failures == [], failures
        tq.close()
        """
    )
    assert done.code == 0, done.err


def test_a_client_killed_in_the_middle_of_a_put_leaves_no_row(site: Site) -> None:
    owner = site.start(
        """
        tq.init(conf())
        say("ready")
        wait_for_line()
        assert tq.kv_list().get("p", {}) == {}
        for turn in range(20):  # All of its memory is free again.
            tq.kv_put("k", "p", {"v": torch.zeros(40_000_000, dtype=torch.uint8)})
            tq.kv_clear("k", "p")
        tq.close()
        """
    )
    expect_line(owner, "ready")
    victim = site.start(
        """
        from transfer_queue._block import EncodedBlock
        def stop_half_way(self, parts):
            say("writing")
            time.sleep(60)
        tq.init()
        EncodedBlock.write_into = stop_half_way
        tq.kv_put("k", "p", {"v": torch.zeros(40_000_000, dtype=torch.uint8)})
        """
    )
    expect_line(victim, "writing")
    victim.kill()
    victim.wait()
    time.sleep(1.0)  # Promised: freed within a second of its death.
    tell(owner)
    done = finish(owner)
    assert done.code == 0, done.err
