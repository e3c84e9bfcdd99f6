"""The guardian: what workers find in it, how it lives and dies (F17, F21 to F23, F38, S12 of docs/design/failures.md).

Real processes and signals. What changes the state of a whole program runs in a program of its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from abreast import ProcessPoolExecutor, WorkerCrashed
from abreast.executors.process import forked, guardian

from tests.executors.process.test_faults import AS_ROOT, Program, leave_a_daemon
from tests.helpers import is_alive, run_python, until

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

PATIENCE = 30
PROMPT = 3  # seconds; promised is one, of a machine that is not busy


def the_guardian():
    (one,) = [one for one in guardian.kept() if not one.preload]
    return one


def children_of(pid):
    """Of all its threads."""
    return {int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()}


def asks(pool, expression):
    """What an expression comes to in a worker; not a function of this file, for which a worker would import pytest."""
    return pool.submit(eval, expression).result(PATIENCE)


OS = "__import__('os')."


@pytest.fixture
def preloading():
    """A test with preloads: their guardians end with it."""
    yield
    for one in guardian.kept():
        if one.preload:
            guardian._drop(one)


class TestOneForAll:
    def test_pools_share_it(self):
        with ProcessPoolExecutor(2) as one, ProcessPoolExecutor(1, mp_context="forkserver") as other:
            parents = {asks(pool, OS + "getppid()") for pool in (one, other)}
        assert parents == {the_guardian().pid}
        with ProcessPoolExecutor(1) as later:
            assert asks(later, OS + "getppid()") in parents

    def test_it_has_one_thread_nothing_of_ours_and_no_zombies(self):
        with ProcessPoolExecutor(2) as pool:
            for _ in range(3):
                assert isinstance(pool.submit(os._exit, 3).exception(PATIENCE), WorkerCrashed)
            assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
            pid = the_guardian().pid
            assert os.listdir(f"/proc/{pid}/task") == [str(pid)]
            until(lambda: children_of(pid) == set(pool._processes))
            links = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            assert links[0] == links[1] == "/dev/null"
            assert links[2].startswith("/memfd:abreast-guardian")
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.getpgid(pid) == pid
            links = {fd: link for fd, link in links.items() if ".so" not in link}  # libffi of some systems has itself open
            assert len(links) == 7, links  # its socket, the pidfd of this process, its lifeline's two ends
        assert children_of(pid) == set()

    def test_a_spawn_context_has_fresh_interpreters(self):
        with ProcessPoolExecutor(1, mp_context="spawn") as pool:
            assert asks(pool, OS + "getppid()") == os.getpid()

    def test_several_supervisors_at_once(self):
        pools = [ProcessPoolExecutor(3, max_tasks_per_child=1) for _ in range(4)]
        futures = [pool.submit(pow, 2, n) for n in range(10) for pool in pools]
        assert [future.result(PATIENCE) for future in futures] == [2**n for n in range(10) for _ in pools]
        for pool in pools:
            pool.shutdown()

    def test_the_exit_status_is_known(self):
        with ProcessPoolExecutor(1) as pool:
            error = pool.submit(os._exit, 5).exception(PATIENCE)
            assert error.exitcode == 5
            error = pool.submit(eval, "__import__('os').kill(__import__('os').getpid(), 11)").exception(PATIENCE)
            assert error.signal == "SIGSEGV"

    def test_workers_end_as_programs_do(self, tmp_path):
        """What a task has registered with atexit is called, and it is nobody else's."""
        path = tmp_path / "ended"
        with ProcessPoolExecutor(1) as pool:
            pool.submit(exec, f"import atexit, pathlib; atexit.register(pathlib.Path({str(path)!r}).write_text, 'yes')").result(
                PATIENCE
            )
        assert path.read_text() == "yes"

    def test_workers_know_themselves(self):
        with ProcessPoolExecutor(1, name="pool") as pool:
            told = asks(
                pool,
                "(lambda m: (m.current_process().name, m.parent_process().pid, m.parent_process().is_alive(), m.current_process().daemon))"
                "(__import__('multiprocessing'))",
            )
        assert told == ("pool_1", os.getpid(), True, False)

    def test_random_numbers_differ(self, preloading):
        with ProcessPoolExecutor(1, preload=["random"], max_tasks_per_child=1) as pool:
            drawn = [asks(pool, "__import__('random').random()") for _ in range(4)]
        assert len(set(drawn)) == 4


IMPORTS = """
    LOOK = "sorted({'multiprocessing', 'concurrent.futures.process', 'pytest', 'abreast.pools'} & set(__import__('sys').modules))"
    IMPORT = "__import__('abreast').ProcessPoolExecutor and __import__('os').getpid()"

    def told(code):
        with abreast.ProcessPoolExecutor(1) as pool:
            return pool.submit(eval, code).result()

    print(told(LOOK), told(IMPORT) > 0, told(LOOK))
"""


def test_no_more_is_imported_than_workers_have_been_seen_to_need():
    """What they import of ours, as a module with tasks does by ``from abreast import ProcessPoolExecutor``, the next ones have."""
    done = program(IMPORTS)
    assert done.stdout == "[] True ['abreast.pools', 'concurrent.futures.process', 'multiprocessing']\n", done


def test_what_cannot_be_imported_there_is_left(tmp_path):
    """A module of ours that workers have imported, and that is broken by now: a new version is just being installed, say."""
    (tmp_path / "breaks.py").write_text("1 / 0")
    done = program(f"""
        import os, sys, abreast
        from abreast.executors.process import surroundings

        surroundings.OURS, surroundings.seen = ("breaks",), 1
        os.environ["PYTHONPATH"] = {str(tmp_path)!r} + os.pathsep + os.environ.get("PYTHONPATH", "")
        with abreast.ProcessPoolExecutor(1) as pool:
            print(pool.submit(pow, 2, 3).result())
    """)
    assert (done.stdout, done.returncode) == ("8\n", 0), done


SEES = """
    import glob, os, resource, signal, subprocess, sys, tempfile
    import abreast

    LOOK = '''(lambda os, resource, signal: {
        "cwd": os.readlink("/proc/self/cwd"),
        "env": (os.environ.get("ABREAST_A"), os.environ.get("ABREAST_B"), os.environb.get(b"ABREAST_C")),
        "mask": open("/proc/self/status").read().partition("Umask:")[2].split()[0],
        "core": resource.getrlimit(resource.RLIMIT_CORE), "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "cores": sorted(os.sched_getaffinity(0)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "out": os.readlink("/proc/self/fd/1"), "err": os.readlink("/proc/self/fd/2"), "in": os.readlink("/proc/self/fd/0"),
        "hup": signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "chld": signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN,
        "int": signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "pipe": signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN,
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "session": os.getsid(0),
        "parent": os.getppid(),
    })(__import__("os"), __import__("resource"), __import__("signal"))'''
    FRESH = "print(" + LOOK + ")"

    def of(pool):
        told = pool.submit(eval, LOOK).result(20)
        told.pop("parent")
        return told

    def both():
        '''What a worker of a new pool finds, and one that is a fresh interpreter.'''
        with abreast.ProcessPoolExecutor(1) as pool, abreast.ProcessPoolExecutor(1, mp_context="spawn") as fresh:
            return of(pool), of(fresh)
"""


CHILDREN = """
import glob
def children():
    found = []
    for path in glob.glob("/proc/self/task/*/children"):
        try:
            with open(path) as file:
                found += file.read().split()
        except OSError:  # of a thread that has just ended
            pass
    return found
"""


def program(code, **more):
    return run_python(textwrap.dedent(SEES) + CHILDREN + textwrap.dedent(code), **more)


class TestInherited:
    """A new worker finds what a child of this process would have found, as it is now; one that is there already does not."""

    CHANGES = {
        "cwd": "os.chdir(tempfile.mkdtemp(dir=folder))",
        "removed cwd": "os.chdir(tempfile.mkdtemp(dir=folder)); os.rmdir(os.getcwd())",
        "env": "os.environ['ABREAST_A'] = 'new'; del os.environ['ABREAST_B']; os.environb[b'ABREAST_C'] = b'\\xff=\\xfe'",
        "umask": "os.umask(0o77)",
        "a limit": "resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])); resource.setrlimit(resource.RLIMIT_NOFILE, (333, 444))",
        "affinity": "os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})",
        "nice": "os.nice(3)",
        "stdout": "file = open(folder + '/out', 'w'); os.dup2(file.fileno(), 1)",
        "stderr": "file = open(folder + '/err', 'w'); os.dup2(file.fileno(), 2)",
        "closed stdout": "os.close(1)",
        "ignored signals": "signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "blocked signals": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})",
        "session": "os.setsid()",
    }
    SAYS_NULL = ("closed stdout",)

    @pytest.mark.parametrize("change", CHANGES)
    def test_as_it_is_now(self, change, tmp_path):
        done = program(
            f"""
            folder = {str(tmp_path)!r}
            os.environ["ABREAST_B"] = "old"
            report = os.dup(2)
            first = abreast.ProcessPoolExecutor(1)
            before = of(first)
            assert before["in"] == "/dev/null", before
            {self.CHANGES[change]}
            now, fresh = both()
            if {change in self.SAYS_NULL}:
                fresh["out"] = "/dev/null"
            if now != fresh:
                os.write(report, f"{{now}} is not\\n{{fresh}}".encode())
            elif now == before:
                os.write(report, f"nothing has changed: {{before}}".encode())
            elif of(first) != before:
                os.write(report, b"the old one has changed")
            else:
                os.write(report, b"right")
            first.shutdown()
            os._exit(0) if {change == "closed stdout"} else None
            """
        )
        assert (done.stderr, done.returncode) == ("right", 0)

    def test_a_large_environment(self):
        done = program("""
            for n in range(3000):
                os.environ[f"ABREAST_LARGE_{n}"] = "x" * 100
            with abreast.ProcessPoolExecutor(2) as pool:
                for _ in range(2):
                    print(pool.submit(eval, "sum(map(len, __import__('os').environ.values())) > 300_000").result())
        """)
        assert (done.stdout, done.stderr) == ("True\nTrue\n", "")

    def test_variables_that_are_read_at_the_start_of_an_interpreter(self):
        done = program("""
            parents = set()
            for seed in ("1", "2", "1"):
                os.environ["PYTHONHASHSEED"] = seed
                with abreast.ProcessPoolExecutor(1) as pool:
                    told = pool.submit(eval, "(__import__('os').getppid(), hash('abreast'))").result()
                fresh = subprocess.run([sys.executable, "-c", "print(hash('abreast'))"], capture_output=True, text=True).stdout
                print(told[1] == int(fresh))
                parents.add(told[0])
            print(len(parents), len(children()))
        """)
        assert (done.stdout, done.stderr) == ("True\nTrue\nTrue\n3 1\n", "")

    def test_what_workers_print_goes_where_this_process_prints_now(self, tmp_path):
        done = program(f"""
            with abreast.ProcessPoolExecutor(1) as pool:
                pool.submit(print, "first").result()
            os.dup2(os.open({str(tmp_path / "out")!r}, os.O_CREAT | os.O_WRONLY), 1)
            with abreast.ProcessPoolExecutor(1) as pool:
                pool.submit(print, "second").result()
                print(pool.submit(eval, "(__import__('sys').stdout.name, __import__('sys').stdout is __import__('sys').__stdout__, __import__('sys').stdout.encoding, __import__('sys').stdout.line_buffering, __import__('sys').stderr.line_buffering, __import__('sys').stderr.errors, __import__('sys').stdout.mode)").result())
        """)
        assert (done.stdout, done.stderr) == ("first\n", "")
        assert (tmp_path / "out").read_text() == "second\n('<stdout>', True, 'utf-8', False, True, 'backslashreplace', 'w')\n"

    def test_a_terminal_gets_whole_lines(self):
        import pty

        ours, theirs = pty.openpty()
        code = "import abreast; pool = abreast.ProcessPoolExecutor(1); print(pool.submit(eval, '__import__(\"sys\").stdout.line_buffering').result()); pool.shutdown()"
        subprocess.run([sys.executable, "-c", code], stdout=theirs, check=True, timeout=PATIENCE)
        os.close(theirs)
        assert os.read(ours, 100) == b"True\r\n"
        os.close(ours)

    def test_a_module_that_is_written_later_is_found(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(tmp_path))
        for n in range(5):
            name = f"abreast_written_{n}"
            (tmp_path / f"{name}.py").write_text("answer = 42")
            with ProcessPoolExecutor(1) as pool:
                assert asks(pool, f"__import__({name!r}).answer") == 42

    @AS_ROOT
    @pytest.mark.parametrize("who", ["gid", "groups", "uid", "namespace"])
    def test_another_user(self, who):
        """S12, of the parent: the guardian that was there before is not used any more, and ends with its last worker."""
        if who == "uid" and any(
            os.stat(folder).st_mode & 0o005 != 0o005 for folder in Path(os.path.realpath(sys.executable)).parents
        ):
            pytest.skip("another user may not run this interpreter")
        change = {
            "gid": "os.setresgid(12345, 12345, 12345)",
            "groups": "os.setgroups([12345, 12346])",
            "uid": "os.setresuid(12345, 12345, 12345)",
            "namespace": "__import__('ctypes').CDLL(None).unshare(0x04000000)",
        }[who]
        done = program(f"""
            WHO = "(lambda os: (os.getresuid(), os.getresgid(), os.getgroups(), os.readlink('/proc/self/ns/uts'), os.getppid()))(__import__('os'))"
            first = abreast.ProcessPoolExecutor(1)
            *before, parent = first.submit(eval, WHO).result(20)
            {change}
            with abreast.ProcessPoolExecutor(1) as pool:
                *now, other = pool.submit(eval, WHO).result(20)
            print(now == list(eval(WHO)[:-1]), now != before, parent != other)
            print(first.submit(eval, WHO).result(20) == (*before, parent))
            print(os.path.exists(f"/proc/{{parent}}"))
            first.shutdown()
            print(os.path.exists(f"/proc/{{parent}}"), os.path.exists(f"/proc/{{other}}"))
        """)
        assert (done.stdout, done.stderr) == ("True True True\nTrue\nTrue\nFalse True\n", "")

    @AS_ROOT
    def test_another_root(self, tmp_path):
        done = program(f"""
            from abreast.executors.process.surroundings import identity
            before = identity()
            os.chroot({str(tmp_path)!r})
            print(identity()[1] != before[1])
        """)
        assert (done.stdout, done.stderr) == ("True\n", "")


class TestDescriptors:
    """What of the user's workers have under the same numbers."""

    @pytest.mark.parametrize("method", [None, "forkserver"])
    def test_objects_of_multiprocessing(self, method):
        context = multiprocessing.get_context("spawn")
        lock, queue, (here, there) = context.Lock(), context.Queue(), context.Pipe()
        one, other = socket.socketpair()
        with (
            here, there, one, other,
            ProcessPoolExecutor(2, method, initializer=setattr, initargs=(sys, "given", (lock, queue, there, other)), max_tasks_per_child=1) as pool,
        ):  # fmt: skip
            for _ in range(3):  # each of another process
                asks(
                    pool,
                    "[(lock.acquire(), lock.release(), queue.put(1), there.send(2), other.send(b'3')) for lock, queue, there, other in [__import__('sys').given]]",
                )
                assert (queue.get(timeout=PATIENCE), here.recv(), one.recv(1)) == (1, 2, b"3")
        queue.close()
        queue.join_thread()
        queue._writer.close()
        queue._reader.close()

    def test_whatever_their_numbers_are(self):
        """Low ones, those where workers keep their own, and many."""
        done = run_python("""
            import multiprocessing, os, socket, sys
            import abreast
            ends = []
            for number in (9, 17, 200, 201, 202, 203, 204, 205, 206, 230):
                read, write = os.pipe()
                os.dup2(read, number)
                os.close(read)
                ends.append((number, write))
            import multiprocessing.connection as c
            connections = [c.Connection(number, writable=False) for number, _ in ends]
            with abreast.ProcessPoolExecutor(2, initializer=setattr, initargs=(sys, "given", connections)) as pool:
                fds = [conn.fileno() for conn in connections]
                for (number, write), n in zip(ends, range(100)):
                    c.Connection(write, readable=False).send(n)
                    print(pool.submit(eval, f"__import__('sys').given[{n}].recv()").result(), end=" ", flush=True)
            print()
            sockets = [socket.socketpair() for _ in range(230)]
            with abreast.ProcessPoolExecutor(1, initializer=setattr, initargs=(sys, "given", [pair[1] for pair in sockets])) as pool:
                print(pool.submit(eval, "[it.send(b'x') for it in __import__('sys').given] == [1] * 230").result())
            print({one.recv(5) for one, _ in sockets})
        """)
        assert (done.stdout, done.stderr) == ("0 1 2 3 4 5 6 7 8 9 \nTrue\n{b'x'}\n", "")

    def test_the_resource_tracker_is_shared(self):
        done = run_python("""
            import multiprocessing.shared_memory, os
            from multiprocessing import resource_tracker
            import abreast
            memory = multiprocessing.shared_memory.SharedMemory(create=True, size=16)
            with abreast.ProcessPoolExecutor(1) as pool:
                memory.buf[0] = 7
                got = "(lambda m: (m.buf[0], m.close())[0])(__import__('multiprocessing.shared_memory').shared_memory.SharedMemory(%r))" % memory.name
                print(pool.submit(eval, got).result(), pool.submit(eval, got).result())
                print(pool.submit(eval, "len(open(f'/proc/self/task/{__import__(\\"os\\").getpid()}/children').read().split())").result())
            memory.close()
            memory.unlink()
        """)
        assert (done.stdout, done.stderr) == ("7 7\n0\n", "")

    def test_captured_output(self, capsys):
        with ProcessPoolExecutor(1, capture_output=True) as pool:
            pool.submit(print, "printed").result(PATIENCE)
            pool.submit(os.write, 2, b"written\n").result(PATIENCE)
        told = capsys.readouterr()
        assert (told.out, told.err) == ("[worker 1] printed\n", "[worker 1] written\n")

    def test_a_daemon_holds_them(self, tmp_path):
        """F17: death is seen, and nothing waits for the daemon."""
        path = tmp_path / "pid"
        with ProcessPoolExecutor(1) as pool:
            pid = pool.submit(leave_a_daemon, str(path)).result(PATIENCE)
            os.kill(pid, signal.SIGKILL)
            assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        daemon = int(path.read_text())
        assert is_alive(daemon)
        os.kill(daemon, signal.SIGKILL)


class TestPreload:
    @pytest.fixture
    def write(self, tmp_path, monkeypatch, preloading):
        monkeypatch.syspath_prepend(str(tmp_path))

        def write(name, text):
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
            return [name]

        return write

    def test_it_is_there_before_the_workers_are(self, write):
        names = write("abreast_pre_1", "import os\npid = os.getpid()\ncount = 0\nprint('loaded', flush=True)")
        with ProcessPoolExecutor(2, preload=names) as pool, ProcessPoolExecutor(1, preload=tuple(names)) as other:
            told = {
                asks(one, "[(m.pid, m.__name__) for m in [__import__('sys').modules['abreast_pre_1']]][0]")
                for one in (pool, other)
            }
            assert told == {(asks(pool, OS + "getppid()"), "abreast_pre_1")}
            assert asks(pool, OS + "getppid()") != the_guardian().pid
        assert sorted(one.preload for one in guardian.kept()) == [(), ("abreast_pre_1",)]

    @pytest.mark.parametrize("method", [None, "forkserver"])
    def test_what_cannot_be_imported_breaks_the_pool(self, write, method):
        with (
            ProcessPoolExecutor(1, method, preload=["abreast.no_such_module"]) as pool,
            pytest.raises(BrokenProcessPool, match="'abreast.no_such_module' cannot be imported: ModuleNotFoundError"),
        ):
            pool.submit(pow, 2, 3).result(PATIENCE)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("import os; os._exit(3)", "died"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "died"),
            (
                "import threading; threading.Thread(target=threading.Event().wait, name='mine', daemon=True).start()",
                r"1 thread \(mine\): a process that has threads must not fork",
            ),
        ],
        ids=["raises", "exits", "ends the process", "kills it", "starts a thread"],
    )
    def test_and_so_does_what_goes_wrong_in_it(self, write, text, told):
        names = write("abreast_pre_2", text)
        with ProcessPoolExecutor(2, preload=names) as pool:
            futures = []
            with contextlib.suppress(BrokenProcessPool):
                futures += [pool.submit(pow, 2, 3) for _ in range(3)]
            for future in futures:
                with pytest.raises(BrokenProcessPool, match=f"abreast_pre_2.*{told}"):
                    future.result(PATIENCE)
        write(
            "abreast_pre_2", "answer = 'it goes well'"
        )  # with another pool; of another length, or it may be taken for what was compiled before
        with ProcessPoolExecutor(1, preload=names) as pool:
            assert pool.submit(pow, 2, 3).result(PATIENCE) == 8

    def test_a_thread_that_python_does_not_know(self, write):
        text = """
            import ctypes
            @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
            def run(_):
                pass
            thread = ctypes.c_ulong()
            libc = ctypes.CDLL(None)
            pause = ctypes.cast(libc.pause, ctypes.c_void_p)
            assert libc.pthread_create(ctypes.byref(thread), None, pause, None) == 0
        """
        with (
            ProcessPoolExecutor(1, preload=write("abreast_pre_3", text)) as pool,
            pytest.raises(BrokenProcessPool, match=r"1 thread \(of a library\)"),
        ):
            pool.submit(pow, 2, 3).result(PATIENCE)

    def test_numpy(self, preloading):
        """Its library computes with threads; there are none in the guardian, and workers have their share."""
        pytest.importorskip("numpy")
        pytest.importorskip("threadpoolctl")
        with ProcessPoolExecutor(1, preload=["numpy"], max_tasks_per_child=1) as pool:
            drawn = [asks(pool, "float(__import__('numpy').random.random())") for _ in range(3)]
            assert len(set(drawn)) == 3
            usable = len(os.sched_getaffinity(0))
            told = asks(pool, "[one['num_threads'] for one in __import__('threadpoolctl').threadpool_info()]")
            assert set(told) <= {1, usable}
            assert asks(pool, OS + "environ['OMP_NUM_THREADS']") == os.environ.get("OMP_NUM_THREADS", str(usable))

    def test_what_it_prints_is_seen(self, tmp_path):
        (tmp_path / "abreast_pre_4.py").write_text("import sys; print('out'); print('err', file=sys.stderr)")
        done = run_python("""
            import abreast
            with abreast.ProcessPoolExecutor(1, preload=["abreast_pre_4"]) as pool:
                print(pool.submit(pow, 2, 3).result())
        """, cwd=tmp_path)  # fmt: skip
        assert (done.stdout, done.stderr, done.returncode) == ("out\n8\n", "err\n", 0)

    @pytest.mark.parametrize("value", ["numpy", b"numpy", 3, None, {"numpy"}, [3], ["os", None]])
    def test_the_type(self, value):
        with pytest.raises(TypeError, match="preload must be a list of names of modules"):
            ProcessPoolExecutor(1, preload=value)

    @pytest.mark.parametrize("value", [[""], ["a b"], [".os"], ["os."], ("os", "1x")])
    def test_the_value(self, value):
        with pytest.raises(ValueError, match="preload must be a list of names of modules, as 'package.module'"):
            ProcessPoolExecutor(1, preload=value)

    @pytest.mark.parametrize("method", ["fork", "spawn", multiprocessing.get_context("spawn")])
    def test_not_with_other_ways(self, method):
        with pytest.raises(ValueError, match=r"preload=\['os'\] cannot be had with mp_context='(fork|spawn)'"):
            ProcessPoolExecutor(1, method, preload=["os"])


def sleeper(pool, path):
    """A task that has begun, and that only its death ends."""
    future = pool.submit(exec, f"import time; open({str(path)!r}, 'x').close(); time.sleep(60)")
    until(path.exists)
    return future


class TestItDies:
    """F21: the guardian is killed: its workers die, what ran fails and says why, what waits goes on."""

    def test_idle(self):
        with ProcessPoolExecutor(2) as pool:
            worker = asks(pool, OS + "getpid()")
            before = the_guardian().pid
            os.kill(before, signal.SIGKILL)
            until(lambda: not is_alive(worker))
            assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
            assert the_guardian().pid != before

    def test_with_no_worker_there(self):
        with ProcessPoolExecutor(1) as pool:
            pool.submit(pow, 2, 3).result(PATIENCE)
        os.kill(the_guardian().pid, signal.SIGKILL)
        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(pow, 2, 3).result(PATIENCE) == 8

    def test_amid_tasks(self, tmp_path):
        with ProcessPoolExecutor(2) as pool, ProcessPoolExecutor(1) as other:
            running = [sleeper(pool, tmp_path / str(n)) for n in range(2)]
            idle = other.submit(os.getpid).result(PATIENCE)
            pids = list(pool._processes)
            pending = [pool.submit(pow, 2, n) for n in range(10)]
            os.kill(the_guardian().pid, signal.SIGKILL)
            for future in running:
                error = future.exception(PATIENCE)
                assert isinstance(error, WorkerCrashed)
                assert error.hint == "the guardian, which forks the workers, died"
                assert "(the guardian, which forks the workers, died)" in str(error)
            assert [future.result(PATIENCE) for future in pending] == [2**n for n in range(10)]
            until(lambda: not any(map(is_alive, (*pids, idle))))
            assert other.submit(pow, 2, 3).result(PATIENCE) == 8

    def test_what_tasks_have_started_goes_too(self, tmp_path):
        with ProcessPoolExecutor(1) as pool:
            future = pool.submit(exec, STARTS.format(path=str(tmp_path / "pid")))
            pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
            os.kill(the_guardian().pid, signal.SIGKILL)
            assert isinstance(future.exception(PATIENCE), WorkerCrashed)
            until(lambda: not is_alive(pid))

    def test_three_times(self, tmp_path):
        with ProcessPoolExecutor(1) as pool:
            for n in range(3):
                future = sleeper(pool, tmp_path / str(n))
                waits = pool.submit(pow, 2, 3)
                os.kill(the_guardian().pid, signal.SIGKILL)
                assert isinstance(future.exception(PATIENCE), WorkerCrashed)
                if n < 2:
                    assert waits.result(PATIENCE) == 8
            with pytest.raises(
                BrokenProcessPool, match="the guardian, which forks the workers, died; that was 3 times within 60 s"
            ):
                waits.result(PATIENCE)
            with pytest.raises(BrokenProcessPool, match="3 times within 60 s"):
                pool.submit(pow, 2, 3)
        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(pow, 2, 3).result(PATIENCE) == 8

    def test_stopped(self, monkeypatch):
        """It does not answer: it is killed, and there is another one."""
        monkeypatch.setattr(forked, "PATIENCE", 2.0)  # in which the next one has to begin, on a busy machine too
        with ProcessPoolExecutor(1) as pool:
            worker = asks(pool, OS + "getpid()")
            before = the_guardian().pid
            os.kill(before, signal.SIGSTOP)
            with ProcessPoolExecutor(1) as other:
                assert other.submit(pow, 2, 3).result(PATIENCE) == 8
            until(lambda: not is_alive(before) and not is_alive(worker))
            assert pool.submit(pow, 2, 3).result(PATIENCE) == 8

    def test_of_sigterm_it_does_not_die(self):
        """A service manager sends it to all processes: whether they end is the parent's affair."""
        with ProcessPoolExecutor(1) as pool:
            worker = asks(pool, OS + "getpid()")
            before = the_guardian().pid
            os.kill(before, signal.SIGTERM)
            assert asks(pool, OS + "getpid()") == worker
            assert asks(pool, "__import__('signal').getsignal(15) == __import__('signal').SIG_DFL")
            assert the_guardian().pid == before
            assert the_guardian().is_there()

    def test_of_sighup(self):
        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
            os.kill(the_guardian().pid, signal.SIGHUP)
            until(lambda: not the_guardian().is_there())
            until(lambda: pool.submit(pow, 2, 3).exception(PATIENCE) is None)

    def test_before_its_worker_has_armed_itself(self):
        """F23, of a guardian: the worker finds that its parent is another process by now."""
        with Program(
            """
            import time, abreast
            pool = abreast.ProcessPoolExecutor(1)
            pool.submit(pow, 2, 3)
            from abreast.executors.process import guardian
            while not guardian.kept(): time.sleep(0.001)
            print(guardian.kept()[0].pid, flush=True)
            time.sleep(600)
            """,
            env={"ABREAST_FP": "worker.before_pdeathsig=stop"},
        ) as program:
            pid = int(program.line())
            (worker,) = until(lambda: [one for one in children_of(pid) if state_of(one) == "T"])
            os.kill(pid, signal.SIGKILL)
            until(lambda: not is_alive(pid))
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)
            until(lambda: not is_alive(worker))

    def test_it_cannot_start(self, monkeypatch):
        guardian._drop(the_guardian())
        monkeypatch.setattr(guardian, "BEGIN", "import there_is_no_such_module")
        with ProcessPoolExecutor(2) as pool:
            error = pool.submit(pow, 2, 3).exception(PATIENCE)
        assert isinstance(error, BrokenProcessPool)
        assert (
            "the guardian, which forks the workers, died: ModuleNotFoundError: No module named 'there_is_no_such_module'"
            in str(error)
        )
        monkeypatch.undo()
        guardian.start()

    def test_there_is_no_socket_for_it(self, monkeypatch):
        guardian._drop(the_guardian())

        def refuse(*_):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(socket, "socketpair", refuse)
        with ProcessPoolExecutor(2) as pool:
            error = pool.submit(pow, 2, 3).exception(PATIENCE)
        assert isinstance(error, BrokenProcessPool)
        assert "cannot be started: Too many open files" in str(error)
        monkeypatch.undo()
        guardian.start()

    def test_one_that_has_threads_at_its_start_is_done_without(self, tmp_path):
        (tmp_path / "sitecustomize.py").write_text(
            "import sys, threading\n"
            "if 'guarded' in ' '.join(sys.orig_argv): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        )
        done = run_python("""
            import os, sys
            os.environ["PYTHONPATH"] = {!r}
            import abreast
            with abreast.ProcessPoolExecutor(2) as pool:
                print(pool.submit(os.getppid).result() == os.getpid())
            with abreast.ProcessPoolExecutor(2) as pool:
                print(pool.submit(os.getppid).result() == os.getpid())
            try:
                with abreast.ProcessPoolExecutor(2, preload=["json"]) as pool:
                    pool.submit(os.getppid).result()
            except Exception as error:
                print(error)
        """.format(str(tmp_path)))  # fmt: skip
        assert done.stdout.startswith(
            "True\nTrue\na worker's process cannot be started: the guardian, which forks the workers, has 1 thread ("
        )
        assert (done.stderr, done.returncode) == ("", 0)


STARTS = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
with open({path!r} + ".new", "w") as file:
    file.write(str(child.pid))
os.rename({path!r} + ".new", {path!r})
time.sleep(600)
"""


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


REFUSE = """
    import ctypes, errno, platform, struct
    def refuse(*names):
        numbers = {"x86_64": {"pidfd": 434, "memfd": 319, "prctl": 157}, "aarch64": {"pidfd": 434, "memfd": 279, "prctl": 167}}[platform.machine()]
        calls = [numbers[name] for name in names]
        code = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # load the number of the call
        for n, call in enumerate(calls):
            code.append(struct.pack("HBBI", 0x15, len(calls) - n, 0, call))  # if it is this one, to the last line
        code += [struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), struct.pack("HBBI", 6, 0, 0, 0x50000 | errno.ENOSYS)]
        code = b"".join(code)
        kept = ctypes.create_string_buffer(code)
        prog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(kept)))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
        assert libc.prctl(22, 2, prog, 0, 0) == 0, ctypes.get_errno()
    refuse(*sys.argv[1:])
"""

REFUSED = [("pidfd",), ("memfd",), ("prctl",), ("pidfd", "memfd", "prctl")]
RUNS = pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="numbers of calls are known of two machines")


@RUNS
class TestRefused:
    """F38: calls are refused with ENOSYS, in this process, the guardian and the workers: the same outcomes."""

    @pytest.fixture(params=REFUSED, ids="+".join)
    def refused(self, request):
        return request.param

    def test_they_are(self, refused):
        with Program("import sys, os\n" + textwrap.dedent(REFUSE) + textwrap.dedent("""
            import abreast
            what = {"pidfd": "os.pidfd_open(os.getpid())", "memfd": "os.memfd_create('x')"}
            with abreast.ProcessPoolExecutor(1) as pool:
                for name in sys.argv[1:]:
                    if name in what:
                        for run in (eval, lambda text: pool.submit(exec, "import os; " + text).result()):
                            try:
                                run(what[name])
                            except OSError as error:
                                print(error.errno == 38, flush=True)
                    else:
                        print(pool.submit(eval, "__import__('ctypes').CDLL(None).prctl(1, 9)").result() == -1, flush=True)
            print("end", flush=True)
            """), *refused) as program:  # fmt: skip
            said = program.process.communicate(timeout=PATIENCE)
            assert set(said[0].split()) == {"True", "end"}, said
            assert said[1] == ""

    def test_pools_work(self, refused):
        with Program("import sys, os\n" + textwrap.dedent(REFUSE) + textwrap.dedent("""
            import signal, time
            import abreast
            from abreast.executors.process import guardian
            with abreast.ProcessPoolExecutor(2, task_timeout=20) as pool:
                print(list(pool.map(pow, range(5), range(5))))
                error = pool.submit(os._exit, 5).exception()
                print(type(error).__name__, error.exitcode)
                error = pool.submit(exec, "import os; os.kill(os.getpid(), 9)").exception()
                print(type(error).__name__, error.signal)
                print(pool.submit(pow, 2, 3).result())
                # the guardian is killed
                read, write = os.pipe()
                path = "/proc/%d/fd/%d" % (os.getpid(), write)
                running = [pool.submit(exec, "import time; open(%r, 'w').write('x'); time.sleep(60)" % path) for _ in range(2)]
                for _ in range(2): os.read(read, 1)
                pids = list(pool._processes)
                pending = pool.submit(pow, 2, 4)
                os.kill(guardian.kept()[0].pid, signal.SIGKILL)
                print({(type(one.exception()).__name__, one.exception().hint) for one in running}, pending.result())
                print([os.path.exists(f"/proc/{pid}") and open(f"/proc/{pid}/stat").read().split()[2] != "Z" for pid in pids])
                pool.shutdown()
            with abreast.ProcessPoolExecutor(1, task_timeout=0.3) as pool:
                print(type(pool.submit(time.sleep, 60).exception()).__name__)
            """), *refused) as program:  # fmt: skip
            out, err = program.process.communicate(timeout=PATIENCE)
            assert err == ""
            assert out.splitlines() == [
                "[1, 1, 4, 27, 256]",
                "WorkerCrashed 5",
                "WorkerCrashed SIGKILL",
                "8",
                "{('WorkerCrashed', 'the guardian, which forks the workers, died')} 16",
                "[False, False]",
                "TaskTimeout",
            ]

    @pytest.mark.parametrize("fork", [False, True], ids=["", "with a forked child"])
    def test_the_parent_is_killed(self, refused, fork, tmp_path):
        killed(tmp_path, "asleep", fork, refused)


KILLED = """
    import os, sys, time
    import abreast
    case, fork, path = sys.argv[-3:]
    pool = abreast.ProcessPoolExecutor(2, **({"initializer": time.sleep, "initargs": (600,)} if case == "booting" else {}))
    pool.submit(int)
    STARTS = "import os, subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True)"
    if case != "booting":
        pool.submit(exec, STARTS).result()
    else:
        print(0, flush=True)
    task = {"in C code": "sum(range(10**13))", "asleep": "__import__('time').sleep(600)", "holding the GIL": "__import__('ctypes').PyDLL(None).sleep(600)"}.get(case)
    if task:
        for _ in range(2): pool.submit(eval, task)
        while pool.statistics().running < 2: time.sleep(0.001)
    while len(pool._processes) < 1 + (task is not None): time.sleep(0.001)
    child = 0
    if fork == "True":
        child = os.fork()
        if not child:
            time.sleep(600)
            os._exit(0)
    print(child, flush=True)
    time.sleep(600)
"""


def killed(tmp_path, case, fork, refused=()):
    """The parent is killed: nobody is left, also not what tasks have started, but the user's own child."""
    code = (
        KILLED
        if not refused
        else "import sys\n" + textwrap.dedent(REFUSE.replace("sys.argv[1:]", "sys.argv[1:-3]")) + textwrap.dedent(KILLED)
    )
    with Program(code, *refused, case, fork, tmp_path / "x") as program:
        sleeper, child = int(program.line()), int(program.line())
        # What has begun a moment ago has no environment yet, by which it is found.
        until(lambda: case == "booting" or sleeper in program.others())
        there = set(program.others()) - {child}
        assert len(there) >= 2 + (case != "booting")
        program.process.kill()
        program.process.wait()
        begun = time.monotonic()
        until(lambda: set(program.others()) <= {child})
        assert time.monotonic() - begun < PROMPT
        assert not fork or is_alive(child)


class TestParentKilled:
    """F22: nobody is left, within a second; what tasks have started included."""

    @pytest.mark.parametrize("fork", [False, True], ids=["", "with a forked child"])
    @pytest.mark.parametrize("case", ["in C code", "asleep", "holding the GIL", "idle", "booting"])
    def test_nobody_is_left(self, case, fork, tmp_path):
        killed(tmp_path, case, fork)

    def test_while_it_imports(self, tmp_path):
        (tmp_path / "abreast_pre_5.py").write_text("import time; print('importing', flush=True); time.sleep(600)")
        code = "import abreast, time; pool = abreast.ProcessPoolExecutor(1, preload=['abreast_pre_5']); pool.submit(int); time.sleep(600)"
        with Program(code, cwd=tmp_path) as program:
            assert program.line() == "importing"
            program.process.kill()
            program.process.wait()
            until(lambda: not program.others(), PROMPT)


class TestOthers:
    """Processes that make pools of their own."""

    def test_a_forked_child(self):
        done = run_python(
            CHILDREN
            + textwrap.dedent("""
            import os, sys, time, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            import abreast
            parent = "__import__('os').getppid()"
            pool = abreast.ProcessPoolExecutor(1)
            before = pool.submit(eval, parent).result()
            pid = os.fork()
            if pid == 0:
                with abreast.ProcessPoolExecutor(1) as own:
                    mine = own.submit(eval, parent).result()
                print(mine != before, flush=True)
                sys.exit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            print(pool.submit(eval, parent).result() == before)
            with abreast.ProcessPoolExecutor(1) as other:
                print(other.submit(eval, parent).result() == before)
            pool.shutdown()
            print(*["guardian" if pid == str(before) else pid for pid in children()])
        """)
        )
        assert (done.stdout, done.stderr) == ("True\n3\nTrue\nTrue\nguardian\n", "")

    def test_forks_at_any_time(self):
        """While requests are on their way: neither disturbs the other."""
        done = run_python("""
            import os, threading, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            import abreast
            with abreast.ProcessPoolExecutor(1) as pool:  # imports what it imports: a fork amid an import is a trap of its own
                pool.submit(pow, 2, 3).result()
            over = threading.Event()
            def start():
                while not over.is_set():
                    with abreast.ProcessPoolExecutor(2) as pool:
                        assert [future.result() for future in [pool.submit(pow, 2, n) for n in range(4)]] == [1, 2, 4, 8]
            threads = [threading.Thread(target=start) for _ in range(2)]
            for thread in threads: thread.start()
            codes = set()
            for n in range(12):
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        if n % 4 == 0:
                            with abreast.ProcessPoolExecutor(1) as pool:
                                assert pool.submit(pow, 2, 3).result(20) == 8
                            from abreast.executors.process import guardian
                            guardian.end()
                        code = 7
                    finally:
                        os._exit(code)
                codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            over.set()
            for thread in threads: thread.join()
            print(codes)
        """, timeout=60)  # fmt: skip
        assert (done.stdout, done.stderr) == ("{7}\n", "")

    def test_a_worker(self):
        done = run_python("""
            import os
            import abreast
            def nested():
                with abreast.ProcessPoolExecutor(2) as pool:
                    return os.getppid(), pool.submit(eval, "__import__('os').getppid()").result(), sorted(pool.map(pow, [1, 2], [3, 3]))
            with abreast.ProcessPoolExecutor(1) as pool:
                outer, inner, got = pool.submit(nested).result()
                print(outer != inner, got, os.path.exists(f"/proc/{inner}"))
            print(os.path.exists(f"/proc/{inner}"))
        """)
        assert (done.stdout, done.stderr) == ("True [1, 8] True\nFalse\n", "")

    def test_a_worker_with_a_pool_is_killed(self):
        with ProcessPoolExecutor(1) as pool:
            pool.submit(exec, "import abreast, builtins; builtins.kept = abreast.ProcessPoolExecutor(1)").result(PATIENCE)
            worker, nested = asks(
                pool,
                "(__import__('os').getpid(), kept.submit(eval, \"__import__('os').getppid(), __import__('os').getpid()\").result())",
            )
            os.kill(worker, signal.SIGKILL)
            until(lambda: not any(map(is_alive, nested)))


class TestEnd:
    """It ends with the program, and is waited for."""

    ENDS = {
        "shut down": "pool.shutdown()",
        "not shut down": "pass",
        "an error": "1 / 0",
        "sys.exit": "sys.exit(0)",
        "Ctrl-C": "signal.raise_signal(signal.SIGINT)",
        "a second pool": "abreast.ProcessPoolExecutor(1).submit(pow, 2, 3)",
        "several": "list(abreast.ProcessPoolExecutor(1, preload=['json']).map(int, '12'))",
    }

    @pytest.mark.parametrize("end", ENDS)
    def test_it_is_reaped(self, end):
        done = run_python(
            CHILDREN
            + textwrap.dedent(f"""
            import abreast, os, signal, sys
            from abreast.executors.process import guardian
            pool = abreast.ProcessPoolExecutor(2)
            pool.submit(pow, 2, 3).result()
            end = guardian.end
            def told():
                print(*[one.pid for one in guardian.kept()], flush=True)
                end()
                print(len(children()), flush=True)
            guardian.end = told
            {self.ENDS[end]}
        """)
        )
        pids, left = done.stdout.splitlines()
        assert left == "0"
        assert len(pids.split()) == 1 + (end == "several")
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids.split())
        assert ("Traceback" in done.stderr) == (end in ("an error", "Ctrl-C"))
        assert done.stderr == "" or end in ("an error", "Ctrl-C")

    def test_after_os_exit(self):
        done = run_python("""
            import abreast, os
            pool = abreast.ProcessPoolExecutor(1)
            print(pool.submit(os.getppid).result(), pool.submit(os.getpid).result(), flush=True)
            os._exit(0)
        """)
        pids = list(map(int, done.stdout.split()))
        until(lambda: not any(map(is_alive, pids)), PROMPT)

    def test_who_reads_the_output_sees_its_end(self):
        """The guardian has nothing of this process's stdout and stderr."""
        code = """
            import abreast, os, sys
            with abreast.ProcessPoolExecutor(2) as pool:
                print(pool.submit(pow, 2, 3).result(), flush=True)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1); os.dup2(null, 2)
            sys.stdin.read()
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            assert process.stdout.read() == b"8\n"
            assert process.stderr.read() == b""
            assert process.poll() is None
        finally:
            watchdog.cancel()
            watchdog.join()
            process.communicate(timeout=PATIENCE)
        assert process.returncode == 0

    def test_in_a_pipeline(self):
        code = "import abreast; pool = abreast.ProcessPoolExecutor(2); print(*pool.map(pow, range(4), range(4)))"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f'"$0" -c "{code}" | cat | tail -1', sys.executable],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("1 1 4 27\n", "", 0)

    def test_a_program_that_waits_for_its_children_itself(self):
        """SIGCHLD is ignored, and a thread waits for whatever child there is: status and outcomes are known all the same."""
        for before in ("signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "threading.Thread(target=reap, daemon=True).start()"):
            done = run_python(f"""
                import abreast, os, signal, threading, time
                def reap():
                    while True:
                        try:
                            os.waitpid(-1, 0)
                        except ChildProcessError:
                            time.sleep(0.001)
                {before}
                with abreast.ProcessPoolExecutor(2) as pool:
                    for _ in range(3):
                        print(pool.submit(os._exit, 5).exception().exitcode)
                    print(*pool.map(pow, range(4), range(4)))
                    from abreast.executors.process import guardian
                    os.kill(guardian.kept()[0].pid, signal.SIGKILL)
                    while guardian.kept()[0].is_there(): time.sleep(0.001)
                    print(*pool.map(pow, range(4), range(4)))
            """)
            lines = done.stdout.splitlines()
            assert lines[:4] == ["5", "5", "5", "1 1 4 27"], done
            assert lines[4:] == ["1 1 4 27"] or "WorkerCrashed" in done.stderr, done

    def test_without_a_proper_end_there_is_no_warning(self):
        done = run_python("""
            import abreast, gc, warnings
            warnings.simplefilter("error")
            from abreast.executors.process import guardian
            for _ in range(2):
                with abreast.ProcessPoolExecutor(1) as pool:
                    pool.submit(pow, 2, 3).result()
                guardian.end()
                gc.collect()
            print("end")
        """)
        assert (done.stdout, done.stderr) == ("end\n", "")
