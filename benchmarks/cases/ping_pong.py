"""Submit one task and wait for its result, again and again: there and back, with both threads asleep in between."""

from __future__ import annotations

import concurrent.futures
import multiprocessing.pool
import os
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WORKERS = 2
WARM_UP = 20
TRIPS = 300


def cases(*, quick: bool) -> list[Case]:
    case = partial(
        Case,
        unit="us per round trip",
        reference=STANDARD,
        goal="at most 0.8 of the standard library",
        reached=reached,
        rounds=5 if quick else 60,  # many: it depends on the cores that the kernel picks, and the figures have two humps
    )
    text = f"submit(f, i).result(), {TRIPS} times in turn, {WORKERS} workers"
    able = hasattr(os, "sched_setaffinity")
    return [
        case("ping_pong", text, contenders=contenders(lambda run: run)),
        case(
            "ping_pong_one_core",
            f"{text}, on one core: the code without the kernel's wake-ups across cores",
            contenders=contenders(lambda run: partial(on_one_core, run)),
            unavailable="" if able else "os.sched_setaffinity is not there",
        ),
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= 0.8 * medians[STANDARD]


def contenders(place: Callable[[Callable[[], float]], Callable[[], float]]) -> dict[str, Contender]:
    return {
        ABREAST: Contender(place(partial(executor, abreast.ThreadPoolExecutor))),
        STANDARD: Contender(place(partial(executor, concurrent.futures.ThreadPoolExecutor))),
        "multiprocessing ThreadPool": Contender(place(thread_pool), note="apply"),
        "Pebble": Contender(place(pebble), "Pebble", "pebble", note="schedule"),
    }


def on_one_core(run: Callable[[], float]) -> float:
    with one_core():
        return run()


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})  # the last, since the first often serves the interrupts
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def f(i: int) -> int:
    return i


def executor(make: Callable[[int], concurrent.futures.Executor]) -> float:
    with make(WORKERS) as ex:
        for i in range(WARM_UP):
            ex.submit(f, i).result()
        start = perf_counter()
        for i in range(TRIPS):
            ex.submit(f, i).result()
        return per_trip(perf_counter() - start)


def thread_pool() -> float:
    with multiprocessing.pool.ThreadPool(WORKERS) as pool:
        for i in range(WARM_UP):
            pool.apply(f, (i,))
        start = perf_counter()
        for i in range(TRIPS):
            pool.apply(f, (i,))
        return per_trip(perf_counter() - start)


def pebble() -> float:
    with peer("pebble").ThreadPool(max_workers=WORKERS) as pool:
        for i in range(WARM_UP):
            pool.schedule(f, args=(i,)).result()
        start = perf_counter()
        for i in range(TRIPS):
            pool.schedule(f, args=(i,)).result()
        return per_trip(perf_counter() - start)


def per_trip(seconds: float) -> float:
    return seconds / TRIPS * 1e6
