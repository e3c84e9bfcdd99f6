"""How many tasks go into a batch: the rule's promises for any numbers, and what it makes of runs, on virtual time."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque

import pytest
from abreast.policy.batch import (
    TIME_BOX,
    Pace,
    batch_size,
    inputs_at_once,
    learn,
    learn_dispatch,
    learn_reading,
    stride,
    time_target,
)

from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.whole  # hardly depends on the version of Python; there the fast set has enough to do

settings.register_profile("busy", deadline=None)  # the computer may have other things to do
settings.load_profile("busy")

seconds = st.floats(1e-9, 1e4)
costs = st.floats(1e-6, 1e-3)
crews = st.integers(1, 1024)
lefts = st.none() | st.integers(0, 10**9)
sizes = st.integers(1, 10**7)
paces = st.builds(
    Pace, dispatch=costs, item=seconds, largest=sizes, reading=st.floats(0, 10), least_time=st.sampled_from([0.002, 0.04])
)


class TestTimeTarget:
    @given(paces, crews)
    def test_sending_costs_at_most_two_percent_and_the_dispatcher_is_busy_for_a_quarter_at_most(self, pace, workers):
        target = time_target(pace, workers)
        assert target >= pace.least_time
        assert pace.dispatch <= 0.02 * target * (1 + 1e-9)
        assert workers * pace.dispatch <= 0.25 * target * (1 + 1e-9)


class TestBatchSize:
    @given(paces, crews, lefts)
    def test_at_least_one(self, pace, workers, left):
        size = batch_size(pace, workers, left)
        assert isinstance(size, int)
        assert size >= 1

    @given(paces, crews, lefts)
    def test_one_before_anything_is_known(self, pace, workers, left):
        assert batch_size(pace._replace(item=None), workers, left) == 1

    @given(paces, crews, lefts)
    def test_never_more_than_32_times_what_came_back_at_once(self, pace, workers, left):
        assert batch_size(pace, workers, left) <= 32 * pace.largest

    @given(paces, crews, lefts)
    def test_never_expected_to_take_longer_than_the_target(self, pace, workers, left):
        size = batch_size(pace, workers, left)
        assert size == 1 or size * pace.item <= time_target(pace, workers) * (1 + 1e-9)

    @given(paces, crews, st.integers(0, 10**9))
    def test_at_most_half_a_share_of_what_is_left(self, pace, workers, left):
        """A whole share only of tasks so short that smaller batches would keep the dispatcher busy all the time."""
        share = left / workers
        busy = workers * pace.dispatch / pace.item
        assert batch_size(pace, workers, left) <= max(1, share / 2, min(busy, share))

    @given(paces, crews, st.integers(2, 10**9))
    def test_of_tasks_that_are_not_tiny_half_a_share_is_the_most(self, pace, workers, left):
        assume(pace.item >= 2 * workers * workers * pace.dispatch / left)
        assert batch_size(pace, workers, left) <= max(1, left / (2 * workers))

    @given(paces, crews, lefts)
    def test_slow_tasks_go_one_by_one(self, pace, workers, left):
        slow = max(pace.item, time_target(pace, workers))
        assert batch_size(pace._replace(item=slow), workers, left) == 1

    @given(paces, crews, lefts, seconds)
    def test_slower_tasks_never_make_it_larger(self, pace, workers, left, other):
        slower, quicker = pace._replace(item=max(pace.item, other)), pace._replace(item=min(pace.item, other))
        assert batch_size(slower, workers, left) <= batch_size(quicker, workers, left)

    @given(paces, crews, st.integers(0, 10**9), lefts)
    def test_more_left_never_makes_it_smaller(self, pace, workers, fewer, more):
        if more is not None:
            fewer, more = sorted((fewer, more))
        assert batch_size(pace, workers, fewer) <= batch_size(pace, workers, more)

    @given(paces, crews, lefts, sizes)
    def test_more_that_came_back_at_once_never_makes_it_smaller(self, pace, workers, left, other):
        least, most = sorted((pace.largest, other))
        assert batch_size(pace._replace(largest=least), workers, left) <= batch_size(pace._replace(largest=most), workers, left)

    @given(paces, crews, lefts, costs)
    def test_dearer_sending_never_makes_it_smaller(self, pace, workers, left, other):
        cheap, dear = sorted((pace.dispatch, other))
        assert batch_size(pace._replace(dispatch=cheap), workers, left) <= batch_size(pace._replace(dispatch=dear), workers, left)

    @given(costs, seconds, crews)
    def test_the_second_batch_grows_32_fold_at_most(self, dispatch, first, workers):
        assert batch_size(learn(Pace(dispatch), 1, first, workers), workers, None) <= 32


class TestLearn:
    @given(costs, sizes, seconds, crews)
    def test_the_first_batch_is_believed(self, dispatch, items, took, workers):
        assert learn(Pace(dispatch), items, took, workers).item == pytest.approx(max(took / items, 1e-9))

    @given(paces, sizes, st.floats(0, 100), crews)
    def test_what_is_typical_lies_between_what_was_and_what_came(self, pace, items, took, workers):
        mean = max(took / items, 1e-9)
        item = learn(pace, items, took, workers, typical=True).item
        low, high = sorted((mean, mean if pace.item is None else pace.item))
        assert low * (1 - 1e-9) <= item <= high * (1 + 1e-9)

    @given(paces, sizes, st.floats(0, 1e4), crews)
    def test_time_per_task_stays_positive_and_between_what_it_was_and_what_came(self, pace, items, took, workers):
        item = learn(pace, items, took, workers).item
        low, high = sorted((pace.item, max(took / items, 1e-9)))
        assert item > 0
        assert low * (1 - 1e-9) <= item <= high * (1 + 1e-9)

    @given(paces, sizes, st.floats(1e-3, 0.999), crews)
    def test_bad_news_is_believed_faster_than_good(self, pace, items, part, workers):
        assume(pace.item * (1 - part) > 1e-9)
        worse = learn(pace, items, items * pace.item * (1 + part), workers).item - pace.item
        better = pace.item - learn(pace, items, items * pace.item * (1 - part), workers).item
        assert worse == pytest.approx(2 * better, rel=1e-6)

    @given(paces, sizes, st.floats(0, 1e4), crews)
    def test_largest_is_the_most_that_came_back_unless_that_took_too_long(self, pace, items, took, workers):
        new = learn(pace, items, took, workers)
        most = max(pace.largest, items)
        mean, target = max(took / items, 1e-9), time_target(pace, workers)
        assert 1 <= new.largest <= most
        if mean * most <= 2 * target:
            assert new.largest == most
        else:
            assert new.largest == 1 or new.largest * mean <= target * (1 + 1e-9)

    @given(paces, sizes, seconds, crews)
    def test_nothing_else_changes(self, pace, items, took, workers):
        new = learn(pace, items, took, workers)
        assert (new.dispatch, new.reading) == (pace.dispatch, pace.reading)

    @given(paces, seconds, crews)
    def test_a_steady_pace_is_found_within_forty_batches(self, pace, truth, workers):
        for _ in range(40):
            size = batch_size(pace, workers, None)
            pace = learn(pace, size, size * truth, workers)
        # what is left of the first estimate after 40 steps down of a quarter each: 1e-5 of it
        assert abs(pace.item - max(truth, 1e-9)) <= 1e-4 * truth + 2e-5 * 1e4


class TestLearnDispatchAndReading:
    @given(paces, st.floats(0, 1e3))
    def test_dispatch_stays_sane_and_good_news_is_believed_at_once(self, pace, took):
        new = learn_dispatch(pace, took).dispatch
        seen = min(max(took, 1e-6), 1e-3)
        if not took:
            assert new == pace.dispatch
        elif seen <= pace.dispatch:
            assert new == seen
        else:
            assert pace.dispatch <= new <= pace.dispatch + 0.05 * (seen - pace.dispatch) + 1e-12

    @given(paces, sizes, st.floats(0, 1e3))
    def test_reading_stays_sane_and_good_news_is_believed_at_once(self, pace, items, took):
        new = learn_reading(pace, items, took).reading
        if took / items < pace.reading:
            assert new == took / items
        else:
            assert pace.reading <= new <= took / items * (1 + 1e-9)

    @given(paces, crews)
    def test_as_many_inputs_at_once_as_can_be_read_within_a_batch(self, pace, workers):
        count = inputs_at_once(pace, workers)
        assert count >= 1
        assert count == 1 or count * pace.reading <= time_target(pace, workers) * (1 + 1e-6)

    def test_a_source_that_costs_nothing_sets_no_limit(self):
        assert inputs_at_once(Pace(1e-5), 1) >= 10**6


class TestStride:
    @given(paces)
    def test_between_1_and_4096(self, pace):
        assert 1 <= stride(pace) <= 4096

    @given(paces)
    def test_at_most_20_microseconds_between_two_looks_or_one_task(self, pace):
        assert stride(pace) == 1 or stride(pace) * pace.item <= 20e-6 * (1 + 1e-9)

    def test_one_before_anything_is_known(self):
        assert stride(Pace(1e-5)) == 1


# ---- what it makes of runs


class VirtualRun:
    """A run on virtual time: one dispatcher, `workers` workers with one queue, batches that hand their rest back."""

    def __init__(self, durations, workers, dispatch, *, length_known):
        self.durations = durations
        self.workers = workers
        self.length_known = length_known
        self.pace = Pace(dispatch)
        self.stretches = deque([(0, len(durations))])
        self.unsent = len(durations)
        self.longest = 0.0

    def cut(self):
        size = batch_size(self.pace, self.workers, self.unsent if self.length_known else None)
        start, stop = self.stretches.popleft()
        size = min(size, stop - start)
        if start + size < stop:
            self.stretches.appendleft((start + size, stop))
        self.unsent -= size
        return start, start + size, stride(self.pace), TIME_BOX * time_target(self.pace, self.workers)

    def work(self, start, stop, step, box):
        """Return where a worker stops, and the seconds it takes: as run_batch does."""
        took, place = 0.0, start
        while place < stop and took < box:
            took += sum(self.durations[place : min(place + step, stop)])
            place = min(place + step, stop)
        self.longest = max(self.longest, took)
        return place, took

    def total(self):
        """Return the virtual seconds that the run takes."""
        dispatcher = end = 0.0
        idle = [0.0] * self.workers  # when each worker is free
        running = []  # (end, what came of the batch)
        outstanding = 0
        while True:
            while self.stretches and outstanding < 2 * self.workers:
                start, stop, step, box = self.cut()
                dispatcher += self.pace.dispatch
                begun = max(dispatcher, heapq.heappop(idle))
                place, took = self.work(start, stop, step, box)
                heapq.heappush(idle, begun + took)
                heapq.heappush(running, (begun + took, start, place, stop, took))
                outstanding += 1
            if not running:
                return end
            now, start, place, stop, took = heapq.heappop(running)
            outstanding -= 1
            end = max(end, now)
            dispatcher = max(dispatcher, now)
            self.pace = learn(self.pace, place - start, took, self.workers)
            if place < stop:
                self.stretches.appendleft((place, stop))
                self.unsent += stop - place


def bimodal(chance):
    return [0.05 if chance.random() < 0.02 else 5e-6 for _ in range(20_000)]


def cliff(_chance):
    return [2e-6] * 18_000 + [0.01] * 2_000


def cliff_down(_chance):
    return [0.01] * 400 + [5e-6] * 19_600


def lognormal(chance):
    return [1e-4 * math.exp(chance.gauss(0, 2)) for _ in range(20_000)]


def tiny(_chance):
    return [1e-6] * 1_000_000


def even(_chance):
    return [1e-2] * 500


@pytest.mark.parametrize("length_known", [True, False], ids=["list", "iterator"])
@pytest.mark.parametrize("dispatch", [10e-6, 60e-6], ids=["threads", "processes"])
@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("shape", [bimodal, cliff, cliff_down, lognormal, tiny, even], ids=lambda shape: shape.__name__)
def test_a_run_takes_at_most_a_twentieth_longer_than_is_possible(shape, workers, dispatch, length_known):
    """With workers that are free of each other and inputs that cost nothing: what the rule itself loses."""
    durations = shape(random.Random(f"{shape.__name__} {workers}"))
    run = VirtualRun(durations, workers, dispatch, length_known=length_known)
    ideal = max(sum(durations) / workers, max(durations))
    total = run.total()
    assert ideal * (1 - 1e-9) <= total <= 1.05 * ideal
    # A batch lasts its time box, what may lie between two looks at the clock, and its last task.
    assert run.longest <= 0.1 + TIME_BOX * time_target(Pace(dispatch), workers) + max(durations)


def test_the_hand_back_is_what_saves_a_run_whose_tasks_turn_slow():
    """The rule without it, by a box that never ends: the case for which it is there stays one."""
    durations = cliff(None)
    with_it, without = (VirtualRun(durations, 8, 60e-6, length_known=False) for _ in range(2))
    without.work = lambda start, stop, *_: (stop, sum(durations[start:stop]))
    assert without.total() > 1.5 * with_it.total()
