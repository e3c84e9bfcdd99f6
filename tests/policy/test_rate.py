"""Starts per second: never more than the schedule allows, for any rate and any lateness; with a fake clock."""

from __future__ import annotations

import pytest
from abreast.policy.rate import CATCH_UP, Schedule, burst, due, next_start, not_started, started

from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.whole

rates = st.floats(0.01, 1e5)
lates = st.lists(st.floats(0, 3), min_size=1, max_size=60)


def play(rate, lates, *, begin=0.0, most=10**9):
    """Start whatever is due whenever somebody looks, each time a little late; return the times."""
    schedule, now, starts = Schedule(rate), begin, []
    for late in lates:
        now = max(now, next_start(schedule, now)) + late
        count = min(due(schedule, now), most)
        assert count > 0
        schedule = started(schedule, now, count)
        starts.append((now, count))
    return starts


@given(rates, lates, st.floats(0, 1e6))
def test_never_ahead_of_the_schedule(rate, lates, begin):
    starts = play(rate, lates, begin=begin)
    total = 0
    for now, count in starts:
        total += count
        assert total <= rate * (now - begin) * (1 + 1e-6) + 1.001


@given(rates, lates, st.floats(0.1, 5))
def test_at_most_25_ms_are_caught_up_in_any_stretch(rate, lates, stretch):
    starts = play(rate, lates)
    for first, (begin, _) in enumerate(starts):
        within = sum(count for now, count in starts[first:] if now <= begin + stretch)
        assert within <= rate * (stretch + CATCH_UP) * (1 + 1e-6) + 1.001


@given(rates)
def test_who_is_on_time_keeps_the_rate_exactly(rate):
    starts = play(rate, [0.0] * 50)
    assert sum(count for _, count in starts) >= 50
    total = 0
    for now, count in starts:
        assert now == pytest.approx(total / rate)
        total += count


@given(rates, st.floats(0, CATCH_UP * 0.99))
def test_a_little_late_is_caught_up(rate, late):
    """None of the schedule is lost."""
    schedule = started(Schedule(rate), 0.0, 1)
    now = next_start(schedule, 0.0) + late
    schedule = started(schedule, now, due(schedule, now))
    assert next_start(schedule, now) == pytest.approx(schedule.begun / rate)


def test_the_figure():
    """200 a second for 10 s, looked at every 3 ms: 1,960 to 2,001 starts, at most 206 in any second."""
    schedule, starts = Schedule(200.0), []
    for tick in range(int(10 / 0.003) + 1):
        now = tick * 0.003
        if count := due(schedule, now):
            schedule = started(schedule, now, count)
            starts += [now] * count
    assert 1960 <= len(starts) <= 2001
    assert max(sum(begin <= start < begin + 1 for start in starts) for begin in starts) <= 206
    # A second's pause is not made up for.
    assert due(schedule, 12.0) == 6 == burst(200.0)


def test_the_first_is_due_at_once_and_alone():
    assert due(Schedule(1000.0), 5.0) == 1
    assert next_start(Schedule(0.1), 5.0) == 5.0
    assert next_start(started(Schedule(0.1), 5.0, 1), 5.0) == 15.0


def test_what_was_not_started_may_start_again():
    schedule = started(Schedule(1000.0), 0.0, 1)
    schedule = started(schedule, 0.02, due(schedule, 0.02))
    assert due(schedule, 0.02) == 0
    assert due(not_started(schedule, 7), 0.02) == 7


@given(rates, lates, st.integers(1, 20))
def test_starting_less_than_is_due_is_no_harm(rate, lates, most):
    assert all(count <= most for _, count in play(rate, lates, most=most))
