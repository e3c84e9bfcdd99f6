"""Submit many tiny tasks to processes, then take all results: what a task costs when workers are never idle."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import sys
from contextlib import contextmanager
from functools import partial
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.submit import per_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WORKERS = 2
NAP = 0.1  # seconds
LIMIT = 8  # us per task


def cases(*, quick: bool) -> list[Case]:
    tasks = 1_000 if quick else 5_000
    return [
        Case(
            name="process_submit",
            description=f"submit {tasks:,} tiny tasks to {WORKERS} processes, then take the results; the pool stands already",
            unit="us per task",
            contenders={
                ABREAST: Contender(partial(executor, by_abreast, tasks)),
                STANDARD: Contender(partial(executor, by_standard, tasks)),
                "multiprocessing Pool": Contender(partial(multiprocessing_pool, tasks), note="apply_async"),
                "Pebble": Contender(partial(pebble, tasks), "Pebble", "pebble", note="schedule"),
                "loky": Contender(partial(executor, by_loky, tasks), "loky", "loky"),
                "mpire": Contender(partial(mpire, tasks), "mpire", "mpire", note="map; sends batches of tasks, no futures"),
                "joblib": Contender(partial(joblib, tasks), "joblib", "joblib", note="loky; sends batches of tasks, no futures"),
            },
            reference=STANDARD,
            goal=f"at most {LIMIT} us",
            reached=reached,
            rounds=2 if quick else 15,
            unavailable=unavailable(),
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT


# What the other files on process pools use too ----------------------------------------------------


def unavailable(cores: int = 1) -> str:
    """Return why a case on processes cannot be measured here; empty if it can."""
    if sys.platform != "linux":
        return "abreast has processes on Linux only"
    return "" if len(os.sched_getaffinity(0)) >= cores else f"this takes {cores} usable cores"


def by_abreast(workers: int) -> Any:
    return abreast.ProcessPoolExecutor(workers)


def by_standard(workers: int) -> Any:
    return concurrent.futures.ProcessPoolExecutor(workers)


def by_loky(workers: int) -> Any:
    return peer("loky").ProcessPoolExecutor(workers)  # what its get_reusable_executor() returns, without the reuse


def warm(submit: Callable[..., Any], workers: int = WORKERS) -> None:
    """Return when each of the workers has run a task: some pools start them one by one, as tasks find none idle."""
    for _ in range(100):
        if len({future.result() for future in [submit(nap) for _ in range(workers)]}) == workers:
            return
    raise RuntimeError(f"there are never {workers} workers")


def nap() -> int:
    sleep(NAP)  # so that no worker takes the next one's
    return os.getpid()


def pebble_submit(pool: Any) -> Callable[..., Any]:
    return lambda fn, *args: pool.schedule(fn, args=args)


@contextmanager
def joblib_workers(workers: int = WORKERS, **options: int) -> Iterator[Any]:
    """A `joblib.Parallel` on processes, ended with the block: joblib leaves them, and a thread, behind for the next call."""
    try:
        with peer("joblib").Parallel(n_jobs=workers, backend="loky", **options) as parallel:
            delayed = peer("joblib").delayed
            parallel(delayed(nap)() for _ in range(workers))
            yield parallel
    finally:
        peer("joblib.externals.loky").get_reusable_executor().shutdown(wait=True)


# This case ----------------------------------------------------------------------------------------


def f(i: int) -> int:
    return i


# The loops are written out in each: one more call for each task would be part of what is measured.


def executor(make: Callable[[int], Any], tasks: int) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        ex.submit(f, 0).result()
        start = perf_counter()
        futures = [ex.submit(f, i) for i in range(tasks)]
        results = [x.result() for x in futures]
        seconds = perf_counter() - start
    return per_task(seconds, results)


def multiprocessing_pool(tasks: int) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(f, range(100), chunksize=1)
        start = perf_counter()
        futures = [pool.apply_async(f, (i,)) for i in range(tasks)]
        results = [x.get() for x in futures]
        seconds = perf_counter() - start
    return per_task(seconds, results)


def pebble(tasks: int) -> float:
    with peer("pebble").ProcessPool(max_workers=WORKERS) as pool:
        warm(pebble_submit(pool))
        start = perf_counter()
        futures = [pool.schedule(f, args=(i,)) for i in range(tasks)]
        results = [x.result() for x in futures]
        seconds = perf_counter() - start
    return per_task(seconds, results)


def mpire(tasks: int) -> float:
    # keep_alive: else the workers would be started anew, and ended, within the measured time.
    with peer("mpire").WorkerPool(n_jobs=WORKERS, keep_alive=True) as pool:
        pool.map(f, range(100))
        start = perf_counter()
        results = pool.map(f, range(tasks))
        seconds = perf_counter() - start
    return per_task(seconds, results)


def joblib(tasks: int) -> float:
    delayed = peer("joblib").delayed
    with joblib_workers() as parallel:
        start = perf_counter()
        results = parallel(delayed(f)(i) for i in range(tasks))
        seconds = perf_counter() - start
    return per_task(seconds, results)
