"""Retries, a bound for failures and a rate that are set and never needed: what they cost a tiny task."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks.case import ABREAST, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKERS = 2
LIMIT = 0.5  # us per task more
PLAIN, WITH = f"{ABREAST}, none of them", f"{ABREAST}, all of them"


def cases(*, quick: bool) -> list[Case]:
    tasks = 10_000 if quick else 100_000
    return [
        Case(
            name="run_policies_cost",
            description=f"outcomes of x*x over {tasks:,} numbers with {WORKERS} threads, without and with retries, max_failures, max_per_second",
            unit="us per task",
            contenders={
                PLAIN: Contender(partial(measured, tasks, {})),
                WITH: Contender(partial(measured, tasks, {"retries": 3, "max_failures": 10, "max_per_second": 1e9})),
            },
            reference=PLAIN,
            goal=f"at most {LIMIT} us more",
            reached=reached,
            rounds=2 if quick else 15,
            warm_ups=1,
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[WITH] - medians[PLAIN] <= LIMIT


def square(x: int) -> int:
    return x * x


def measured(tasks: int, options: Mapping[str, Any]) -> float:
    start = perf_counter()
    results = [outcome.value for outcome in abreast.outcomes(square, range(tasks), max_workers=WORKERS, **options)]
    seconds = perf_counter() - start
    if results != [x * x for x in range(tasks)]:
        raise AssertionError("wrong results")
    return seconds / tasks * 1e6
