"""The file of `dscli up -f`, checked before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from yr.datasystem.cli._nodes import read_cluster
from yr.datasystem.cli._output import CommandError


def written(folder: Path, **changes: Any) -> str:
    content = {"worker_nodes": ["10.0.0.1", "10.0.0.2"], "worker_port": 31501}
    file = folder / "cluster_config.json"
    file.write_text(json.dumps({**content, **changes}))
    return str(file)


def test_paths_are_beside_the_file_and_what_is_empty_is_left_to_ssh(
    tmp_path: Path,
) -> None:
    ssh = {"ssh_private_key": "keys/id", "ssh_user_name": ""}
    file = written(tmp_path, ssh_auth=ssh, metastore_head_node="")
    cluster = read_cluster(file)
    assert cluster.key == tmp_path / "keys/id"
    assert cluster.worker_config == tmp_path / "worker_config.json"
    assert (cluster.user, cluster.head, cluster.dscli) == (None, None, "dscli")


def test_the_head_of_the_command_goes_before_that_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, metastore_head_node="10.0.0.1")
    assert read_cluster(file).head == "10.0.0.1"
    assert read_cluster(file, "10.0.0.2").head == "10.0.0.2"


def test_an_ipv6_address_has_brackets_in_its_workers_only(tmp_path: Path) -> None:
    cluster = read_cluster(written(tmp_path, worker_nodes=["fd00::1", "node-a"]))
    assert cluster.address("fd00::1") == "[fd00::1]:31501"
    assert cluster.address("node-a") == "node-a:31501"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"worker_nodes": []}, "worker_nodes must be a list of hosts"),
        ({"worker_nodes": "10.0.0.1"}, "worker_nodes must be a list of hosts"),
        ({"worker_nodes": ["-oProxyCommand=x"]}, "which is no name or address"),
        ({"worker_nodes": ["a; reboot"]}, "which is no name or address"),
        ({"worker_nodes": ["a", "a"]}, "names a host twice"),
        ({"worker_port": 0}, "worker_port must be from 1 to 65535"),
        ({"worker_port": "31501"}, "worker_port must be from 1 to 65535"),
        ({"metastore_head_node": "10.0.0.9"}, "10.0.0.9 is no worker node"),
        ({"ssh_auth": {"ssh_user_name": "-x"}}, "which is no name or address"),
        ({"ssh_auth": []}, "ssh_auth an object"),
        ({"worker_config_path": 7}, "7 is no path"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(CommandError, match=text):
        read_cluster(written(tmp_path, **changes))


def test_a_file_that_is_not_there_or_no_json_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot read"):
        read_cluster(str(tmp_path / "absent.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CommandError, match="is not JSON"):
        read_cluster(str(tmp_path / "bad.json"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(CommandError, match="must hold a JSON object"):
        read_cluster(str(tmp_path / "list.json"))
