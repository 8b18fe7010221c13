"""A worker and its clients in surroundings that are poorer than a developer's."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import yr.datasystem

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from e2e import free_port
from worker_process import WorkerProcess, running_worker

from yr.datasystem import DatasystemError, KVClient

SUPPORT = Path(__file__).parents[1] / "support"
ONE_WORKER = (sys.executable, str(SUPPORT / "one_worker.py"))

# The interpreter may lie in a folder that only its owner may enter, such as /root: then
# that folder is shown to the user with another mode, in a mount namespace, where all
# that is in it stays what it is. {0}: a folder for the mount.
ENTERABLE = """
mount -t tmpfs tmpfs {0}
for folder in {1}; do
    layer=$(mktemp -d -p {0})
    mkdir $layer/upper $layer/work
    mount -t overlay overlay $folder \
        -o lowerdir=$folder,upperdir=$layer/upper,workdir=$layer/work
    chmod a+x $folder
done
umount -l {0}
"""


def run(
    words: list[str] | tuple[str, ...], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
        env=environment,
    )


def expect_works(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout) == (0, "works\n"), done.stdout + done.stderr


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("only root can make these surroundings: run this test as root")


def in_mounts(script: str, *words: str) -> list[str]:
    """`words`, in a mount namespace of their own in which `script` was run."""
    start = f'set -e\n{script}\nexec "$@"'
    return ["unshare", "--mount", "sh", "-c", start, "sh", *words]


# ---- Another user ----------------------------------------------------------------


@dataclass
class User:
    """A user without an entry in any table, and a home of its own."""

    uid: int
    home: Path
    mount_point: Path

    def environment(self) -> dict[str, str]:
        """Very little of ours, and no XDG_RUNTIME_DIR."""
        kept = {
            name: value for name, value in os.environ.items() if name.startswith("TQ_")
        }
        return {**kept, "PATH": os.environ["PATH"], "HOME": str(self.home)}

    def command(self, *words: str) -> list[str]:
        identity = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}"]
        identity += ["--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        closed = " ".join(map(str, closed_folders()))
        if not closed:
            return [*identity, *words]
        return in_mounts(ENTERABLE.format(self.mount_point, closed), *identity, *words)

    def run(
        self, *words: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run(
            self.command(*words),
            self.environment() if environment is None else environment,
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-c", textwrap.dedent(code))

    def dscli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "yr.datasystem.cli", *words)

    @property
    def default_home(self) -> Path:
        return Path(f"/tmp/datasystem-{self.uid}")


def closed_folders() -> list[Path]:
    """Those above the interpreter and the package that not everyone may enter."""
    package = Path(yr.datasystem.__path__[0])
    needed = (Path(sys.executable), Path(sys.executable).resolve(), package, SUPPORT)
    above = {folder for path in needed for folder in path.parents}
    return sorted(
        folder for folder in above if not folder.stat().st_mode & stat.S_IXOTH
    )


def unused_uid() -> int:
    for uid in range(61234, 61999):
        try:
            pwd.getpwuid(uid)
        except KeyError:
            if not Path(f"/tmp/datasystem-{uid}").exists():
                return uid
    raise RuntimeError("no uid is unused")


@pytest.fixture
def user() -> Iterator[User]:
    need_root()
    folder = Path(tempfile.mkdtemp(prefix="other-user-"))
    folder.chmod(0o755)
    user = User(unused_uid(), folder / "home", folder / "mount")
    user.mount_point.mkdir()
    user.home.mkdir(mode=0o700)
    os.chown(user.home, user.uid, user.uid)
    yield user
    shutil.rmtree(folder)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(user.default_home)


def test_a_fresh_user_runs_a_worker_in_a_home_of_its_own(user: User) -> None:
    who = user.python("import os; print(os.getresuid(), os.getgroups())")
    assert who.stdout == f"({user.uid}, {user.uid}, {user.uid}) []\n", who.stderr
    expect_works(user.run(*ONE_WORKER, "127.0.0.1", str(free_port())))
    assert user.default_home.stat().st_uid == user.uid
    assert stat.S_IMODE(user.default_home.stat().st_mode) == 0o700


def test_a_fresh_user_may_name_a_runtime_folder(user: User) -> None:
    environment = {**user.environment(), "XDG_RUNTIME_DIR": str(user.home)}
    expect_works(
        user.run(*ONE_WORKER, "127.0.0.1", str(free_port()), environment=environment)
    )
    assert (user.home / "datasystem").is_dir()
    assert not user.default_home.exists()


def test_no_home_variable_is_needed(user: User) -> None:
    environment = user.environment()
    del environment["HOME"]
    expect_works(
        user.run(*ONE_WORKER, "127.0.0.1", str(free_port()), environment=environment)
    )


def test_64_kb_of_locked_memory_are_enough(user: User) -> None:
    command = user.command(*ONE_WORKER, "127.0.0.1", str(free_port()))
    limited = ["prlimit", "--memlock=65536:65536", *command]
    expect_works(run(limited, user.environment()))


# ---- Two users -------------------------------------------------------------------


def connect_code(worker: WorkerProcess) -> str:
    """A program that must not get through to the worker; it says why."""
    return f"""
        from yr.datasystem import DatasystemError, KVClient
        client = KVClient({worker.host!r}, {worker.port}, connect_timeout_ms=2000)
        try:
            client.init()
            client.set("stolen", b"1")
        except DatasystemError as error:
            print("refused:", error)
        else:
            print("it got through")
    """


def test_another_user_gets_through_neither_socket(user: User, tmp_path: Path) -> None:
    with running_worker(tmp_path, shared_memory_size_mb=64) as worker:
        over_tcp = user.python(connect_code(worker))
        assert over_tcp.stdout.startswith("refused: code: ["), over_tcp
        assert "belongs to another user" in over_tcp.stdout
        raw = user.python(connect_raw_code(worker))
        assert raw.stdout == "closed\n", raw
        path = tmp_path / "uds" / "worker.sock"
        assert path.is_socket()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        over_unix = user.python(connect_unix_code(path))
        assert over_unix.stdout == "PermissionError\n", over_unix
        with KVClient(worker.host, worker.port) as client:
            assert client.exist(["stolen"]) == [False]


def connect_raw_code(worker: WorkerProcess) -> str:
    """A program that does not look whose worker it is, and what becomes of it."""
    return f"""
        import socket
        connection = socket.create_connection(({worker.host!r}, {worker.port}), 5)
        connection.settimeout(5)
        try:
            answer = connection.recv(1)
        except ConnectionResetError:
            answer = b""
        print("closed" if answer == b"" else "it got through")
    """


def connect_unix_code(path: Path) -> str:
    return f"""
        import socket
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        try:
            connection.connect({str(path)!r})
            print("it got through")
        except OSError as error:
            print(type(error).__name__)
    """


def test_workers_of_two_users_do_not_mix(user: User, tmp_path: Path) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    with running_worker(tmp_path, shared_memory_size_mb=64) as ours:
        our_address = f"{ours.host}:{ours.port}"
        started = user.dscli(
            *("start", "-t", "20", "-w", "--worker_address", address),
            *("--metastore_address", f"127.0.0.1:{free_port()}"),
            *("--start_metastore_service", "true", "--shared_memory_size_mb", "64"),
        )
        assert started.returncode == 0, started.stdout + started.stderr
        try:
            listed = user.dscli("status").stdout
            assert address in listed
            assert our_address not in listed
            refused = user.dscli("stop", "--worker_address", our_address)
            assert refused.returncode == 1
            assert "No matching process" in refused.stdout + refused.stderr
            with pytest.raises(DatasystemError, match="belongs to another user"):
                KVClient("127.0.0.1", port).init()
        finally:
            stopped = user.dscli("stop", "--worker_address", address)
            assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        with KVClient(ours.host, ours.port) as client:
            client.set("k", b"1")


# ---- Little of everything --------------------------------------------------------


def test_a_small_dev_shm_does_not_matter(tmp_path: Path) -> None:
    need_root()
    script = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
    words = [*ONE_WORKER, "127.0.0.1", str(free_port()), "-d", str(tmp_path / "home")]
    expect_works(run(in_mounts(script, *words)))


READ_ONLY = """
for folder in / /tmp /dev/shm /var /run; do
    mount --bind $folder $folder
    mount -o remount,bind,ro $folder
done
if touch /tmp/writable; then
    exit 9
fi
mount -t tmpfs tmpfs {0}
"""


def test_a_read_only_root_needs_one_writable_folder(tmp_path: Path) -> None:
    need_root()
    words = [*ONE_WORKER, "127.0.0.1", str(free_port()), "-d", str(tmp_path / "home")]
    expect_works(run(in_mounts(READ_ONLY.format(tmp_path), *words)))


def test_a_read_only_root_without_a_folder_says_what_to_do(tmp_path: Path) -> None:
    need_root()
    environment = {
        name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"
    }
    words = [*ONE_WORKER, "127.0.0.1", str(free_port())]
    done = run(in_mounts(READ_ONLY.format(tmp_path), *words), environment)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert "with -d, or set XDG_RUNTIME_DIR" in done.stderr


def test_256_descriptors_are_enough(tmp_path: Path) -> None:
    words = [*ONE_WORKER, "127.0.0.1", str(free_port()), "-d", str(tmp_path / "home")]
    expect_works(run(["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *words]))


def test_more_connections_than_descriptors_end_no_worker(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path, shared_memory_size_mb=64)
    worker.start()
    try:
        for pid in (worker.pid, worker.child_pid()):
            run(["prlimit", f"--pid={pid}", "--nofile=256:256"]).check_returncode()
        child = worker.child_pid()
        with KVClient(worker.host, worker.port) as client:
            client.set("k", b"before")
            with contextlib.ExitStack() as crowd:
                for _ in range(300):
                    crowd.enter_context(
                        socket.create_connection((worker.host, worker.port), 5)
                    )
                client.set("k", b"among them")
                assert client.get(["k"]) == [b"among them"]
        with KVClient(worker.host, worker.port) as client:
            assert client.get(["k"]) == [b"among them"]
        assert worker.child_pid() == child
    finally:
        worker.stop()


def test_ipv6_works(tmp_path: Path) -> None:
    words = [*ONE_WORKER, "::1", str(free_port()), "-d", str(tmp_path / "home")]
    expect_works(run(words))


def test_a_socket_path_over_107_bytes_works(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 15) / ("longer" * 10) / "home"
    assert len(str(home)) > 107
    expect_works(run([*ONE_WORKER, "127.0.0.1", str(free_port()), "-d", str(home)]))
