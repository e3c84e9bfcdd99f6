"""Tiny tasks of real processes, many together: what crashes, hangs, raises or returns something odd costs its own task, and no other.

An append-only file is the witness, as in test_crashes.py.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import random
import signal
import sys
import threading
import time

import pytest
from abreast import ProcessPoolExecutor, TaskTimeout, WorkerCrashed
from abreast.core.process_errors import ResultDecodeError, TaskDecodeError, TaskPickleError
from abreast.executors.process import pool
from abreast.executors.process.core import Worker

from tests.executors.process import tiny
from tests.executors.process.tasks import DiesPickled, DiesUnpickled, square
from tests.executors.process.test_crashes import PATIENCE, Log

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

ITEMS = {"plain": list, "pickled": lambda numbers: [[number] for number in numbers]}
every_kind_of_item = pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
every_flush = pytest.mark.parametrize("flush", ["auto", "each"])


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log")


def told(outcome):
    return outcome.value if outcome.error is None else outcome.error


class TestDeaths:
    @every_flush
    @every_kind_of_item
    @pytest.mark.parametrize("place", [0, 1, 31, 63])
    @pytest.mark.parametrize("how", ["segfault", "os._exit(0)", "SIGKILL", "ValueError", "SystemExit", "hang"])
    def test_one_of_64_tiny_tasks(self, how, place, items, flush, log):
        limit = 0.3 if how == "hang" else None
        more = {"initializer": tiny.settle, "initargs": (log.path, {place: how}), "flush": flush, "task_timeout": limit}
        with ProcessPoolExecutor(1, **more) as pool:
            outcomes = list(pool.outcomes(tiny.noted, items(range(64)), ordered=True, chunksize=64))
        expected = {"ValueError": ValueError, "SystemExit": SystemExit, "hang": TaskTimeout}.get(how, WorkerCrashed)
        assert type(outcomes[place].error) is expected
        assert [told(outcome) for outcome in outcomes if outcome.index != place] == [i for i in range(64) if i != place]
        runs = collections.Counter(log.lines())
        assert runs == {outcome.index: outcome.attempts for outcome in outcomes}
        assert runs[place] == 1
        assert max(runs.values()) == 1 or flush == "auto"
        assert all(count == 1 for number, count in runs.items() if number > place)

    @every_flush
    @pytest.mark.parametrize("how", ["os._exit(3)", "SystemExit"])
    def test_several_of_many(self, how, flush, log):
        deaths = dict.fromkeys(range(7, 1000, 190), how)
        more = {"initializer": tiny.settle, "initargs": (log.path, deaths), "flush": flush}
        with ProcessPoolExecutor(2, **more) as pool:
            outcomes = list(pool.outcomes(tiny.noted, range(1000), ordered=True))
        assert [outcome.index for outcome in outcomes if outcome.error is not None] == list(deaths)
        assert [outcome.value for outcome in outcomes if outcome.error is None] == [i for i in range(1000) if i not in deaths]
        assert collections.Counter(log.lines()) == {outcome.index: outcome.attempts for outcome in outcomes}

    @every_flush
    def test_workers_that_are_killed_at_random(self, flush, log):
        stop = threading.Event()
        rounds = random.Random(5)

        def kill():
            while not stop.wait(rounds.uniform(0.01, 0.05)):
                ready = [worker for worker in list(pool._supervisor.core.workers.values()) if worker.state == Worker.READY]
                if ready:
                    rounds.choice(ready).handle.process.signal(signal.SIGKILL)

        with ProcessPoolExecutor(2, initializer=tiny.settle, initargs=(log.path, {}), flush=flush) as pool:
            killer = threading.Thread(target=kill)
            killer.start()
            try:
                outcomes = list(pool.outcomes(tiny.noted, range(20_000), ordered=True))
            finally:
                stop.set()
                killer.join()
        runs = collections.Counter(log.lines())
        assert [outcome.index for outcome in outcomes] == list(range(20_000))
        for outcome in outcomes:
            if outcome.error is None:
                assert (outcome.value, outcome.attempts) == (outcome.index, runs[outcome.index])
            else:  # it was at the very beginning, before the witness, or had ended
                assert type(outcome.error) is WorkerCrashed
                assert outcome.attempts - 1 <= runs[outcome.index] <= outcome.attempts
        if flush == "each":
            assert max(runs.values()) == 1

    def test_long_tasks_behind_tiny_ones_do_not_run_twice(self, log):
        # 40 of 5 ms, behind many that were so short that the clock need hardly be looked at.
        with ProcessPoolExecutor(1, initializer=tiny.settle, initargs=(log.path, {})) as pool:
            for _ in range(3):
                with pytest.raises(WorkerCrashed):
                    list(pool.map(tiny.long_from_3000_on, range(3100), chunksize=3100))
        runs = collections.Counter(log.lines())
        assert runs == dict.fromkeys(range(3000, 3041), 3)

    def test_a_run_that_is_stopped_starts_no_other_long_task(self, log):
        with ProcessPoolExecutor(1, initializer=tiny.settle, initargs=(log.path, {})) as pool:
            results = pool.imap(tiny.long_from_3000_on, range(3040), chunksize=3040)
            results_thread = threading.Thread(target=lambda: collections.deque(results, 0), daemon=True)
            results_thread.start()
            log.wait_for(2)
            results.close()
            results_thread.join(PATIENCE)
        assert len(log.lines()) < 27

    @every_flush
    def test_a_limit_inside_a_batch(self, flush):
        with ProcessPoolExecutor(1, task_timeout=0.3, flush=flush) as pool:
            outcomes = list(pool.outcomes(tiny.sleeps_at_17, range(64), ordered=True, chunksize=64))
        assert type(outcomes[17].error) is TaskTimeout
        assert outcomes[17].attempts == 1
        assert outcomes[17].duration >= 0.3
        assert [outcome.value for outcome in outcomes] == [None if i == 17 else i for i in range(64)]

    @pytest.mark.parametrize("how", ["segfault", "ValueError", "SystemExit"])
    @pytest.mark.parametrize("place", [0, 31, 63])
    def test_arguments_that_die_when_they_are_unpickled(self, how, place):
        with ProcessPoolExecutor(1) as pool:
            items = [DiesUnpickled(how) if i == place else [i] for i in range(64)]
            outcomes = list(pool.outcomes(tiny.same, items, ordered=True, chunksize=64))
        assert type(outcomes[place].error) is (WorkerCrashed if how == "segfault" else TaskDecodeError)
        assert [outcome.value for outcome in outcomes if outcome.index != place] == [[i] for i in range(64) if i != place]

    @pytest.mark.parametrize("how", ["ValueError", "SystemExit"])
    @pytest.mark.parametrize("place", [0, 31, 63])
    def test_arguments_that_cannot_be_pickled(self, how, place):
        with ProcessPoolExecutor(1) as pool:
            items = [DiesPickled(how) if i == place else [i] for i in range(64)]
            outcomes = list(pool.outcomes(tiny.same, items, ordered=True, chunksize=64))
        assert type(outcomes[place].error) is (TaskPickleError if how == "ValueError" else SystemExit)
        assert [outcome.value for outcome in outcomes if outcome.index != place] == [[i] for i in range(64) if i != place]

    def test_results_that_cannot_be_unpickled(self):
        with ProcessPoolExecutor(1) as pool:
            outcomes = list(pool.outcomes(undecodable_at_31, range(64), ordered=True, chunksize=64))
            assert type(outcomes[31].error) is ResultDecodeError
            assert [outcome.value for outcome in outcomes] == [None if i == 31 else (i,) for i in range(64)]
            with pytest.raises(ResultDecodeError):
                list(pool.map(undecodable_at_31, range(64), chunksize=64))

    def test_max_tasks_per_child(self, log):
        with ProcessPoolExecutor(
            2, max_tasks_per_child=10, initializer=tiny.settle, initargs=(log.path, {55: "SIGKILL"})
        ) as pool:
            outcomes = list(pool.outcomes(tiny.noted, range(100), ordered=True, chunksize=25))
        assert [told(outcome) for outcome in outcomes if outcome.index != 55] == [i for i in range(100) if i != 55]
        assert collections.Counter(log.lines()) == {outcome.index: outcome.attempts for outcome in outcomes}


def undecodable_at_31(number):
    return DiesUnpickled("ValueError") if number == 31 else (number,)


class TestResults:
    @every_flush
    @every_kind_of_item
    @pytest.mark.parametrize("chunksize", ["auto", 1, 7, 1000])
    def test_of_every_kind_in_one_batch(self, chunksize, items, flush):
        with ProcessPoolExecutor(2, flush=flush) as pool:
            outcomes = list(pool.outcomes(tiny.value_of, items(range(520)), ordered=True, chunksize=chunksize))
        for i, outcome in enumerate(outcomes):
            assert outcome.attempts == 1
            if i % 13 == 5:
                assert type(outcome.error) is KeyError
                assert outcome.error.args == (i,)
            else:
                expected = tiny.made(i, i % 13)
                assert (outcome.value, type(outcome.value)) == (expected, type(expected))

    @pytest.mark.parametrize("chunksize", [1, 3, 64])
    def test_a_call_that_ends_with_an_odd_result_and_one_that_begins_with_a_plain_one(self, chunksize):
        with ProcessPoolExecutor(1) as pool:
            for _ in range(3):
                values = list(pool.map(tiny.sometimes_a_tuple, range(6000), chunksize=chunksize))
                assert values == [tiny.sometimes_a_tuple(i) for i in range(6000)]

    def test_two_runs_at_a_time(self):
        with ProcessPoolExecutor(1) as pool:
            pool.submit(square, 2).result(PATIENCE)
            odd = pool.imap(tiny.always_a_tuple, range(6000), ordered=True, chunksize=2) if hasattr(pool, "imap") else None
            plain = pool.map(tiny.same, range(6000), chunksize=2)
            assert list(plain) == list(range(6000))
            if odd is not None:
                assert list(odd) == [(i,) for i in range(6000)]

    def test_submitted_calls_of_every_kind(self):
        with ProcessPoolExecutor(1) as pool:
            futures = [pool.submit(tiny.value_of, i) for i in range(1040)]
            for i, future in enumerate(futures):
                if i % 13 == 5:
                    assert type(future.exception(PATIENCE)) is KeyError
                else:
                    expected = tiny.made(i, i % 13)
                    assert (future.result(PATIENCE), type(future.result())) == (expected, type(expected))

    def test_items_of_subclasses_keep_their_type(self):
        with ProcessPoolExecutor(1) as pool:
            items = [tiny.Number(1), 2, tiny.Text("three"), "four", True, None, 1.5, 2j, b"bytes"]
            values = list(pool.map(tiny.same, items, chunksize=9))
            assert values == items
            assert [type(value) for value in values] == [type(item) for item in items]

    @pytest.mark.parametrize("chunksize", [1, 10, 1000])
    def test_several_iterables(self, chunksize):
        with ProcessPoolExecutor(2) as pool:
            assert list(pool.map(divmod, range(1000), range(1, 1001), chunksize=chunksize)) == [
                divmod(i, i + 1) for i in range(1000)
            ]
            lists = [[i] for i in range(300)]
            assert list(pool.map(list.__add__, lists, lists, chunksize=chunksize)) == [[i, i] for i in range(300)]

    def test_a_run_after_one_that_raised(self):
        with ProcessPoolExecutor(2) as pool:
            for chunksize in (1, 5, 100):
                with pytest.raises(KeyError):
                    list(pool.map(tiny.value_of, range(100), chunksize=chunksize))
                assert list(pool.map(tiny.same, range(1000), chunksize=chunksize)) == list(range(1000))

    @every_flush
    def test_durations_and_attempts(self, flush):
        with ProcessPoolExecutor(1, flush=flush) as pool:
            outcomes = list(pool.outcomes(tiny.naps, range(100), ordered=True, chunksize=50))
        for outcome in outcomes:
            assert outcome.attempts == 1
            assert outcome.duration >= (0.003 if outcome.index % 10 == 5 else 1e-9)
        quick = sorted(outcome.duration for outcome in outcomes if outcome.index % 10 != 5)
        assert quick[45] < 0.003  # a few may have waited for a core

    @pytest.mark.parametrize("value", [None, "mine"])
    def test_plain_inputs_are_sent_on_by_the_pool_itself(self, value, monkeypatch):
        """And others are not, since their pickling is code of the user's; the context is that of the call for all."""
        sent = collections.Counter()
        real = ProcessPoolExecutor.submit_plain

        def submit_plain(self, batch, deliver):
            handle = real(self, batch, deliver)
            sent[threading.current_thread().name.rpartition("-")[2], handle is not None] += 1
            return handle

        monkeypatch.setattr(ProcessPoolExecutor, "submit_plain", submit_plain)
        with ProcessPoolExecutor(2) as pool:
            context = contextvars.Context()
            if value is not None:
                context.run(tiny.variable.set, value)
            assert context.run(lambda: set(pool.map(tiny.in_context, range(20_000)))) == {value}
            assert sent["supervisor", True] > 0
            assert set(sent) == {("supervisor", True)}
            assert context.run(lambda: set(pool.map(tiny.in_context, [[i] for i in range(20_000)]))) == {value}
            assert set(sent) == {("supervisor", True), ("supervisor", False)}

    @every_kind_of_item
    def test_the_index_of_a_task(self, items):
        with ProcessPoolExecutor(2) as pool:
            assert list(pool.map(tiny.index_of, items(range(1000)), chunksize=50)) == list(range(1000))
            assert list(pool.map(tiny.index_of, items(range(1000)))) == list(range(1000))

    def test_time_boxes_that_end_within_batches(self, log):
        with ProcessPoolExecutor(2, initializer=tiny.settle, initargs=(log.path, {})) as pool:
            outcomes = list(pool.outcomes(slower_and_slower, range(2000), ordered=True))
        assert [outcome.value for outcome in outcomes] == list(range(2000))
        assert collections.Counter(log.lines()) == collections.Counter(range(2000))
        assert all(outcome.attempts == 1 for outcome in outcomes)


def slower_and_slower(number):
    if number % 1000 > 900:
        time.sleep(0.003)
    return tiny.noted(number)


class TestSubmit:
    @pytest.mark.parametrize("how", ["SIGKILL", "os._exit(0)", "ValueError", "SystemExit"])
    def test_five_thousand_calls_with_one_that_dies(self, how, log):
        with ProcessPoolExecutor(2, initializer=tiny.settle, initargs=(log.path, {2500: how})) as pool:
            futures = [pool.submit(tiny.noted, i) for i in range(5000)]
            error = futures[2500].exception(PATIENCE)
            assert type(error) is {"ValueError": ValueError, "SystemExit": SystemExit}.get(how, WorkerCrashed)
            assert [future.result(PATIENCE) for i, future in enumerate(futures) if i != 2500] == [
                i for i in range(5000) if i != 2500
            ]
        runs = collections.Counter(log.lines())
        assert set(runs) == set(range(5000))
        assert runs[2500] == 1
        assert sum(runs.values()) < 5000 + 100

    def test_flush_each_never_runs_one_twice(self, log):
        deaths = dict.fromkeys(range(100, 3000, 400), "SIGKILL")
        with ProcessPoolExecutor(2, initializer=tiny.settle, initargs=(log.path, deaths), flush="each") as pool:
            futures = [pool.submit(tiny.noted, i) for i in range(3000)]
            for i, future in enumerate(futures):
                assert type(future.exception(PATIENCE)) is (WorkerCrashed if i in deaths else type(None))
        assert collections.Counter(log.lines()) == collections.Counter(range(3000))

    def test_calls_that_are_cancelled_amid_others(self):
        with ProcessPoolExecutor(1) as pool:
            futures = [pool.submit(tiny.same, i) for i in range(5000)]
            cancelled = [future.cancel() for future in futures[3::7]]
            for i, future in enumerate(futures):
                if i % 7 == 3 and cancelled[i // 7]:
                    assert future.cancelled()
                else:
                    assert future.result(PATIENCE) == i

    def test_two_functions_by_turns(self):
        with ProcessPoolExecutor(2) as pool:
            futures = [pool.submit(tiny.same if i % 2 else tiny.always_a_tuple, i) for i in range(4000)]
            assert [future.result(PATIENCE) for future in futures] == [i if i % 2 else (i,) for i in range(4000)]

    def test_what_has_ended_is_told_although_the_next_task_waits_for_that(self, tmp_path):
        path = tmp_path / "told"
        with ProcessPoolExecutor(1) as pool:
            for i in range(3):  # now they are known to be tiny
                for future in [pool.submit(tiny.waits_at_240, i, str(path)) for i in range(200)]:
                    future.result(PATIENCE)
            futures = [pool.submit(tiny.waits_at_240, i, str(path)) for i in range(300)]
            try:
                assert futures[239].result(PATIENCE) == 239
                assert not futures[240].done()
            finally:
                path.touch()
            assert [future.result(PATIENCE) for future in futures] == list(range(300))

    @every_kind_of_item
    def test_results_of_a_run_come_although_the_next_task_waits_for_that(self, items, tmp_path):
        path = str(tmp_path / "told")
        fn = (
            functools.partial(tiny.waits_at_240, path=path)
            if items is list
            else functools.partial(tiny.waits_at_240_unpacked, path=path)
        )
        with ProcessPoolExecutor(1) as pool:
            list(pool.map(fn, items([1] * 3000), chunksize=300))
            results = pool.imap(fn, items(range(300)), chunksize=300)
            for _ in range(240):
                next(results)
            (tmp_path / "told").touch()
            assert list(results) == list(range(240, 300))

    def test_names_of_arguments(self):
        with ProcessPoolExecutor(2) as pool:
            futures = [pool.submit(tiny.with_names, i, b=-i) for i in range(2000)]
            assert [future.result(PATIENCE) for future in futures] == [(i, -i, 3) for i in range(2000)]

    def test_each_call_has_its_context(self):
        with ProcessPoolExecutor(2) as pool:
            futures = []
            for i in range(2000):
                context = contextvars.copy_context()
                context.run(tiny.variable.set, i // 3)
                futures.append(context.run(pool.submit, tiny.in_context, i))
            assert [future.result(PATIENCE) for future in futures] == [i // 3 for i in range(2000)]

    def test_a_run_has_its_context(self):
        def run(pool):
            tiny.variable.set("here")
            return list(pool.map(tiny.in_context, range(1000), chunksize=30))

        with ProcessPoolExecutor(2) as pool:
            assert contextvars.copy_context().run(run, pool) == ["here"] * 1000
            assert list(pool.map(tiny.in_context, range(100))) == [None] * 100

    def test_a_pack_that_is_read_with_one_whose_arguments_kill(self):
        with ProcessPoolExecutor(1) as pool:
            list(map(lambda future: future.result(PATIENCE), [pool.submit(tiny.same, i) for i in range(200)]))
            futures = [pool.submit(tiny.same, DiesUnpickled("SIGKILL") if i == 150 else i) for i in range(300)]
            assert type(futures[150].exception(PATIENCE)) is WorkerCrashed
            assert [future.result(PATIENCE) for i, future in enumerate(futures) if i != 150] == [
                i for i in range(300) if i != 150
            ]


class TestOddTasks:
    @every_kind_of_item
    @pytest.mark.parametrize("fn", [tiny.forks, tiny.forks_and_raises], ids=["returns", "raises"])
    def test_a_fork_whose_child_comes_back(self, fn, items, capfd):
        with ProcessPoolExecutor(1) as pool:
            numbers = items(range(200))
            outcomes = list(pool.outcomes(fn if items is list else unpacked[fn], numbers, ordered=True, chunksize=200))
        assert [outcome.value for outcome in outcomes] == list(range(200))

    @every_flush
    def test_a_signal_handler_that_raises_behind_its_task(self, flush):
        with ProcessPoolExecutor(1, flush=flush) as pool:
            for _ in range(3):
                outcomes = list(pool.outcomes(tiny.sets_a_timer, range(4000), ordered=True, chunksize=2000))
                for outcome in outcomes:
                    if outcome.error is None:
                        assert outcome.value == outcome.index
                    else:
                        assert type(outcome.error) in (tiny.Late, WorkerCrashed)
                        assert outcome.index % 400 >= 200

    @every_flush
    @every_kind_of_item
    @pytest.mark.parametrize("lines", range(20))
    def test_a_signal_handler_that_raises_at_any_line_of_the_worker_s_loop(self, lines, items, flush, log):
        fn = functools.partial(tiny.interrupts_at, lines=lines) if items is list else tiny.interrupts
        given = range(64) if items is list else [(i, lines if i == 30 else None) for i in range(64)]
        with ProcessPoolExecutor(1, flush=flush) as pool:
            pool.submit(tiny.same, 1).result(PATIENCE)
            outcomes = list(pool.outcomes(fn, given, ordered=True, chunksize=64))
        for outcome in outcomes:
            if outcome.error is None:
                assert outcome.value == outcome.index
            else:
                assert type(outcome.error) in (tiny.Late, WorkerCrashed)
                assert outcome.index in (30, 31)


def _forks(item):
    return tiny.forks(item[0])


def _forks_and_raises(item):
    return tiny.forks_and_raises(item[0])


unpacked = {tiny.forks: _forks, tiny.forks_and_raises: _forks_and_raises}


def test_no_memory_in_the_thread_that_sends(monkeypatch):
    """The run ends with it, wherever the next batch is sent; nobody waits for one that was not."""
    in_plain_context = contextvars.Context().run  # what pytest has in its own would be pickled elsewhere
    real = pool.encode_plain
    struck = threading.Event()

    def encode_plain(items, *, star):
        if not struck.is_set() and threading.current_thread().name.endswith("-supervisor"):
            struck.set()
            raise MemoryError
        return real(items, star=star)

    monkeypatch.setattr(pool, "encode_plain", encode_plain)
    with ProcessPoolExecutor(2) as workers:
        with pytest.raises(MemoryError):
            in_plain_context(lambda: list(workers.map(square, range(20_000), chunksize=20)))
        assert struck.is_set()
        assert list(workers.map(square, range(10))) == [square(i) for i in range(10)]
