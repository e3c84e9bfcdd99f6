"""Large arrays to processes, a number back: what it costs to bring the data there."""

from __future__ import annotations

import importlib.util
import multiprocessing
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.process_submit import WORKERS, by_abreast, by_loky, by_standard, joblib_workers, pebble_submit, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NUMBERS = 1_000_000  # float64: 8 MB
LIMIT = 6  # ms per array


def cases(*, quick: bool) -> list[Case]:
    arrays = 6 if quick else 60
    return [
        Case(
            name="process_arrays",
            description=f"submit the sum of each of {arrays} numpy arrays of 8 MB to {WORKERS} processes that stand already",
            unit="ms per array",
            contenders={
                ABREAST: Contender(partial(executor, by_abreast, arrays)),
                "abreast (map)": Contender(partial(executor_map, by_abreast, arrays), note="executor.map"),
                STANDARD: Contender(partial(executor, by_standard, arrays)),
                "multiprocessing Pool": Contender(partial(multiprocessing_pool, arrays), note="imap"),
                "Pebble": Contender(partial(pebble, arrays), "Pebble", "pebble", note="schedule"),
                "loky": Contender(partial(executor, by_loky, arrays), "loky", "loky"),
                "mpire": Contender(partial(mpire, arrays), "mpire", "mpire", note="imap, chunk_size=1"),
                "joblib": Contender(partial(joblib, arrays), "joblib", "joblib", note="loky; by files in shared memory"),
            },
            reference=STANDARD,
            goal=f"at most {LIMIT} ms, by submit",
            reached=reached,
            rounds=2 if quick else 9,
            unavailable="" if importlib.util.find_spec("numpy") is not None else "numpy is not installed",
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT


def total(array: Any) -> float:
    return float(array.sum())  # reads all of it: an array that is mapped, and not copied, is not there before


def measured(run: Callable[[list[Any]], list[float]], arrays: int) -> float:
    numpy = peer("numpy")
    run([numpy.zeros(NUMBERS) for _ in range(4)])  # the workers import numpy
    made = [numpy.full(NUMBERS, float(i)) for i in range(arrays)]  # each its own: joblib brings one and the same but once
    start = perf_counter()
    results = run(made)
    seconds = perf_counter() - start
    if results != [float(i * NUMBERS) for i in range(arrays)]:
        raise AssertionError("wrong results")
    return seconds / arrays * 1000


def executor(make: Callable[[int], Any], arrays: int) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        return measured(partial(submitted, ex.submit), arrays)


def pebble(arrays: int) -> float:
    with peer("pebble").ProcessPool(max_workers=WORKERS) as pool:
        submit = pebble_submit(pool)
        warm(submit)
        return measured(partial(submitted, submit), arrays)


def submitted(submit: Callable[..., Any], arrays: list[Any]) -> list[float]:
    return [future.result() for future in [submit(total, array) for array in arrays]]


def executor_map(make: Callable[[int], Any], arrays: int) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        return measured(lambda made: list(ex.map(total, made)), arrays)


def multiprocessing_pool(arrays: int) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        return measured(lambda made: list(pool.imap(total, made)), arrays)


def mpire(arrays: int) -> float:
    with peer("mpire").WorkerPool(n_jobs=WORKERS, keep_alive=True) as pool:
        return measured(lambda made: list(pool.imap(total, made, chunk_size=1)), arrays)


def joblib(arrays: int) -> float:
    delayed = peer("joblib").delayed
    with joblib_workers() as parallel:
        return measured(lambda made: parallel(delayed(total)(array) for array in made), arrays)
