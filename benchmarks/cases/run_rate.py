"""Starts per second: how near the rate, and how many in the busiest second; counted where tasks are handed to an executor."""

from __future__ import annotations

import bisect
import concurrent.futures
import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks.case import ABREAST, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RATE, WORKERS = 200, 50
STARTED, BUSIEST = f"{ABREAST}, not started", f"{ABREAST}, busiest second"


def cases(*, quick: bool) -> list[Case]:
    seconds = 1 if quick else 10
    return [
        Case(
            name="run_rate",
            description=f"max_per_second={RATE} over {seconds} s, {WORKERS} threads, naps of 0.1 s: starts that are missing, and most in a second",
            unit="starts",
            contenders={
                STARTED: Contender(partial(measured, seconds, missing), note=f"of {RATE * seconds + 1:,} by the schedule"),
                BUSIEST: Contender(partial(measured, seconds, busiest)),
            },
            reference=STARTED,
            goal=f"never ahead, at most 41 missing in 10 s, at most {RATE + 6} in any second",
            reached=reached,
            rounds=1 if quick else 3,
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return 0 <= medians[STARTED] <= 41 and medians[BUSIEST] <= RATE + 6


class Counting(concurrent.futures.ThreadPoolExecutor):
    """Notes when tasks are handed to it."""

    def __init__(self) -> None:
        super().__init__(WORKERS)
        self.starts: list[float] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        batch = args[0]  # as a run calls a foreign executor
        self.starts += [time.perf_counter()] * len(batch.items)
        return super().submit(fn, *args, **kwargs)


def measured(seconds: int, figure: Callable[[list[float], int], float]) -> float:
    with Counting() as executor:
        results = abreast.imap(time.sleep, itertools.repeat(0.1), executor=executor, max_per_second=RATE, ordered=False)
        end = time.perf_counter() + seconds + 0.2
        for _ in results:
            if time.perf_counter() > end:
                break
        results.close()
    return figure(executor.starts, seconds)


def missing(starts: list[float], seconds: int) -> float:
    return RATE * seconds + 1 - bisect.bisect_right(starts, starts[0] + seconds)


def busiest(starts: list[float], _seconds: int) -> float:
    return max(bisect.bisect_left(starts, start + 1) - n for n, start in enumerate(starts))
