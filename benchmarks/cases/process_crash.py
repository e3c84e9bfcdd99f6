"""A worker dies within a task: how long until the pool has computed something again."""

from __future__ import annotations

import concurrent.futures
import os
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.process_submit import by_abreast, by_standard, pebble_submit, unavailable, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIMIT = 30  # ms
PEBBLE = "Pebble"  # the only peer that survives it
DEAD = "the pool is dead, and what waited in it is lost: this is a new one"


def cases(*, quick: bool) -> list[Case]:
    return [
        Case(
            name="process_crash",
            description=(
                "1 process: from a task's os._exit, whose future fails, to the result of a task submitted then, by the process "
                "that takes its place"
            ),
            unit="ms",
            contenders={
                ABREAST: Contender(partial(surviving, by_abreast)),
                "abreast (fork)": Contender(partial(surviving, by_fork), note='mp_context="fork"'),
                STANDARD: Contender(partial(anew, by_standard), note=DEAD),
                PEBBLE: Contender(pebble, "Pebble", "pebble"),
                "loky": Contender(partial(anew, reusable), "loky", "loky", note=f"get_reusable_executor; {DEAD}"),
            },
            reference=PEBBLE,
            goal=f"at most {LIMIT} ms",
            reached=reached,
            rounds=3 if quick else 15,
            unavailable=unavailable(),
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT


def by_fork(workers: int) -> Any:
    return abreast.ProcessPoolExecutor(workers, mp_context="fork")


def reusable(workers: int) -> Any:
    return peer("loky").get_reusable_executor(workers)


def die(path: str) -> None:
    Path(path).write_text(repr(perf_counter()), encoding="ascii")  # one clock for all processes of a machine
    os._exit(1)


def surviving(make: Callable[[int], Any]) -> float:
    with make(1) as ex:
        return measured(ex.submit, lambda: ex.submit)


def pebble() -> float:
    with peer("pebble").ProcessPool(max_workers=1) as pool:
        submit = pebble_submit(pool)
        return measured(submit, lambda: submit)


def anew(make: Callable[[int], Any]) -> float:
    executors = [make(1)]

    def again() -> Callable[..., Any]:
        executors.append(make(1))
        submit: Callable[..., Any] = executors[-1].submit
        return submit

    try:
        return measured(executors[0].submit, again)
    finally:
        for ex in executors:
            ex.shutdown()


def measured(submit: Callable[..., Any], after: Callable[[], Callable[..., Any]]) -> float:
    """Return the milliseconds from the death to the next result, which is asked of the `submit` that `after` returns."""
    warm(submit, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "died")
        error = submit(die, str(path)).exception(timeout=60)
        result = after()(pow, 2, 10).result(timeout=60)
        end = perf_counter()
        died = float(path.read_text(encoding="ascii"))
    if error is None or isinstance(error, concurrent.futures.TimeoutError) or result != 1024:
        raise AssertionError(f"wrong results: {error!r}, {result!r}")
    return (end - died) * 1000
