"""A task over its time limit: how long after the limit its caller knows."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks.case import ABREAST, Case, Contender, peer
from benchmarks.cases.process_submit import pebble_submit, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIME = 0.5  # seconds a task may take
LIMIT = 50  # ms more
PEBBLE = "Pebble"


def cases(*, quick: bool) -> list[Case]:
    return [
        Case(
            name=f"process_limit_{name}",
            description=f"1 process, a task that {does}, a limit of {TIME} s: from the limit to the TimeoutError of its future",
            unit="ms",
            contenders={
                ABREAST: Contender(partial(by_abreast, task)),
                PEBBLE: Contender(partial(pebble, task), "Pebble", "pebble"),
                "mpire": Contender(partial(mpire, task), "mpire", "mpire", note=f"its pool ends with it{waits}"),
            },
            reference=PEBBLE,
            goal=f"at most {LIMIT} ms",
            reached=reached,
            rounds=2 if quick else most,
        )
        for name, does, task, most, waits in [
            ("sleep", "sleeps", nap, 15, ""),
            # Fewer rounds, since they are long; mpire interrupts by a signal, which a call in C does not see.
            ("compute", "computes in C and keeps the GIL", compute, 5, ", when the call in C returns"),
        ]
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT


def nap(path: str) -> None:
    begin(path)
    time.sleep(60)


def compute(path: str) -> None:
    begin(path)
    sum(range(10**9))  # more than ten seconds in one call of C, which looks for no signal


def begin(path: str) -> None:
    Path(path).write_text(repr(perf_counter()), encoding="ascii")  # one clock for all processes of a machine


def by_abreast(task: Callable[[str], None]) -> float:
    with abreast.ProcessPoolExecutor(1, task_timeout=TIME) as ex:
        warm(ex.submit, 1)
        return overshoot(lambda path: ex.submit(task, path).result(timeout=60))


def pebble(task: Callable[[str], None]) -> float:
    with peer("pebble").ProcessPool(max_workers=1) as pool:
        warm(pebble_submit(pool), 1)
        return overshoot(lambda path: pool.schedule(task, args=(path,), timeout=TIME).result(timeout=60))


def mpire(task: Callable[[str], None]) -> float:
    with peer("mpire").WorkerPool(n_jobs=1, keep_alive=True) as pool:
        pool.apply(pow, (2, 10))
        return overshoot(lambda path: pool.apply_async(task, (path,), task_timeout=TIME).get(timeout=60))


def overshoot(call: Callable[[str], Any]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "begun")
        try:
            call(str(path))
        except TimeoutError:
            end = perf_counter()
        else:
            raise AssertionError("there was no TimeoutError")
        begun = float(path.read_text(encoding="ascii"))
    late = end - begun - TIME
    if not -0.05 < late < 5:  # not before the limit, but for the way to the task's first line; nor when the task had ended
        raise AssertionError(f"the TimeoutError came {late * 1000:.1f} ms after the limit")
    return late * 1000
