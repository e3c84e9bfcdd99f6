"""When the tasks of a run may start, if it has a rate: policy/rate.py by the clock. Guarded by the run's lock."""

from __future__ import annotations

from time import monotonic

from abreast.policy.rate import Schedule, burst, due, next_start, not_started, started

__all__ = ["Starts"]

_LEAST_SLEEP = 0.001
"""Seconds between two looks whether more tasks may start: far less than may be caught up. At ten thousand a second they start by tens."""
_SEEN = 1000
"""Starts per second and worker from which on a batch may be sent ahead: up to then, what is sent is to start at once."""


class Starts:
    """The starts of one run, counted as tasks are sent."""

    def __init__(self, rate: float) -> None:
        self._schedule = Schedule(rate)
        self.burst = burst(rate)
        """The most tasks that ever start at once."""

    def may_wait_ahead(self, workers: int) -> bool:
        """Whether a batch may wait at each worker for the one before it."""
        return self._schedule.rate > _SEEN * workers

    def begin(self, most: int) -> int:
        """Count up to `most` tasks that start now, as many as may; return how many."""
        now = monotonic()
        count = min(most, due(self._schedule, now))
        if count:
            self._schedule = started(self._schedule, now, count)
        return count

    def take_back(self, count: int) -> None:
        """Some that were counted have not started."""
        self._schedule = not_started(self._schedule, count)

    def next(self) -> float:
        """Return when to look again."""
        now = monotonic()
        return max(next_start(self._schedule, now), now + _LEAST_SLEEP)
