"""Defaults, merging, and the warnings about what is odd."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from transfer_queue import _config
from transfer_queue._controller_process import Journal, Listen


@pytest.fixture(autouse=True)
def fresh_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    _config._warned.clear()
    caplog.set_level(logging.INFO, "transfer_queue")
    yield
    _config._warned.clear()


class Sampler:
    """Stands for a sampler that lives in a configuration."""


def test_the_defaults_are_those_of_the_guide() -> None:
    backend = _config.load_defaults().backend
    assert backend.storage_backend == "Yuanrong"
    assert OmegaConf.to_container(backend.Yuanrong) == {
        "auto_init": True,
        "worker_port": 31501,
        "metastore_port": 2379,
        "enable_yr_npu_transport": False,
        "enable_rdma": False,
        "ucx_env_vars": {},
        "worker_args": "--shared_memory_size_mb 8192",
    }


def test_given_fields_override_and_the_others_stay() -> None:
    merged = _config.merge({"backend": {"Yuanrong": {"worker_port": 4000}}})
    assert merged.backend.Yuanrong.worker_port == 4000
    assert merged.backend.Yuanrong.metastore_port == 2379


def test_a_struct_with_foreign_keys_passes_and_is_not_changed() -> None:
    user = OmegaConf.create({"enable": True, "backend": {"MooncakeStore": {"x": 1}}})
    OmegaConf.set_struct(user, True)
    merged = _config.merge(user)
    assert merged.enable is True
    assert merged.backend.MooncakeStore.x == 1
    assert OmegaConf.is_struct(user)
    merged.another = 1  # The merged one is open.


@pytest.mark.parametrize("sampler", [Sampler, Sampler()])
def test_objects_in_a_configuration_stay_what_they_are(sampler: Any) -> None:
    assert _config.merge({"controller": {"sampler": sampler}}).controller.sampler is (
        sampler
    )


def test_objects_travel_to_other_processes_by_name() -> None:
    merged = _config.merge({"controller": {"sampler": Sampler()}})
    plain = _config.to_plain(merged)
    assert plain["controller"]["sampler"].endswith("test_config.Sampler")
    assert isinstance(_config.from_plain(plain), DictConfig)


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Could not find sampler Nope$"):
        _config.merge({"controller": {"sampler": "Nope"}})


def test_an_unknown_backend_key_is_warned_about_once_with_the_nearest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {"backend": {"Yuanrong": {"worker_prot": 1}, "Yuanrung": {}}, "mine": 1}
    _config.merge(conf)
    _config.merge(conf)
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        "configuration key 'backend.Yuanrung' is unknown and has no effect; "
        "the nearest known key is 'Yuanrong'",
        "configuration key 'backend.Yuanrong.worker_prot' is unknown and has no "
        "effect; the nearest known key is 'worker_port'",
    ]


def test_sections_of_other_known_backends_are_not_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _config.merge({"backend": {"SimpleStorage": {"num_data_storage_units": 8}}})
    assert caplog.records == []


@pytest.mark.parametrize("value", [0, -1, "soon", True, None])
def test_a_time_limit_must_be_positive(value: Any) -> None:
    with pytest.raises(ValueError, match=r"controller\.timeout_s must be a positive"):
        _config.merge({"controller": {"timeout_s": value}})


@pytest.mark.parametrize("value", [1, "yes", None])
def test_fsync_is_true_or_false(value: Any) -> None:
    with pytest.raises(ValueError, match=r"controller\.journal_fsync must be true or"):
        _config.merge({"controller": {"journal_fsync": value}})


@pytest.mark.parametrize("value", [3, -1, 1.0, "2", True, None])
def test_copies_of_the_journal_are_two_at_most(value: Any) -> None:
    with pytest.raises(ValueError, match=r"journal_copies must be 0, 1 or 2"):
        _config.merge({"controller": {"journal_copies": value}})


@pytest.mark.parametrize("value", [1, "/no/such/folder", __file__])
def test_the_journals_folder_must_be_there(value: Any) -> None:
    conf = _config.merge({"controller": {"journal_dir": value}})
    with pytest.raises(ValueError, match=r"controller\.journal_dir must be an exist"):
        Journal.of(conf)


def test_without_an_own_size_the_arena_is_fitted_and_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transfer_queue import _worker

    monkeypatch.setattr(_worker, "available_memory_bytes", lambda: 4 << 30)
    conf = {"backend": {"Yuanrong": {"worker_args": "--remote_h2d_device_ids 0,1"}}}
    merged = _config.prepare(conf)
    assert merged.backend.Yuanrong.worker_args == (
        "--shared_memory_size_mb 2048 --remote_h2d_device_ids 0,1"
    )
    assert "shared memory: 2048 MB" in caplog.text
    again = _config.prepare(merged)
    assert again.backend.Yuanrong.worker_args == merged.backend.Yuanrong.worker_args


def test_a_large_machine_gets_the_default_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from transfer_queue import _worker

    monkeypatch.setattr(_worker, "available_memory_bytes", lambda: 1 << 40)
    args = _config.prepare(None).backend.Yuanrong.worker_args
    assert args == "--shared_memory_size_mb 8192"


@pytest.mark.parametrize(
    "args", ["--shared_memory_size_mb 123456", "--v 1 --shared_memory_size_mb=123456"]
)
def test_an_own_size_is_taken_as_it_is(args: str) -> None:
    conf = {"backend": {"Yuanrong": {"worker_args": args}}}
    assert _config.prepare(conf).backend.Yuanrong.worker_args == args


def test_a_configuration_must_be_a_tree() -> None:
    with pytest.raises((TypeError, ValueError)):
        _config.merge([1])  # type: ignore[arg-type]


# ---- Where the controller listens ----------------------------------------------------


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ({}, None, 0),
        ({"host": "192.168.0.1"}, "192.168.0.1", 0),
        ({"host": "fd00::1", "port": 31600}, "fd00::1", 31600),
        ({"port": 31600}, None, 31600),
    ],
)
def test_where_the_controller_listens(
    given: dict[str, Any], host: str | None, port: int
) -> None:
    listen = Listen.of(_config.merge({"controller": given}))
    assert (listen.host, listen.port) == (host, port)


@pytest.mark.parametrize(
    ("given", "encrypts"), [({}, False), ({"encrypt_connections": True}, True)]
)
def test_the_controller_encrypts_as_the_workers_do(
    given: dict[str, Any], encrypts: bool
) -> None:
    conf = _config.merge({"backend": {"Yuanrong": given}})
    assert Listen.of(conf).encrypts is encrypts


def test_whether_to_encrypt_is_yes_or_no() -> None:
    conf = _config.merge({"backend": {"Yuanrong": {"encrypt_connections": "maybe"}}})
    with pytest.raises(ValueError, match=r"encrypt_connections must be true or false"):
        Listen.of(conf)


@pytest.mark.parametrize("host", ["node1", "192.168.0.1:31600", "", True])
def test_a_host_that_is_no_numeric_address_is_refused(host: Any) -> None:
    with pytest.raises(ValueError, match=r"controller\.host must be a numeric address"):
        Listen.of(_config.merge({"controller": {"host": host}}))


@pytest.mark.parametrize("port", [-1, 65536, "31600", True, 1.5])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    with pytest.raises(ValueError, match=r"controller\.port must be a number"):
        Listen.of(_config.merge({"controller": {"port": port}}))
