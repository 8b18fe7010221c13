"""What `dscli start` makes of its arguments and files, without starting anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from yr.datasystem.cli import _config
from yr.datasystem.cli._output import CommandError

BACKEND = ["--metastore_address", "127.0.0.1:2379"]


def plan(*words: str, home: str | None = "/tmp/home") -> _config.WorkerPlan:
    return _config.plan_worker([*BACKEND, *words], None, home)


def refusal(*words: str) -> str:
    with pytest.raises(CommandError) as caught:
        _config.plan_worker(words, None, "/tmp/home")
    return str(caught.value)


def test_only_what_differs_from_the_defaults_goes_to_the_worker() -> None:
    flags = plan("--shared_memory_size_mb", "1024", "--v", "2").flags
    assert flags == {
        "metastore_address": "127.0.0.1:2379",
        "v": "2",
        "worker_address": "127.0.0.1:31501",
        "datasystem_home_dir": "/tmp/home",
    }


def test_a_value_may_follow_an_equals_sign() -> None:
    assert plan("--owner=pid=1 start=2").flags["owner"] == "pid=1 start=2"


def test_a_flag_without_a_value_is_named() -> None:
    assert refusal("--v") == "Param v is missing a value"
    assert refusal("--v", "--owner", "me") == "Param v is missing a value"


def test_a_value_without_a_flag_is_named() -> None:
    assert refusal("2") == "No parameter name specified: 2"


def test_one_backend_is_required() -> None:
    assert refusal("--v", "1").startswith(
        "Missing required: coordinator_address, etcd_address, or metastore_address "
        "must be specified"
    )


def test_two_backends_are_refused() -> None:
    assert (
        refusal(*BACKEND, "--etcd_address", "127.0.0.1:1")
        == "Only one coordination backend can be specified"
    )


def test_a_coordinator_is_refused_with_what_to_use() -> None:
    assert "use the metastore" in refusal("--coordinator_address", "127.0.0.1:1")


def test_characters_of_a_shell_are_refused() -> None:
    text = refusal(*BACKEND, "--owner", "$(id)")
    assert text.startswith("Input contains potential command-injection characters")


def test_json_flags_may_have_any_character() -> None:
    value = '{"bind_endpoint": "tcp://*:1"}'
    assert plan("--kv_events_config", value).flags["kv_events_config"] == value


@pytest.mark.parametrize("path", ["/", "/etc", "/proc/x", "/dev/shm/../x"])
def test_the_folders_of_the_system_are_refused(path: str) -> None:
    text = refusal(*BACKEND, "--log_dir", path)
    assert text == f"Path {path} is outside allowed directory"


def test_paths_of_flags_are_relative_to_the_home_folder() -> None:
    found = plan("--log_dir", "./logs", "--log_filename", "w", home="/tmp/home")
    assert found.log_file == Path("/tmp/home/logs/w.log")
    assert found.ready_file == Path("/tmp/home/datasystem/probe/ready")


def test_a_relative_home_folder_is_made_absolute() -> None:
    assert plan(home="here").home == Path.cwd() / "here"


def test_the_default_home_is_in_the_runtime_folder_never_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = plan("--worker_address", "[::1]:31502", home=None)
    assert found.home == tmp_path / "datasystem" / "::1_31502"


@pytest.mark.parametrize("runtime", ["", "relative", "/does/not/exist"])
def test_without_a_usable_runtime_folder_the_default_home_is_in_tmp(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    expected = f"/tmp/datasystem-{os.getuid()}/127.0.0.1_31501"
    assert str(plan(home=None).home) == expected


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:x", "host:70000"])
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(CommandError, match="is not an address; write host:port"):
        _config.split_address(address)


def test_a_file_is_compared_with_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "worker.json"
    content = json.loads(_config.DEFAULTS_FILE.read_text())
    content["metastore_address"]["value"] = "127.0.0.1:2379"
    content["start_metastore_service"]["value"] = True
    path.write_text(json.dumps(content))

    flags = _config.plan_worker(None, str(path), "/tmp/home").flags
    assert flags["start_metastore_service"] == "true"
    assert capsys.readouterr().out.splitlines() == [
        "[INFO] Modifed config - metastore_address",
        "[INFO] Modifed config - start_metastore_service",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object"),
        ('{"v": [1]}', "the value of v must be text or a number"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "worker.json"
    path.write_text(text)
    with pytest.raises(CommandError, match=complaint) as caught:
        _config.read_config(path)
    assert str(path) in str(caught.value)


def test_the_defaults_file_has_a_value_and_a_description_for_each_flag() -> None:
    content = json.loads(_config.DEFAULTS_FILE.read_text())
    assert content["worker_address"]["value"] == "127.0.0.1:31501"
    assert all(set(entry) == {"value", "description"} for entry in content.values())
    assert all(entry["description"] for entry in content.values())
