"""The example of many courses: nine naps of half a second on three threads, 1.5 s if nothing is lost."""

from __future__ import annotations

import concurrent.futures
from functools import partial
from time import perf_counter, sleep
from typing import TYPE_CHECKING

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def cases(*, quick: bool) -> list[Case]:
    return [
        Case(
            name="course",
            description="9 naps of 0.5 s on 3 threads by list(executor.map(...)), with making the executor; ideal: 1.500 s",
            unit="s",
            contenders={
                ABREAST: Contender(partial(course, abreast.ThreadPoolExecutor)),
                STANDARD: Contender(partial(course, concurrent.futures.ThreadPoolExecutor)),
            },
            reference=STANDARD,
            goal="at most 1.510 s",
            reached=reached,
            rounds=1 if quick else 3,
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= 1.510


def course(make: Callable[[int], concurrent.futures.Executor]) -> float:
    start = perf_counter()
    with make(3) as executor:
        list(executor.map(sleep, [0.5] * 9))
    return perf_counter() - start
