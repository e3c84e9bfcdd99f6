"""Maps whose tasks take very different times, on processes that stand already, against processes that share nothing but a counter.

These take the next number each time they are done, one at a time: none is idle while a task waits. It costs them a lock, 1 to 2 us
for each task: at most 0.04 s of 2.5 s, where there are most of them. Nothing comes back from them, which no pool can do.
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from itertools import cycle
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.process_cpu import BARE, paired
from benchmarks.cases.process_submit import by_loky, by_standard, joblib_workers, pebble_submit, unavailable, warm
from benchmarks.cases.uneven import SHORTEST_SLEEP, Shape, shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Run = Callable[[Callable[[float], float], list[float]], Iterable[float]]

WORKERS = 8  # more than there are cores: most of the time is slept
TUNED = 10  # tasks in a chunk
NAP = 0.1  # seconds
LIMIT = 1.05


def cases(*, quick: bool) -> list[Case]:
    return [case(shape, rounds=1 if quick else 9) for shape in shapes(quick=quick)]


def case(shape: Shape, *, rounds: int) -> Case:
    times = shape.times
    tuned = f"chunksize={TUNED}"

    def contender(
        run: Callable[[list[float]], float], package: str | None = None, module: str | None = None, *, note: str
    ) -> Contender:
        return Contender(partial(measured, run, times, cycle([True, False])), package, module, note=note)

    return Case(
        name=f"process_uneven_{shape.name}",
        description=(
            f"map {len(times):,} tasks on {WORKERS} processes that stand already, in times of {WORKERS} bare ones that share a "
            f"counter, measured directly before or after: {shape.text}"
        ),
        unit="times the bare processes",
        contenders={
            ABREAST: contender(by_abreast, note="abreast.map with executor="),
            BARE: contender(bare, note="against themselves: the noise of this machine"),
            STANDARD: contender(partial(executor, by_standard, 1), note="map, chunksize=1"),
            f"{STANDARD}, tuned": contender(partial(executor, by_standard, TUNED), note=f"map, {tuned}"),
            "multiprocessing Pool": contender(multiprocessing_pool, note="map; chunks of a static size"),
            "multiprocessing Pool, imap": contender(multiprocessing_imap, note="imap_unordered, chunksize=1"),
            "loky": contender(partial(executor, by_loky, TUNED), "loky", "loky", note=f"map, {tuned}"),
            "joblib": contender(joblib, "joblib", "joblib", note="loky"),
            "Pebble": contender(pebble, "Pebble", "pebble", note=f"map, {tuned}"),
            "mpire": contender(mpire, "mpire", "mpire", note=f"map, chunk_size={TUNED}"),
        },
        reference=BARE,
        goal=f"at most {LIMIT} times the bare processes",
        reached=reached,
        rounds=rounds,
        unavailable=unavailable(),
    )


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT  # a ratio of pairs already


def measured(run: Callable[[list[float]], float], times: list[float], bare_first: Iterator[bool]) -> float:
    return paired(partial(run, times), partial(bare, times), bare_first)


def task(seconds: float) -> float:
    begin = perf_counter()
    if seconds > SHORTEST_SLEEP:
        sleep(seconds)
    else:
        while perf_counter() - begin < seconds:
            pass
    return seconds


def bare(times: list[float]) -> float:
    """Return the seconds from when the processes leave a barrier to when the last finds nothing more to do."""
    context = multiprocessing.get_context("fork")
    barrier, spans, counter = context.Barrier(WORKERS), context.SimpleQueue(), context.Value("q", 0)
    processes = [context.Process(target=bare_worker, args=(barrier, spans, counter, times)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    ends: list[tuple[float, float, int]] = [spans.get() for _ in processes]
    for process in processes:
        process.join()
    if sum(done for _, _, done in ends) != len(times):
        raise AssertionError("wrong results")
    return max(end for _, end, _ in ends) - min(start for start, _, _ in ends)  # one clock for all processes of a machine


def bare_worker(barrier: Any, spans: Any, counter: Any, times: list[float]) -> None:
    lock, done = counter.get_lock(), 0
    task(0.0)
    barrier.wait()
    start = perf_counter()
    while True:
        with lock:
            n = counter.value
            counter.value = n + 1
        if n >= len(times):
            break
        task(times[n])
        done += 1
    spans.put((start, perf_counter(), done))


def seconds_of(run: Run, times: list[float], *, ordered: bool = True) -> float:
    for _ in range(2):  # each worker has imported this file by then, peers are imported too
        list(run(task, [NAP] * WORKERS))
    start = perf_counter()
    results = list(run(task, times))
    seconds = perf_counter() - start
    if (results if ordered else sorted(results)) != (times if ordered else sorted(times)):
        raise AssertionError("wrong results")
    return seconds


def by_abreast(times: list[float]) -> float:
    with abreast.ProcessPoolExecutor(WORKERS) as ex:
        warm(ex.submit, WORKERS)
        return seconds_of(partial(abreast.map, executor=ex), times)


def executor(make: Callable[[int], Any], chunksize: int, times: list[float]) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit, WORKERS)
        return seconds_of(partial(ex.map, chunksize=chunksize), times)


def multiprocessing_pool(times: list[float]) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        return seconds_of(pool.map, times)


def multiprocessing_imap(times: list[float]) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        return seconds_of(partial(pool.imap_unordered, chunksize=1), times, ordered=False)


def joblib(times: list[float]) -> float:
    delayed = peer("joblib").delayed
    with joblib_workers(WORKERS) as parallel:
        return seconds_of(lambda fn, items: parallel(delayed(fn)(item) for item in items), times)


def pebble(times: list[float]) -> float:
    with peer("pebble").ProcessPool(max_workers=WORKERS) as pool:
        warm(pebble_submit(pool), WORKERS)
        return seconds_of(lambda fn, items: pool.map(fn, items, chunksize=TUNED).result(), times)


def mpire(times: list[float]) -> float:
    with peer("mpire").WorkerPool(n_jobs=WORKERS, keep_alive=True) as pool:
        return seconds_of(partial(pool.map, chunk_size=TUNED), times)
