"""Map a tiny function over many items on processes that stand already: what a task costs in one call."""

from __future__ import annotations

import multiprocessing
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.process_submit import WORKERS, by_abreast, by_loky, by_standard, joblib_workers, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TUNED = 5_000  # tasks in a chunk


def cases(*, quick: bool) -> list[Case]:
    many, few = (10_000, 1_000) if quick else (100_000, 10_000)
    fewer = f"{few:,} tasks"  # for those that are slow: more would cost them no less for each task
    tuned = f"chunksize={TUNED:,}"
    return [
        Case(
            name="process_map",
            description=f"map x*x over {many:,} numbers with {WORKERS} processes that stand already, with default options",
            unit="us per task",
            contenders={
                ABREAST: Contender(partial(executor, by_abreast, many, {}), note="executor.map"),
                STANDARD: Contender(partial(executor, by_standard, few, {}), note=fewer),
                "standard library, tuned": Contender(
                    partial(executor, by_standard, many, {"chunksize": TUNED}), note=f"{tuned}; all items read first"
                ),
                "multiprocessing Pool": Contender(
                    partial(multiprocessing_pool, many), note="one static split, all items read first"
                ),
                "loky": Contender(partial(executor, by_loky, few, {}), "loky", "loky", note=fewer),
                "loky, tuned": Contender(partial(executor, by_loky, many, {"chunksize": TUNED}), "loky", "loky", note=tuned),
                "mpire": Contender(partial(mpire, many), "mpire", "mpire", note="static split"),
                "Pebble": Contender(partial(pebble, few), "Pebble", "pebble", note=fewer),
                "joblib": Contender(partial(joblib, few), "joblib", "joblib", note=f"loky; {fewer}"),
            },
            reference=STANDARD,
            goal="none yet, the next issue sets it",
            reached=no_goal,
            rounds=2 if quick else 9,
        )
    ]


def no_goal(_: Mapping[str, float]) -> bool:
    raise KeyError("there is no goal yet")  # as if its contender were missing: shown as "not judged"


def square(x: int) -> int:
    return x * x


def measured(run: Callable[..., list[int]], tasks: int) -> float:
    run(square, range(100))
    start = perf_counter()
    results = run(square, range(tasks))
    seconds = perf_counter() - start
    if results != [x * x for x in range(tasks)]:
        raise AssertionError("wrong results")
    return seconds / tasks * 1e6


def executor(make: Callable[[int], Any], tasks: int, options: dict[str, int]) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        return measured(lambda fn, items: list(ex.map(fn, items, **options)), tasks)


def multiprocessing_pool(tasks: int) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        return measured(pool.map, tasks)


def mpire(tasks: int) -> float:
    with peer("mpire").WorkerPool(n_jobs=WORKERS, keep_alive=True) as pool:
        return measured(pool.map, tasks)


def pebble(tasks: int) -> float:
    with peer("pebble").ProcessPool(max_workers=WORKERS) as pool:
        return measured(lambda fn, items: list(pool.map(fn, items).result()), tasks)


def joblib(tasks: int) -> float:
    delayed = peer("joblib").delayed
    with joblib_workers() as parallel:
        return measured(lambda fn, items: parallel(delayed(fn)(item) for item in items), tasks)
