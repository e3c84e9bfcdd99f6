"""Map a tiny function over very many items on processes that stand already: what a task costs in one call."""

from __future__ import annotations

import multiprocessing
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.process_submit import (
    WORKERS,
    by_abreast,
    by_loky,
    by_standard,
    joblib_workers,
    unavailable,
    warm,
)
from benchmarks.tasks import square

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TUNED = 5_000  # tasks in a chunk
LIMIT, LIMIT_TIMEOUT = 0.8, 1.5  # us per task
WITH_TIMEOUT = f"{ABREAST}, task_timeout"
STANDARD_TUNED = f"{STANDARD}, tuned"


def cases(*, quick: bool) -> list[Case]:
    many, some, few = (50_000, 10_000, 1_000) if quick else (1_000_000, 100_000, 10_000)
    # For those that are slow: more would cost them no less for each task.
    tuned, fewer = f"chunksize={TUNED:,}", f"{few:,} tasks"

    def contender(
        run: Callable[[Callable[[int], int], int], float],
        tasks: int,
        package: str | None = None,
        module: str | None = None,
        *,
        note: str,
    ) -> Contender:
        return Contender(partial(run, square, tasks), package, module, note=note)

    return [
        Case(
            name="process_map",
            description=f"map x*x over {many:,} numbers with {WORKERS} processes that stand already",
            unit="us per task",
            contenders={
                ABREAST: contender(partial(executor, by_abreast), many, note="executor.map"),
                "abreast.map": contender(by_function, many, note="with executor="),
                WITH_TIMEOUT: contender(partial(executor, by_abreast_with_timeout), many, note="executor.map, task_timeout=60"),
                "abreast, chunksize=1": contender(
                    partial(executor, by_abreast, chunksize=1), few, note=f"executor.map, {fewer}: the way back from batches"
                ),
                STANDARD: contender(partial(executor, by_standard), few, note=fewer),
                STANDARD_TUNED: contender(
                    partial(executor, by_standard, chunksize=TUNED), many, note=f"{tuned}; all items read first"
                ),
                "multiprocessing Pool": contender(
                    multiprocessing_pool, many, note="map; chunks of a static size, all items read first"
                ),
                "loky": contender(partial(executor, by_loky), few, "loky", "loky", note=fewer),
                "loky, tuned": contender(partial(executor, by_loky, chunksize=TUNED), many, "loky", "loky", note=tuned),
                "mpire": contender(mpire, some, "mpire", "mpire", note=f"static split; {some:,} tasks"),
                "Pebble": contender(pebble, few, "Pebble", "pebble", note=fewer),
                "Pebble, tuned": contender(partial(pebble, chunksize=TUNED), many, "Pebble", "pebble", note=tuned),
                "joblib": contender(joblib, few, "joblib", "joblib", note=f"loky; {fewer}"),
            },
            reference=STANDARD_TUNED,
            goal=f"at most {LIMIT} us by executor.map, {LIMIT_TIMEOUT} with task_timeout",
            reached=reached,
            rounds=2 if quick else 9,
            unavailable=unavailable(WORKERS),
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT and medians[WITH_TIMEOUT] <= LIMIT_TIMEOUT


def by_abreast_with_timeout(workers: int) -> Any:
    return abreast.ProcessPoolExecutor(workers, task_timeout=60)


# What the case on values uses too -----------------------------------------------------------------


def measured(run: Callable[..., list[Any]], fn: Callable[[int], Any], tasks: int) -> float:
    run(fn, range(100))
    start = perf_counter()
    results = run(fn, range(tasks))
    seconds = perf_counter() - start
    if results != [fn(x) for x in range(tasks)]:
        raise AssertionError("wrong results")
    return seconds / tasks * 1e6


def executor(make: Callable[[int], Any], fn: Callable[[int], Any], tasks: int, **options: int) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        return measured(lambda fn, items: list(ex.map(fn, items, **options)), fn, tasks)


def by_function(fn: Callable[[int], Any], tasks: int) -> float:
    with abreast.ProcessPoolExecutor(WORKERS) as ex:
        warm(ex.submit)
        return measured(partial(abreast.map, executor=ex), fn, tasks)


def multiprocessing_pool(fn: Callable[[int], Any], tasks: int) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        return measured(pool.map, fn, tasks)


def mpire(fn: Callable[[int], Any], tasks: int) -> float:
    with peer("mpire").WorkerPool(n_jobs=WORKERS, keep_alive=True) as pool:
        return measured(pool.map, fn, tasks)


def pebble(fn: Callable[[int], Any], tasks: int, **options: int) -> float:
    with peer("pebble").ProcessPool(max_workers=WORKERS) as pool:
        return measured(lambda fn, items: list(pool.map(fn, items, **options).result()), fn, tasks)


def joblib(fn: Callable[[int], Any], tasks: int, **options: int) -> float:
    delayed = peer("joblib").delayed
    with joblib_workers(**options) as parallel:
        return measured(lambda fn, items: parallel(delayed(fn)(item) for item in items), fn, tasks)
