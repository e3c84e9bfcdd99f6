"""Map a tiny function over many items, from making the pool to its end: what a task costs in one call."""

from __future__ import annotations

import concurrent.futures
import multiprocessing.pool
import sys
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WORKERS = 2
WARM_UP = 100  # tasks before the clock starts, in a pool of their own: a peer is imported by then
LIMIT = 0.35 if sys.version_info < (3, 12) else 0.5  # us per task


def cases(*, quick: bool) -> list[Case]:
    many, few = (10_000, 2_000) if quick else (100_000, 10_000)
    fewer = f"{few:,} tasks"  # for those that are slow: more would cost them no less for each task
    return [
        Case(
            name="tiny_map",
            description=f"map x*x over {many:,} numbers with {WORKERS} workers, which are started and ended within the time",
            unit="us per task",
            contenders={
                ABREAST: Contender(partial(measured, by_abreast, many), note="abreast.map"),
                STANDARD: Contender(partial(measured, by_executor, few), note=f"ThreadPoolExecutor.map; {fewer}"),
                "multiprocessing ThreadPool": Contender(
                    partial(measured, by_thread_pool, many), note="one static split, no contexts, all items read first"
                ),
                "joblib": Contender(partial(measured, by_joblib, few), "joblib", "joblib", note=f"threading; {fewer}"),
                "mpire": Contender(
                    partial(measured, by_mpire, many), "mpire", "mpire", note="threading; static split; 0.1 s of it is its end"
                ),
                "Pebble": Contender(
                    partial(measured, by_pebble, few), "Pebble", "pebble", note=f"{fewer}; up to 0.1 s of it is its end"
                ),
                "tqdm": Contender(partial(measured, by_tqdm, few), "tqdm", "tqdm", note=f"thread_map without a bar; {fewer}"),
            },
            reference=STANDARD,
            goal=f"at most {LIMIT} us",
            reached=reached,
            rounds=2 if quick else 15,
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT


def square(x: int) -> int:
    return x * x


def measured(run: Callable[[int], list[int]], tasks: int) -> float:
    run(WARM_UP)
    start = perf_counter()
    results = run(tasks)
    seconds = perf_counter() - start
    if results != [x * x for x in range(tasks)]:
        raise AssertionError("wrong results")
    return seconds / tasks * 1e6


def by_abreast(tasks: int) -> list[int]:
    return abreast.map(square, range(tasks), max_workers=WORKERS)


def by_executor(tasks: int) -> list[int]:
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as ex:
        return list(ex.map(square, range(tasks)))


def by_thread_pool(tasks: int) -> list[int]:
    with multiprocessing.pool.ThreadPool(WORKERS) as pool:
        return pool.map(square, range(tasks))


def by_joblib(tasks: int) -> Any:
    delayed = peer("joblib").delayed(square)
    return peer("joblib").Parallel(n_jobs=WORKERS, backend="threading")(delayed(x) for x in range(tasks))


def by_mpire(tasks: int) -> Any:
    with peer("mpire").WorkerPool(WORKERS, start_method="threading") as pool:
        return pool.map(square, range(tasks))


def by_pebble(tasks: int) -> list[int]:
    with peer("pebble").ThreadPool(max_workers=WORKERS) as pool:
        return list(pool.map(square, range(tasks)).result())


def by_tqdm(tasks: int) -> Any:
    return peer("tqdm.contrib.concurrent").thread_map(square, range(tasks), max_workers=WORKERS, disable=True)
