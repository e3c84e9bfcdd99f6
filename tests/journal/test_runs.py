"""Runs with a journal, and all the ways in which they end; inputs and functions that change between them."""

from __future__ import annotations

import collections
import concurrent.futures
import copy
import gc
import itertools
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import types
import warnings

import abreast
import pytest
from abreast import (
    InputChanged, Interrupted, Journal, JournalError, JournalWarning, MemoryLimitExceeded, ProcessPoolExecutor, ResultDecodeError, Retry, TaskPickleError, TaskTimeout, ThreadPoolExecutor, TooManyFailures, WorkerCrashed,
)  # fmt: skip
from abreast.engine import journaled, run as engine
from abreast.journal import schema
from abreast.journal.store import Store

from tests.journal.helpers import PATIENCE, Calls, child, every_way, rows, statuses

pytestmark = pytest.mark.whole

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes run on Linux only so far")
OK, ERROR, TIMEOUT, CRASHED, STARTED = schema.OK, schema.ERROR, schema.TIMEOUT, schema.CRASHED, schema.STARTED
SOON = Retry(2, wait_initial=0.001, wait_max=0.001, wait_jitter=0)


def double(x):
    return 2 * x


def resumed(fn, inputs, path, **options):
    """The results of one more run, and how many of them were recorded."""
    results = abreast.imap(fn, inputs, journal=path, **options)
    return list(results), results.summary().resumed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


# ---- J6: inputs


class TestInputs:
    @every_way
    @pytest.mark.parametrize("kind", ["thread", "serial"])
    def test_every_way_resumes(self, path, way, kind):
        calls, got = Calls(double), []
        way(calls, range(20), got, journal=path, kind=kind)
        assert got == list(range(0, 40, 2)) and sorted(calls.take()) == list(range(20))
        got.clear()
        way(calls, range(25), got, journal=path, kind=kind)
        assert got == list(range(0, 50, 2)) and sorted(calls.take()) == list(range(20, 25))

    @linux
    @pytest.mark.slow
    def test_processes_resume_what_threads_recorded(self, path):
        assert resumed(double, range(20), path) == (list(range(0, 40, 2)), 0)
        assert resumed(double, range(30), path, kind="process", max_workers=1) == (list(range(0, 60, 2)), 20)
        assert resumed(double, range(30), path, kind="serial") == (list(range(0, 60, 2)), 30)

    def test_appended_reordered_and_doubled(self, path):
        calls = Calls(double)
        abreast.map(calls, "abc", journal=path)
        calls.take()
        for inputs, new in [
            ("abcd", "d"),
            ("dcba", ""),
            ("xabycd", "xy"),
            ("aabb", "ab"),
            ("aaa", "a"),
            ("aaaa", "a"),
            ("ba", ""),
            ("", ""),
        ]:
            assert abreast.map(calls, inputs, journal=path) == [2 * x for x in inputs]
            assert sorted(calls.take()) == list(new), inputs

    def test_many_equal_ones(self, path):
        count = 5_000
        calls = Calls(double)
        assert abreast.map(calls, itertools.repeat(1, count), journal=path, max_workers=2) == [2] * count
        assert len(calls.take()) == count
        assert resumed(calls, itertools.repeat(1, count + 5), path) == ([2] * (count + 5), count)
        assert len(calls.take()) == 5

    @pytest.mark.slow
    def test_very_many_equal_ones(self, path):
        assert abreast.map(double, itertools.repeat(1, 100_000), journal=path, max_workers=2) == [2] * 100_000
        assert resumed(double, itertools.repeat(1, 100_000), path) == ([2] * 100_000, 100_000)

    def test_several_iterables(self, path):
        assert abreast.map(pow, [2, 3], [3, 2], journal=path) == [8, 9]
        results = abreast.imap(pow, [3, 2, 2], [2, 3, 4], journal=path, key=lambda a, b: f"{a}/{b}")
        assert list(results) == [9, 8, 16] and results.summary().resumed == 0  # other keys
        results = abreast.imap(pow, [3, 2, 2], [2, 3, 4], journal=path)
        assert list(results) == [9, 8, 16] and results.summary().resumed == 2

    def test_no_input_at_all(self, path):
        assert abreast.map(double, [], journal=path) == [] == abreast.map(double, iter(()), journal=path)

    def test_endless_inputs(self, path):
        for known in (0, 40, 90):
            results = abreast.imap(double, itertools.count(), journal=path)
            assert list(itertools.islice(results, known + 50)) == list(range(0, 2 * known + 100, 2))
            results.close()
            assert results.summary().resumed >= known

    def test_a_result_is_there_before_the_next_input_is(self, path):
        """Also while results are recorded ones: nobody waits for a full group of inputs that come slowly."""
        abreast.map(double, range(50), journal=path)
        gates = [threading.Event() for _ in range(50)]
        late = []

        def inputs():
            for x in range(50):
                late.append(not gates[x].wait(PATIENCE)) if x < 3 else None
                yield x

        gates[0].set()
        results = abreast.imap(double, inputs(), journal=path, buffersize=1)
        for x in range(3):
            if x + 1 < 3:
                gates[x + 1].set()
            assert next(results) == 2 * x
        assert not any(late)
        results.close()


class Opaque:
    """Known by its pickle, which is another one in each process, or each time here."""

    count = itertools.count()

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return (_opaque, (self.name, next(self.count)))


def _opaque(name, _count):
    return Opaque(name)


def name_of(thing):
    return thing.name


class TestKeys:
    def test_unstable_ones_that_change_are_told_once(self, path):
        things = [Opaque(str(n)) for n in range(20)]
        assert abreast.map(name_of, things, journal=path) == [thing.name for thing in things]
        with pytest.warns(InputChanged, match="give key=") as caught:
            assert resumed(name_of, things, path) == ([thing.name for thing in things], 0)
        assert str(path) in str(caught[0].message) and len(caught) == 1
        assert resumed(name_of, things, path, key=name_of) == ([thing.name for thing in things], 0)
        assert resumed(name_of, things[::-1], path, key=name_of) == ([thing.name for thing in things[::-1]], 20)

    def test_unstable_ones_that_do_not_change_are_not(self, path):
        things = [collections.OrderedDict(name=n) for n in range(20)]
        assert resumed(len, things, path)[1] == 0
        assert resumed(len, things, path)[1] == 20
        assert resumed(len, things + [collections.OrderedDict(name="new")], path)[1] == 20

    @every_way
    def test_a_key_function_that_raises(self, path, way):
        def key(x):
            if x == 7:
                raise LookupError("no key")
            return str(x)

        got = []
        with pytest.raises(LookupError, match="no key") as caught:
            way(double, range(20), got, journal=path, key=key)
        assert any("raised by key= for input 7: 7" in note for note in caught.value.__notes__)
        if way.__name__ not in ("by_map", "by_amap"):
            assert got == list(range(0, 14, 2))
        assert resumed(double, range(7), path, key=str) == (list(range(0, 14, 2)), 7)

    @pytest.mark.parametrize("wrong", [None, 3, ("a",), bytearray(b"a")], ids=repr)
    def test_a_key_of_another_class(self, path, wrong):
        results = abreast.imap(double, [1, 2], journal=path, key=lambda x: wrong if x == 2 else "one")
        assert next(results) == 2
        with pytest.raises(TypeError, match="key must return a str or bytes") as caught:
            next(results)
        assert any("input 1" in note for note in caught.value.__notes__)

    @every_way
    def test_an_input_that_cannot_be_identified(self, path, way):
        got = []
        inputs = [1, 2, lambda: 0, 3]
        with pytest.raises(JournalError, match=r"input 2 \(<function .*\) cannot be recognised in a later run: .*; give key="):
            way(Calls(lambda x: x if callable(x) else 2 * x), inputs, got, journal=path)
        if way.__name__ not in ("by_map", "by_amap"):
            assert got == [2, 4]
        assert len(rows(path)) == 2

    def test_key_without_a_journal_is_refused(self):
        with pytest.raises((TypeError, ValueError), match="key"):
            abreast.map(double, [1], key=str)


# ---- J6: functions


def version(space, body):
    """A function that is another one by its body only."""
    exec(f"def fetch(x):\n    CALLS.append(x)\n    return {body}", space)
    return space["fetch"]


class TestChangedFunctions:
    @pytest.fixture
    def both(self):
        self.calls = []
        space = {"CALLS": self.calls, "__name__": "shop"}
        return version(space, "x + 1"), version(space, "x - 1")

    def test_keep_warns_and_runs_the_rest(self, path, both):
        old, new = both
        abreast.map(old, range(5), journal=path)
        with pytest.warns(
            JournalWarning, match=r"shop.fetch has changed .*digest was [0-9a-f]{12}, and is [0-9a-f]{12}.*on_change='rerun'"
        ):
            assert abreast.map(new, range(7), journal=path) == [1, 2, 3, 4, 5, 4, 5]
        assert abreast.map(new, range(7), journal=path) == [1, 2, 3, 4, 5, 4, 5]  # told once

    def test_error(self, path, both):
        old, new = both
        abreast.map(old, range(5), journal=path)
        self.calls.clear()
        with pytest.raises(JournalError, match="has changed .*on_change='rerun' runs all of it again, 'keep' keeps") as caught:
            abreast.map(new, range(5), journal=Journal(path, on_change="error"))
        assert str(path) in str(caught.value) and not self.calls
        assert abreast.map(old, range(5), journal=Journal(path, on_change="error")) == [1, 2, 3, 4, 5]

    def test_error_is_none_where_nothing_has_succeeded(self, path, both):
        old, new = both
        with pytest.raises(TypeError):
            abreast.map(old, [None], journal=path)
        assert abreast.map(new, [1], journal=Journal(path, on_change="error")) == [0]

    def test_rerun(self, path, both):
        old, new = both
        abreast.map(old, range(5), journal=path)
        rerun = Journal(path, on_change="rerun")
        results = abreast.imap(new, range(3), journal=rerun)
        assert list(results) == [-1, 0, 1] and results.summary().resumed == 0
        results = abreast.imap(new, range(5), journal=rerun)
        assert list(results) == [-1, 0, 1, 2, 3] and results.summary().resumed == 3
        results = abreast.imap(old, range(5), journal=rerun)
        assert list(results) == [1, 2, 3, 4, 5] and results.summary().resumed == 0

    def test_rerun_goes_on_where_it_was_broken_off(self, path, both):
        old, new = both
        abreast.map(old, range(9), journal=path)
        rerun = Journal(path, on_change="rerun")
        with abreast.imap(new, range(9), journal=rerun, kind="serial", buffersize=1) as results:
            assert [next(results) for _ in range(4)] == [-1, 0, 1, 2]
        self.calls.clear()
        assert abreast.map(new, range(9), journal=rerun, kind="serial") == list(range(-1, 8))
        assert self.calls == [x for x in range(9) if x >= 9 - len(self.calls)] and 3 <= len(self.calls) <= 5

    @pytest.mark.slow
    def test_killed_amid_a_rerun(self, path, tmp_path):
        script = tmp_path / "shop.py"
        text = """
import abreast, os, signal, sys
def fetch(x):
    return x {op} 1
if __name__ == "__main__":
    results = abreast.imap(fetch, range(30), journal=abreast.Journal(sys.argv[1], on_change="rerun"), kind="serial", buffersize=1)
    for place, result in enumerate(results):
        if place == {stop}:
            os.kill(os.getpid(), signal.SIGKILL)
        print(result)
    print(results.summary().resumed)
"""
        import subprocess

        from tests.helpers import ROOT

        told = []
        for op, stop in [("+", -1), ("-", 10), ("-", 20), ("-", -1)]:
            script.write_text(text.format(op=op, stop=stop))
            done = subprocess.run(
                [sys.executable, script, path],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                timeout=30,
            )
            assert done.returncode == (0 if stop < 0 else -signal.SIGKILL), done.stderr
            told.append(done.stdout.split())
        assert told[0] == [*map(str, range(1, 31)), "0"]
        assert told[3][:-1] == [*map(str, range(-1, 29))] and 20 <= int(told[3][-1]) <= 23


# ---- J9: results


class Values:
    def __init__(self, value):
        self.value = value

    def __call__(self, x):
        return self.value


def test_a_run_amid_the_import_of_the_module_that_its_results_are_from(path, tmp_path):
    """To pickle them the usual way waits for the end of the import, in which the run is waited for."""
    (tmp_path / "job.py").write_text(
        "import abreast, dataclasses, enum, os\n"
        "@dataclasses.dataclass\nclass Page:\n    x: int\n    class Kind(enum.Enum):\n        A = 1\n"
        "def local():\n    class Page: pass\n    return Page\n"
        "def work(x):\n    return (Page(x), Page.Kind.A, work, int) if x else local()()\n"
        "results = abreast.imap(work, range(3), journal=os.environ['RUN'])\n"
        "first, *rest = results\n"
        "assert type(first).__name__ == 'Page' and rest == [(Page(x), Page.Kind.A, work, int) for x in (1, 2)]\n"
        "print(results.summary().resumed)\n"
    )
    program = "import sys; sys.path.insert(0, sys.argv[1]); import job; del sys.modules['job']; import job"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "RUN": str(path)}
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["0", "2"]), done.stderr
    assert "result of input 0" in done.stderr and "job.local.<locals>.Page" in done.stderr


@linux
def test_a_run_in_processes_amid_an_import_is_refused(path):
    spec = types.SimpleNamespace(name="job", _initializing=True)  # as of a module that is being imported
    text = "abreast.map(abs, [-1], journal=path, kind='process', max_workers=1)"
    with pytest.raises(JournalError, match="while job is being imported"):
        exec(compile(text, "job", "exec"), {"abreast": abreast, "path": path, "__spec__": spec})
    assert abreast.map(abs, [-1], journal=path) == [1]


def test_what_cannot_be_kept_is_delivered_told_once_and_run_again(path):
    calls = Calls(lambda x: threading.Lock() if x % 2 else x)
    with pytest.warns(JournalWarning, match=r"the result of input 1 \(1\) cannot be kept .*TypeError.*runs again") as caught:
        results = abreast.map(calls, range(6), journal=path, kind="serial")
    assert len(caught) == 1 and [type(result) is int for result in results] == [True, False] * 3
    assert statuses(path) == dict.fromkeys(range(6), OK)
    calls.take()
    with pytest.warns(JournalWarning):
        abreast.map(calls, range(6), journal=path, kind="serial")
    assert calls.take() == [1, 3, 5]


def test_at_most_once_what_could_not_be_kept_is_told_as_interrupted(path):
    once = Journal(path, at_most_once=True)
    with pytest.warns(JournalWarning, match="reported as Interrupted"):
        abreast.map(lambda x: threading.Lock(), [1], journal=once)
    (outcome,) = abreast.outcomes(lambda x: threading.Lock(), [1], journal=once)
    assert type(outcome.error) is Interrupted and outcome.error.was_done and outcome.resumed


class Odd:
    """A result whose attributes raise."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(name)


def test_a_result_whose_attributes_raise(path):
    assert [type(result) for result in abreast.map(lambda x: Odd(), [1, 2], journal=path)] == [Odd, Odd]
    assert statuses(path) == {0: OK, 1: OK}


class Moved:
    pass


def test_a_result_whose_class_is_gone(path, monkeypatch):
    def make(x):
        return Moved()

    abreast.map(make, [1], journal=path)
    monkeypatch.delattr(sys.modules[__name__], "Moved")
    with pytest.raises(
        JournalError, match=r"the result of input 0 \(1\), recorded in .*, cannot be read in this program: AttributeError"
    ):
        abreast.map(make, [1], journal=path)
    (outcome,) = abreast.outcomes(make, [1], journal=path)
    assert type(outcome.error) is JournalError and outcome.resumed and type(outcome.error.__cause__) is AttributeError


# ---- errors, retries, limits


def by_number(x):
    if x % 3 == 1:
        raise ValueError(f"no {x}")
    return x


class TestErrors:
    def test_they_are_recorded_and_run_again(self, path):
        outcomes = list(abreast.outcomes(by_number, range(6), journal=path))
        assert [outcome.ok for outcome in outcomes] == [True, False, True] * 2
        assert statuses(path) == {0: OK, 1: ERROR, 2: OK, 3: OK, 4: ERROR, 5: OK}
        (kind, text), *_ = [row[1:] for row in rows(path, "status, err_type, err_text") if row[0] == ERROR]
        assert kind == "ValueError" and "no 1" in text and "Traceback" in text and "by_number" in text
        calls = Calls(by_number)
        results = abreast.outcomes(by_number, range(6), journal=path)
        assert [outcome.resumed for outcome in results] == [True, False, True] * 2
        summary = results.summary()
        assert (summary.resumed, summary.tasks, summary.failures) == (4, 2, 2) and not calls.seen

    @every_way
    def test_an_error_that_ends_a_run_is_recorded(self, path, way):
        with pytest.raises(ValueError, match="no 1"):
            way(by_number, [0, 1, 2, 3], [], journal=path, chunksize=2)
        assert statuses(path)[0] == OK and statuses(path)[1] == ERROR

    def test_attempts_count_on(self, path):
        def fails(x):
            raise ValueError

        for attempts in (3, 6, 9):
            (outcome,) = abreast.outcomes(fails, [1], journal=path, retries=SOON)
            assert outcome.attempts == 3 and rows(path, "status, attempts") == [(ERROR, attempts)]
        (outcome,) = abreast.outcomes(fails, [1], journal=Journal(path, at_most_once=True), retries=SOON)
        assert rows(path, "status, attempts") == [(ERROR, 12)]

    def test_an_attempt_that_is_tried_again_is_not_recorded_by_itself(self, path):
        tries = collections.Counter()
        seen = []

        def flaky(x):
            tries[x] += 1
            seen.extend(rows(path, "idx, status") if tries[x] > 1 else [])
            if tries[x] < 3:
                raise ConnectionError
            return x

        assert abreast.map(flaky, [7], journal=path, retries=SOON) == [7]
        assert not seen and rows(path, "status, attempts") == [(OK, 3)]
        results = abreast.outcomes(flaky, [7], journal=path)
        (outcome,) = results
        assert (outcome.resumed, outcome.attempts) == (True, 3)

    def test_a_task_over_its_limit(self, path):
        gate = threading.Event()
        try:
            (outcome,) = abreast.outcomes(lambda x: gate.wait(PATIENCE), [1], journal=path, task_timeout=0.05)
            assert type(outcome.error) is TaskTimeout and statuses(path) == {0: TIMEOUT}
        finally:
            gate.set()

    @linux
    def test_a_worker_that_dies(self, path):
        outcomes = list(abreast.outcomes(dies_at_3, range(6), journal=path, kind="process", max_workers=1))
        assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 3 + [WorkerCrashed] + [type(None)] * 2
        assert statuses(path) == {0: OK, 1: OK, 2: OK, 3: CRASHED, 4: OK, 5: OK}
        assert resumed(dies_at_3, [0, 1, 2, 4, 5], path, kind="process") == ([0, 1, 2, 4, 5], 5)

    @linux
    @pytest.mark.parametrize("ordered", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_a_result_that_cannot_be_unpickled(self, path, ordered):
        with pytest.raises(ResultDecodeError, match="ZeroDivisionError: amid unpickling"):
            list(abreast.imap(unreadable_at_3, range(6), journal=path, kind="process", max_workers=1, ordered=ordered))
        assert statuses(path)[3] == ERROR
        outcomes = list(abreast.outcomes(unreadable_at_3, range(6), journal=path, kind="process", max_workers=1))
        assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 3 + [ResultDecodeError] + [type(None)] * 2
        assert [status for _, status in sorted(statuses(path).items())] == [OK] * 3 + [ERROR] + [OK] * 2

    def test_errors_whose_text_raises_or_is_no_text(self, path):
        class Mute(Exception):
            def __str__(self):
                raise ZeroDivisionError

        def fails(x):
            raise Mute if x else ValueError("\ud800")

        outcomes = list(abreast.outcomes(fails, [0, 1], journal=path))
        assert [type(outcome.error) for outcome in outcomes] == [ValueError, Mute]
        assert statuses(path) == {0: ERROR, 1: ERROR}

    def test_max_failures(self, path):
        got = []
        with pytest.raises(TooManyFailures):
            for outcome in abreast.outcomes(by_number, range(100), journal=path, max_failures=2, kind="serial"):
                got.append(outcome)
        assert len(got) == 100 and [outcome.index for outcome in got] == list(range(100))
        told = {outcome.index: OK if outcome.ok else ERROR for outcome in got if not outcome.cancelled}
        assert told == statuses(path) and collections.Counter(told.values())[ERROR] == 3

    @pytest.mark.parametrize("ordered", [True, False])
    def test_the_time_of_a_run_is_up(self, path, ordered):
        """Everything that has been done is delivered, in order, and what has not comes as cancelled and leaves no trace."""
        gate = threading.Event()

        def waits(x):
            if x == 30:
                gate.wait(PATIENCE)
            return x

        try:
            outcomes = list(abreast.outcomes(waits, range(60), journal=path, timeout=1, max_workers=1, ordered=ordered))
        finally:
            gate.set()
        assert sorted(outcome.index for outcome in outcomes) == list(range(60))
        assert not ordered or [outcome.index for outcome in outcomes] == list(range(60))
        done = {outcome.index for outcome in outcomes if outcome.ok}
        assert done == set(range(30)) == set(statuses(path))
        assert resumed(waits, range(30), path) == (list(range(30)), 30)

    def test_the_time_is_up_while_the_writer_is_behind(self, path, monkeypatch):
        """What had been done then is waited for, recorded, and delivered: before those that come as cancelled."""
        write, gate = Store.write, threading.Event()
        monkeypatch.setattr(Store, "write", lambda self, batch: (gate.wait(PATIENCE), write(self, batch))[1])
        tell = engine.Run._recorded

        def late(self, pieces):
            time.sleep(0.02)  # between the commit and the delivery; who waits for the one must wait for the other
            tell(self, pieces)

        monkeypatch.setattr(engine.Run, "_recorded", late)
        end_rest = engine.Run._end_rest

        def ends(self, handles):
            gate.set()
            end_rest(self, handles)

        monkeypatch.setattr(engine.Run, "_end_rest", ends)
        outcomes = list(abreast.outcomes(double, range(10), journal=path, timeout=0.1, max_workers=1))
        assert [outcome.index for outcome in outcomes] == list(range(10))
        done = [outcome for outcome in outcomes if not outcome.cancelled]
        assert done == outcomes[: len(done)] and [outcome.value for outcome in done] == list(range(0, 2 * len(done), 2))
        assert done and statuses(path) == dict.fromkeys(range(len(done)), OK)


def dies_at_3(x):
    if x == 3:
        os._exit(5)
    return x


def unreadable_at_3(x):
    return Unreadable() if x == 3 else x


def _amid_unpickling():
    raise ZeroDivisionError("amid unpickling")


class Unreadable:
    def __reduce__(self):
        return _amid_unpickling, ()


# ---- other ends


class TestEnds:
    @pytest.mark.parametrize("end", ["close", "drop", "with"])
    def test_what_was_done_and_not_delivered_is_recorded(self, path, end):
        done = threading.Event()

        def work(x):
            if x == 7:
                done.set()
            return x

        results = abreast.imap(work, range(8), journal=path, max_workers=1, chunksize=8)
        if end == "with":
            with results:
                next(results)
                assert done.wait(PATIENCE)
        else:
            next(results)
            assert done.wait(PATIENCE)
            results.close() if end == "close" else None
        del results
        gc.collect()
        assert set(statuses(path)) >= set(range(7)) and resumed(work, range(7), path) == (list(range(7)), 7)

    def test_a_long_batch_is_recorded_while_it_is_at_work(self, path):
        """Killed amid a batch of 1,000: what was done a moment before is recorded."""
        script = """
            import abreast, sys, threading
            def work(x):
                if x == 500:
                    print("there", flush=True)
                    threading.Event().wait()
                return x
            abreast.map(work, range(1000), journal=sys.argv[1], chunksize=1000, max_workers=1)
        """
        with child(script, path) as process:
            assert process.stdout.readline() == "there\n"
            deadline = time.monotonic() + PATIENCE
            connection = sqlite3.connect(path)
            while connection.execute("SELECT count(*) FROM tasks").fetchone()[0] < 500:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            connection.close()
            process.kill()
        assert set(statuses(path)) == set(range(500))

    def test_ctrl_c(self, path):
        script = """
            import abreast, os, signal, sys, threading
            def work(x):
                if x == 20:
                    os.kill(os.getpid(), signal.SIGINT)
                    threading.Event().wait(10)
                return x
            try:
                abreast.map(work, range(100), journal=sys.argv[1], max_workers=1, chunksize=50)
            except KeyboardInterrupt:
                print("struck", flush=True)
                abreast.map(work, range(20), journal=sys.argv[1])  # at once: it is free
                os._exit(0)
        """
        with child(script, path) as process:
            assert process.communicate(timeout=30)[0] == "struck\n" and process.returncode == 0
        assert set(statuses(path)) == set(range(20))

    def test_the_program_ends_with_a_run_that_nobody_closed(self, path):
        script = """
            import abreast, sys
            def work(x):
                return x
            results = abreast.imap(work, range(100_000), journal=sys.argv[1])
            print(next(results))
        """
        with child(script, path, stderr=-1) as process:
            assert process.communicate(timeout=20) == ("0\n", "") and process.returncode == 0
        assert 0 in statuses(path)

    @pytest.mark.parametrize("kind", ["thread", pytest.param("process", marks=[linux, pytest.mark.slow])])
    def test_drained_amid_a_batch(self, path, kind, tmp_path):
        """F45: every task has one outcome, and the journal says the same."""
        script = """
            import abreast, json, os, signal, sys, threading, time
            from abreast.core import draining
            path, gate, kind = sys.argv[1:]
            def has_been_told(member):
                if hasattr(member, "is_drained"):
                    return member.is_drained and not member.core.pending
                if hasattr(member, "exit_posted"):
                    return member.drained and not member.asides
                return getattr(member, "_drained", True)
            def work(x):
                if x == 20:
                    os.kill(int(os.environ["ITS_PARENT"]), signal.SIGTERM)
                    while not os.path.exists(gate):
                        time.sleep(0.005)
                return x
            if __name__ == "__main__":
                os.environ["ITS_PARENT"] = str(os.getpid())
                try:
                    with abreast.drain_on(signal.SIGTERM) as drain:
                        told = []
                        def watch():  # until the run has been told: then what runs may finish
                            looks = 0
                            while looks < 10:
                                looks = looks + 1 if drain.signal is not None and all(map(has_been_told, draining._all())) else 0
                                time.sleep(0.002)
                            open(gate, "w").close()
                        threading.Thread(target=watch, daemon=True).start()
                        for outcome in abreast.outcomes(work, range(100), journal=path, max_workers=1, chunksize=50, kind=kind):
                            told.append((outcome.index, outcome.ok))
                finally:
                    print(json.dumps(told), flush=True)
        """
        import json
        import subprocess
        import textwrap

        from tests.helpers import ROOT

        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(script))
        done = subprocess.run(
            [sys.executable, file, path, tmp_path / "gate", kind],
            capture_output=True,
            text=True,
            timeout=40,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        told = json.loads(done.stdout.splitlines()[-1])
        assert [index for index, _ in told] == list(range(100)), done.stderr
        ok = {index for index, is_ok in told if is_ok}
        assert ok == set(range(21)) == set(statuses(path)) and set(statuses(path).values()) == {OK}

    @pytest.mark.parametrize(
        "kind, ordered", [("thread", True), ("thread", False), pytest.param("process", True, marks=[linux, pytest.mark.slow])]
    )
    def test_the_time_box_ends_inside_batches(self, path, kind, ordered):
        """Tiny tasks and one that takes long among them: what stands behind it is handed back, and goes out once."""
        results = abreast.imap(slow_at_times, range(3000), journal=path, kind=kind, max_workers=2, ordered=ordered)
        got = list(results)
        assert (got if ordered else sorted(got)) == list(range(3000))
        assert results.summary().tasks == 3000 and len(rows(path)) == 3000
        results = abreast.imap(slow_at_times, range(3000), journal=path)
        assert list(results) == list(range(3000)) and results.summary().resumed == 3000

    def test_tasks_lost_by_an_executor(self, path):
        executor = concurrent.futures.ThreadPoolExecutor(1)
        gate = threading.Event()

        def work(x):
            if x == 3:
                executor.shutdown(wait=False, cancel_futures=True)
                gate.set()
            return x

        outcomes, error = [], None
        try:
            for outcome in abreast.outcomes(work, range(20), journal=path, executor=executor, chunksize=2):
                outcomes.append(outcome)
        except RuntimeError as why:
            error = why
        ok = {outcome.index for outcome in outcomes if outcome.ok}
        assert ok == set(statuses(path)) >= {0, 1, 2, 3}, error
        executor.shutdown()

    def test_a_foreign_executor(self, path):
        with concurrent.futures.ThreadPoolExecutor(2) as executor:
            assert resumed(double, range(50), path, executor=executor) == (list(range(0, 100, 2)), 0)
            assert resumed(double, range(60), path, executor=executor) == (list(range(0, 120, 2)), 50)


def slow_at_times(x):
    if x % 500 == 250:
        time.sleep(0.02)
    return x


class TestBackpressure:
    def test_a_writer_that_is_stopped_holds_up_the_tasks_and_goes_on(self, path, monkeypatch):
        monkeypatch.setattr(engine, "_BEHIND", 500)
        write, gate, stopped = Store.write, threading.Event(), threading.Event()

        def waits(self, batch):
            stopped.set()
            assert gate.wait(PATIENCE)
            write(self, batch)

        monkeypatch.setattr(Store, "write", waits)
        count = [0]
        lock = threading.Lock()

        def work(x):
            with lock:
                count[0] += 1
            return x

        total = 6_000
        got = []
        consumer = threading.Thread(
            target=lambda: got.extend(abreast.map(work, range(total), journal=path, max_workers=2, chunksize=20))
        )
        consumer.start()
        try:
            assert stopped.wait(PATIENCE)
            last, quiet = -1, 0
            deadline = time.monotonic() + PATIENCE
            while quiet < 10:  # until no task has been started for a while
                assert time.monotonic() < deadline
                time.sleep(0.02)
                quiet = quiet + 1 if count[0] == last else 0
                last = count[0]
            assert 500 <= count[0] <= 500 + 20 * 2 * 64 and not got  # and what had been sent ahead
        finally:
            gate.set()
            consumer.join(PATIENCE)
        assert got == list(range(total)) and len(rows(path)) == total

    def test_the_same_for_map_where_nobody_takes_results(self, path, monkeypatch):
        monkeypatch.setattr(engine, "_BEHIND", 100)
        write = Store.write
        monkeypatch.setattr(Store, "write", lambda self, batch: (time.sleep(0.002), write(self, batch))[1])
        assert abreast.map(double, range(2000), journal=path, max_workers=2) == list(range(0, 4000, 2))

    def test_a_slow_consumer(self, path):
        calls = Calls(double)
        results = abreast.imap(calls, range(200), journal=path, buffersize=5, max_workers=2)
        for place, result in enumerate(results):
            assert result == 2 * place
            assert len(calls.seen) <= place + 8
        assert len(rows(path)) == 200


# ---- at_most_once


class TestAtMostOnce:
    @pytest.mark.parametrize("kind", ["thread", "serial", pytest.param("process", marks=[linux, pytest.mark.slow])])
    def test_a_complete_run(self, path, kind):
        once = Journal(path, at_most_once=True)
        assert abreast.map(double, range(100), journal=once, kind=kind) == list(range(0, 200, 2))
        assert set(statuses(path).values()) == {OK}
        assert resumed(double, range(100), once, kind=kind) == (list(range(0, 200, 2)), 100)

    @pytest.mark.parametrize("kind", ["thread", pytest.param("process", marks=[linux, pytest.mark.slow])])
    def test_what_was_under_way_is_told(self, path, tmp_path, kind):
        script = """
            import abreast, os, signal, sys, time
            def pay(x):
                with open(sys.argv[2], "a") as file:
                    file.write(f"{x}\\n")
                if x == 12:
                    os.kill(int(os.environ["ITS_PARENT"]), signal.SIGKILL)
                    time.sleep(10)
                return x
            os.environ["ITS_PARENT"] = str(os.getpid())
            abreast.map(pay, range(40), journal=abreast.Journal(sys.argv[1], at_most_once=True), max_workers=2, kind=sys.argv[3])
        """
        with child(script, path, tmp_path / "paid", kind) as process:
            process.wait(30)
        before = {int(line) for line in (tmp_path / "paid").read_text().split()}
        recorded = statuses(path)
        assert before <= set(recorded) and recorded[12] == STARTED

        def pay(x):
            paid.append(x)
            return x

        paid = []
        pay.__qualname__ = "pay"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JournalWarning)  # it is another pay
            outcomes = list(abreast.outcomes(pay, range(40), journal=Journal(path, at_most_once=True)))
        assert not set(paid) & set(recorded) and set(paid) == set(range(40)) - set(recorded)
        interrupted = {outcome.index for outcome in outcomes if outcome.error is not None}
        assert all(type(outcomes[x].error) is Interrupted and outcomes[x].resumed for x in interrupted)
        assert interrupted == {x for x, status in recorded.items() if status == STARTED}
        with pytest.raises(Interrupted, match="was started .*what came of it is not known"):
            abreast.map(pay, range(40), journal=Journal(path, at_most_once=True))
        paid.clear()
        assert abreast.map(pay, range(40), journal=path) == list(range(40)) and set(paid) == interrupted

    def test_started_is_committed_before_the_task_starts(self, path):
        seen = []

        def pay(x):
            seen.append((x, statuses(path).get(x)))
            return x

        abreast.map(pay, range(30), journal=Journal(path, at_most_once=True), max_workers=2)
        assert sorted(seen) == [(x, STARTED) for x in range(30)]

    def test_it_cannot_be_recorded_that_they_start(self, path, monkeypatch):
        write = Store.write

        def fails(self, batch):
            if any(row.status == STARTED and row.place >= 10 for row in batch):
                raise JournalError("the disk is full")
            write(self, batch)

        monkeypatch.setattr(Store, "write", fails)
        calls = Calls(double)
        with pytest.raises(JournalError, match="full"):
            abreast.map(calls, range(30), journal=Journal(path, at_most_once=True), chunksize=5, max_workers=1)
        assert set(calls.seen) <= set(range(10))

    def test_tried_again_it_is_started_once_more(self, path):
        tries = collections.Counter()

        def flaky(x):
            tries[x] += 1
            if tries[x] < 2:
                raise ConnectionError
            return x

        once = Journal(path, at_most_once=True)
        assert abreast.map(flaky, range(9), journal=once, retries=SOON, max_workers=2) == list(range(9))
        assert set(statuses(path).values()) == {OK} and set(tries.values()) == {2}

    def test_one_over_its_limit_may_have_done_its_work(self, path):
        gate, once = threading.Event(), Journal(path, at_most_once=True)
        try:
            (outcome,) = abreast.outcomes(lambda x: gate.wait(PATIENCE), [1], journal=once, task_timeout=0.05)
            assert type(outcome.error) is TaskTimeout and statuses(path) == {0: TIMEOUT}
        finally:
            gate.set()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JournalWarning)  # another lambda
            (outcome,) = abreast.outcomes(lambda x: pytest.fail("started again"), [1], journal=once)
            assert type(outcome.error) is Interrupted and outcome.resumed
            assert abreast.map(lambda x: 2 * x, [1], journal=path) == [2]

    def test_a_process_that_was_killed_for_its_memory_is_no_error_of_the_tasks_own(self):
        assert journaled._is_crash(MemoryLimitExceeded()) and not journaled._is_crash(MemoryError())

    @linux
    def test_so_may_one_whose_process_died_or_whose_result_was_lost(self, path, tmp_path):
        once, paid = Journal(path, at_most_once=True), tmp_path / "paid"

        def pay(x):
            with open(paid, "a") as file:
                file.write(f"{x}\n")
            if x == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if x == 4:
                raise ValueError("no money")
            return {2: Unreadable(), 3: threading.Lock()}.get(x, x)

        outcomes = list(abreast.outcomes(pay, range(6), journal=once, kind="process", max_workers=1))
        errors = {outcome.index: type(outcome.error) for outcome in outcomes if not outcome.ok}
        assert errors == {1: WorkerCrashed, 2: ResultDecodeError, 3: TaskPickleError, 4: ValueError}
        assert statuses(path) == {0: OK, 1: CRASHED, 2: STARTED, 3: STARTED, 4: ERROR, 5: OK}
        again = list(abreast.outcomes(pay, range(6), journal=once, kind="serial"))
        assert [outcome.index for outcome in again if type(outcome.error) is Interrupted] == [1, 2, 3]
        assert collections.Counter(paid.read_text().split()) == {**dict.fromkeys("01235", 1), "4": 2}

    @linux
    def test_processes_that_do_not_tell_of_each_task_are_refused(self, path):
        once = Journal(path, at_most_once=True)
        with ProcessPoolExecutor(1) as executor:
            with pytest.raises(ValueError, match="flush='each'"):
                abreast.map(double, [1], journal=once, executor=executor)
            with pytest.raises(ValueError, match="flush='each'"):
                executor.imap(double, [1], journal=once)
        assert not path.exists()
        with ProcessPoolExecutor(1, flush="each") as executor:
            assert abreast.map(double, [1], journal=once, executor=executor) == [2]

    @pytest.mark.slow
    def test_the_standard_librarys_processes_too(self, path):
        once = Journal(path, at_most_once=True)
        context = __import__("multiprocessing").get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as executor:
            for chunks in ({}, {"chunksize": 2}):
                with pytest.raises(ValueError, match="to know of each task that it has ended: give chunksize=1"):
                    abreast.map(double, [1], journal=once, executor=executor, **chunks)
            assert abreast.map(double, [1, 2], journal=once, executor=executor, chunksize=1) == [2, 4]
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            assert abreast.map(double, [1, 3], journal=once, executor=executor) == [2, 6]


def test_the_option_can_be_copied_and_sent_to_another_process(path):
    journal = Journal(path, durability="power", at_most_once=True, check=False)
    for other in (copy.copy(journal), copy.deepcopy(journal), pickle.loads(pickle.dumps(journal))):
        assert other == journal and repr(other) == repr(journal) and abreast.map(double, [1], journal=other) == [2]


def test_a_run_that_cannot_begin_leaves_the_journal_free(path, monkeypatch):
    class Broken(Exception):
        pass

    def cannot(*args, **kwargs):
        raise Broken

    monkeypatch.setattr("abreast.functions.open_pool", cannot)
    with pytest.raises(Broken):
        abreast.map(double, [1], journal=path)
    with pytest.raises(Broken):
        next(abreast.imap(double, [1], journal=path))
    monkeypatch.undo()
    real = threading.Thread.start

    def start(self):
        if self.name.endswith("-journal"):
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="new thread"):
        abreast.map(double, [1], journal=path)
    monkeypatch.undo()
    assert abreast.map(double, [1], journal=path) == [2]


def test_warnings_that_are_errors_end_the_run_before_anything_runs(path):
    space = {"CALLS": [], "__name__": "shop"}
    abreast.map(version(space, "x"), [1], journal=path)
    changed = version(space, "-x")
    space["CALLS"].clear()
    with pytest.raises(JournalWarning):  # pytest has all of them raised
        abreast.map(changed, [2], journal=path)
    assert not space["CALLS"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert abreast.map(changed, [2], journal=path) == [-2]


def test_something_unforeseen_in_the_writer_ends_the_run(path, monkeypatch):
    for where in ("_take_group", "_row_of"):
        with monkeypatch.context() as patch:
            real = getattr(journaled.Journaling, where)
            struck = []

            def strike(self, *args):
                if not struck:
                    struck.append(1)
                    if where == "_take_group":
                        real(self, *args)
                    raise ZeroDivisionError("a bug")
                return real(self, *args)

            patch.setattr(journaled.Journaling, where, strike)
            with pytest.raises(JournalError, match="cannot be written: ZeroDivisionError"):
                abreast.map(double, range(9), journal=path)
    assert abreast.map(double, range(9), journal=path) == list(range(0, 18, 2))
