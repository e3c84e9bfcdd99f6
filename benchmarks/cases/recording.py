"""Recording: what it costs, and whether what it says is true.

The mixes of computing and waiting are measured by the tasks themselves, each with its own clocks; the time of one after another by running so.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks import process
from benchmarks.case import ABREAST, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN, RECORDED = f"{ABREAST}, not recorded", f"{ABREAST}, recorded"
LONGER, MORE = 1.02, 0.8  # of the time of 1 ms tasks; us per tiny task
SPANS, SECONDS = 200_000, 3.0
REPORT = """
import contextlib, io, sys
from abreast.cli.main import status_of
with contextlib.redirect_stdout(io.StringIO()):
    status = status_of(["report", sys.argv[1]])
print(status)
sys.exit(status)
"""
COMPUTING_POINTS, GIL_POINTS = 5.0, 20.0
LEAST = 0.01  # points that are told: ratios are to one of the figures

_folder = tempfile.TemporaryDirectory(prefix="abreast-benchmark-")


def cases(*, quick: bool) -> list[Case]:
    tasks = 400 if quick else 2000
    tiny = 20_000 if quick else 100_000
    spans = 20_000 if quick else SPANS
    return [
        Case(
            name="recording_1ms",
            description=f"map {tasks:,} tasks that sleep 1 ms on 4 threads",
            unit="ms per round of 4",
            contenders={
                PLAIN: Contender(partial(measured, partial(time.sleep), [0.001] * tasks, 4, False, 1e3 * 4)),
                RECORDED: Contender(partial(measured, partial(time.sleep), [0.001] * tasks, 4, True, 1e3 * 4)),
            },
            reference=PLAIN,
            goal="at most 2 % longer",
            reached=lambda medians: medians[RECORDED] <= LONGER * medians[PLAIN],
            rounds=3 if quick else 15,
            warm_ups=1,
        ),
        Case(
            name="recording_tiny",
            description=f"map abs over {tiny:,} numbers on 2 threads",
            unit="us per task",
            contenders={
                PLAIN: Contender(partial(measured, abs, range(tiny), 2, False, 1e6)),
                RECORDED: Contender(partial(measured, abs, range(tiny), 2, True, 1e6)),
            },
            reference=PLAIN,
            goal=f"at most {MORE} us more",
            reached=lambda medians: medians[RECORDED] <= medians[PLAIN] + MORE,
            rounds=3 if quick else 15,
            warm_ups=1,
        ),
        Case(
            name="recording_report",
            description=f"abreast report of a trace file of {spans:,} spans, the whole process",
            unit="s",
            contenders={ABREAST: Contender(partial(report_seconds, spans))},
            reference=ABREAST,
            goal=f"at most {SECONDS:g} s",
            reached=lambda medians: medians[ABREAST] <= SECONDS,
            rounds=1 if quick else 5,
        ),
        Case(
            name="recording_computing",
            description="what a recording says of computing against not computing, against the tasks' own clocks: known mixes, worst of them",
            unit="points apart",
            contenders={name: Contender(partial(points_apart, name, "computing")) for name in MIXES},
            reference=next(iter(MIXES)),
            goal=f"within {COMPUTING_POINTS:g} points",
            reached=lambda medians: max(medians.values()) <= COMPUTING_POINTS,
            rounds=1 if quick else 5,
        ),
        Case(
            name="recording_gil",
            description="the same of what threads were held up by the GIL, an estimate",
            unit="points apart",
            contenders={name: Contender(partial(points_apart, name, "gil")) for name in MIXES if MIXES[name][3] == "thread"},
            reference=next(iter(MIXES)),
            goal=f"within {GIL_POINTS:g} points",
            reached=lambda medians: max(medians.values()) <= GIL_POINTS,
            rounds=1 if quick else 5,
            unavailable="" if has_gil() else "this Python has no GIL",
        ),
        Case(
            name="recording_serial",
            description="the estimate of one after another, against running so",
            unit="% off",
            contenders={name: Contender(partial(percent_off, name)) for name in MIXES},
            reference=next(iter(MIXES)),
            goal="within 10 %, 25 % where threads compute under the GIL",
            reached=lambda medians: all(medians[name] <= (25 if MIXES[name][4] else 10) for name in medians),
            rounds=1 if quick else 5,
        ),
    ]


def has_gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def measured(fn: Callable[[Any], Any], inputs: Any, workers: int, recorded: bool, scale: float) -> float:
    """Return what a task took, times `scale`."""
    start = perf_counter()
    if recorded:
        with abreast.record() as run:
            abreast.map(fn, inputs, max_workers=workers)
        seconds = perf_counter() - start
        if run.stats()["tasks"] != len(inputs):
            raise AssertionError("not all tasks were recorded")
    else:
        abreast.map(fn, inputs, max_workers=workers)
        seconds = perf_counter() - start
    return seconds / len(inputs) * scale


def report_seconds(spans: int) -> float:
    file = Path(_folder.name) / f"{spans}.json"
    if not file.exists():
        with abreast.record(file, limit=spans):
            abreast.map(abs, range(spans), max_workers=4)
    start = perf_counter()
    process.figure("-c", REPORT, str(file), seconds=60)
    return perf_counter() - start


# ---- tasks that know what they have done: seconds of computing, seconds of waiting


def compute(seconds: float) -> float:
    """Compute for so many seconds of CPU time, in Python."""
    begin = thread_time()
    while thread_time() - begin < seconds:
        sum(range(50))
    return thread_time() - begin


def computes(_: int) -> tuple[float, float]:
    return compute(0.05), 0.0


def sleeps(_: int) -> tuple[float, float]:
    time.sleep(0.02)
    return 0.0, 0.02  # what comes on top is waiting for the GIL, or a CPU, again


def mixed(_: int) -> tuple[float, float]:
    computed = waited = 0.0
    for _round in range(4):
        computed += compute(0.005)
        time.sleep(0.005)
        waited += 0.005
    return computed, waited


_data = bytes(4 << 20)


def hashes(_: int) -> tuple[float, float]:
    begin = thread_time()
    for _round in range(5):
        hashlib.sha256(_data).digest()
    return thread_time() - begin, 0.0


# name: function, tasks, workers, kind, whether threads compute under the GIL
MIXES: dict[str, tuple[Callable[[int], tuple[float, float]], int, int, str, bool]] = {
    "threads that sleep": (sleeps, 40, 4, "thread", False),
    "threads that compute": (computes, 12, 3, "thread", True),
    "threads that do both": (mixed, 12, 3, "thread", True),
    "threads that hash": (hashes, 8, 2, "thread", False),
    "processes that compute": (computes, 12, 2, "process", False),
    "processes that do both": (mixed, 12, 2, "process", False),
}


def recorded_mix(name: str) -> tuple[Any, list[tuple[float, float]]]:
    fn, tasks, workers, kind, _ = MIXES[name]
    with abreast.record() as run:
        how: Any = {"kind": kind}
        told = abreast.map(fn, range(tasks), max_workers=workers, **how)
    return run, told


def points_apart(name: str, what: str) -> float:
    run, told = recorded_mix(name)
    work: Any = run.recording.works[0]
    wall = work.wall / 1e9
    computed, waited = (sum(each[place] for each in told) for place in range(2))
    if what == "computing":
        return max(LEAST, float(abs(work.cpu / 1e9 - computed) / wall * 100))
    held_up = max(0.0, wall - computed - waited - (work.runqueue or 0) / 1e9)
    return max(LEAST, float(abs((work.gil or 0) / 1e9 - held_up) / wall * 100))


def percent_off(name: str) -> float:
    fn, tasks, _, _, _ = MIXES[name]
    run, _ = recorded_mix(name)
    estimated = run.report().to_dict()["works"][0]["one_after_another"]
    serial = []
    for _round in range(3):
        start = perf_counter()
        abreast.map(fn, range(tasks), kind="serial")
        serial.append(perf_counter() - start)
    return float(abs(estimated / median(serial) - 1) * 100)
