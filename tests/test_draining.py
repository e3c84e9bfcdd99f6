"""`drain_on`: real programs, real signals. Tasks wait for a file that the test makes, so that what runs at the signal is known."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import abreast
from abreast.core import draining
from abreast.core.current import Scope
from abreast.executors.batch import Batch, Work
from tests.helpers import in_threads, run_python

PATIENCE = 30
SOON = 6
"""Seconds for what takes one, on a machine that is busy."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes run on Linux only so far")
KINDS = ["thread", pytest.param("process", marks=linux)]

PREAMBLE = """
import os, queue, signal, sys, threading, time
import abreast
from abreast import Drained
from abreast.core import draining

KIND = {kind!r}
Pool = abreast.ProcessPoolExecutor if KIND == "process" else abreast.ThreadPoolExecutor

def tell(*words):
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

def task(n):
    tell("began", n, os.getpid())
    while not os.path.exists({gate!r}):
        time.sleep(0.005)
    tell("ended", n)
    return n

def has_been_told(member):
    if hasattr(member, "is_drained"):
        return member.is_drained and not member.core.pending
    if hasattr(member, "_group"):
        return member._group()._drained
    if hasattr(member, "exit_posted"):
        return member.drained and not member.pending() and not member.asides
    return getattr(member, "_drained", True)

def watch():
    while drain.signal is None:
        time.sleep(0.002)
    looks = 0
    while looks < 10:  # some, since a member says so a few steps before it is true
        looks = looks + 1 if all(map(has_been_told, draining._all())) else 0
        time.sleep(0.002)
    tell("draining")

def drain_on(**more):
    global drain
    drain = abreast.drain_on(signal.SIGTERM, **more)
    threading.Thread(target=watch, daemon=True).start()
    return drain
"""


class Program:
    """A child that is ended by signals."""

    def __init__(self, folder, kind, body, script=None):
        self.gate = folder / "gate"
        self.body = body
        code = PREAMBLE.format(kind=kind, gate=str(self.gate)) + textwrap.dedent(body)
        self.lines: list[list[str]] = []
        if script is not None:
            script.write_text(code)
        self.process = subprocess.Popen(  # unbuffered: `communicate` reads from the descriptor
            [sys.executable, "-X", "faulthandler", *(["-c", code] if script is None else [script])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.guard = threading.Timer(PATIENCE, self.process.kill)

    def __enter__(self):
        self.guard.start()
        return self

    def __exit__(self, *_):
        self.guard.cancel()
        self.guard.join()
        self.process.kill()
        self.process.communicate()

    def falls_asleep(self):
        """Wait until the main thread waits."""
        looks = 0
        while looks < 5:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            looks = looks + 1 if state == "S" else 0
            time.sleep(0.005)

    def read_until(self, word, count=1):
        while sum(line[0] == word for line in self.lines) < count:
            line = self.process.stdout.readline()
            assert line, (self.lines, self.process.stderr.read())
            self.lines.append(line.decode().split())

    def send(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def drains(self, began=2):
        """Send the signal when so many tasks have begun; return when no further one can."""
        self.read_until("began", began)
        if "while" not in self.body:
            self.falls_asleep()  # right before a sleep Python may have looked for signals for the last time: then it is late
        self.send()
        self.read_until("draining")

    def open(self):
        self.gate.touch()

    def ends(self, within=SOON):
        """Wait for the end; return the exit status, and what is on standard error."""
        begin = time.monotonic()
        out, said = self.process.communicate(timeout=PATIENCE)
        assert time.monotonic() - begin < within
        self.lines += [line.split() for line in out.decode().splitlines()]
        return self.process.returncode, said.decode()

    def told(self, word):
        return [line[1:] for line in self.lines if line[0] == word]

    def pids(self):
        return {int(pid) for _, pid in self.told("began")}


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def all_gone(pids):
    deadline = time.monotonic() + PATIENCE
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)
    return True


BODIES = {
    "result": """
        executor = Pool(2)
        futures = [executor.submit(task, n) for n in range(20)]
        for n, future in enumerate(futures):
            try:
                tell("got", future.result())
            except Drained:
                tell("drained", n)
    """,
    "first result": """
        executor = Pool(2)
        futures = [executor.submit(task, n) for n in range(20)]
        futures[-1].result()
    """,
    "exit": """
        with Pool(2) as executor:
            futures = [executor.submit(task, n) for n in range(20)]
    """,
    "executor.map": """
        with Pool(2) as executor:
            for n in executor.map(task, range(20)):
                tell("got", n)
    """,
    "map": "abreast.map(task, range(20), kind=KIND, max_workers=2)",
    "imap": """
        for n in abreast.imap(task, range(20), kind=KIND, max_workers=2):
            tell("got", n)
    """,
    "imap, endless": """
        import itertools
        for n in abreast.imap(task, itertools.count(), kind=KIND, max_workers=2, ordered=False):
            tell("got", n)
    """,
    "outcomes": """
        for o in abreast.outcomes(task, range(600), kind=KIND, max_workers=2):
            assert o.ok or isinstance(o.error, Drained), o
            tell("got" if o.ok else "drained", o.index)
    """,
    "outcomes of an executor": """
        with Pool(2) as executor:
            for o in executor.outcomes(task, range(600), ordered=False):
                assert o.ok or isinstance(o.error, Drained), o
                tell("got" if o.ok else "drained", o.index)
    """,
    "amap": """
        import asyncio
        asyncio.run(abreast.amap(task, range(20), kind=KIND, max_workers=2))
    """,
    "group": """
        with abreast.TaskGroup(2, kind=KIND) as group:
            futures = [group.submit(task, n) for n in range(20)]
    """,
    "sleep": """
        executor = Pool(2)
        futures = [executor.submit(task, n) for n in range(20)]
        time.sleep(1000)
    """,
    "sleep of ours": """
        executor = Pool(2)
        futures = [executor.submit(task, n) for n in range(20)]
        abreast.sleep(1000)
    """,
    "queue": """
        with Pool(2) as executor:
            futures = [executor.submit(task, n) for n in range(20)]
            queue.Queue().get()
    """,
    "event in a group": """
        with abreast.TaskGroup(2, kind=KIND) as group:
            futures = [group.submit(task, n) for n in range(20)]
            threading.Event().wait()
    """,
    "input": """
        def inputs():
            yield from range(4)
            time.sleep(1000)
        for o in abreast.outcomes(task, inputs(), kind=KIND, max_workers=2, buffersize=8):
            tell("got" if o.ok else "drained", o.index)
    """,
    "another thread": """
        def consume():
            for o in abreast.outcomes(task, range(20), kind=KIND, max_workers=2):
                tell("got" if o.ok else "drained", o.index)
        thread = threading.Thread(target=consume)
        thread.start()
        thread.join()
    """,
}


@pytest.mark.whole
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", BODIES)
def test_wherever_the_body_waits_what_runs_finishes_and_nothing_else_begins(tmp_path, kind, where):
    """F25."""
    body = "with drain_on():\n" + textwrap.indent(textwrap.dedent(BODIES[where]), "    ") + "\n"
    with Program(tmp_path, kind, body) as program:
        program.drains()
        program.open()
        status, said = program.ends()
    assert (status, said) == (143, "")
    began = {n for n, _ in program.told("began")}
    assert len(began) == 2
    assert {n for (n,) in program.told("ended")} == began
    if where in ("result", "outcomes", "outcomes of an executor", "input", "another thread"):
        total = {"outcomes": 600, "outcomes of an executor": 600, "input": 4}.get(where, 20)
        assert {n for (n,) in program.told("got")} == began
        assert len(program.told("drained")) == len({n for (n,) in program.told("drained")}) == total - 2
    elif where in ("executor.map", "imap", "imap, endless"):
        assert {n for (n,) in program.told("got")} == began
    if kind == "process":
        assert all_gone(program.pids())


@pytest.mark.whole
class TestInABatch:
    """F45: every task has one outcome, wherever in a batch the drain begins; what ran is told, what did not is not run."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("own", [True, False])
    def test_every_task_has_one_outcome(self, tmp_path, kind, ordered, own):
        chance = random.Random(f"{kind} {ordered} {own}")
        for _ in range(4):
            executor = "" if own else "executor=Pool(2), "
            mine = "kind=KIND, max_workers=2, " if own else ""
            done = run_python(f"""
                import json, os, signal
                import abreast
                KIND = {kind!r}
                Pool = abreast.ProcessPoolExecutor if KIND == "process" else abreast.ThreadPoolExecutor
                log = os.open({str(tmp_path / "log")!r}, os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_WRONLY)
                def task(n):
                    fd = os.open({str(tmp_path / "log")!r}, os.O_APPEND | os.O_WRONLY)
                    os.write(fd, b"%d\\n" % n)
                    os.close(fd)
                    return n
                with abreast.drain_on(signal.SIGTERM):
                    seen = []
                    for o in abreast.outcomes(task, range(20_000), {mine}{executor}ordered={ordered}):
                        if len(seen) == {chance.choice([0, 1, 7, 100, 2000, 9000])}:
                            os.kill(os.getpid(), signal.SIGTERM)
                        assert o.value == o.index if o.ok else isinstance(o.error, abreast.Drained), o
                        seen.append((o.index, o.ok))
                    print(json.dumps(seen))
            """)
            assert (done.returncode, done.stderr) == (143, "")
            seen = json.loads(done.stdout)
            indexes = [index for index, _ in seen]
            assert (indexes if ordered else sorted(indexes)) == list(range(20_000))
            ran = [int(line) for line in (tmp_path / "log").read_text().split()]
            assert sorted(ran) == sorted(index for index, ok in seen if ok)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("how", ["imap", "executor.map"])
    def test_results_before_the_first_that_is_missing_are_delivered(self, kind, how):
        call = "executor.map(task, range(20_000))" if how == "executor.map" else "executor.imap(task, range(20_000))"
        done = run_python(f"""
            import os, signal
            import abreast
            Pool = abreast.ProcessPoolExecutor if {kind!r} == "process" else abreast.ThreadPoolExecutor
            def task(n):
                return n
            with abreast.drain_on(signal.SIGTERM), Pool(2) as executor:
                seen = []
                try:
                    for n in {call}:
                        if n == 100:
                            os.kill(os.getpid(), signal.SIGTERM)
                        seen.append(n)
                except abreast.Drained as error:
                    assert "by SIGTERM" in str(error)
                assert len(seen) > 100 and seen == list(range(len(seen)))
        """)
        assert (done.returncode, done.stderr) == (143, "")

    @pytest.mark.parametrize("kind", KINDS)
    def test_all_were_done(self, kind):
        """When the signal came nothing was left to start: all is delivered, and nothing raised."""
        done = run_python(f"""
            import os, signal
            import abreast
            with abreast.drain_on(signal.SIGTERM):
                seen = []
                for n in abreast.imap(abs, [1, 2, 3], kind={kind!r}, chunksize=3):
                    if not seen:
                        os.kill(os.getpid(), signal.SIGTERM)
                    seen.append(n)
                print(seen)
        """)
        assert (done.returncode, done.stdout, done.stderr) == (143, "[1, 2, 3]\n", "")


@pytest.mark.whole
class TestRetries:
    """What waits for its next attempt is not tried again: Drained, with the attempts that there were. What runs has failed for good."""

    RETRY = "retries=abreast.Retry(5, wait_initial=1000, wait_max=1000, wait_jitter=0)"

    @pytest.mark.parametrize("kind", KINDS)
    def test_in_a_run(self, tmp_path, kind):
        body = f"""
            def fails(n):
                if n:
                    task(n)
                raise ValueError(n)
            with drain_on():
                for o in abreast.outcomes(fails, range(4), kind=KIND, max_workers=1, ordered=False, {self.RETRY}):
                    tell("came", o.index, type(o.error).__name__, o.attempts)
        """
        with Program(tmp_path, kind, body) as program:
            program.drains(1)
            program.open()
            assert program.ends() == (143, "")
        assert sorted(program.told("came")) == [
            ["0", "Drained", "1"], ["1", "ValueError", "1"], ["2", "Drained", "0"], ["3", "Drained", "0"],
        ]  # fmt: skip

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_an_executor(self, tmp_path, kind):
        body = f"""
            def fails(n):
                if n:
                    task(n)
                raise ValueError(n)
            with drain_on(), Pool(1) as executor:
                view = executor.with_options({self.RETRY})
                futures = [view.submit(fails, n) for n in range(4)]
                mapped = view.map(fails, range(4))
                abreast.wait(futures)
                for n, future in enumerate(futures):
                    tell("came", n, type(future.exception()).__name__)
                try:
                    next(mapped)
                except Drained:
                    tell("mapped")
        """
        with Program(tmp_path, kind, body) as program:
            program.drains(1)
            program.open()
            assert program.ends() == (143, "")
        assert program.told("came") == [["0", "Drained"], ["1", "ValueError"], ["2", "Drained"], ["3", "Drained"]]
        assert program.told("mapped")

    def test_starts_that_wait_for_the_rate(self, tmp_path):
        body = """
            with drain_on():
                for o in abreast.outcomes(task, range(100), max_per_second=2):
                    tell("got" if o.ok else "drained", o.index)
        """
        with Program(tmp_path, "thread", body) as program:
            program.drains(1)
            program.open()
            assert program.ends() == (143, "")
        assert len(program.told("got")) == len(program.told("ended")) < 10
        assert len(program.told("got")) + len(program.told("drained")) == 100


@pytest.mark.whole
class TestAtOnce:
    """A second signal, and the deadline: processes are killed, threads left behind, exit status 143 as well."""

    WHERE = (
        *("result", "map", "outcomes", "group", "sleep"),
        *(
            pytest.param(where, marks=pytest.mark.slow)
            for where in ("exit", "executor.map", "amap", "event in a group", "another thread")
        ),
    )

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("where", WHERE)
    def test_a_second_signal(self, tmp_path, kind, where):
        body = "with drain_on():\n" + textwrap.indent(textwrap.dedent(BODIES[where]), "    ") + "\n"
        if where == "another thread":
            body = body.replace("Thread(target=consume)", "Thread(target=consume, daemon=True)")
        with Program(tmp_path, kind, body) as program:
            program.drains()
            program.send()
            status, _ = program.ends()
        assert status == 143
        assert not program.told("ended")
        if kind == "process":
            assert all_gone(program.pids())

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("where", ["result", "map", "exit", "group", "sleep"])
    def test_the_deadline(self, tmp_path, kind, where):
        body = "with drain_on(deadline=1):\n" + textwrap.indent(textwrap.dedent(BODIES[where]), "    ") + "\n"
        with Program(tmp_path, kind, body) as program:
            program.drains()
            status, said = program.ends()
        assert (status, said) == (143, "")
        assert not program.told("ended")
        if kind == "process":
            assert all_gone(program.pids())

    def test_futures_of_threads_that_are_left_behind(self, tmp_path):
        body = """
            with drain_on(deadline=0.2):
                executor = Pool(1)
                future = executor.submit(task, 1)
                try:
                    abreast.wait([future])
                finally:
                    tell("future", type(future.exception(5)).__name__)
        """
        with Program(tmp_path, "thread", body) as program:
            program.drains(1)
            assert program.ends() == (143, "")
        assert program.told("future") == [["Drained"]]

    def test_a_body_that_will_not_end(self, tmp_path):
        body = """
            abreast.draining.LAST = 0.5
            with drain_on(deadline=0.2):
                tell("began", 0, 0)
                while True:
                    try:
                        time.sleep(1000)
                    except BaseException:
                        pass
        """
        with Program(tmp_path, "thread", "import abreast.draining\n" + textwrap.dedent(body)) as program:
            program.drains(1)
            assert program.ends() == (143, "")


@pytest.mark.whole
class TestTheBody:
    def test_is_not_interrupted_while_it_takes_what_came_of_tasks(self, tmp_path):
        body = """
            with drain_on():
                for o in abreast.outcomes(task, range(4), max_workers=4):
                    time.sleep(0.8)
                    tell("got", o.index)
        """
        with Program(tmp_path, "thread", body) as program:
            program.drains(4)
            program.open()
            assert program.ends() == (143, "")
        assert len(program.told("got")) == 4

    def test_is_not_interrupted_while_it_computes(self, tmp_path):
        body = """
            with drain_on():
                tell("began", 0, 0)
                end = time.monotonic() + 2
                while time.monotonic() < end:
                    pass
                tell("got")
        """
        with Program(tmp_path, "thread", body) as program:
            program.drains(1)
            assert program.ends() == (143, "")
        assert program.told("got")

    def test_is_interrupted_once(self, tmp_path):
        """What it does about that may take longer."""
        body = """
            with drain_on():
                tell("began", 0, 0)
                try:
                    time.sleep(1000)
                finally:
                    tell("cleans", type(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]).__name__)
                    time.sleep(1.5)
                    tell("clean")
        """
        with Program(tmp_path, "thread", body) as program:
            program.drains(1)
            assert program.ends() == (143, "")
        assert program.told("cleans") == [["Drained"]]
        assert program.told("clean")

    @pytest.mark.parametrize(
        ("error", "status"), [("ValueError('its own')", 1), ("SystemExit(7)", 7), ("KeyboardInterrupt", -signal.SIGINT)]
    )
    def test_raises_something_else(self, tmp_path, error, status):
        body = f"""
            with drain_on():
                tell("began", 0, 0)
                while drain.signal is None:
                    time.sleep(0.005)
                raise {error}
        """
        with Program(tmp_path, "thread", body) as program:
            program.read_until("began")
            program.send()
            assert program.ends()[0] == status

    def test_leaves_and_waits_for_what_runs(self, tmp_path):
        """Executors that the body does not end itself."""
        body = """
            executor = Pool(1)
            with drain_on() as drain:
                future = executor.submit(task, 1)
                while drain.signal is None:
                    time.sleep(0.005)
        """
        with Program(tmp_path, "thread", body) as program:
            program.drains(1)
            program.open()
            assert program.ends() == (143, "")
        assert program.told("ended")

    def test_submits_for_ever(self, tmp_path):
        body = """
            with drain_on(), Pool(2, max_pending=4) as executor:
                for n in range(10**9):
                    executor.submit(task, n)
        """
        with Program(tmp_path, "thread", body) as program:
            program.drains()
            program.open()
            assert program.ends() == (143, "")
        assert len(program.told("ended")) == 2


@pytest.mark.whole
class TestWhatRuns:
    @pytest.mark.parametrize("kind", KINDS)
    def test_may_make_pools_and_runs_of_its_own(self, tmp_path, kind):
        body = """
            def outer(n):
                task(n)
                with abreast.ThreadPoolExecutor(1) as executor, abreast.TaskGroup() as group:
                    inner = group.submit(abs, -2)
                    tell("inner", sum(abreast.map(abs, range(5))), executor.submit(abs, -3).result(), inner.result())
            with drain_on():
                for o in abreast.outcomes(outer, range(4), kind=KIND, max_workers=1):
                    assert o.ok or isinstance(o.error, Drained), o.error
                    if o.ok:
                        tell("got", o.index)
        """
        with Program(tmp_path, kind, body) as program:
            program.drains(1)
            program.open()
            assert program.ends() == (143, "")
        assert program.told("inner") == [["10", "3", "2"]]
        assert program.told("got") == [["0"]]

    def test_in_the_thread_that_asks(self, tmp_path):
        body = """
            with drain_on():
                for o in abreast.outcomes(task, range(4), kind="serial"):
                    tell("got" if o.ok else "drained", o.index)
        """
        with Program(tmp_path, "thread", body) as program:
            program.drains(1)
            program.open()
            assert program.ends() == (143, "")
        assert program.told("got") == [["0"]]
        assert len(program.told("drained")) == 3

    @linux
    @pytest.mark.parametrize("context", ["forkserver", "spawn", "fork"])
    def test_goes_on_if_the_signal_goes_to_all_processes(self, tmp_path, context):
        """As systemd sends it. The programs that a task starts are not asked to outlive anything."""
        body = f"""
            import subprocess
            def with_a_child(n):
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
                task(n)
                child.terminate()
                tell("child", child.wait())
            with drain_on(), Pool(2, {context!r}) as executor:
                futures = [executor.submit(with_a_child, n) for n in range(2)]
                for future in futures:
                    future.result()
        """
        with Program(tmp_path, "process", body) as program:
            program.read_until("began", 2)
            family = {program.process.pid, *descendants(program.process.pid)}
            assert len(family) >= 5
            for pid in family - {program.process.pid}:
                if b"time.sleep(1000)" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGTERM)
            program.send()
            program.read_until("draining")
            program.open()
            assert program.ends() == (143, "")
        assert program.told("child") == [["-15"], ["-15"]]
        assert len(program.told("ended")) == 2

    @linux
    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_processes_of_multiprocessing_in_a_group(self, tmp_path, method, again):
        """They finish too; at a second signal they are ended."""
        script = tmp_path / "script.py"
        body = f"""
            import multiprocessing
            if __name__ == "__main__":
                with drain_on(), abreast.TaskGroup(1) as group:
                    for n in range(2):
                        group.start(multiprocessing.get_context({method!r}).Process(target=task, args=(n,)))
        """
        with Program(tmp_path, "process", body, script=script) as program:
            program.drains()
            if again:
                program.send()
            else:
                program.open()
            assert program.ends()[0] == 143
        assert len(program.told("ended")) == (0 if again else 2)
        assert all_gone(program.pids())

    @linux
    def test_a_child_that_was_forked_is_ended_by_it_as_ever(self, tmp_path):
        body = """
            import multiprocessing
            def sleeps():
                tell("began", 0, os.getpid())
                time.sleep(1000)
            with drain_on():
                process = multiprocessing.get_context("fork").Process(target=sleeps)
                process.start()
                tell("waits")
                process.join()
                tell("code", process.exitcode)
                with abreast.TaskGroup() as group:
                    started = multiprocessing.get_context("fork").Event()
                    def computes():
                        started.set()
                        sum(range(10**12))  # C code, where no handler of Python's runs
                    group.start(multiprocessing.get_context("fork").Process(target=computes))
                    started.wait()
                    begun = time.monotonic()
                    group.cancel()
                tell("took", time.monotonic() - begun)
        """
        with Program(tmp_path, "process", body) as program:
            program.read_until("began")
            os.kill(program.pids().pop(), signal.SIGTERM)
            assert program.ends() == (0, "")
        assert program.told("code") == [["-15"]]
        assert float(program.told("took")[0][0]) < 4  # not killed, after 5 s


def descendants(pid):
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return {*children, *(below for child in children for below in descendants(child))}


@pytest.fixture
def alone(monkeypatch):
    """What other tests have made, and keep, is not to be drained."""
    monkeypatch.setattr(draining, "_members", {})


@contextlib.contextmanager
def handlers_kept():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    yield
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before
    assert draining.reason() is None
    assert draining.held_signals() == ()


@pytest.mark.usefixtures("alone")
class TestHere:
    def test_without_a_signal_it_costs_nothing_and_changes_nothing(self):
        threads = threading.active_count()
        with handlers_kept(), abreast.drain_on(signal.SIGTERM, signal.SIGUSR1, deadline=None) as drain:
            assert threading.active_count() == threads
            assert signal.getsignal(signal.SIGUSR1) == drain._handle
            assert abreast.map(abs, [-1, 2]) == [1, 2]
        assert drain.signal is None

    def test_an_error_of_the_body_without_a_signal(self):
        with handlers_kept(), pytest.raises(abreast.Drained), abreast.drain_on(signal.SIGTERM):
            raise abreast.Drained

    def test_who_catches_the_end_can_go_on(self):
        with handlers_kept():
            before = abreast.ThreadPoolExecutor(1)
            with pytest.raises(SystemExit) as caught, abreast.drain_on(signal.SIGUSR1) as drain:
                assert before.submit(pow, 2, 3).result(PATIENCE) == 8
                signal.raise_signal(signal.SIGUSR1)
                assert drain.signal == signal.SIGUSR1
                with pytest.raises(abreast.Drained, match="by SIGUSR1"):
                    abreast.map(abs, [1])
                with pytest.raises(abreast.Drained):
                    abreast.SerialExecutor().submit(abs, 1)
                with pytest.raises(abreast.Drained), abreast.TaskGroup() as group:
                    group.submit(abs, 1)
                with pytest.raises(abreast.Drained), abreast.ThreadPoolExecutor() as executor:
                    executor.submit(abs, 1)
            assert caught.value.code == 128 + signal.SIGUSR1
            with pytest.raises(abreast.Drained):
                before.submit(abs, 1)
            assert abreast.map(abs, [-1]) == [1]

    def test_blocks_in_blocks(self):
        with handlers_kept(), abreast.drain_on(signal.SIGTERM) as outer:
            with pytest.raises(SystemExit), abreast.drain_on(signal.SIGUSR1) as inner:
                signal.raise_signal(signal.SIGUSR1)
            assert signal.getsignal(signal.SIGTERM) == outer._handle
            assert (outer.signal, inner.signal) == (None, signal.SIGUSR1)

    def test_a_batch_that_is_stopped_before_its_first_task_has_no_result(self):
        def no(*_):
            return False

        work = Work(
            abs,
            star=False,
            name="abs",
            fails_fast=False,
            timed=True,
            scope=Scope(),
            heed=no,
            is_over_time=no,
            settle=no,
            give_back=no,
            send_more=no,
            send_plain=no,
        )
        batch = Batch(work, 0, [-1, -2], None, 1, None)
        batch.stopped = True
        told = []
        with abreast.ThreadPoolExecutor(1) as executor:
            executor.submit_call(batch, lambda batch, lost: told.append((batch.results, lost)))
        assert told == [([], None)]

    def test_another_signal_strikes_the_handler(self, monkeypatch):
        """It raises there, between what the handler notes and the start of the thread."""
        begin = draining.begin

        def struck(reason):
            monkeypatch.setattr(draining, "begin", begin)
            signal.raise_signal(signal.SIGINT)

        with handlers_kept(), pytest.raises(KeyboardInterrupt), abreast.drain_on(signal.SIGUSR1) as drain:
            executor = abreast.ThreadPoolExecutor(1)
            monkeypatch.setattr(draining, "begin", struck)
            signal.raise_signal(signal.SIGUSR1)
        assert drain.signal == signal.SIGUSR1
        with pytest.raises(abreast.Drained):
            executor.submit(abs, 1)

    def test_errors_of_a_group_that_are_all_the_drain_s(self):
        with handlers_kept(), pytest.raises(SystemExit), abreast.drain_on(signal.SIGUSR1):
            signal.raise_signal(signal.SIGUSR1)
            raise ExceptionGroup("several", [abreast.Drained(), ExceptionGroup("more", [abreast.Drained()])])
        with handlers_kept(), pytest.raises(ExceptionGroup), abreast.drain_on(signal.SIGUSR1):
            signal.raise_signal(signal.SIGUSR1)
            raise ExceptionGroup("several", [abreast.Drained(), ValueError()])

    def test_callbacks_of_what_did_not_start_run_and_may_block(self):
        gate, called, held = threading.Event(), threading.Event(), threading.Event()
        with handlers_kept(), pytest.raises(SystemExit), abreast.drain_on(signal.SIGUSR1):
            with abreast.ThreadPoolExecutor(1) as executor:
                executor.submit(gate.wait, PATIENCE)
                future = executor.submit(abs, 1)
                future.add_done_callback(lambda _: (called.set(), held.wait(PATIENCE)))
                with abreast.ThreadPoolExecutor(1) as other:
                    other.submit(gate.wait, PATIENCE)
                    waits = other.submit(abs, 1)
                    signal.raise_signal(signal.SIGUSR1)
                    assert called.wait(PATIENCE)
                    assert isinstance(waits.exception(PATIENCE), abreast.Drained)
                    gate.set()
                    held.set()
        assert isinstance(future.exception(0), abreast.Drained)
        assert not future.cancelled()

    def test_outside_of_the_main_thread(self):
        def enter():
            with pytest.raises(ValueError, match="main thread"), abreast.drain_on(signal.SIGTERM):
                pass

        in_threads(enter)

    def test_is_entered_once(self):
        drain = abreast.drain_on(signal.SIGUSR1)
        with drain:
            pass
        with pytest.raises(RuntimeError, match="once"), drain:
            pass

    @pytest.mark.parametrize(
        ("numbers", "more", "error", "text"),
        [
            ((), {}, ValueError, "needs a signal"),
            ((True,), {}, TypeError, "True"),
            (("SIGTERM",), {}, TypeError, "'SIGTERM'"),
            ((12345,), {}, ValueError, "12345"),
            ((signal.SIGKILL,), {}, ValueError, "SIGKILL"),
            ((signal.SIGTERM,), {"deadline": 0}, ValueError, "deadline"),
            ((signal.SIGTERM,), {"deadline": True}, TypeError, "deadline"),
        ],
    )
    def test_wrong_arguments(self, numbers, more, error, text):
        with pytest.raises(error, match=text):
            abreast.drain_on(*numbers, **more)

    def test_members_are_held_weakly(self):
        before = len(draining._members)
        for _ in range(3):
            abreast.map(abs, [1])
            executor = abreast.ThreadPoolExecutor(1)
            list(executor.map(abs, [1]))
            executor.shutdown()
            del executor
        import gc

        gc.collect()
        assert len(draining._members) <= before
