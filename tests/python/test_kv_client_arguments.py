"""What KVClient refuses, and with which words, before it talks to anyone."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from yr import datasystem
from yr.datasystem import Context, DatasystemError, KVClient, ReadParam, WriteMode
from yr.datasystem.kv_client import ExistenceOpt, ReadOnlyBuffer, SetParam
from yr.datasystem.util import Validator

WRONG_TYPE = "has invalid type, valid type"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "CONNECT_TIME_MS", "CLIENT_LOG_DIR"):
        monkeypatch.delenv(f"DATASYSTEM_{name}", raising=False)


@pytest.fixture
def client() -> KVClient:
    """Not connected."""
    return KVClient("127.0.0.1", 31501)


# ---- The package -----------------------------------------------------------------


def test_import_loads_nothing_else() -> None:
    """Without site (-S), whose hook for editable installs loads modules of its own."""
    code = (
        "import os, sys; before = set(sys.modules); "
        "sys.path.insert(0, sys.argv[1]); import yr.datasystem; "
        "print(*sorted(set(sys.modules) - before))"
    )
    folder = str(Path(datasystem.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-S", "-c", code, folder],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(run.stdout.split())
    ours = {name for name in loaded if name.startswith("yr.")}
    assert ours == {"yr.datasystem", "yr.datasystem._conflict"}
    slow = {"numpy", "torch", "ray", "rich", "argparse", "importlib.metadata", "socket"}
    assert not loaded & slow


def test_every_public_name_exists() -> None:
    assert all(hasattr(datasystem, name) for name in datasystem.__all__)


def test_unknown_name_is_an_attribute_error_with_the_words_users_know() -> None:
    text = "^module yr.datasystem has no attribute Nonsense$"
    with pytest.raises(AttributeError, match=text):
        _ = datasystem.Nonsense


@pytest.mark.parametrize(
    "name", ["ObjectClient", "HeteroClient", "StreamClient", "DsClient", "PerfClient"]
)
def test_name_of_a_later_order_says_that_it_is_not_built_yet(name: str) -> None:
    assert name not in datasystem.__all__
    with pytest.raises(AttributeError, match=f"no attribute {name}: it is not built"):
        getattr(datasystem, name)


def test_other_distribution_in_the_environment_is_named(tmp_path: Path) -> None:
    (tmp_path / "openyuanrong_datasystem-0.9.2.dist-info").mkdir()
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import yr.datasystem"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "ImportError" in run.stderr
    assert "pip uninstall openyuanrong-datasystem" in run.stderr
    assert str(tmp_path) in run.stderr


# ---- Errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (1, 2, "Invalid parameter"),
        (2, 3, "Key not found"),
        (3, 2004, "Object already exist error"),
        (4, 6, "Out of memory"),
        (5, 1001, "RPC deadline exceeded"),
        (6, 8, "Not ready"),
        (7, 1002, "RPC unavailable"),
        (8, 5, "Runtime error"),
        (9, 12, "Out of range"),
        (10, 28, "Client and worker version mismatch"),
        (11, 11, "Interrupt detected"),
        (12, 36, "Not supported"),
        (13, 20, "Data inconsistent between master and worker"),
    ],
)
def test_error_carries_the_code_and_words_users_know(
    status: int, code: int, text: str
) -> None:
    error = DatasystemError(status, "why")
    assert isinstance(error, RuntimeError)
    assert (error.status, error.code, error.message) == (status, code, "why")
    assert str(error) == f"code: [{text}], msg: [why]"


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DatasystemError(2, "why")))
    assert isinstance(error, DatasystemError)
    assert (error.status, error.message) == (2, "why")


def test_error_without_status_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        DatasystemError("why")  # type: ignore[arg-type,call-arg]


# ---- Construction ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", 1),
        ("port", "31501"),
        ("port", True),
        ("connect_timeout_ms", 1.5),
        ("token", None),
        ("access_key", b"key"),
        ("enable_cross_node_connection", 1),
        ("req_timeout_ms", "1"),
        ("fast_transport_mem_size", None),
        ("service_discovery", object()),
    ],
)
def test_constructor_refuses_wrong_types(name: str, value: Any) -> None:
    arguments = {"host": "127.0.0.1", "port": 31501, name: value}
    with pytest.raises(TypeError, match=f"The input of {name} {WRONG_TYPE}"):
        KVClient(**arguments)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("connect_timeout_ms", -1, r"between \[0,2147483647\]"),
        ("connect_timeout_ms", 1 << 31, r"between \[0,2147483647\]"),
        ("port", 65536, r"between \[0,65535\]"),
        ("fast_transport_mem_size", 0, r"between \[1,2147483648\]"),
    ],
)
def test_constructor_refuses_values_out_of_range(
    name: str, value: int, text: str
) -> None:
    arguments: dict[str, Any] = {"host": "127.0.0.1", "port": 31501, name: value}
    with pytest.raises(RuntimeError, match=f"Invalid {name} size {value} is set"):
        KVClient(**arguments)
    with pytest.raises(RuntimeError, match=text):
        KVClient(**arguments)


@pytest.mark.parametrize("address", [{"host": "127.0.0.1"}, {"port": 31501}])
def test_host_and_port_go_together(address: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="host and port must be provided together"):
        KVClient(**address)


def test_credentials_without_effect_are_warned_of() -> None:
    with pytest.warns(RuntimeWarning, match="access_key, secret_key: authentication"):
        KVClient("127.0.0.1", 31501, access_key="a", secret_key="b")


def test_failover_without_effect_is_warned_of() -> None:
    with pytest.warns(RuntimeWarning, match="failover"):
        KVClient("127.0.0.1", 31501, enable_cross_node_connection=True)


def test_plain_construction_does_not_warn_or_connect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KVClient("192.0.2.1", 1)


# ---- init ------------------------------------------------------------------------


def test_no_address_at_all_is_said_at_init() -> None:
    text = "was not configured with a host and port or serviceDiscovery"
    with pytest.raises(DatasystemError, match=text) as caught:
        KVClient().init()
    assert caught.value.code == 2


def test_connect_timeout_below_500_ms_is_refused_at_init() -> None:
    text = r"The connectTimeoutMs\(499\) should be greater than or equal to 500 mill"
    with pytest.raises(RuntimeError, match=text):
        KVClient("127.0.0.1", 31501, connect_timeout_ms=499).init()


def test_environment_gives_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASYSTEM_HOST", "127.0.0.1")
    monkeypatch.setenv("DATASYSTEM_PORT", "1")
    with pytest.raises(DatasystemError, match=r"127\.0\.0\.1:1") as caught:
        KVClient(connect_timeout_ms=500).init()
    assert caught.value.code == 1002


def test_environment_port_that_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATASYSTEM_HOST", "127.0.0.1")
    monkeypatch.setenv("DATASYSTEM_PORT", "http")
    with pytest.raises(DatasystemError, match="DATASYSTEM_PORT is 'http'"):
        KVClient().init()


def test_environment_gives_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASYSTEM_CONNECT_TIME_MS", "20")
    with pytest.raises(DatasystemError, match=r"connectTimeoutMs\(20\)"):
        KVClient("127.0.0.1", 31501).init()


# ---- Before init -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("set", ("k", b"v")),
        ("mset", (["k"], [b"v"])),
        ("mcreate", (["k"], [1])),
        ("mset_buffer", ([],)),
        ("get", (["k"],)),
        ("get_buffers", (["k"],)),
        ("get_read_only_buffers", (["k"],)),
        ("read", ([ReadParam("k", 0, 1)],)),
        ("delete", (["k"],)),
        ("exist", (["k"],)),
        ("expire", (["k"], 1)),
    ],
)
def test_calls_before_init_say_so(
    client: KVClient, method: str, arguments: tuple[Any, ...]
) -> None:
    text = r"code: \[Not ready\], msg: \[The client has not been initialized yet"
    with pytest.raises(DatasystemError, match=text):
        getattr(client, method)(*arguments)


def test_set_value_before_init_gives_no_key(client: KVClient) -> None:
    assert client.set_value(b"v") == ""


def test_health_check_before_init_is_an_error_and_no_exception(
    client: KVClient,
) -> None:
    status = client.health_check()
    assert not status.is_ok()
    assert status.is_error()
    assert status.to_string().startswith("code: [Not ready], msg: [")
    assert "not been initialized" in status.get_msg()


def test_close_before_init_is_nothing(client: KVClient) -> None:
    client.close()
    client.close()


# ---- Types of arguments ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments", "name"),
    [
        ("set", (1, b"v"), "key"),
        ("set", ("k", 1), "val"),
        ("set", ("k", [1]), "val"),
        ("set", ("k", b"v", 0), "write_mode"),
        ("set", ("k", b"v", WriteMode.NONE_L2_CACHE, "1"), "ttl_second"),
        ("set", ("k", b"v", WriteMode.NONE_L2_CACHE, True), "ttl_second"),
        ("set_value", (1,), "val"),
        ("mset", ("k", [b"v"]), "keys"),
        ("mset", (["k"], b"v"), "vals"),
        ("mset", (["k"], [b"v"], WriteMode.NONE_L2_CACHE, 0, 1), "existence_opt"),
        ("mcreate", ("k", [1]), "keys"),
        ("mcreate", (["k"], 1), "sizes"),
        ("mcreate", (["k"], [True]), "sizes"),
        ("mset_buffer", (None,), "buffers"),
        ("get", ("k",), "keys"),
        ("get", (None,), "keys"),
        ("get", (["k"], 1), "convert_to_str"),
        ("get", (["k"], False, 1.0), "sub_timeout_ms"),
        ("get_buffers", (("k",),), "keys"),
        ("get_read_only_buffers", (["k"], None), "timeout_ms"),
        ("read", (ReadParam("k", 0, 1),), "read_params"),
        ("read", ([("k", 0, 1)],), "read_params"),
        ("read", ([ReadParam("k", "0", 1)],), "offset"),  # type: ignore[arg-type]
        ("delete", ("k",), "keys"),
        ("exist", ("k",), "keys"),
        ("expire", ("k", 1), "keys"),
        ("expire", (["k"], None), "ttl_second"),
        ("generate_key", (1,), "prefix"),
    ],
)
def test_wrong_types_are_named(
    client: KVClient, method: str, arguments: tuple[Any, ...], name: str
) -> None:
    with pytest.raises(TypeError, match=f"The input of {name} {WRONG_TYPE}"):
        getattr(client, method)(*arguments)


@pytest.mark.parametrize("ttl_second", [-1, 1 << 32])
def test_ttl_outside_uint32_is_a_type_error(client: KVClient, ttl_second: int) -> None:
    with pytest.raises(TypeError, match="ttl_second"):
        client.set("k", b"v", ttl_second=ttl_second)
    with pytest.raises(TypeError, match="ttl_second"):
        client.expire(["k"], ttl_second)


@pytest.mark.parametrize("timeout_ms", [-1, 1 << 31])
def test_wait_outside_int32_is_refused(client: KVClient, timeout_ms: int) -> None:
    with pytest.raises(RuntimeError, match=r"between \[0,2147483647\]"):
        client.get_buffers(["k"], timeout_ms)


# ---- Keys ------------------------------------------------------------------------


def test_generated_key_is_new_and_has_36_characters() -> None:
    first, second = KVClient.generate_key(), KVClient.generate_key()
    assert first != second
    assert len(first) == len(second) == 36


def test_generated_key_is_the_prefix_if_there_is_one() -> None:
    assert KVClient.generate_key("run-1:step_2") == "run-1:step_2"


@pytest.mark.parametrize("key", ["a/b", "a~b", "a&b", "a$b", "a b", "ü", "k" * 1025])
def test_illegal_key_is_refused_with_the_rule(key: str) -> None:
    text = r"The key contains illegal char\(s\), allowed regex format: .* 1024\."
    with pytest.raises(DatasystemError, match=text) as caught:
        KVClient.generate_key(key)
    assert caught.value.code == 2


@pytest.mark.parametrize("key", [".", "a.b-c_d!e@f#g%h^i*j(k)l+m=n:o;p", "k" * 1024])
def test_legal_key_is_accepted(key: str) -> None:
    assert KVClient.generate_key(key) == key


# ---- Small things ----------------------------------------------------------------


def test_defaults_of_set_param_are_not_shared() -> None:
    first, second = SetParam(), SetParam()
    first.ttl_second = 5
    assert second.ttl_second == 0
    assert second.write_mode is WriteMode.NONE_L2_CACHE
    assert second.existence is ExistenceOpt.NONE
    assert second.cache_type.value == 0


def test_values_of_write_modes_are_those_of_the_protocol() -> None:
    assert [mode.value for mode in WriteMode] == [0, 1, 2, 3, 4]


def test_read_only_buffer_of_nothing_says_so() -> None:
    with pytest.raises(
        RuntimeError, match="The buffer is None, please create it first"
    ):
        ReadOnlyBuffer(None).immutable_data()


@pytest.mark.parametrize("timeout_sec", [0, 1 << 31])
def test_latch_timeout_out_of_range_is_refused(timeout_sec: int) -> None:
    with pytest.raises(RuntimeError, match=r"between \[1,2147483647\]"):
        ReadOnlyBuffer(None).rlatch(timeout_sec)


def test_trace_id_names_errors_of_its_thread_only() -> None:
    texts: list[str] = []

    def provoke() -> None:
        with pytest.raises(DatasystemError) as caught:
            KVClient.generate_key("a/b")
        texts.append(caught.value.message)

    Context.set_trace_id("step-7")
    try:
        provoke()
        thread = threading.Thread(target=provoke)
        thread.start()
        thread.join()
    finally:
        Context.set_trace_id("")
    provoke()
    assert [text.endswith(", traceId: step-7") for text in texts] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("trace_id", "text"),
    [
        ("x" * 37, "The length of trace id should less than 36"),
        ("a b", r"The trace id contains illegal char\(s\)"),
        ("a\n", r"The trace id contains illegal char\(s\)"),
    ],
)
def test_bad_trace_id_is_refused(trace_id: str, text: str) -> None:
    with pytest.raises(RuntimeError, match=text):
        Context.set_trace_id(trace_id)


def test_validator_keeps_its_texts() -> None:
    Validator.check_args_types([["a", 1, int], ["b", None, str, type(None)]])
    with pytest.raises(TypeError, match=f"The input of a {WRONG_TYPE}: .*'int'"):
        Validator.check_args_types([["a", True, int]])
    with pytest.raises(RuntimeError, match="The key 'x' of the input param does not"):
        Validator.check_key_exists({}, ["x"])
    with pytest.raises(RuntimeError, match=r"Invalid n size 3 is set.*\[0,2\]"):
        Validator.check_param_range("n", 3, 0, 2)
