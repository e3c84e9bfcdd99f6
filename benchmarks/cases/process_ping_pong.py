"""Submit one task to a process and wait for its result, again and again: there and back, both asleep in between."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.process_submit import WORKERS, by_abreast, by_loky, by_standard, f, pebble_submit, unavailable, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WARM_UP = 20
SMALL = 4096  # bytes, which a pipe takes and gives at once
LIMIT, RATIO = 60, 0.36  # us; the same in times of the standard library where that needs 167 us, which few machines do


def cases(*, quick: bool) -> list[Case]:
    trips = 100 if quick else 1_000
    return [
        Case(
            name="process_ping_pong",
            description=f"submit(f, i).result(), {trips:,} times in turn, {WORKERS} processes",
            unit="us per round trip",
            contenders={
                ABREAST: Contender(partial(executor, by_abreast, trips)),
                STANDARD: Contender(partial(executor, by_standard, trips)),
                "multiprocessing Pool": Contender(partial(multiprocessing_pool, trips), note="apply"),
                "Pebble": Contender(partial(pebble, trips), "Pebble", "pebble", note="schedule"),
                "loky": Contender(partial(executor, by_loky, trips), "loky", "loky"),
                "bare pipes": Contender(
                    partial(bare_pipes, trips), note="one forked process and pickle, no pool: the floor of this machine"
                ),
            },
            reference=STANDARD,
            goal=f"at most {LIMIT} us, or {RATIO} of the standard library (the same where that needs 167 us)",
            reached=reached,
            rounds=3 if quick else 25,
            unavailable=unavailable(),
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT or medians[ABREAST] <= RATIO * medians[STANDARD]


def executor(make: Callable[[int], Any], trips: int) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        for i in range(WARM_UP):
            ex.submit(f, i).result()
        start = perf_counter()
        results = [ex.submit(f, i).result() for i in range(trips)]
        return per_trip(perf_counter() - start, results)


def multiprocessing_pool(trips: int) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        for i in range(WARM_UP):
            pool.apply(f, (i,))
        start = perf_counter()
        results = [pool.apply(f, (i,)) for i in range(trips)]
        return per_trip(perf_counter() - start, results)


def pebble(trips: int) -> float:
    with peer("pebble").ProcessPool(max_workers=WORKERS) as pool:
        warm(pebble_submit(pool))
        for i in range(WARM_UP):
            pool.schedule(f, args=(i,)).result()
        start = perf_counter()
        results = [pool.schedule(f, args=(i,)).result() for i in range(trips)]
        return per_trip(perf_counter() - start, results)


def bare_pipes(trips: int) -> float:
    (task_out, task_in), (result_out, result_in) = os.pipe(), os.pipe()
    process = multiprocessing.get_context("fork").Process(target=echo, args=(task_out, result_in, task_in, result_out))
    process.start()
    os.close(task_out)
    os.close(result_in)

    def call(i: int) -> int:
        os.write(task_in, pickle.dumps((f, (i,)), pickle.HIGHEST_PROTOCOL))
        result: int = pickle.loads(os.read(result_out, SMALL))
        return result

    try:
        for i in range(WARM_UP):
            call(i)
        start = perf_counter()
        results = [call(i) for i in range(trips)]
        seconds = perf_counter() - start
    finally:
        os.close(task_in)
        os.close(result_out)
        process.join()
    return per_trip(seconds, results)


def echo(task_out: int, result_in: int, *others: int) -> None:
    for fd in others:  # the parent's ends, or there would be no end of file
        os.close(fd)
    while data := os.read(task_out, SMALL):
        fn, args = pickle.loads(data)
        os.write(result_in, pickle.dumps(fn(*args), pickle.HIGHEST_PROTOCOL))


def per_trip(seconds: float, results: list[int]) -> float:
    if results != list(range(len(results))):
        raise AssertionError("wrong results")
    return seconds / len(results) * 1e6
