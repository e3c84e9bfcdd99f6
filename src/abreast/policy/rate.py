"""When tasks may start, where somebody has said how many per second (`max_per_second`): on a schedule, ``n / rate`` seconds after the first.

Who comes late may catch up what he has missed, but no more than 25 ms of it: the schedule is moved for good then. So in any stretch of t
seconds there start at most ``rate * (t + 0.025) + 1``, and from the first start on never more than ``rate * t + 1``. (The virtual scheduling of the
GCRA, ITU-T I.371. A bucket that fills while nobody needs it would let a whole second's tasks start at once after a pause.)

Times are counted from `origin`, not added up, so that no error adds up either.
"""

from __future__ import annotations

from math import floor
from typing import NamedTuple

__all__ = ["CATCH_UP", "Schedule", "burst", "due", "next_start", "not_started", "started"]

CATCH_UP = 0.025
"""Seconds that may be caught up."""

_ROUNDING = 1e-9
"""Who waits for a start and wakes on time is not to be told that it is a rounding error too early."""


class Schedule(NamedTuple):
    """The n-th start, from 0, is due at ``origin + n / rate``; `begun` have been. `origin` is None until the first."""

    rate: float
    origin: float | None = None
    begun: int = 0


def next_start(schedule: Schedule, now: float) -> float:
    """Return when the next task may start; it may be before `now`."""
    return now if schedule.origin is None else schedule.origin + schedule.begun / schedule.rate


def due(schedule: Schedule, now: float) -> int:
    """Return how many tasks may start now."""
    if schedule.origin is None:
        return 1
    behind = now - next_start(schedule, now)
    return max(0, floor(min(behind, CATCH_UP) * schedule.rate + _ROUNDING) + 1)


def started(schedule: Schedule, now: float, count: int) -> Schedule:
    """Return the schedule after `count` tasks have started, no more than were `due`."""
    rate, origin, before = schedule
    if origin is None:
        return Schedule(rate, now, count)
    if now - (origin + before / rate) > CATCH_UP:  # too late for what was before
        origin, before = now - CATCH_UP, 0
    return Schedule(rate, origin, before + count)


def not_started(schedule: Schedule, count: int) -> Schedule:
    """Return the schedule after `count` tasks that were counted have come back and not been started."""
    return schedule._replace(begun=schedule.begun - count)


def burst(rate: float) -> int:
    """Return the most tasks that are ever due at once."""
    return floor(CATCH_UP * rate + _ROUNDING) + 1
