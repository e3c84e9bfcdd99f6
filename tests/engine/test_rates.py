"""Starts per second, on every kind; bounds for failures. The schedule itself is tested with a fake clock (tests/policy/test_rate.py)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import pickle
import threading
import time

import abreast
import pytest
from abreast import Retry, SerialExecutor, ThreadPoolExecutor, TooManyFailures

from tests.engine.stand_ins import Inline, every_way

pytestmark = pytest.mark.whole  # hardly depends on the version of Python; there the fast set has enough to do


class Clock:
    """Notes when each task starts."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.starts = []

    def __call__(self, x):
        self.starts.append(time.monotonic())
        if self.seconds:
            time.sleep(self.seconds)
        return x


def now(_):
    return time.monotonic()


def check(starts, rate):
    """Not ahead of the schedule; a start may be later than when it was sent, so others may come closer behind it, by 25 ms and that."""
    starts = sorted(starts)
    first = starts[0]
    for n, start in enumerate(starts):
        assert start >= first + n / rate - 0.025 - 1 / rate, (n, start - first)


@every_way
@pytest.mark.parametrize("ordered", [True, False])
def test_starts_follow_the_schedule(run, ordered):
    clock = Clock()
    begun = time.monotonic()
    assert sorted(run(clock, range(30), max_per_second=200, ordered=ordered, max_workers=4)) == list(range(30))
    assert time.monotonic() - begun >= 29 / 200
    check(clock.starts, 200)


@pytest.mark.parametrize("kind", ["thread", "serial", "process"])
def test_on_every_kind(kind):
    begun = time.monotonic()  # the schedule counts what is sent, and a process takes a moment to be there
    starts = abreast.map(now, range(20), max_per_second=100, kind=kind)
    check([begun, *starts][:20], 100)
    assert max(starts) >= begun + 19 / 100


@pytest.mark.parametrize(
    "make", [lambda: concurrent.futures.ThreadPoolExecutor(3), Inline, SerialExecutor, lambda: ThreadPoolExecutor(3)]
)
def test_on_any_executor(make):
    clock = Clock()
    with make() as executor:
        assert abreast.map(clock, range(20), max_per_second=100, executor=executor) == list(range(20))
    check(clock.starts, 100)


def test_slow_rates_are_floats():
    clock = Clock()
    abreast.map(clock, range(2), max_per_second=1 / 0.3)
    assert clock.starts[1] - clock.starts[0] >= 0.2  # the first may begin late on a busy machine: what is counted is the dispatch


def test_retries_count():
    failed = set()
    clock = Clock()

    def task(x):
        clock(x)
        if x not in failed:
            failed.add(x)
            raise ConnectionError
        return x

    soon = Retry(1, wait_initial=0, wait_max=0, wait_jitter=0)
    assert abreast.map(task, range(10), max_per_second=100, retries=soon, max_workers=4) == list(range(10))
    assert len(clock.starts) == 20
    check(clock.starts, 100)


def test_a_pause_is_not_made_up_for():
    """Nobody asks for a while; then no burst."""
    clock = Clock()
    results = abreast.imap(clock, range(60), max_per_second=200, max_workers=2, buffersize=2)
    for result in results:
        if result == 10:
            time.sleep(0.3)
    gaps = [later - start for start, later in itertools.pairwise(sorted(clock.starts))]
    pause = gaps.index(max(gaps))  # another one, if the machine stood still for longer: the same holds after that
    assert gaps[pause] > 0.2
    after = sorted(clock.starts)[pause + 1 :]
    assert sum(start < after[0] + 0.1 for start in after) <= 0.1 * 200 + 6 + 2


def test_high_rates_keep_batches():
    clock = Clock()
    begun = time.monotonic()
    abreast.map(clock, range(3000), max_per_second=10_000, max_workers=2)
    assert time.monotonic() - begun >= 0.29
    check(clock.starts, 10_000)


def test_a_rate_that_is_never_reached_costs_no_batches():
    sizes = []

    class Counting(concurrent.futures.ThreadPoolExecutor):
        def submit(self, fn, batch):
            sizes.append(len(batch.items))
            return super().submit(fn, batch)

    with Counting(2) as executor:
        abreast.map(abs, range(50_000), executor=executor, max_per_second=1e9, retries=3)
    assert max(sizes) > 500


def test_no_worker_is_held_by_it():
    with ThreadPoolExecutor(1) as executor:
        results = executor.imap(abs, range(5), max_per_second=4)
        next(results)
        begun = time.monotonic()
        for _ in range(50):  # amid its wait for the second start
            executor.submit(abs, 1).result()
        assert time.monotonic() - begun < 0.2
        results.close()


def test_the_event_loop_goes_on():
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.005)

    async def main():
        other = asyncio.create_task(tick())
        results = await abreast.amap(abs, range(5), max_per_second=20)
        other.cancel()
        return results

    assert asyncio.run(main()) == list(range(5))
    assert len(ticks) > 5


def test_inputs_are_not_read_far_ahead():
    read = []

    def inputs():
        for x in itertools.count():
            read.append(x)
            yield x

    with abreast.imap(abs, inputs(), max_per_second=50, max_workers=2) as results:
        for _ in range(10):
            next(results)
        assert len(read) <= 10 + 4 * 3


def test_a_timeout_ends_it():
    clock = Clock()
    found = list(abreast.outcomes(clock, range(100), max_per_second=20, timeout=0.3))
    assert [outcome.index for outcome in found] == list(range(100))
    assert 3 <= sum(outcome.ok for outcome in found) <= 7
    assert all(outcome.ok or outcome.cancelled for outcome in found)


# ---- max_failures


def fails(x):
    raise ConnectionError(x)


def every_third_fails(x):
    if x % 3 == 2:
        raise ConnectionError(x)
    return x


def take(results):
    """Return all outcomes, and what was raised at the end."""
    found = []
    try:
        for outcome in results:
            found.append(outcome)
    except TooManyFailures as error:
        return found, error
    return found, None


@pytest.mark.parametrize("kind", ["thread", "serial", "process"])
@pytest.mark.parametrize("ordered", [True, False])
def test_one_more_than_may_fail_ends_the_run(kind, ordered):
    found, error = take(
        abreast.outcomes(every_third_fails, range(200), max_failures=4, kind=kind, ordered=ordered, max_workers=1)
    )
    assert sorted(outcome.index for outcome in found) == list(range(200))
    failed = [outcome for outcome in found if isinstance(outcome.error, ConnectionError)]
    assert error is not None
    assert error.max_failures == 4
    assert isinstance(error.__cause__, ConnectionError)
    assert error.failures == len(failed)
    if kind == "process":  # a batch there is told nothing
        assert len(failed) >= 5
        return
    assert len(failed) == 5
    assert [outcome.index for outcome in found if not outcome.cancelled] == list(range(15))
    assert "5 of 15 tasks failed, and max_failures=4 allows no more than 4" in str(error)
    assert "5 tasks of the run had failed, more than its max_failures=4 allows" in str(
        next(o for o in found if o.cancelled).error
    )


def test_as_many_as_may_fail_may():
    found, error = take(abreast.outcomes(fails, range(4), max_failures=4))
    assert error is None
    assert len(found) == 4


def test_none_may_fail():
    found, error = take(abreast.outcomes(every_third_fails, range(9), max_failures=0, max_workers=1))
    assert [outcome.ok for outcome in found] == [True, True] + [False] * 7
    assert error.failures == 1


def test_a_share_counts_from_twenty_tasks_on():
    found, error = take(abreast.outcomes(fails, range(100), max_failures=0.5, max_workers=1))
    assert (error.failures, error.ended, error.max_failures) == (20, 20, 0.5)
    assert sum(outcome.cancelled for outcome in found) == 80
    assert "max_failures=0.5 allows no more than 0.5 of them" in str(error)
    assert take(abreast.outcomes(every_third_fails, range(100), max_failures=0.4))[1] is None


def test_only_what_has_failed_for_good_counts():
    tried = set()

    def second_time(x):
        if x not in tried:
            tried.add(x)
            raise ConnectionError(x)
        return x

    soon = Retry(1, wait_initial=0.001, wait_jitter=0)
    found, error = take(abreast.outcomes(second_time, range(30), max_failures=0, retries=soon))
    assert error is None
    assert all(outcome.ok for outcome in found)
    found, error = take(abreast.outcomes(fails, range(30), max_failures=2, retries=soon, max_workers=1))
    assert error.failures == 3
    assert [outcome.index for outcome in found] == list(range(30))


def test_what_waits_for_a_retry_comes_as_cancelled():
    late = Retry(1, on=ConnectionError, wait_initial=60, wait_max=60)

    def task(x):
        raise ConnectionError if x < 3 else LookupError

    found, error = take(abreast.outcomes(task, range(10), max_failures=1, retries=late, max_workers=1))
    assert [(outcome.cancelled, outcome.attempts) for outcome in found[:3]] == [(True, 1)] * 3
    assert [type(outcome.error) for outcome in found[3:5]] == [LookupError] * 2
    assert isinstance(error.__cause__, LookupError)


def test_endless_inputs_are_read_no_further():
    read = []

    def inputs():
        for x in itertools.count():
            read.append(x)
            yield x

    found, error = take(abreast.outcomes(fails, inputs(), max_failures=3, max_workers=2))
    assert error.failures >= 4
    assert len(found) == len(read) < 100


def test_what_runs_is_left_behind():
    begun, gate = threading.Event(), threading.Event()

    def task(x):
        if x == 0:
            begun.set()
            return gate.wait(10)
        begun.wait(10)
        return fails(x)

    found, error = take(abreast.outcomes(task, range(10), max_failures=2, max_workers=2))
    assert found[0].cancelled
    assert found[0].attempts == 1
    assert error.failures == 3
    gate.set()


def test_the_summary_says_so():
    results = abreast.outcomes(fails, range(10), max_failures=2, max_workers=1)
    take(results)
    summary = results.summary()
    assert (summary.tasks, summary.failures, summary.cancelled) == (3, 3, 7)


@pytest.mark.parametrize("name", ["map", "imap", "amap", "aimap", "executor.imap"])
def test_is_refused_where_the_first_error_ends_the_run(name):
    with ThreadPoolExecutor(1) as executor, pytest.raises(TypeError, match=r"max_failures=3 is for outcomes\(\)"):
        target = executor.imap if "." in name else getattr(abreast, name)
        result = target(abs, [1], max_failures=3)
        if name == "amap":
            asyncio.run(result)


def test_the_error_pickles():
    error = pickle.loads(pickle.dumps(TooManyFailures(3, 10, 0.25)))
    assert (error.failures, error.ended, error.max_failures) == (3, 10, 0.25)
