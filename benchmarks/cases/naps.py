"""Many short naps on many threads: how near an executor comes to threads that share nothing but a counter."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
from functools import partial
from time import perf_counter, sleep
from typing import TYPE_CHECKING

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WORKERS = 32
NAP = 0.02
BARE = "bare threads"
BY_SUBMIT, BY_MAP, BY_FUNCTION = f"{ABREAST}, submit", f"{ABREAST}, map", f"{ABREAST}.map"


def cases(*, quick: bool) -> list[Case]:
    naps = 500 if quick else 1_000
    return [
        Case(
            name="naps",
            description=f"{naps:,} naps of {NAP * 1000:.0f} ms on {WORKERS} threads, which are started and ended within the time",
            unit="s",
            contenders={
                BARE: Contender(partial(bare_threads, naps), note="threads that share a counter"),
                BY_SUBMIT: Contender(partial(by_submit, abreast.ThreadPoolExecutor, naps)),
                BY_MAP: Contender(partial(by_map, abreast.ThreadPoolExecutor, naps), note="the executor's"),
                BY_FUNCTION: Contender(partial(by_function, naps), note="the function"),
                STANDARD: Contender(partial(by_submit, concurrent.futures.ThreadPoolExecutor, naps), note="submit"),
            },
            reference=BARE,
            goal="abreast at most 1.01 of the bare threads, all three ways",
            reached=reached,
            rounds=2 if quick else 11,
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return max(medians[BY_SUBMIT], medians[BY_MAP], medians[BY_FUNCTION]) <= 1.01 * medians[BARE]


def bare_threads(naps: int) -> float:
    numbers = itertools.count()

    def nap_on() -> None:
        while next(numbers) < naps:
            sleep(NAP)

    start = perf_counter()
    threads = [threading.Thread(target=nap_on) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return perf_counter() - start


def by_submit(make: Callable[[int], concurrent.futures.Executor], naps: int) -> float:
    start = perf_counter()
    with make(WORKERS) as ex:
        futures = [ex.submit(sleep, NAP) for _ in range(naps)]
        for future in futures:
            future.result()
    return perf_counter() - start


def by_map(make: Callable[[int], concurrent.futures.Executor], naps: int) -> float:
    start = perf_counter()
    with make(WORKERS) as ex:
        list(ex.map(sleep, itertools.repeat(NAP, naps)))
    return perf_counter() - start


def by_function(naps: int) -> float:
    start = perf_counter()
    abreast.map(sleep, itertools.repeat(NAP, naps), max_workers=WORKERS)
    return perf_counter() - start
