"""Thread tasks over their limit: how late that is known, and how long the end of a program takes that threads are stuck in."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import abreast
from benchmarks import process
from benchmarks.case import ABREAST, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Mapping

TIME = 0.1  # seconds a task may take
LATE, EXIT = f"{ABREAST}, late", f"{ABREAST}, exit"
MOST = {LATE: 20, EXIT: 500}  # ms
PROGRAM = """
import abreast, threading, time
forever = threading.Event()
found = list(abreast.outcomes(lambda _: forever.wait(), range(5), task_timeout=0.1, max_workers=5))
assert all(isinstance(outcome.error, abreast.TaskTimeout) for outcome in found)
print(time.perf_counter(), flush=True)
"""


def cases(*, quick: bool) -> list[Case]:
    return [
        Case(
            name="run_timeouts",
            description=f"5 threads stuck in tasks with a limit of {TIME} s: from the limit to the last outcome; from there to the program's end",
            unit="ms",
            contenders={LATE: Contender(late), EXIT: Contender(exit_of_a_program)},
            reference=LATE,
            goal="at most 20 ms late; exit at most 500 ms later",
            reached=reached,
            rounds=2 if quick else 15,
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return all(medians[name] <= most for name, most in MOST.items())


def late() -> float:
    release = threading.Event()
    starts: list[float] = []

    def hang(_: int) -> None:
        starts.append(time.perf_counter())
        release.wait()

    try:
        outcomes = list(abreast.outcomes(hang, range(5), task_timeout=TIME, max_workers=5))
        end = time.perf_counter()
    finally:
        release.set()
    if not all(isinstance(outcome.error, abreast.TaskTimeout) for outcome in outcomes):
        raise AssertionError("there was no time-out")
    return (end - max(starts) - TIME) * 1000


def exit_of_a_program() -> float:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=process.ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return (time.perf_counter() - float(done.stdout)) * 1000  # one clock for all processes of a machine
