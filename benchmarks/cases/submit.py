"""Submit many tiny tasks, then take all results: what a task costs when workers are never idle."""

from __future__ import annotations

import concurrent.futures
import multiprocessing.pool
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WARM_UP = 200  # tasks before the clock starts, which make each pool start its threads


def cases(*, quick: bool) -> list[Case]:
    return [case(workers, tasks=5_000 if quick else 20_000, rounds=2 if quick else 15) for workers in (2, 8)]


def case(workers: int, *, tasks: int, rounds: int) -> Case:
    return Case(
        name=f"submit_{workers}",
        description=f"submit {tasks:,} tiny tasks to {workers} workers, then take the results; the pool stands already",
        unit="us per task",
        contenders={
            ABREAST: Contender(partial(executor, abreast.ThreadPoolExecutor, workers, tasks)),
            STANDARD: Contender(partial(executor, concurrent.futures.ThreadPoolExecutor, workers, tasks)),
            "multiprocessing ThreadPool": Contender(partial(thread_pool, workers, tasks), note="apply_async"),
            "Pebble": Contender(partial(pebble, workers, tasks), "Pebble", "pebble", note="schedule"),
            "joblib": Contender(partial(joblib, workers, tasks), "joblib", "joblib", note="threading; no futures"),
            "mpire": Contender(partial(mpire, workers, tasks), "mpire", "mpire", note="map, threading; sends batches of tasks"),
        },
        reference=STANDARD,
        goal="at least 6 times faster than the standard library, and at most 3 us",
        reached=reached,
        rounds=rounds,
    )


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] * 6 <= medians[STANDARD] and medians[ABREAST] <= 3


def f(i: int) -> int:
    return i


# The loops are written out in each: one more call for each task would be as long as what is measured.


def executor(make: Callable[[int], concurrent.futures.Executor], workers: int, tasks: int) -> float:
    with make(workers) as ex:
        for future in [ex.submit(f, i) for i in range(WARM_UP)]:
            future.result()
        start = perf_counter()
        futures = [ex.submit(f, i) for i in range(tasks)]
        results = [x.result() for x in futures]
        seconds = perf_counter() - start
    return per_task(seconds, results)


def thread_pool(workers: int, tasks: int) -> float:
    with multiprocessing.pool.ThreadPool(workers) as pool:
        pool.map(f, range(WARM_UP))
        start = perf_counter()
        futures = [pool.apply_async(f, (i,)) for i in range(tasks)]
        results = [x.get() for x in futures]
        seconds = perf_counter() - start
    return per_task(seconds, results)


def pebble(workers: int, tasks: int) -> float:
    with peer("pebble").ThreadPool(max_workers=workers) as pool:
        for future in [pool.schedule(f, args=(i,)) for i in range(WARM_UP)]:
            future.result()
        start = perf_counter()
        futures = [pool.schedule(f, args=(i,)) for i in range(tasks)]
        results = [x.result() for x in futures]
        seconds = perf_counter() - start
    return per_task(seconds, results)


def joblib(workers: int, tasks: int) -> float:
    delayed = peer("joblib").delayed
    with peer("joblib").Parallel(n_jobs=workers, backend="threading") as parallel:
        parallel(delayed(f)(i) for i in range(WARM_UP))
        start = perf_counter()
        results = parallel(delayed(f)(i) for i in range(tasks))
        seconds = perf_counter() - start
    return per_task(seconds, results)


def mpire(workers: int, tasks: int) -> float:
    # keep_alive: else the workers would be started anew, and ended, within the measured time.
    with peer("mpire").WorkerPool(n_jobs=workers, start_method="threading", keep_alive=True) as pool:
        pool.map(f, range(WARM_UP))
        start = perf_counter()
        results = pool.map(f, range(tasks))
        seconds = perf_counter() - start
    return per_task(seconds, results)


def per_task(seconds: float, results: list[int]) -> float:
    if results != list(range(len(results))):
        raise AssertionError("wrong results")
    return seconds / len(results) * 1e6
