"""Tasks that compute in Python, against bare processes that share nothing: what a pool adds to work that fills the cores."""

from __future__ import annotations

import multiprocessing
from functools import cache, partial
from itertools import cycle
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.process_submit import (
    WORKERS,
    by_abreast,
    by_loky,
    by_standard,
    joblib_workers,
    pebble_submit,
    unavailable,
    warm,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BARE = "bare processes"
TASK = 0.005  # seconds, about
LIMIT = 1.05
WARM_UP = 200_000  # turns of the loop


def cases(*, quick: bool) -> list[Case]:
    tasks = 40 if quick else 400

    def contender(
        run: Callable[[int, int], float], package: str | None = None, module: str | None = None, *, note: str = ""
    ) -> Contender:
        return Contender(partial(measured, run, tasks, TASK, cycle([True, False])), package, module, note=note)

    return [
        Case(
            name="process_cpu",
            description=(
                f"{tasks} tasks of {TASK * 1000:g} ms of Python on {WORKERS} processes that stand already, in times of "
                f"{WORKERS} bare ones with half of the same loop each, measured directly before or after"
            ),
            unit="times the bare processes",
            contenders={
                ABREAST: contender(partial(executor, by_abreast), note="submit"),
                "abreast (map)": contender(partial(executor_map, by_abreast), note="executor.map"),
                STANDARD: contender(partial(executor, by_standard), note="submit"),
                BARE: contender(bare, note="against themselves: the noise of this machine"),
                "multiprocessing Pool": contender(multiprocessing_pool, note="map, chunksize=1"),
                "Pebble": contender(pebble, "Pebble", "pebble", note="schedule"),
                "loky": contender(partial(executor, by_loky), "loky", "loky", note="submit"),
                "mpire": contender(mpire, "mpire", "mpire", note="map, chunk_size=1"),
                "joblib": contender(joblib, "joblib", "joblib", note="loky"),
            },
            reference=BARE,
            goal=f"at most {LIMIT} times the bare processes, by submit and by executor.map",
            reached=reached,
            rounds=2 if quick else 15,
            unavailable=unavailable(WORKERS),
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    # The figures are ratios of pairs already: not by the median of the reference, which is 1 but for noise.
    return medians[ABREAST] <= LIMIT and medians["abreast (map)"] <= LIMIT


# What the other files that measure against bare processes use too ---------------------------------


def paired(run: Callable[[], float], bare: Callable[[], float], bare_first: Iterator[bool]) -> float:
    """Return the pool's time in times of the bare processes', one directly after the other, in turns which comes first."""
    if next(bare_first):
        reference = bare()
        return run() / reference
    seconds = run()
    return seconds / bare()


def measured(run: Callable[[int, int], float], tasks: int, task: float, bare_first: Iterator[bool]) -> float:
    """Return what `tasks` tasks of `task` seconds take in the pool, in times of the bare processes."""
    loops = calibrated(task)
    return paired(partial(run, tasks, loops), partial(bare, tasks, loops), bare_first)


@cache
def calibrated(task: float) -> int:
    """Return how many turns of the loop take about that long: once for all contenders and rounds, so that all do the same work."""
    loops = 1_000
    best = min(seconds_of(loops) for _ in range(200))  # the least: what others do meanwhile only adds
    return round(loops * task / best)


def seconds_of(loops: int) -> float:
    start = perf_counter()
    work(loops)
    return perf_counter() - start


def work(loops: int) -> int:
    x = 1
    for _ in range(loops):
        x = (x * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return x


def bare(tasks: int, loops: int) -> float:
    """Return the seconds from when the processes leave a barrier to when the last has done its share."""
    context = multiprocessing.get_context("fork")
    barrier, spans = context.Barrier(WORKERS), context.SimpleQueue()
    share = tasks // WORKERS
    processes = [context.Process(target=bare_share, args=(barrier, spans, share, loops)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    ends: list[tuple[float, float]] = [spans.get() for _ in processes]
    for process in processes:
        process.join()
    return max(end for _, end in ends) - min(start for start, _ in ends)  # one clock for all processes of a machine


def bare_share(barrier: Any, spans: Any, tasks: int, loops: int) -> None:
    work(WARM_UP)  # what a new process pays once is not counted, as for the pools that are warm
    barrier.wait()
    start = perf_counter()
    for _ in range(tasks):
        work(loops)
    spans.put((start, perf_counter()))


def executor(make: Callable[[int], Any], tasks: int, loops: int) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        return submitted(ex.submit, tasks, loops)


def pebble(tasks: int, loops: int) -> float:
    with peer("pebble").ProcessPool(max_workers=WORKERS) as pool:
        submit = pebble_submit(pool)
        warm(submit)
        return submitted(submit, tasks, loops)


def submitted(submit: Callable[..., Any], tasks: int, loops: int) -> float:
    checked(0.0, [submit(work, loops).result() for _ in range(4)], 4, loops)
    start = perf_counter()
    results = [future.result() for future in [submit(work, loops) for _ in range(tasks)]]
    return checked(perf_counter() - start, results, tasks, loops)


def executor_map(make: Callable[[int], Any], tasks: int, loops: int) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        return mapped(lambda fn, items: list(ex.map(fn, items)), tasks, loops)


def multiprocessing_pool(tasks: int, loops: int) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        return mapped(partial(pool.map, chunksize=1), tasks, loops)


def mpire(tasks: int, loops: int) -> float:
    with peer("mpire").WorkerPool(n_jobs=WORKERS, keep_alive=True) as pool:
        return mapped(partial(pool.map, chunk_size=1), tasks, loops)


def joblib(tasks: int, loops: int) -> float:
    delayed = peer("joblib").delayed
    with joblib_workers() as parallel:
        return mapped(lambda fn, items: parallel(delayed(fn)(item) for item in items), tasks, loops)


def mapped(run: Callable[[Callable[[int], int], list[int]], list[int]], tasks: int, loops: int) -> float:
    run(work, [loops] * max(4, tasks // 20))
    start = perf_counter()
    results = run(work, [loops] * tasks)
    return checked(perf_counter() - start, results, tasks, loops)


def checked(seconds: float, results: list[int], tasks: int, loops: int) -> float:
    if results != [work(loops)] * tasks:
        raise AssertionError("wrong results")
    return seconds
