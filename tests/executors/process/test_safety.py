"""Safety of the pool of processes (S1 to S4, S9, S10, S12 of docs/design/failures.md); S12 is with F22 in test_faults.py too."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import abreast
from multiprocessing import resource_tracker

import pytest
from abreast import ProcessPoolExecutor
from abreast.executors import process
from abreast.executors.process import contexts, guardian, page

from tests.helpers import run_python

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

PATIENCE = 30
SOURCES = Path(process.__file__).parent


def square(x):
    return x * x


def links_of(pid):
    """Descriptor and what it is."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
    return found


def sockets_of(*pids):
    return {link for pid in pids for link in links_of(pid).values() if link.startswith("socket:")}


def lines_of_net():
    """All sockets of this network, unix and abstract ones too, by inode."""
    found = {}
    for name in ("tcp", "tcp6", "udp", "udp6", "unix"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            found[f"socket:[{fields[6] if name == 'unix' else fields[9]}]"] = line
    return found


@pytest.fixture
def at_work(tmp_path):
    """A pool with two workers in the middle of their tasks, and their pids."""
    stop = tmp_path / "stop"

    def work():
        while not stop.exists():
            time.sleep(0.01)

    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(work) for _ in range(2)]
        deadline = time.monotonic() + PATIENCE
        while pool.statistics().running < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield pool, list(pool._processes)
        stop.touch()
        for future in futures:
            future.result(PATIENCE)


class TestNothingListens:
    """S1: nothing listens, and nothing has a name: there is one pair of sockets, of this process and its guardian."""

    def test_during_a_run(self, request):
        guardian.start()  # what a test before has changed may call for a new one
        before = sockets_of(os.getpid())
        _, pids = request.getfixturevalue("at_work")
        assert sockets_of(os.getpid()) == before
        # Workers inherit 0, 1 and 2, whatever they are.
        inherited = {links_of(os.getpid()).get(fd) for fd in (0, 1, 2)}
        assert sockets_of(*pids) <= inherited

    def test_by_what_the_kernel_lists(self):
        done = run_python("""
            import os, sys
            sys.path.insert(0, ".")
            from tests.executors.process.test_safety import lines_of_net, sockets_of
            import abreast
            with abreast.ProcessPoolExecutor(2) as pool:
                list(pool.map(pow, range(50), range(50)))
                from abreast.executors.process import guardian
                (one,) = guardian.kept()
                pids = list(pool._processes)
                net = lines_of_net()
                print(sorted(set(net) & sockets_of(*pids)))
                ends = sorted(set(net) & sockets_of(os.getpid(), one.pid))
                print(len(ends))
                for end in ends:
                    # Num RefCount Protocol Flags Type St Inode, no Path: 10000 in Flags would be one that listens
                    fields = net[end].split()
                    print(fields[3:6], len(fields))
        """, cwd=Path(__file__).parents[3], stdin=subprocess.DEVNULL)  # fmt: skip
        assert (done.stdout, done.stderr) == ("[]\n2\n" + "['00000000', '0005', '03'] 7\n" * 2, "")


class TestNoKeys:
    """S2: nothing secret in the command line or the environment of workers."""

    def test_the_command_line(self, at_work):
        _, pids = at_work
        for pid in pids:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            assert words[0] == sys.executable
            after = words[words.index("-c") + 2 :]
            assert Path(after[0]).samefile(Path(abreast.__file__).parents[1])
            assert all(word.isdecimal() and int(word) < 1 << 22 for word in after[1:] if word), words

    def test_the_environment(self, at_work):
        _, pids = at_work
        # That of the kernel is what its guardian was started with: what this process had, at its start or since, or what each of its
        # children is given. That is more than `os.environ`, which does not see what C code sets: readline sets COLUMNS and LINES.
        given = subprocess.run(["cat", "/proc/self/environ"], stdout=subprocess.PIPE, check=True).stdout
        known = (Path("/proc/self/environ").read_bytes() + given).decode(errors="surrogateescape").split("\0")
        ours = {f"{name}={value}" for name, value in os.environ.items()}.union(known)
        for pid in pids:
            entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="surrogateescape").split("\0")
            theirs = {entry for entry in entries if entry and not entry.startswith("PYTEST_CURRENT_TEST=")}
            assert theirs <= ours
        ours = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        with ProcessPoolExecutor(1) as pool:
            theirs = pool.submit(eval, "dict(__import__('os').environ)").result(PATIENCE)
            assert {name: theirs.get(name) for name in ours} == ours
            assert theirs.keys() - ours.keys() <= {"PYTEST_CURRENT_TEST", *contexts.THREADS}

    def test_an_initializers_argument_is_in_neither(self):
        secret = "not-to-be-seen-7345"
        with ProcessPoolExecutor(1, initializer=setattr, initargs=(sys, "secret", secret)) as pool:
            pool.submit(square, 1).result(PATIENCE)
            for pid in pool._processes:
                for name in ("cmdline", "environ"):
                    assert secret.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


class TestSharedMemory:
    """S3: shared memory has no name."""

    def test_nothing_has_a_name(self, tmp_path, monkeypatch, request):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        before = set(os.listdir("/dev/shm"))
        _, pids = request.getfixturevalue("at_work")
        assert {name for name in os.listdir("/dev/shm") if "abreast" in name} <= before
        assert [path for path in tmp_path.iterdir() if path.name != "stop"] == []
        for pid in (os.getpid(), *pids):
            for link in links_of(pid).values():
                assert (
                    "abreast" not in link or not link.startswith(("/dev/shm", "/memfd")) or link.startswith("/memfd:abreast-")
                ), link
        for pid in pids:
            maps = Path(f"/proc/{pid}/maps").read_text()
            shared = [line for line in maps.splitlines() if line.split()[1][3] == "s"]
            assert all("/memfd:abreast-page (deleted)" in line or "gconv" in line or "locale" in line for line in shared), shared

    def test_where_there_is_no_memfd_it_is_a_file_of_our_own_without_a_name(self, tmp_path, monkeypatch):
        monkeypatch.delattr(os, "memfd_create")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        mask = os.umask(0)
        try:
            fd = page.nameless_file("abreast-page")
        finally:
            os.umask(mask)
        try:
            told = os.fstat(fd)
            assert told.st_nlink == 0
            assert stat.S_IMODE(told.st_mode) & 0o077 == 0
            assert not os.get_inheritable(fd)
            assert list(tmp_path.iterdir()) == []
        finally:
            os.close(fd)

    def test_the_pool_runs_without_memfd(self, monkeypatch, tmp_path):
        monkeypatch.delattr(os, "memfd_create")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with ProcessPoolExecutor(2, task_timeout=20) as pool:
            assert [future.result(PATIENCE) for future in [pool.submit(square, i) for i in range(20)]] == [
                i * i for i in range(20)
            ]
            assert list(tmp_path.iterdir()) == []


class TestTemporaryFiles:
    """S4: none is left or open to others, also under umask 000."""

    def test_under_umask_000(self, tmp_path):
        done = run_python(f"""
            import os
            import abreast
            os.environ["TMPDIR"] = {str(tmp_path)!r}
            os.umask(0)
            seen = set()
            def wanted(_=None):
                return os.listdir({str(tmp_path)!r})
            with abreast.ProcessPoolExecutor(2) as pool:
                for _ in range(20):
                    seen |= set(pool.submit(wanted).result()) | set(wanted())
            print(sorted(seen))
        """)
        assert (done.stdout, done.stderr) == ("[]\n", "")


SEES = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"


class TestInherited:
    """S9: a subprocess of the user's sees 0, 1 and 2, and nothing of ours."""

    def test_in_the_parent(self):
        done = run_python(f"""
            import subprocess, sys, threading
            import abreast
            with abreast.ProcessPoolExecutor(2) as pool:
                pool.submit(pow, 2, 3).result()
                for _ in range(3):
                    subprocess.run([sys.executable, "-c", {SEES!r}], close_fds=False)
        """)
        assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n" * 3, "")  # 3 is the listing itself

    def test_while_workers_are_being_started(self):
        done = run_python(f"""
            import subprocess, sys
            import abreast
            pools = [abreast.ProcessPoolExecutor(1, max_tasks_per_child=1) for _ in range(2)]
            futures = [pool.submit(pow, 2, 3) for _ in range(20) for pool in pools]
            for _ in range(5):
                subprocess.run([sys.executable, "-S", "-c", {SEES!r}], close_fds=False)
            for pool in pools:
                pool.shutdown()
        """)
        assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n" * 5, "")

    def test_in_a_task(self):
        def run():
            return subprocess.run([sys.executable, "-c", SEES], close_fds=False, stdout=subprocess.PIPE, text=True).stdout

        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(run).result(PATIENCE) == "[0, 1, 2, 3]\n"

    def test_one_worker_has_nothing_of_another(self, at_work):
        pool, (one, other) = at_work
        ours = set(links_of(os.getpid()).values())
        tracker = os.readlink(f"/proc/self/fd/{resource_tracker.getfd()}")  # of multiprocessing: shared on purpose
        pipes = [
            {link for fd, link in links_of(pid).items() if fd > 2 and link.startswith("pipe:") and link != tracker}
            for pid in (one, other)
        ]
        assert not pipes[0] & pipes[1]
        assert pipes[0] | pipes[1] <= ours
        assert [len(found) for found in pipes] == [2, 2]


class TestSignals:
    """S10: a rule: signals by pid only where it is known whose pid it is."""

    @pytest.mark.parametrize("path", sorted(SOURCES.glob("*.py")), ids=lambda path: path.name)
    def test_no_signal_by_pid_elsewhere(self, path):
        if path.name in ("launch.py", "forked.py", "forking.py"):
            assert re.search(r"os\.kill(pg)?\(", path.read_text())
            return
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                assert not re.fullmatch(r"kill|killpg", node.attr), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert not {"kill", "killpg"} & {name.name for name in node.names}, f"{path.name}:{node.lineno}"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may change its user id")
class TestOtherUser:
    """S12: a task changes its user id."""

    def test_the_worker_serves_on_and_ends_at_the_shutdown(self):
        with ProcessPoolExecutor(1) as pool:
            pid = pool.submit(lambda: (os.setuid(12345), os.getpid())[1]).result(PATIENCE)
            assert pool.submit(lambda: (os.getuid(), os.getpid())).result(PATIENCE) == (12345, pid)
        assert not os.path.exists(f"/proc/{pid}")

    def test_one_over_its_limit_is_killed_all_the_same(self):
        with ProcessPoolExecutor(1, task_timeout=0.5) as pool:
            future = pool.submit(lambda: (os.setuid(12345), time.sleep(60)))
            assert isinstance(future.exception(PATIENCE), abreast.TaskTimeout)
            assert pool.submit(os.getuid).result(PATIENCE) == 0


def test_a_task_that_writes_to_low_descriptors_which_are_not_its_own():
    """mmap keeps a copy of the page's descriptor, the lowest that is free: 3. What was written there ended up in the page, and the run never ended."""

    def write(number):
        for fd in range(3, 20):
            with contextlib.suppress(OSError):
                os.write(fd, b"start %d 12345\n" % number)
        return number

    assert abreast.map(write, range(60), kind="process", max_workers=2, timeout=50) == list(range(60))
