"""A run over many inputs, sentence by sentence: what is read when, what comes out when, and what it leaves."""

from __future__ import annotations

import itertools
import operator
import random
import threading
import time
import types
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import abreast
import pytest
from abreast import AsyncResults, Outcome, Results, ThreadPoolExecutor
from abreast.engine.workers import open_pool
from abreast.executors.threads import default_threads

from tests.engine.stand_ins import (
    LAZY,
    PATIENCE,
    WAYS,
    Backwards,
    Gate,
    Inputs,
    Recording,
    every_way,
    first_then,
    join_threads,
    kinds,
    lazily,
    value,
)
from tests.helpers import FREE_THREADED, in_threads


def square(x):
    return x * x


def nap(x):
    """Work of a certain length, which sets no order."""
    time.sleep(0.005)
    return x


class Reads:
    """Inputs from 0 on, endless unless `total` is given; knows what has been read, and by whom."""

    def __init__(self, total=None):
        self.total = total
        self.count = 0
        self.threads = set()
        self.changed = threading.Condition()

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.get_ident())
        with self.changed:
            if self.count == self.total:
                raise StopIteration
            self.count += 1
            self.changed.notify_all()
            return self.count - 1

    def wait(self, count):
        with self.changed:
            return self.changed.wait_for(lambda: self.count >= count, PATIENCE)


class TestResults:
    @every_way
    @kinds
    @pytest.mark.parametrize("total", [0, 1, 2, 1000])
    def test_come_one_for_each_input_in_order(self, run, kind, total):
        assert run(square, range(total), kind=kind, max_workers=3 if kind == "thread" else None) == [
            square(i) for i in range(total)
        ]

    @every_way
    @pytest.mark.parametrize("options", [{}, {"chunksize": 7}], ids=str)
    def test_are_the_same_for_inputs_of_unknown_number(self, run, options):
        assert run(square, iter(range(300)), max_workers=3, **options) == [square(i) for i in range(300)]

    @lazily
    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("options", [{"buffersize": 1}, {"buffersize": 5}, {"buffersize": 40, "chunksize": 3}], ids=str)
    def test_are_the_same_with_a_buffersize(self, start, ordered, options):
        results = start(square, iter(range(300)), max_workers=3, ordered=ordered, **options)
        got = [value(result) for result in results]
        assert (got if ordered else sorted(got)) == [square(i) for i in range(300)]
        results.close()

    @pytest.mark.parametrize("run", [WAYS["map"], WAYS["amap"]], ids=["map", "amap"])
    @kinds
    def test_of_map_are_the_same_with_a_buffersize(self, run, kind):
        assert run(square, iter(range(300)), kind=kind, buffersize=5, timeout=PATIENCE) == [square(i) for i in range(300)]

    @every_way
    @kinds
    @pytest.mark.parametrize("options", [{}, {"chunksize": 7}], ids=str)
    def test_unordered_come_once_each(self, run, kind, options):
        assert sorted(run(square, range(300), kind=kind, ordered=False, **options)) == [square(i) for i in range(300)]

    @every_way
    @kinds
    def test_of_several_iterables_are_those_of_the_function_with_one_item_of_each(self, run, kind):
        assert run(pow, [2, 3, 4], [1, 2, 3], kind=kind) == [2, 9, 64]

    @every_way
    @kinds
    def test_of_several_iterables_end_with_the_shortest(self, run, kind):
        assert run(divmod, iter([7, 8, 9]), itertools.repeat(3, 2), kind=kind) == [(2, 1), (2, 2)]

    @every_way
    @kinds
    def test_strict_demands_equal_lengths(self, run, kind):
        with pytest.raises(ValueError, match="shorter"):
            run(divmod, [7, 8, 9], [3, 3], strict=True, kind=kind)
        assert run(divmod, [7, 8], [3, 3], strict=True, kind=kind) == [(2, 1), (2, 2)]

    def test_strict_delivers_what_came_before_the_end_of_the_shorter_one(self):
        results = abreast.imap(divmod, [7, 8, 9], [3, 3], strict=True)
        assert [next(results), next(results)] == [(2, 1), (2, 2)]
        with pytest.raises(ValueError, match="shorter"):
            next(results)
        assert list(results) == []

    def test_an_item_that_is_a_tuple_is_one_argument_of_a_single_iterable(self):
        assert abreast.map(len, [(1, 2), ()]) == [2, 0]
        assert [outcome.input for outcome in abreast.outcomes(len, [(1, 2)])] == [(1, 2)]

    def test_of_map_are_a_list(self):
        assert type(abreast.map(square, iter([2]))) is list
        assert type(abreast.map(square, [])) is list

    def test_may_be_none_and_exceptions_as_values(self):
        error = ValueError()
        assert abreast.map(lambda x: x, [None, error]) == [None, error]
        assert [outcome.ok for outcome in abreast.outcomes(lambda x: x, [None, error])] == [True, True]

    @kinds
    def test_of_outcomes_tell_index_input_value_error_attempts_worker_and_duration(self, kind):
        first, second = abreast.outcomes(divmod, [7, 8], [2, 0], kind=kind, name="halve")
        assert (first.index, first.input, first.value, first.error, first.attempts) == (0, (7, 2), (3, 1), None, 1)
        assert (second.index, second.input, second.value, second.attempts) == (1, (8, 0), None, 1)
        assert isinstance(second.error, ZeroDivisionError)
        assert (first.ok, first.cancelled, second.ok, second.cancelled) == (True, False, False, False)
        assert all(outcome.worker.startswith("halve" if kind == "thread" else "MainThread") for outcome in (first, second))
        assert first.result() == (3, 1)
        with pytest.raises(ZeroDivisionError):
            second.result()

    @kinds
    def test_of_outcomes_have_the_duration_of_the_task_alone(self, kind):
        slow, quick = abreast.outcomes(lambda seconds: time.sleep(seconds), [0.05, 0], kind=kind, chunksize=2, max_workers=1)
        assert slow.duration >= 0.05
        assert quick.duration < 0.05

    def test_of_different_runs_at_the_same_time_in_many_threads_do_not_mix(self):
        def run(start):
            return lambda: abreast.map(square, range(start, start + 300), max_workers=3)

        assert in_threads(*[run(i) for i in range(8)]) == [[square(i) for i in range(start, start + 300)] for start in range(8)]


class TestInputs:
    @every_way
    @kinds
    @pytest.mark.parametrize("options", [{}, {"ordered": False}, {"chunksize": 4}], ids=str)
    def test_are_read_only_in_the_thread_that_asks(self, run, kind, options):
        inputs = Reads(300)
        assert sorted(run(square, inputs, kind=kind, **options)) == [square(i) for i in range(300)]
        assert inputs.threads == {threading.get_ident()}

    @lazily
    @kinds
    def test_are_read_only_in_the_thread_that_asks_with_a_buffersize_too(self, start, kind):
        inputs = Reads(300)
        results = start(square, inputs, kind=kind, buffersize=3)
        assert [value(result) for result in results] == [square(i) for i in range(300)]
        assert inputs.threads == {threading.get_ident()}
        results.close()

    @lazily
    @kinds
    def test_none_is_read_and_nothing_runs_before_the_first_next(self, start, kind):
        inputs, ran = Reads(), []
        threads = threading.active_count()
        results = start(ran.append, inputs, kind=kind)
        assert (inputs.count, ran, threading.active_count()) == (0, [], threads)
        next(results)
        assert inputs.count > 0
        results.close()

    @lazily
    def test_none_is_read_by_a_run_that_is_closed_before_the_first_next(self, start):
        inputs = Reads()
        results = start(square, inputs)
        results.close()
        assert inputs.count == 0

    @pytest.mark.parametrize("name", ["imap", "outcomes", "executor.imap", "executor.outcomes"])
    def test_results_are_iterator_objects_and_no_generators(self, name):
        results = LAZY[name](square, [1])
        results = getattr(results, "results", results)
        assert type(results) is Results
        assert isinstance(results, Iterator)
        assert not isinstance(results, types.GeneratorType)
        assert iter(results) is results
        assert [value(result) for result in results] == [1]
        results.close()

    def test_results_for_async_code_are_iterator_objects_and_no_generators(self):
        results = abreast.aimap(square, [1])
        assert type(results) is AsyncResults
        assert isinstance(results, AsyncIterator)
        assert aiter(results) is results

    def test_the_thread_that_goes_on_asking_is_the_one_that_reads(self):
        """An iterator handed from one thread to another: each reads as far as it asks."""
        inputs = Reads(10)
        results = abreast.imap(square, inputs, buffersize=1)
        assert next(results) == 0
        first = set(inputs.threads)
        assert in_threads(lambda: list(results)) == [[square(i) for i in range(1, 10)]]
        assert first == {threading.get_ident()}
        assert len(inputs.threads) == 2


@pytest.mark.whole
class TestResultsThatAreDueWhileInputsAreRead:
    """The window is filled first, unless that takes long."""

    @pytest.mark.parametrize(("seconds", "read"), [(0.002, 4), (0.02, 2)])
    def test_how_much_is_read_before_the_first_result(self, seconds, read, monkeypatch):
        now = [1000.0]
        monkeypatch.setattr("abreast.engine.run.perf_counter", lambda: now[0])
        taken = []

        def inputs():
            for i in range(100):
                if i:
                    while results.summary().tasks < i:  # so that a result is due
                        time.sleep(0)
                    now[0] += seconds
                taken.append(i)
                yield i

        with abreast.imap(square, inputs(), max_workers=2, chunksize=1) as results:
            assert next(results) == 0
            assert len(taken) == read


class TestBuffersize:
    @lazily
    @kinds
    @pytest.mark.parametrize("chunksize", ["auto", 1, 3, 50])
    @pytest.mark.parametrize("buffersize", [1, 2, 7])
    def test_is_never_exceeded(self, start, kind, chunksize, buffersize):
        inputs, ahead = Reads(), []
        results = start(square, inputs, kind=kind, buffersize=buffersize, chunksize=chunksize)
        for taken in range(1, 60):
            next(results)
            ahead.append(inputs.count - taken)
        results.close()
        assert max(ahead) <= buffersize

    @lazily
    @pytest.mark.parametrize("buffersize", [1, 2, 7, 50])
    def test_is_reached_while_the_consumer_waits(self, start, buffersize):
        """However few workers there are, and although the first result is held up."""
        inputs = Reads()

        def task(i):
            return i != 0 or inputs.wait(buffersize)

        results = start(task, inputs, buffersize=buffersize, max_workers=2)
        assert value(next(results)) is True
        assert inputs.count <= buffersize + 1
        results.close()

    def test_room_that_comes_while_a_step_is_taken_is_seen(self):
        inputs = Reads()
        with Gate() as gate:
            results = abreast.imap(gate, inputs, max_workers=2, chunksize=1, buffersize=50)
            run = results._run
            run.start()
            collect = run._collect

            def collect_late():
                gate.let(1, 2, 3)
                while len(run._feed.running) > 1:
                    pass
                return collect()

            run._collect = collect_late
            assert run.step() is None
            run._collect = collect
            sees = not run.begin_wait(lambda: None)
            read_more = inputs.count > 4
            results.close()
        assert sees or read_more

    @kinds
    def test_counts_what_has_been_completed_and_not_been_taken(self, kind):
        inputs = Reads(100)
        with abreast.imap(square, inputs, kind=kind, buffersize=4) as results:
            assert next(results) == 0
            assert inputs.count <= 5
            assert results.summary().tasks <= 5

    def ahead_of_a_slow_consumer(self, start, chunksize):
        """Return the most inputs that were read and not taken."""
        inputs, ahead = Reads(), []
        results = start(square, inputs, max_workers=3, chunksize=chunksize)
        for taken in range(1, 60):
            next(results)
            if taken % 5 == 0:
                wait_until_idle(results, inputs.count)  # however long the consumer takes: what it has not asked for is not read
            ahead.append(inputs.count - taken)
        results.close()
        return max(ahead)

    @lazily
    @pytest.mark.parametrize("chunksize", [1, 4])
    def test_none_is_bounded_with_endless_inputs_and_a_slow_consumer(self, start, chunksize):
        assert self.ahead_of_a_slow_consumer(start, chunksize) <= 2 * (2 * 3 * chunksize)

    @lazily
    @pytest.mark.parametrize("chunksize", [1, 4])
    def test_none_is_two_batches_a_worker(self, start, chunksize):
        assert self.ahead_of_a_slow_consumer(start, chunksize) <= 2 * 3 * chunksize

    def test_none_is_bounded_by_the_batches_whatever_size_is_found(self):
        inputs = Reads()
        with Recording(2) as executor, abreast.imap(square, inputs, executor=executor) as results:
            for taken in range(1, 20_000):
                next(results)
                assert inputs.count - taken <= 2 * (2 * 2 * max(executor.sizes))

    def test_none_reads_two_batches_a_worker_while_the_first_is_held_up(self):
        inputs = Reads()

        def task(i):
            return i != 0 or inputs.wait(2 * 3 * 2)

        with abreast.imap(task, inputs, max_workers=3, chunksize=2) as results:
            assert next(results) is True

    def test_of_a_serial_run_without_one_a_task_runs_when_it_is_asked_for(self):
        ran = []
        results = abreast.imap(ran.append, itertools.count(), kind="serial")
        for taken in range(1, 5):
            next(results)
            assert ran == list(range(taken))
        results.close()


def wait_until_idle(results, tasks):
    """Wait until so many tasks have been run."""
    end = time.monotonic() + PATIENCE
    while results.summary().tasks < tasks:
        assert time.monotonic() < end
        time.sleep(0)
    return True


class TestChunksize:
    @pytest.mark.parametrize("run", ["map", "executor.map"])
    @pytest.mark.parametrize("chunksize", [1, 3, 8, 1000])
    def test_is_obeyed(self, run, chunksize):
        with Recording(2) as executor:
            assert abreast.map(square, range(100), executor=executor, chunksize=chunksize) == [square(i) for i in range(100)]
        assert set(executor.sizes[:-1]) <= {chunksize}
        assert sum(executor.sizes) == 100

    @pytest.mark.parametrize("run", [abreast.imap, abreast.outcomes])
    def test_is_obeyed_however_the_results_are_taken(self, run):
        """The first result of a batch is taken while the second is held up: there is room for one, and no batch of one is sent."""
        gate = threading.Event()

        def task(i):
            return i != 1 or gate.wait(PATIENCE)

        with Recording(1) as executor:
            results = run(task, iter(range(40)), executor=executor, chunksize=2)
            next(results)
            gate.set()
            assert [value(result) for result in results] == [True] * 39
        assert executor.sizes == [2] * 20

    def test_is_obeyed_with_a_buffersize_that_holds_several_such_batches(self):
        with Recording(2) as executor:
            list(abreast.imap(square, iter(range(64)), executor=executor, chunksize=8, buffersize=16))
        assert executor.sizes[:2] == [8, 8]

    @pytest.mark.parametrize(
        "run", [abreast.map, lambda *args, **options: list(abreast.imap(*args, **options))], ids=["map", "imap"]
    )
    def test_auto_begins_with_one_and_grows_for_short_tasks(self, run):
        with Recording(2) as executor:
            run(square, range(20_000), executor=executor, chunksize="auto")
        assert executor.sizes[0] == 1
        assert max(executor.sizes) > 20
        assert sum(executor.sizes) >= 20_000  # what is handed back is sent again

    @pytest.mark.parametrize(
        "run", [abreast.map, lambda *args, **options: list(abreast.imap(*args, **options))], ids=["map", "imap"]
    )
    def test_auto_is_one_for_tasks_that_take_long(self, run):
        with Recording(2) as executor:
            run(nap, range(30), executor=executor)
        assert executor.sizes == [1] * 30

    def test_of_a_batch_whose_tasks_turn_slow_the_rest_is_handed_to_others(self):
        """A batch of many short tasks ends at its time box: other workers take what it has not started."""
        workers = Counter()

        def task(i):
            if i > 2000:
                time.sleep(0.002)
            workers[threading.get_ident()] += i > 2000

        abreast.map(task, range(2500), max_workers=2)  # the slow ones take a second: the other worker may be late by a half
        assert len(+workers) == 2
        assert max(workers.values()) < 450


class TestWhileABatchRuns:
    """An outcome is there for the consumer while its batch mate still blocks."""

    @lazily
    @pytest.mark.parametrize("ordered", [True, False])
    def test_an_outcome_comes_at_once(self, start, ordered):
        with Gate() as gate:
            results = start(lambda i: gate(i) if i % 2 else i, range(4), chunksize=2, max_workers=1, ordered=ordered)
            assert value(next(results)) == 0
            gate.wait_started(1)
            gate.let(1)
            assert [value(next(results)), value(next(results))] == [1, 2]
            gate.let(3)
            assert [value(result) for result in results] == [3]
            results.close()

    @lazily
    def test_an_outcome_comes_at_once_to_a_consumer_that_waits_for_it(self, start):
        """It waits first, and the outcome is made while the rest of the batch is still to come."""
        with Gate() as gate:
            results = start(gate, range(3), chunksize=3, max_workers=1)
            taken = []

            def consume():
                for result in results:
                    taken.append(value(result))
                    gate.let(taken[-1] + 1)  # goes on only with what the consumer lets through after the one before
                return taken

            assert in_threads(consume, lambda: gate.let(0)) == [[0, 1, 2], None]
            results.close()

    def test_an_error_comes_at_once(self):
        with Gate() as gate:

            def task(i):
                if i == 0:
                    raise LookupError
                return gate(i)

            first = next(abreast.outcomes(task, range(2), chunksize=2, max_workers=1))
            assert isinstance(first.error, LookupError)
            gate.open()

    @pytest.mark.parametrize("ordered", [True, False])
    def test_what_is_completed_while_the_consumer_waits_a_moment_for_more_is_not_overlooked(self, ordered):
        with Gate() as gate:
            results = abreast.imap(gate, range(3), max_workers=3, chunksize=1, ordered=ordered)
            run = results._run
            run.start()
            assert run.step() is None
            gate.wait_started(0, 1, 2)
            assert run.begin_wait(lambda: None, ask=False)
            gate.let(0)
            wait_until_idle(run, 1)
            while 0 in run._feed.running:  # it is settled a moment later
                pass
            run.end_wait()
            seen = not run.begin_wait(lambda: None, ask=True)  # else it would wait, while the others are held, for good
            assert run.step() == [0]
            results.close()
        assert seen

    def test_on_threads_of_others_too(self):
        with Gate() as gate, Recording(1) as executor:
            results = abreast.imap(lambda i: gate(i) if i else i, range(3), chunksize=3, executor=executor)
            assert next(results) == 0
            gate.open()
            assert list(results) == [1, 2]
            assert executor.sizes == [3]


class TestOrder:
    @lazily
    def test_ordered_is_the_order_of_inputs_whatever_is_completed_first(self, start):
        with Gate() as gate:
            results = start(gate, range(6), max_workers=6, chunksize=1)

            def let_backwards():
                gate.wait_started(*range(6))
                for i in reversed(range(6)):
                    gate.let(i)

            assert in_threads(lambda: [value(result) for result in results], let_backwards)[0] == list(range(6))
            results.close()

    @lazily
    def test_unordered_is_as_completed(self, start):
        order = [3, 1, 0, 5, 2, 4]
        with Gate() as gate:
            results = start(gate, range(6), max_workers=6, chunksize=1, ordered=False)
            for i in order:
                gate.let(i)  # no other is let through before this one is here
                assert value(next(results)) == i
            assert list(results) == []
            results.close()

    def test_a_permutation_of_batches_comes_out_in_order(self):
        assert list(abreast.imap(square, range(8), executor=Backwards(8), chunksize=1)) == [square(i) for i in range(8)]

    def test_map_unordered_is_as_completed(self):
        assert abreast.map(square, range(4), executor=Backwards(4), chunksize=1, ordered=False) == [9, 4, 1, 0]

    def test_map_is_in_order_by_default(self):
        assert abreast.map(square, range(4), executor=Backwards(4), chunksize=1) == [0, 1, 4, 9]


class Unlucky(Exception):
    pass


class TestHammer:
    """Each input has one outcome, whatever the options are and however threads are switched."""

    @pytest.mark.parametrize("seed", range(12))
    def test_every_input_has_exactly_one_outcome(self, seed, busy_switching):
        chance = random.Random(seed)
        total = chance.choice([1, 17, 400, 1500])
        unlucky = {i for i in range(total) if chance.random() < 0.05}
        options = {
            "max_workers": chance.choice([1, 2, 5]),
            "ordered": chance.random() < 0.5,
            "buffersize": chance.choice([None, None, 1, 3, 64]),
            "chunksize": chance.choice(["auto", "auto", 1, 2, 33]),
        }

        def task(i):
            if i in unlucky:
                raise Unlucky(i)
            for _ in range(chance.choice([0, 0, 0, 300])):
                pass
            return square(i)

        inputs = range(total) if chance.random() < 0.5 else iter(range(total))
        got = list(abreast.outcomes(task, inputs, **options))
        if options["ordered"]:
            assert [outcome.index for outcome in got] == list(range(total))
        assert sorted(outcome.index for outcome in got) == list(range(total))
        for outcome in got:
            assert outcome.input == outcome.index
            assert outcome.ok == (outcome.input not in unlucky)
            assert (outcome.value if outcome.ok else outcome.error.args[0]) == (
                square(outcome.input) if outcome.ok else outcome.input
            )

    @pytest.mark.parametrize("seed", range(6))
    def test_of_a_run_in_order_that_fails_everything_before_the_error_comes_first(self, seed, busy_switching):
        chance = random.Random(seed)
        total, bad = 600, chance.randrange(600)

        def task(i):
            if i >= bad and (i == bad or chance.random() < 0.1):
                raise Unlucky(i)
            return i

        got = []
        with pytest.raises(Unlucky) as caught:
            for result in abreast.imap(task, range(total), max_workers=4, chunksize=chance.choice(["auto", 1, 7])):
                got.append(result)
        assert got == list(range(bad))
        assert caught.value.args == (bad,)


class TestEnds:
    """A consumer that stops early cancels what waits, and leaves behind what runs."""

    def finish(self, gate, start, end, **options):
        """Take one result, end the run while two tasks run and others wait; return what has run at last."""
        inputs = Inputs(2)
        results = start(first_then(inputs, gate), inputs, max_workers=2, chunksize=1, name="ended", **options)
        assert value(next(results)) == 0
        gate.wait_started(1, 2)
        end(results)  # two tasks are still held: this does not wait for them
        del results
        gate.open()
        join_threads("ended")
        return sorted(gate.started)

    @lazily
    @pytest.mark.parametrize("ordered", [True, False])
    def test_close(self, start, ordered):
        with Gate() as gate:
            assert self.finish(gate, start, lambda results: results.close(), ordered=ordered) == [1, 2]

    @pytest.mark.parametrize("run", [abreast.imap, abreast.outcomes])
    def test_leaving_a_with_block(self, run):
        def leave(results):
            with results as entered:
                assert entered is results

        with Gate() as gate:
            assert self.finish(gate, run, leave) == [1, 2]

    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    @pytest.mark.parametrize("run", [abreast.imap, abreast.outcomes])
    def test_dropping_the_iterator(self, run, no_gc):
        with Gate() as gate:
            inputs = Inputs(2)
            results = run(first_then(inputs, gate), inputs, max_workers=2, chunksize=1, name="ended")
            next(results)
            gate.wait_started(1, 2)
            del results
            gate.open()
            join_threads("ended")
            assert sorted(gate.started) == [1, 2]

    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    def test_break(self, no_gc):
        with Gate() as gate:
            inputs = Inputs(2)
            for i in abreast.imap(first_then(inputs, gate), inputs, max_workers=2, chunksize=1, name="ended"):
                gate.wait_started(1, 2)
                break
            assert i == 0
            gate.open()
            join_threads("ended")
            assert sorted(gate.started) == [1, 2]

    @lazily
    @kinds
    def test_then_the_iterator_is_at_its_end_and_closing_again_does_nothing(self, start, kind):
        results = start(square, range(10), kind=kind)
        next(results)
        results.close()
        assert getattr(results, "loop", None) or list(results) == []
        results.close()

    @lazily
    def test_closing_before_the_first_next(self, start):
        ran = []
        results = start(ran.append, range(10))
        results.close()
        assert ran == []

    @kinds
    def test_results_that_had_come_and_were_not_taken_are_dropped(self, kind):
        results = abreast.imap(square, range(100), kind=kind, chunksize=50)
        next(results)
        results.close()
        assert list(results) == []

    def test_what_runs_is_asked_to_end(self):
        asked = threading.Event()
        started = threading.Event()
        inputs = Inputs(1)

        def task(i):
            if i == 1:
                started.set()
                while not abreast.current_task().cancelled:
                    pass
                asked.set()
            elif i == 0:
                inputs.wait()

        with abreast.imap(task, inputs, max_workers=2, chunksize=1) as results:
            next(results)
            assert started.wait(PATIENCE)
            assert not asked.is_set()
        assert asked.wait(PATIENCE)

    def test_a_batch_that_runs_starts_no_other_task(self):
        ran = []
        with Gate() as gate:

            def task(i):
                if i == 1:
                    gate(i)
                ran.append(i)

            with abreast.imap(task, range(50), chunksize=50, max_workers=1, name="ended") as results:
                next(results)
                gate.wait_started(1)
            gate.open()
            join_threads("ended")
        assert ran == [0, 1]

    def test_the_users_executor_stays_open_and_its_other_tasks_are_left_alone(self):
        with Gate() as gate, ThreadPoolExecutor(1) as executor:
            inputs = Inputs(1)
            with executor.imap(first_then(inputs, gate), inputs, chunksize=1) as results:
                assert next(results) == 0
                gate.wait_started(1)
                other = executor.submit(square, 5)
            gate.open()
            assert other.result(PATIENCE) == 25
        assert gate.started == [1]

    def test_closing_in_another_thread_ends_a_wait(self):
        with Gate() as gate:
            # The limit ends the wait where closing does not.
            results = abreast.imap(gate, range(3), max_workers=1, timeout=1.5)
            ended = threading.Event()

            def consume():
                assert list(results) == []
                ended.set()

            def close():
                gate.wait_started(0)
                results.close()
                return ended.wait(1)

            assert in_threads(consume, close)[1]

    def test_closing_in_another_thread_while_a_step_is_taken_does_not_wait_for_what_runs(self):
        with Gate() as gate:
            results = abreast.imap(gate, range(3), max_workers=1, chunksize=1)
            run = results._run
            run.start()
            assert run.step() is None
            gate.wait_started(0)
            run._stop()  # the other thread has come so far in give_up()
            stepping = threading.Thread(target=run.step)
            stepping.start()
            stepping.join(1)
            waits = stepping.is_alive()
            results.close()
            gate.open()
            stepping.join()
        assert not waits

    def test_a_run_that_was_read_to_its_end_leaves_no_thread(self):
        before = threading.active_count()
        results = abreast.imap(square, range(100), max_workers=4)
        for _ in results:
            pass
        assert threading.active_count() == before
        assert abreast.map(square, range(100), max_workers=4)
        assert threading.active_count() == before

    def test_next_after_the_end_is_stop_iteration_for_good(self):
        results = abreast.imap(square, [1])
        assert list(results) == [1]
        for _ in range(3):
            with pytest.raises(StopIteration):
                next(results)


class TestTimeout:
    @pytest.mark.parametrize("run", [abreast.map, abreast.imap])
    def test_raises_timeout_error_and_does_not_wait_for_what_runs(self, run):
        with Gate() as gate:
            with pytest.raises(TimeoutError, match=r"the run of stuck took longer than its timeout of 0\.4 s: 1 tasks had ended"):
                list(run(lambda i: gate(i) if i else i, range(20), timeout=0.4, max_workers=2, chunksize=1, name="stuck"))
            gate.open()
            join_threads("stuck")
            assert sorted(gate.started) == [1, 2]

    def test_of_imap_yields_what_came_before_and_then_ends(self):
        with Gate() as gate:
            results = abreast.imap(lambda i: gate(i) if i == 2 else i, itertools.count(), timeout=0.5, max_workers=1)
            assert [next(results), next(results)] == [0, 1]
            with pytest.raises(TimeoutError):
                next(results)
            assert list(results) == []

    @pytest.mark.parametrize("name", ["imap", "executor.imap", "aimap"])
    def test_counts_from_the_first_next(self, name):
        results = LAZY[name](square, range(3), timeout=1)
        time.sleep(1.1)
        assert [value(result) for result in results] == [0, 1, 4]
        results.close()

    def test_counts_while_the_consumer_takes_its_time(self):
        results = abreast.imap(square, itertools.count(), timeout=0.4, buffersize=2)
        assert next(results) == 0
        time.sleep(0.5)
        with pytest.raises(TimeoutError):
            list(results)

    def test_ends_a_run_over_endless_inputs(self):
        with pytest.raises(TimeoutError):
            abreast.map(nap, itertools.count(), timeout=0.1, max_workers=2)

    def test_of_a_serial_run_is_looked_at_between_tasks(self):
        ran = []
        with pytest.raises(TimeoutError, match="1 tasks had ended"):
            abreast.map(lambda i: ran.append(i) or time.sleep(0.2), range(5), kind="serial", timeout=0.1)
        assert ran == [0]

    @pytest.mark.parametrize("run", [abreast.map, abreast.imap])
    def test_is_no_error_for_a_run_that_ends_before(self, run):
        assert list(run(square, range(50), timeout=60)) == [square(i) for i in range(50)]

    def test_cancels_what_waits_on_the_users_executor(self):
        with Gate() as gate, ThreadPoolExecutor(1) as executor:
            with pytest.raises(TimeoutError):
                abreast.map(gate, range(20), executor=executor, timeout=0.05, chunksize=1)
            gate.open()
            assert executor.submit(square, 3).result(PATIENCE) == 9
        assert gate.started in ([0], [])  # none, if the machine was too busy to start one in time


@pytest.mark.whole
class TestTimeoutOfOutcomes:
    def outcomes(self, gate, held, inputs, **options):
        options = {"timeout": 0.08, "max_workers": 2, "chunksize": 1, **options}
        return list(abreast.outcomes(lambda i: gate(i) if i in held else square(i), inputs, **options))

    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("chunksize", [1, 4, "auto"])
    @pytest.mark.parametrize("buffersize", [None, 3, 30])
    def test_the_rest_comes_as_cancelled_and_every_input_exactly_once(self, ordered, chunksize, buffersize):
        with Gate() as gate:
            got = self.outcomes(gate, {5, 9}, list(range(1000)), ordered=ordered, chunksize=chunksize, buffersize=buffersize)
        assert Counter(outcome.index for outcome in got) == Counter(range(1000))
        if ordered:
            assert [outcome.index for outcome in got] == list(range(1000))
        for outcome in got:
            assert outcome.input == outcome.index
            assert outcome.cancelled or outcome.value == square(outcome.input)
        cancelled = {outcome.index for outcome in got if outcome.cancelled}
        assert {5, 9} <= cancelled or 9 not in gate.started
        assert 5 in cancelled

    def test_what_was_completed_behind_a_task_that_hangs_comes_with_its_value(self):
        with Gate() as gate:
            got = self.outcomes(gate, {0}, [0, 1, 2, 3], timeout=0.5)
        assert [outcome.cancelled for outcome in got] == [True, False, False, False]
        assert [outcome.value for outcome in got[1:]] == [1, 4, 9]

    def test_attempts_tell_what_was_running_from_what_never_started(self):
        with Gate() as gate:
            got = self.outcomes(gate, {1}, range(6), max_workers=1, name="mill", timeout=0.5)
        assert [outcome.attempts for outcome in got] == [1, 1, 0, 0, 0, 0]
        assert [bool(outcome.worker) for outcome in got] == [True, True, False, False, False, False]
        assert [outcome.duration for outcome in got[1:]] == [0.0] * 5

    def test_what_has_not_been_read_of_an_iterator_of_unknown_length_is_left_there(self):
        inputs = Reads()
        with Gate() as gate:
            got = self.outcomes(gate, {3}, inputs, max_workers=1, timeout=0.5)
        assert [outcome.index for outcome in got] == list(range(inputs.count))
        assert [outcome.cancelled for outcome in got[3:]] == [True] * (inputs.count - 3)

    def test_threads_that_hang_are_not_waited_for(self):
        with Gate() as gate:
            begun = time.monotonic()
            assert self.outcomes(gate, {0}, [0])[0].cancelled
            assert time.monotonic() - begun < PATIENCE / 2

    def test_is_counted_in_the_summary(self):
        with Gate() as gate:
            results = abreast.outcomes(lambda i: gate(i) if i else i, range(1), timeout=60)
            assert [outcome.ok for outcome in results] == [True]
            assert results.summary().cancelled == 0
            results = abreast.outcomes(lambda i: gate(i) if i else i, range(10), timeout=0.5, max_workers=1, chunksize=1)
            assert [outcome.ok for outcome in results] == [True] + [False] * 9
        summary = results.summary()
        assert (summary.tasks, summary.failures, summary.cancelled) == (1, 0, 9)

    def test_the_length_hint_stays_right(self):
        with Gate() as gate:
            results = abreast.outcomes(lambda i: gate(i) if i == 3 else i, list(range(10)), max_workers=1, timeout=0.5)
            hints = [operator.length_hint(results, -1) for _ in results]
        assert hints == list(reversed(range(10)))


class TestWorkers:
    @pytest.mark.parametrize(("inputs", "asked", "expected"), [(2, 10, 2), (10, 2, 2), (0, 5, 1), (None, 7, 7), (1, None, 1)])
    def test_there_are_never_more_than_inputs(self, inputs, asked, expected):
        workers = open_pool("thread", asked, name="", inputs=inputs, task_timeout=None)
        assert (workers.count, workers.executor._max_workers) == (expected, expected)
        workers.end(abandon=False)

    def test_by_default_there_are_four_more_than_the_usable_cores(self):
        workers = open_pool("thread", None, name="", inputs=None, task_timeout=None)
        assert workers.count == default_threads()
        workers.end(abandon=False)

    def test_at_most_so_many_tasks_run_at_the_same_time_and_so_many_do(self):
        barrier, most, running = threading.Barrier(3), [], set()

        def task(_):
            running.add(threading.get_ident())
            barrier.wait(PATIENCE)  # three are here at the same time
            most.append(threading.current_thread().name)

        abreast.map(task, range(30), max_workers=3, chunksize=1, name="three")
        assert len(running) == 3
        assert set(most) == {"three_0", "three_1", "three_2"}

    def test_of_a_serial_run_is_the_thread_that_asks(self):
        assert set(abreast.map(lambda _: threading.get_ident(), range(10), kind="serial")) == {threading.get_ident()}

    @every_way
    def test_each_call_has_a_pool_of_its_own_inside_a_worker_too(self, run):
        """Three deep, with one worker each: nothing is shared, so nothing can deadlock."""

        def inner(x):
            return run(square, [x, x + 1], max_workers=1)

        def middle(x):
            return run(inner, [x, x + 1], max_workers=1)

        assert run(middle, [1, 2], max_workers=1) == [[[1, 4], [4, 9]], [[4, 9], [9, 16]]]

    @pytest.mark.parametrize("method", ["map", "imap", "outcomes"])
    def test_a_run_on_the_executor_of_its_own_worker_is_a_deadlock_that_is_detected(self, method):
        with ThreadPoolExecutor(1) as executor:

            def outer():
                return list(getattr(executor, method)(square, range(3)))

            with pytest.raises(abreast.DeadlockDetected):
                executor.submit(outer).result(PATIENCE)
            assert executor.submit(square, 2).result(PATIENCE) == 4

    def test_a_run_on_the_executor_of_its_own_worker_goes_on_while_another_is_free(self):
        with ThreadPoolExecutor(2) as executor:
            future = executor.submit(lambda: [*executor.imap(square, range(50)), *executor.map(square, range(50))])
            assert future.result(PATIENCE) == [square(i) for i in range(50)] * 2

    def test_threads_are_named_after_the_function_or_by_name(self):
        assert abreast.map(lambda _: threading.current_thread().name, [1], name="fetch") == ["fetch_0"]
        assert "test_threads_are_named" in abreast.map(lambda _: threading.current_thread().name, [1])[0]


class TestLengthHint:
    @lazily
    def test_of_a_list_is_exact(self, start):
        results = start(square, [1, 2, 3, 4])
        assert operator.length_hint(getattr(results, "results", results), -1) == 4
        assert len(list(results)) == 4
        assert operator.length_hint(getattr(results, "results", results), -1) == 0
        results.close()

    def test_of_a_list_stays_exact_from_the_first_result_to_the_last(self):
        results = abreast.imap(square, list(range(50)), kind="serial")
        hints = [operator.length_hint(results, -1) for _ in results]
        assert hints == list(reversed(range(50)))
        assert operator.length_hint(results, -1) == 0

    @kinds
    @pytest.mark.parametrize("buffersize", [1, 3])
    def test_of_a_list_stays_exact_with_a_buffersize(self, kind, buffersize):
        results = abreast.imap(square, list(range(50)), kind=kind, buffersize=buffersize)
        hints = [operator.length_hint(results, -1) for _ in results]
        assert hints == list(reversed(range(50)))

    def test_of_several_lists_is_that_of_the_shortest(self):
        assert operator.length_hint(abreast.imap(pow, [1, 2, 3], [1, 2]), -1) == 2

    def test_of_a_generator_is_not_known(self):
        results = abreast.imap(square, (i for i in range(3)))
        assert results.__length_hint__() is NotImplemented
        assert operator.length_hint(results) == 0
        assert list(results) == [0, 1, 4]

    def test_after_close_is_nothing(self):
        results = abreast.imap(square, range(10))
        next(results)
        results.close()
        assert operator.length_hint(results, -1) == 0

    def test_gives_rich_its_total(self):
        progress = pytest.importorskip("rich.progress")
        with progress.Progress(disable=True) as bar:
            assert list(bar.track(abreast.imap(square, [1, 2, 3]))) == [1, 4, 9]
            assert bar.tasks[0].total == 3

    @pytest.mark.clients
    def test_gives_tqdm_its_total(self):
        concurrent = pytest.importorskip("tqdm.contrib.concurrent")
        totals = []

        class Bar(pytest.importorskip("tqdm").tqdm):
            monitor_interval = 0  # no thread of its own

            def __init__(self, *args, **options):
                totals.append(options["total"])
                super().__init__(*args, **options, disable=True)

        results = abreast.imap(square, [1, 2, 3])
        assert concurrent.thread_map(square, results, max_workers=1, tqdm_class=Bar) == [1, 16, 81]
        assert totals == [3]


class TestSummary:
    @lazily
    @kinds
    def test_counts_tasks_workers_times_and_failures(self, start, kind):
        results = start(nap, range(6), kind=kind, max_workers=2 if kind == "thread" else None)
        assert results.summary().tasks == 0
        for _ in results:
            pass
        summary = results.summary()
        assert (summary.tasks, summary.failures, summary.cancelled) == (6, 0, 0)
        assert 1 <= summary.workers <= (2 if kind == "thread" else 1)
        assert summary.task_time >= 6 * 0.005
        assert summary.wall_time >= summary.task_time / summary.workers * 0.5
        results.close()

    def test_is_one_line_of_text(self):
        results = abreast.outcomes(lambda x: 1 / x, [1, 0, 2], max_workers=1)
        assert len(list(results)) == 3
        text = str(results.summary())
        assert text.startswith("3 tasks on 1 worker in ")
        assert text.endswith("; 1 failed")
        assert "\n" not in text

    def test_counts_failures(self):
        results = abreast.outcomes(lambda x: 1 / x, [1, 0, 0])
        list(results)
        assert results.summary().failures == 2

    def test_stays_as_it_was_at_the_end(self):
        results = abreast.imap(square, range(10))
        list(results)
        first = results.summary()
        time.sleep(0.002)
        assert results.summary() == first

    def test_counts_what_was_read_and_not_run_after_close(self):
        with Gate() as gate:
            inputs = Inputs(2)
            results = abreast.imap(first_then(inputs, gate), inputs, max_workers=2, chunksize=1, buffersize=3)
            next(results)
            gate.wait_started(1, 2)
            results.close()
        summary = results.summary()
        assert summary.tasks == 1
        assert summary.cancelled == 3
        assert str(summary).endswith(", 3 cancelled")

    def test_repr_tells_the_state(self):
        results = abreast.imap(square, range(3), name="squares")
        assert repr(results) == "<Results of squares: not started, 0 tasks ended>"
        next(results)
        assert repr(results).startswith("<Results of squares: running")
        list(results)
        assert repr(results) == "<Results of squares: over, 3 tasks ended>"


class TestTaskTimeout:
    @pytest.mark.parametrize("ordered", [True, False])
    def test_the_slow_task_fails_on_time_and_its_mates_do_not(self, ordered):
        with Gate() as gate:
            got = list(
                abreast.outcomes(lambda i: gate(i) if i == 2 else i, range(8), max_workers=2, task_timeout=0.5, ordered=ordered)
            )
        got.sort(key=lambda outcome: outcome.index)
        assert [outcome.ok for outcome in got] == [i != 2 for i in range(8)]
        assert isinstance(got[2].error, abreast.TaskTimeout)
        assert got[2].error.limit == 0.5

    def test_map_raises_it_with_the_note(self):
        with Gate() as gate, pytest.raises(abreast.TaskTimeout) as caught:
            abreast.map(lambda i: gate(i) if i == 1 else i, range(2), task_timeout=0.3, name="fetch")
        assert any("fetch(1): input 1, attempt 1" in note for note in caught.value.__notes__)

    def test_counts_from_the_start_of_each_task(self):
        """All of them, and those of a batch together, take longer than the limit."""
        assert abreast.map(nap, range(400), max_workers=2, task_timeout=0.5) == list(range(400))

    def test_with_more_slow_tasks_than_workers_the_width_is_kept(self):
        with Gate() as gate:
            got = list(abreast.outcomes(lambda i: gate(i) if i < 4 else i, range(8), max_workers=2, task_timeout=0.3))
        assert [isinstance(outcome.error, abreast.TaskTimeout) for outcome in got] == [True] * 4 + [False] * 4

    def test_of_an_executor_holds_in_its_runs(self):
        with Gate() as gate, ThreadPoolExecutor(2, task_timeout=0.3) as executor:
            got = list(executor.outcomes(lambda i: gate(i) if i == 1 else i, range(4)))
        assert [outcome.ok for outcome in got] == [True, False, True, True]


class Thing:
    def __init__(self, x):
        self.x = x


@pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
class TestNothingIsKept:
    @pytest.mark.parametrize("name", ["imap", "executor.imap"])
    @kinds
    @pytest.mark.parametrize("options", [{}, {"buffersize": 2}, {"chunksize": 5}, {"ordered": False}], ids=str)
    def test_results_are_let_go_when_the_consumer_does(self, name, kind, options, no_gc):
        results = LAZY[name](Thing, range(20), kind=kind, **options)
        for thing in results:
            gone = weakref.ref(thing)
            del thing
            wait_gone(gone)
        results.close()

    @pytest.mark.parametrize("name", ["outcomes", "executor.outcomes"])
    @kinds
    def test_outcomes_are_let_go_with_their_values(self, name, kind, no_gc):
        results = LAZY[name](Thing, range(20), kind=kind)
        for outcome in results:
            gone = weakref.ref(outcome.value)
            del outcome
            wait_gone(gone)
        results.close()

    def test_inputs_are_let_go_with_their_batch(self, no_gc):
        """Two batches a worker, one that came last, and the consumer's: no more inputs are alive."""
        alive = weakref.WeakSet()

        def inputs():
            for i in range(200):
                thing = Thing(i)
                alive.add(thing)
                yield thing
                del thing

        most = 0
        for _ in abreast.imap(lambda thing: thing.x, inputs(), max_workers=1, chunksize=2):
            most = max(most, len(alive))
        assert most <= 2 * 2 + 2 + 2

    @pytest.mark.parametrize(
        "run", [abreast.map, lambda *args, **options: list(abreast.imap(*args, **options))], ids=["map", "imap"]
    )
    def test_an_error_makes_no_cycle(self, run, no_gc):
        def fail(_):
            raise Unlucky

        try:
            run(fail, [1, 2, 3], max_workers=2)
        except Unlucky as error:
            gone = weakref.ref(error)
        wait_gone(gone)

    def test_an_error_in_an_outcome_makes_no_cycle(self, no_gc):
        def fail(_):
            raise Unlucky

        for outcome in abreast.outcomes(fail, [1, 2, 3], max_workers=2):
            gone = weakref.ref(outcome.error)
            del outcome
            wait_gone(gone)

    def test_a_dropped_run_is_let_go_with_its_inputs(self, no_gc):
        inputs = Reads()
        results = abreast.imap(Thing, inputs, max_workers=2)
        next(results)
        gone, gone_inputs = weakref.ref(results), weakref.ref(inputs)
        del results, inputs
        assert gone() is None
        assert gone_inputs() is None


def wait_gone(gone):
    """Wait until nothing refers to it: a worker may hold what it has just made for a moment longer."""
    end = time.monotonic() + 2
    while gone() is not None:
        assert time.monotonic() < end, "kept"
        time.sleep(0)


def test_outcome_is_what_outcomes_yields():
    assert {type(outcome) for outcome in abreast.outcomes(square, range(3))} == {Outcome}
