"""A queue in a Ray cluster: the named actor, its placement group, and its end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from e2e import (
    ACTORS,
    RayCluster,
    Site,
    expect_line,
    finish,
    free_port,
    tell,
    wait_until,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "single_node.py"

OWNER = """
tq.init(conf())
say("ready")
wait_for_line()
tq.close()
say("closed")
"""


@pytest.fixture
def in_ray(site: Site, ray_cluster: RayCluster) -> Site:
    """A site whose programs find the cluster as a user's do."""
    site.environment.update(ray_cluster.environment)
    return site


def test_the_guides_demo_runs_on_a_ray_cluster(in_ray: Site) -> None:
    """Word for word, so on the guide's own ports: 31501 and 2379."""
    done = in_ray.command(sys.executable, str(EXAMPLE))
    assert done.code == 0, done.err
    assert done.out.startswith("output: TensorDict(batch_size=[2], fields={input: f32[")


def test_the_actor_has_its_name_and_the_configuration(in_ray: Site) -> None:
    done = in_ray.run(
        """
        import ray
        tq.init(conf())
        actor = ray.get_actor("TransferQueueController", namespace="transfer_queue")
        stored = ray.get(actor.get_config.remote())
        assert stored.backend.Yuanrong.worker_port == int(
            os.environ["TQ_TEST_WORKER_PORT"]
        )
        groups = ray.util.placement_group_table().values()
        (group,) = [group for group in groups if group["state"] == "CREATED"]
        assert group["strategy"] == "STRICT_SPREAD", group
        assert group["bundles"] == {0: {"CPU": 0.1}}, group
        tq.close()
        try:
            ray.get_actor("TransferQueueController", namespace="transfer_queue")
        except ValueError:
            say("actor gone")
        """
    )
    assert done.code == 0, done.err
    assert "actor gone" in done.out


def test_workers_of_the_cluster_share_the_queue_and_only_detach(in_ray: Site) -> None:
    done = in_ray.run(
        """
        import ray
        tq.init(conf())
        @ray.remote
        class Stage:
            def __init__(self, conf):
                assert tq.init(conf) is conf
            def put(self):
                fields = TensorDict({"x": torch.ones(3, 512)}, batch_size=[3])
                return tq.kv_batch_put(keys=["a", "b", "c"], partition_id="p",
                                       fields=fields)
            def close(self):
                tq.close()
        stage = Stage.options(num_cpus=0).remote({"mine": 1})
        meta = ray.get(stage.put.remote())
        ray.get(stage.close.remote())
        assert meta.keys == ["a", "b", "c"]
        back = tq.kv_batch_get_by_meta(meta)
        assert back["x"].values().sum() == 3 * 512
        @ray.remote(num_cpus=0)
        def read():
            return tq.kv_batch_get("a", "p")["x"].unbind()[0].sum().item()
        assert ray.get(read.remote()) == 512
        tq.close()
        """
    )
    assert done.code == 0, done.err


def test_two_drivers_call_init_and_the_second_attaches(in_ray: Site) -> None:
    owner = in_ray.start(OWNER)
    expect_line(owner, "ready")
    done = in_ray.run(
        "assert tq.init() is None; tq.kv_put('a', 'p', {'v': 1}); tq.close()"
    )
    assert done.code == 0, done.err
    done = in_ray.run("assert list(tq.kv_batch_get('a', 'p')['v']) == [1]")
    assert done.code == 0, done.err
    tell(owner)
    expect_line(owner, "closed")
    done = finish(owner)
    assert done.code == 0, done.err


def test_init_close_init_works(in_ray: Site) -> None:
    done = in_ray.run(
        """
        for _ in range(2):
            assert tq.init(conf()) is not None
            assert tq.kv_list() == {}
            tq.kv_put("a", "p", {"v": 1})
            tq.close()
        """
    )
    assert done.code == 0, done.err


def test_a_killed_drivers_queue_ends_and_its_worker_is_replaced(
    in_ray: Site, ray_cluster: RayCluster
) -> None:
    owner = in_ray.start(OWNER)
    expect_line(owner, "ready")
    assert ray_cluster.pids_of("transfer_queue_controller") != []
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: ray_cluster.pids_of("transfer_queue_controller") == [], 30)
    done = in_ray.run(
        """
        import ray
        ray.init(address="auto", logging_level="ERROR")
        end = time.monotonic() + 30
        while True:  # Until Ray has noticed the death of the job.
            try:
                ray.get_actor("TransferQueueController", namespace="transfer_queue")
            except ValueError:
                break
            assert time.monotonic() < end
            time.sleep(0.1)
        tq.init(conf())
        assert tq.kv_list() == {}
        tq.close()
        """
    )
    assert done.code == 0, done.err


def test_killed_actors_come_back_and_nobody_notices(
    in_ray: Site, ray_cluster: RayCluster
) -> None:
    owner = in_ray.start(
        """
        tq.init(conf())
        tq.kv_put("before", "p", {"v": 1})
        say("ready")
        wait_for_line()
        for turn in range(50):
            tq.kv_put(f"after{turn}", "p", {"v": turn})
            assert list(tq.kv_batch_get("before", "p")["v"]) == [1]
        say("worked")
        wait_for_line()
        tq.close()
        say("closed")
        """
    )
    expect_line(owner, "ready")
    killed = {kind: ray_cluster.actors(kind) for kind in ACTORS}
    for pids in killed.values():
        (pid,) = pids
        os.kill(pid, signal.SIGKILL)
    tell(owner)
    expect_line(owner, "worked")
    done = in_ray.run(
        """
        assert tq.init() is None
        assert len(tq.kv_list("p")["p"]) == 51
        import ray
        actor = ray.get_actor("TransferQueueController", namespace="transfer_queue")
        stored = ray.get(actor.get_config.remote())
        assert stored.backend.Yuanrong.worker_port == int(
            os.environ["TQ_TEST_WORKER_PORT"]
        )
        tq.close()
        """
    )
    assert done.code == 0, done.err
    for kind in ACTORS:
        (pid,) = ray_cluster.actors(kind)
        assert [pid] != killed[kind]
    tell(owner)
    expect_line(owner, "closed")
    done = finish(owner)
    assert done.code == 0, done.err
    assert "not stopped" not in done.err
    assert "could not" not in done.err


def test_a_user_who_ends_the_actor_can_begin_anew(in_ray: Site) -> None:
    """ray.kill() is how users of the existing system get rid of a queue."""
    done = in_ray.run(
        """
        import ray
        for _ in range(2):
            tq.init(conf())
            assert tq.kv_list() == {}
            tq.kv_put("a", "p", {"v": 1})
            actor = ray.get_actor(
                "TransferQueueController", namespace="transfer_queue"
            )
            ray.kill(actor)
            tq.close()
        """
    )
    assert done.code == 0, done.err


def test_a_failed_start_leaves_neither_actors_nor_groups(in_ray: Site) -> None:
    done = in_ray.run(
        """
        import ray
        try:
            tq.init(conf(worker_args="--no_such_flag 1"))
        except RuntimeError as error:
            say("Failed to start datasystem worker" in str(error))
        tq.init(conf())
        tq.close()
        """
    )
    assert done.code == 0, done.err
    assert "True" in done.out


def test_a_second_cluster_has_a_queue_of_its_own(in_ray: Site) -> None:
    """Without the cluster's folder a process does not find that queue."""
    owner = in_ray.start(OWNER)
    expect_line(owner, "ready")
    done = in_ray.run(
        """
        try:
            tq.kv_list()
        except AssertionError as error:
            say(error)
        """,
        environment={"RAY_TMPDIR": str(in_ray.folder)},
    )
    assert done.out.startswith("TransferQueueController has not been initialized yet.")
    tell(owner)
    expect_line(owner, "closed")


def test_two_clusters_on_one_host_do_not_mix(
    in_ray: Site, other_ray_cluster: RayCluster
) -> None:
    """Each has a queue and a worker of its own, also for the same keys, and the end of
    one does not touch the other. The second is named by RAY_ADDRESS."""
    owner = """
    tq.init(conf())
    tq.kv_put("key", "p", fields={"v": os.environ["TQ_TEST_NAME"]})
    say("ready")
    wait_for_line()
    say(tq.kv_batch_get("key", "p")["v"][0], [*tq.kv_list("p")["p"]])
    tq.close()
    say("closed")
    """
    other = {
        **other_ray_cluster.environment,
        "RAY_TMPDIR": str(in_ray.folder),
        "RAY_ADDRESS": other_ray_cluster.address,
        "TQ_TEST_WORKER_PORT": str(free_port()),
        "TQ_TEST_METASTORE_PORT": str(free_port()),
        "TQ_TEST_NAME": "second",
    }
    first = in_ray.start(owner, environment={"TQ_TEST_NAME": "first"})
    expect_line(first, "ready")
    second = in_ray.start(owner, environment=other)
    expect_line(second, "ready")
    tell(first)
    expect_line(first, "first ['key']")
    expect_line(first, "closed")
    tell(second)
    expect_line(second, "second ['key']")
    expect_line(second, "closed")
    assert (finish(first).code, finish(second).code) == (0, 0)
