"""`abreast.compare`: real functions with known behaviour, on real threads and processes; and figures on a clock that the test moves."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import types

import abreast
import pytest
from abreast import comparison as module
from abreast.comparison import Comparison, _Measuring, _Way
from rich.console import Console

from tests.helpers import FREE_THREADED

pytestmark = pytest.mark.whole

on_linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes run on Linux")


@pytest.fixture(autouse=True)
def collections(monkeypatch):
    """The garbage of pytest and its plugins is not collected before each run: 20 ms. The number of times that it would have been."""
    seen = []
    monkeypatch.setattr(module, "gc", types.SimpleNamespace(collect=lambda: seen.append(1)))
    return seen


def nap(number):
    time.sleep(0.02)
    return number * number


def add_up(count):
    total = 0
    for number in range(count):
        total += number * number % 7
    return total


pid = lambda _: os.getpid()  # noqa: E731  # sent as it is: a function would make the worker import this file, and pytest with it


def row_of(comparison, kind, workers):
    return next(row for row in comparison.rows if (row.kind, row.max_workers) == (kind, workers))


class TestRealFunctions:
    def test_what_waits_is_n_times_as_fast_on_n_threads(self):
        comparison = abreast.compare(nap, range(12), kinds="thread", max_workers=[2, 4], rounds=5)
        assert [(row.kind, row.max_workers, len(row.seconds)) for row in comparison.rows] == [
            ("serial", 1, 5),
            ("thread", 2, 5),
            ("thread", 4, 5),
        ]
        assert comparison.agrees
        for row in comparison.rows:  # what no machine can be too fast for
            assert min(row.seconds) >= 12 * 0.02 / row.max_workers
        assert 1.2 < row_of(comparison, "thread", 2).speed_up < 3  # twice, and room for a busy machine
        assert 2 < row_of(comparison, "thread", 4).speed_up < 6
        assert comparison.best is row_of(comparison, "thread", 4)
        assert comparison.best.efficiency == pytest.approx(comparison.best.speed_up / 4)
        assert comparison.advice.startswith('Use kind="thread", max_workers=4')

    @pytest.mark.skipif(FREE_THREADED, reason="there it does")
    def test_what_computes_gains_nothing_on_threads(self):
        for _ in range(5):  # on a busy machine two threads may get more of it than one
            comparison = abreast.compare(add_up, [60_000] * 4, kinds=["thread"], max_workers=2, rounds=3)
            assert comparison.agrees
            if comparison.rows[1].speed_up < 1.3:
                break
        else:
            pytest.fail(str(comparison))

    @on_linux
    def test_all_kinds_by_default_and_what_differs_in_one_is_told(self):
        comparison = abreast.compare(pid, range(4), max_workers=2, rounds=1)
        assert [row.kind for row in comparison.rows] == ["serial", "thread", "process"]
        process = comparison.rows[2]
        assert process.differences == 4
        index, given, expected, got = process.first_difference
        assert (index, given, expected) == (0, 0, os.getpid())
        assert got != os.getpid()
        assert not comparison.agrees
        assert comparison.best.kind != "process"
        text = " ".join(str(comparison).split())
        assert "DIFFERS" in text
        assert "! 2 processes: OTHER RESULTS than one after another, 4 of 4 differ, the first for input 0 (0):" in text
        assert process.start_up > 0

    @on_linux
    def test_a_kind_that_fails_is_shown_and_the_others_go_on(self):
        comparison = abreast.compare(lambda number: (n for n in range(number)), range(3), max_workers=[1, 2], rounds=2)
        failed = [row for row in comparison.rows if row.kind == "process"]
        assert [type(row.error) for row in failed] == [abreast.TaskPickleError] * 2
        assert [(row.median, row.speed_up, row.efficiency) for row in failed] == [(None, None, None)] * 2
        assert [len(row.seconds) for row in comparison.rows] == [2, 2, 2, 0, 0]
        assert not comparison.agrees
        assert "failed" in str(comparison)
        assert comparison.rows[1].incomparable == 3  # generators
        assert "TaskPickleError" in comparison.to_dict()["rows"][3]["error"]

    def test_a_way_that_fails_later_keeps_its_error_and_the_others_go_on(self):
        main = threading.main_thread()
        times = iter(range(100))

        def fails(number):
            if threading.current_thread() is not main and next(times) >= 4:
                raise KeyError(number)
            return number

        comparison = abreast.compare(fails, range(2), kinds="thread", max_workers=[1, 2], rounds=2)
        assert [len(row.seconds) for row in comparison.rows] == [2, 1, 0]
        assert all(isinstance(row.error, KeyError) for row in comparison.rows[1:])
        assert "input" in comparison.rows[2].error.__notes__[0]

    def test_an_error_of_the_serial_run_is_raised_with_its_input(self):
        with pytest.raises(ZeroDivisionError) as caught:
            abreast.compare(lambda number: 1 / number, [1, 2, 0], kinds="thread")
        assert "input 2" in caught.value.__notes__[0]

    def test_a_function_that_never_gives_the_same_is_told(self):
        comparison = abreast.compare(lambda _: random.random(), range(3), kinds="thread", max_workers=2, rounds=2)
        assert comparison.rows[0].differences == 3
        assert "does not give the same results twice" in str(comparison)
        assert not comparison.agrees
        assert comparison.best  # the times are true all the same

    def test_an_equal_of_the_users(self):
        seen = []

        def close(one, other):
            seen.append((one, other))
            return abs(one - other) < 1

        comparison = abreast.compare(
            lambda n: n + random.random() / 2, range(3), kinds="thread", max_workers=2, rounds=1, equal=close
        )
        assert comparison.agrees
        assert len(seen) == 3
        with pytest.raises(OSError, match="mine"):
            abreast.compare(abs, [1], kinds="thread", equal=lambda one, other: (_ for _ in ()).throw(OSError("mine")))

    def test_a_timeout_is_that_of_one_run(self):
        main = threading.main_thread()
        forever = threading.Event()

        def hangs(number):
            if threading.current_thread() is not main:
                forever.wait(20)
            return number

        comparison = abreast.compare(hangs, [1, 2], kinds="thread", max_workers=2, timeout=0.2)
        forever.set()
        assert isinstance(comparison.rows[1].error, TimeoutError)
        with pytest.raises(TimeoutError):
            abreast.compare(nap, range(100), kinds="thread", timeout=0.05)

    def test_several_iterables_read_once_the_shortest_ends(self):
        comparison = abreast.compare(pow, iter([2, 3, 4]), iter([5, 2]), kinds="thread", max_workers=2, rounds=2)
        assert comparison.to_dict()["inputs"] == 2
        assert comparison.agrees

    def test_cancelling_the_group_around_it_is_not_an_error_of_a_way(self):
        entered = threading.Event()

        def enter(number):
            entered.set()
            abreast.sleep(20)

        with abreast.TaskGroup() as group:
            task = group.submit(abreast.compare, enter, [1], kinds="thread")
            entered.wait(20)
            group.cancel()
        assert task.cancelled() or isinstance(task.exception(), abreast.CancelledError)


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"rounds": 0}, ValueError, "rounds must be greater than 0, not 0"),
            ({"rounds": True}, TypeError, "rounds must be an integer"),
            ({"max_workers": 0}, ValueError, "max_workers must be greater than 0, not 0"),
            ({"max_workers": [1, True]}, TypeError, "max_workers must be an integer, several of them, or None, not True"),
            ({"max_workers": []}, ValueError, "max_workers must have at least one number"),
            ({"max_workers": "2"}, TypeError, "max_workers must be an integer, several of them, or None, not '2'"),
            ({"kinds": "threads"}, ValueError, "kinds must be of 'thread', 'process', 'serial', not 'threads'"),
            ({"kinds": ["thread", 1]}, ValueError, "not 1"),
            ({"kinds": 1}, TypeError, "kinds must be a kind, several of them, or None, not 1"),
            ({"timeout": 0}, ValueError, "timeout must be greater than 0 seconds"),
            ({"chunksize": 0}, ValueError, "chunksize must be greater than 0"),
            ({"equal": 1}, TypeError, "equal must be callable"),
            ({"progress": 1}, TypeError, "progress must be"),
        ],
        ids=range(13),
    )
    def test_wrong_ones_fail_before_anything_is_read_or_run(self, options, error, text):
        def inputs():
            raise AssertionError
            yield

        with pytest.raises(error, match=text):
            abreast.compare(abs, inputs(), **options)

    def test_the_function_and_the_inputs(self):
        async def coroutine(number):
            return number

        with pytest.raises(TypeError, match="fn must be callable"):
            abreast.compare(3, [1])
        with pytest.raises(TypeError, match="fn must not be a coroutine function"):
            abreast.compare(coroutine, [1])
        with pytest.raises(TypeError, match="at least one iterable"):
            abreast.compare(abs)
        with pytest.raises(ValueError, match="at least one input"):
            abreast.compare(abs, [])

    def test_never_more_workers_than_inputs(self):
        comparison = abreast.compare(abs, [1, 2, 3], kinds="thread", max_workers=[8, 2, 4, 2], rounds=1)
        assert [row.max_workers for row in comparison.rows] == [1, 2, 3]
        assert "Never more workers than inputs: 4, 8 would be 3." in " ".join(str(comparison).split())

    @pytest.mark.parametrize(("most", "tried"), [(1, [1]), (2, [2]), (6, [2, 4, 6]), (8, [2, 4, 8]), (32, [2, 4, 8, 16, 32])])
    def test_numbers_by_default(self, monkeypatch, most, tried):
        monkeypatch.setattr(module, "default_workers", lambda kind: most)
        assert module._workers("thread", None, 100, []) == tried

    def test_what_the_platform_cannot_is_left_out_or_refused(self, monkeypatch):
        monkeypatch.setattr("sys.platform", "darwin")
        comparison = abreast.compare(abs, [1], rounds=1)
        assert [row.kind for row in comparison.rows] == ["serial", "thread"]
        assert "Left out: kind='process' runs on Linux only so far" in " ".join(str(comparison).split())
        with pytest.raises(NotImplementedError, match="Linux only"):
            abreast.compare(abs, [1], kinds=["process"])


class Clock:
    """Moved by the runs themselves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def measure(monkeypatch, times, *, rounds, results=None):
    """Measure ways that take as long as `times` says, per way, round by round; return what came of it, and the order of the runs."""
    clock = Clock()
    played = []
    left = {way: iter(seconds) for way, seconds in times.items()}

    def run_all(fn, *columns, kind, max_workers, chunksize="auto", **options):
        if fn is abs:
            clock.now += 0.25
        elif len(columns[0]) > 1:  # not the warm-up
            played.append((kind, max_workers))
            clock.now += next(left[kind, max_workers])
        else:
            clock.now += 1000
            played.append(kind)
        return [(results or {}).get(kind, item) for item in columns[0]]

    monkeypatch.setattr(module, "run_all", run_all)
    ways = [_Way(*way) for way in times]
    measuring = _Measuring(
        pid, [(1,), (2,)], ways, rounds=rounds, chunksize="auto", timeout=None, equal=None, progress=False, clock=clock
    )
    return Comparison(measuring.measure([])), played


class TestStatistics:
    TIMES = {("serial", 1): [9.0, 8.0, 10.0], ("thread", 2): [4.5, 5.0, 4.0], ("process", 2): [3.0, 30.0, 6.0]}

    def test_rounds_take_turns_after_a_warm_up_that_does_not_count(self, monkeypatch, collections):
        comparison, played = measure(monkeypatch, self.TIMES, rounds=3)
        assert played == ["serial", "thread", "process", *(list(self.TIMES) * 3)]
        assert [row.seconds for row in comparison.rows] == [tuple(seconds) for seconds in self.TIMES.values()]
        assert len(collections) == 9  # what one has left is not to be cleared away in the time of the next

    def test_medians_and_what_follows(self, monkeypatch):
        comparison, _ = measure(monkeypatch, self.TIMES, rounds=3)
        assert [row.median for row in comparison.rows] == [9.0, 4.5, 6.0]
        assert [row.speed_up for row in comparison.rows] == [1.0, 2.0, 1.5]
        assert [row.efficiency for row in comparison.rows] == [1.0, 1.0, 0.75]
        assert [row.start_up for row in comparison.rows] == [None, 0.25, 0.25]
        assert comparison.best.kind == "thread"

    def test_a_clock_that_stands_still(self, monkeypatch):
        comparison, _ = measure(monkeypatch, {("serial", 1): [0.0], ("thread", 2): [0.0]}, rounds=1)
        assert comparison.rows[1].speed_up == 1.0

    def test_the_fastest_is_not_the_best_if_it_is_wrong(self, monkeypatch):
        times = {("serial", 1): [9.0], ("thread", 2): [1.0], ("process", 2): [5.0]}
        comparison, _ = measure(monkeypatch, times, rounds=1, results={"thread": "wrong"})
        assert comparison.rows[1].differences == 2
        assert comparison.best.kind == "process"


class TestViews:
    @pytest.fixture
    def comparison(self):
        return abreast.compare(abs, range(10), kinds="thread", max_workers=[1, 2], rounds=2)

    def test_figures_as_json(self, comparison, tmp_path):
        figures = comparison.to_dict()
        comparison.save(tmp_path / "a.json")
        assert json.loads(tmp_path.joinpath("a.json").read_text()) == figures
        assert figures["function"] == "abs"
        assert [row["max_workers"] for row in figures["rows"]] == [1, 1, 2]
        assert figures["advice"] == comparison.advice

    def test_a_page_replaces_what_was_there_when_it_is_whole(self, comparison, tmp_path, monkeypatch):
        path = tmp_path / "a.html"
        path.write_text("old")
        comparison.save(str(path))
        assert path.read_text().startswith("<!DOCTYPE html>")
        monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
        path.write_text("old")
        with pytest.raises(OSError, match="no space"):
            comparison.save(path)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["a.html"]

    def test_a_page_may_be_read_by_whom_other_files_may(self, comparison, tmp_path):
        path = tmp_path / "a.html"
        comparison.save(path)
        tmp_path.joinpath("b").write_text("")
        assert path.stat().st_mode == tmp_path.joinpath("b").stat().st_mode

    @pytest.mark.parametrize(("path", "error"), [("a.txt", ValueError), (3, TypeError), (b"a.html", TypeError)])
    def test_other_names_are_refused(self, comparison, path, error):
        with pytest.raises(error):
            comparison.save(path)

    def test_text(self, comparison, capsys):
        assert str(comparison) == comparison.to_text()
        assert max(map(len, comparison.to_text(width=60).splitlines())) <= 60
        assert comparison.to_text(ascii_only=True).isascii()
        assert repr(comparison).startswith("<Comparison of abs: 3 ways, best ")
        with pytest.raises(ValueError, match="width must be at least 60, not 20"):
            comparison.to_text(width=20)

    def test_rich_prints_it_as_it_is(self, comparison, capsys):
        Console(width=80).print(comparison)
        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == str(comparison).splitlines()

    def test_progress_counts_runs(self):
        seen = []
        abreast.compare(abs, range(3), kinds="thread", max_workers=2, rounds=2, progress=seen.append)
        assert sum(seen) == 4
