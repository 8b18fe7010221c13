"""The commands of dscli. Each one's code is imported only when it runs.

start            start a worker on this node and wait until it serves
stop             stop one
status           list this user's workers
query            ask a cluster for its nodes, or which node has a key
up, down         start and stop workers on all nodes of a file, over ssh
runscript        run a script on all of them
collect_log      bring their logs here
generate_config  write the configuration files of `start -f` and `up -f`
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from yr.datasystem.cli._output import CommandError, complain

DESCRIPTION = "Start, stop and look at datasystem workers."
START_EXAMPLE = """\
one node:
  dscli start -w --metastore_address 127.0.0.1:2379 --start_metastore_service true

-w must come last: everything after it is for the worker, as `--flag value`.
"""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

NOT_BUILT = {
    "generate_helm_chart": "deployment on Kubernetes is",
    "generate_docker_entryfile": "deployment on Kubernetes is",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 failed, 2 wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.umask(0o077)
    parser = _build_parser()
    if not words or words == ["help"]:
        parser.print_help()
        return 0
    if words[0] in NOT_BUILT:
        complain(f"dscli {words[0]}: {NOT_BUILT[words[0]]} not built yet")
        return 1
    options = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except CommandError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # The reader of our output, such as `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dscli", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show it")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        *(_add_start, _add_stop, _add_status, _add_query, _add_cluster_commands),
        _add_generate_config,
    ):
        add(commands)
    return parser


def _add_start(commands: Commands) -> None:
    command = commands.add_parser(
        "start",
        help="start a worker on this node",
        epilog=START_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "-w",
        "--worker_args",
        nargs=argparse.REMAINDER,
        help="flags of the worker: docs/flags.md",
    )
    what.add_argument(
        "-f",
        "-W",
        "--config_path",
        "--worker_config_path",
        metavar="FILE",
        help="JSON file as `generate_config` writes it; -: standard input",
    )
    command.add_argument(
        "-t",
        "--timeout",
        type=int,
        default=90,
        metavar="SECONDS",
        help="to wait until the worker serves (default 90)",
    )
    command.add_argument(
        "-d",
        "--datasystem_home_dir",
        metavar="DIR",
        help="folder that paths starting with ./ are relative to",
    )
    command.set_defaults(run=_run_start)


def _add_stop(commands: Commands) -> None:
    command = commands.add_parser("stop", help="stop a worker", allow_abbrev=False)
    command.add_argument("-w", "--worker_address", metavar="HOST:PORT")
    command.add_argument("-f", "--config_path", "--worker_config_path", metavar="FILE")
    command.add_argument(
        "--discard",
        action="store_true",
        help="at once: what only this node has of its cluster is not moved, but lost",
    )
    command.add_argument(
        "-t",
        "--timeout",
        type=int,
        metavar="SECONDS",
        help="to move and to end (default: 180, and its memory at 40 MB/s)",
    )
    command.set_defaults(run=_run_stop)


def _add_status(commands: Commands) -> None:
    command = commands.add_parser(
        "status", help="list this user's workers", allow_abbrev=False
    )
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument(
        "-w", "--worker_address", metavar="HOST:PORT", help="only this worker"
    )
    command.add_argument(
        "--pins", action="store_true", help="and which processes hold its memory"
    )
    command.set_defaults(run=_run_status)


def _add_query(commands: Commands) -> None:
    command = commands.add_parser(
        "query", help="ask a cluster; prints one JSON document", allow_abbrev=False
    )
    kinds = command.add_subparsers(metavar="KIND", required=True)
    for kind, text in (("cluster", "its nodes"), ("route", "which node has a key")):
        query = kinds.add_parser(kind, help=text, allow_abbrev=False)
        query.add_argument("--metastore_address", default="", metavar="HOST:PORT")
        query.add_argument("--etcd_address", default="", metavar="HOST:PORT")
        query.add_argument("--coordinator_address", default="", metavar="HOST:PORT")
        query.add_argument("--cluster_name", default="", metavar="NAME")
        if kind == "route":
            query.add_argument("--keys", nargs="+", required=True, metavar="KEY")
        query.set_defaults(run=_run_query, kind=kind)


def _add_cluster_commands(commands: Commands) -> None:
    def add(name: str, text: str, run: Callable[[argparse.Namespace], int]) -> Any:
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        command.add_argument(
            "-f",
            "--cluster_config_path",
            required=True,
            metavar="FILE",
            help="cluster_config.json as `generate_config` writes it",
        )
        command.set_defaults(run=run)
        return command

    command = add("up", "start workers on all nodes, over ssh", _run_up)
    command.add_argument(
        "-t", "--timeout", type=int, default=90, metavar="SECONDS", help="default 90"
    )
    command.add_argument("-d", "--datasystem_home_dir", metavar="DIR")
    command.add_argument("--metastore_head_node", metavar="NODE")
    add("down", "stop them", _run_down)
    command = add("runscript", "run a script of bash on all nodes", _run_runscript)
    command.add_argument("script", metavar="SCRIPT")
    command = add("collect_log", "bring a folder of all nodes here", _run_collect_log)
    command.add_argument(
        "-d", "--log_path", required=True, metavar="DIR", help="on the nodes"
    )
    command.add_argument(
        "-o", "--output_path", metavar="DIR", help="default: log_ and the time"
    )


def _add_generate_config(commands: Commands) -> None:
    command = commands.add_parser(
        "generate_config",
        help="write worker_config.json and cluster_config.json",
        allow_abbrev=False,
    )
    command.add_argument(
        "-o", "--output_path", metavar="DIR", default=".", help="default: this folder"
    )
    command.set_defaults(run=_run_generate_config)


def _run_start(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _start

    return _start.run(
        options.worker_args,
        options.config_path,
        options.timeout,
        options.datasystem_home_dir,
    )


def _run_stop(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _stop

    return _stop.run(
        options.worker_address,
        options.config_path,
        discard=options.discard,
        timeout_s=options.timeout,
    )


def _run_status(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _status

    return _status.run(options.worker_address, options.json, options.pins)


def _run_query(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _query

    backends = (
        options.metastore_address,
        options.etcd_address,
        options.coordinator_address,
    )
    keys = getattr(options, "keys", None)
    return _query.run(options.kind, backends, options.cluster_name, keys)


def _run_up(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _cluster

    return _cluster.up(
        options.cluster_config_path,
        options.timeout,
        options.datasystem_home_dir,
        options.metastore_head_node,
    )


def _run_down(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _cluster

    return _cluster.down(options.cluster_config_path)


def _run_runscript(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _cluster

    return _cluster.runscript(options.cluster_config_path, options.script)


def _run_collect_log(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _cluster

    return _cluster.collect_log(
        options.cluster_config_path, options.log_path, options.output_path
    )


def _run_generate_config(options: argparse.Namespace) -> int:
    from yr.datasystem.cli import _config

    return _config.generate(options.output_path)


class _ShowVersion(argparse.Action):
    """Looks the version up only when it is asked for: that takes a while."""

    def __call__(
        self, parser: argparse.ArgumentParser, *_: object, **__: object
    ) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"dscli {version('TransferQueue')}")
        except PackageNotFoundError:
            parser.exit(1, "dscli is not installed, so it has no version\n")
        parser.exit(0)
