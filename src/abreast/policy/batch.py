"""How many tasks to put into a batch: by time, capped by a share of what is left, learnt from the batches that came back.

A batch should take `time_target` seconds: long enough that sending it costs little, short enough that results keep coming
and that all workers end together. Slow tasks get a batch of one each, which is perfect balance. What the estimate gets wrong
is mended by the time box: a worker hands back what it has not started after `TIME_BOX` targets. That matters more than the formula
(docs/design/runs.md has the figures).

Related: guided self-scheduling (Polychronopoulos and Kuck, 1987), factoring (Flynn Hummel et al., 1992); they cap by a share of
what is left, and trust the sizes; without times and a way back, tasks that turn slow late in the run end it late.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

__all__ = [
    "TIME_BOX",
    "Pace",
    "batch_size",
    "inputs_at_once",
    "learn",
    "learn_dispatch",
    "learn_reading",
    "stride",
    "time_target",
]

TIME_BOX = 1.5
"""How many time targets a batch may take before what it has not started is handed back."""

_LOOK = 20e-6
"""Seconds of work between two looks at the clock, which costs 0.05 to 0.1 us: below 1 %."""


class Pace(NamedTuple):
    """What a run has learnt.

    Attributes:
        dispatch: seconds that sending one batch costs.
        item: seconds per task, smoothed; None until the first batch is back.
        largest: the most tasks that came back at once, which bounds growth; less after a batch that took too long.
        reading: seconds that reading one input costs, smoothed.
        least_time: seconds that a batch should take at least.
    """

    dispatch: float
    item: float | None = None
    largest: int = 1
    reading: float = 0.0
    least_time: float = 0.002


def time_target(pace: Pace, workers: int) -> float:
    """Return how many seconds a batch should take: overhead at most 2 %, the dispatcher at most a quarter busy."""
    return max(50 * pace.dispatch, 4 * workers * pace.dispatch, pace.least_time)


def batch_size(pace: Pace, workers: int, left: int | None) -> int:
    """Return how many tasks the next batch should have, at least 1.

    Args:
        pace: what has been learnt.
        workers: how many there are.
        left: how many tasks have not been sent; None is not known.
    """
    if pace.item is None:
        return 1
    size = min(time_target(pace, workers) / pace.item, 32 * pace.largest)
    if left is not None:
        # Smaller ones would keep the dispatcher busy all the time; larger ones than half a share end the run unevenly.
        least = min(workers * pace.dispatch / pace.item, left / workers)
        size = min(size, max(least, left / (2 * workers)))
    return max(1, int(size))


def learn(pace: Pace, items: int, seconds: float, workers: int, *, typical: bool = False) -> Pace:
    """Return the pace after a batch that came back with `items` tasks done in `seconds`. Bad news is believed faster.

    `typical`: smooth the square root, so that what most tasks take counts more, and what a few long ones take less: where sending a batch
    costs much, and what it is too large for surely comes back at its time box. (The logarithm goes too far: with lognormal times of
    sigma 2 batches are seven times as long, and end the run unevenly.)
    """
    mean = max(seconds / items, 1e-9)
    item = pace.item
    if item is None:
        item = mean
    elif typical:
        item = (sqrt(item) + (0.5 if mean > item else 0.25) * (sqrt(mean) - sqrt(item))) ** 2
    else:
        item += (0.5 if mean > item else 0.25) * (mean - item)
    largest = max(pace.largest, items)
    target = time_target(pace, workers)
    if mean * largest > 2 * target:
        largest = max(1, int(target / mean))
    return Pace(pace.dispatch, item, largest, pace.reading, pace.least_time)


def learn_reading(pace: Pace, items: int, seconds: float) -> Pace:
    """Return the pace after `items` inputs were read in `seconds`. Good news is believed at once: bad may be a wait for the GIL."""
    mean = seconds / items
    reading = mean if mean < pace.reading else pace.reading + 0.25 * (mean - pace.reading)
    return Pace(pace.dispatch, pace.item, pace.largest, reading, pace.least_time)


def learn_dispatch(pace: Pace, seconds: float) -> Pace:
    """Return the pace after sending a batch took `seconds` (0 is not known). Good news is believed at once, as in `learn_reading`."""
    if not seconds:
        return pace
    seconds = min(max(seconds, 1e-6), 1e-3)
    dispatch = seconds if seconds < pace.dispatch else pace.dispatch + 0.05 * (seconds - pace.dispatch)
    return Pace(dispatch, pace.item, pace.largest, pace.reading, pace.least_time)  # not _replace, which takes three times as long


def inputs_at_once(pace: Pace, workers: int) -> int:
    """Return how many inputs to read before sending them: from a slow source fewer, so that no worker waits for a full batch."""
    target = time_target(pace, workers)
    return max(1, int(target / pace.reading)) if pace.reading * 1e9 > target else 1_000_000_000


def stride(pace: Pace) -> int:
    """Return how many tasks to run between two looks at the clock."""
    return 1 if pace.item is None else max(1, min(4096, int(_LOOK / pace.item)))
