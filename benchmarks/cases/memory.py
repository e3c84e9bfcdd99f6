"""What a task that waits in the queue weighs: a fresh process for each figure, since memory that was used once stays."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import abreast
from benchmarks import process
from benchmarks.case import ABREAST, STANDARD, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATUS = Path("/proc/self/status")
EXECUTORS: dict[str, Callable[[int], concurrent.futures.ThreadPoolExecutor]] = {
    ABREAST: abreast.ThreadPoolExecutor,
    STANDARD: concurrent.futures.ThreadPoolExecutor,
}


def cases(*, quick: bool) -> list[Case]:
    tasks = 100_000 if quick else 1_000_000
    return [
        Case(
            name="memory",
            description=f"{tasks:,} futures in the queue behind one blocked worker, function and argument shared",
            unit="bytes per future",
            contenders={name: Contender(partial(in_fresh_process, name, tasks)) for name in EXECUTORS},
            reference=STANDARD,
            goal="at most half of the standard library",
            reached=reached,
            rounds=1 if quick else 3,
            unavailable="" if STATUS.exists() else f"there is no {STATUS}",
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= 0.5 * medians[STANDARD]


def in_fresh_process(name: str, tasks: int) -> float:
    return process.figure("-m", __name__, name, str(tasks), seconds=600)


def main(name: str, tasks: int) -> None:
    """Run in the fresh process."""
    begun, release = threading.Event(), threading.Event()
    ex = EXECUTORS[name](1)
    try:
        ex.submit(block, begun, release)
        begun.wait()
        before = resident()
        for _ in range(tasks):
            ex.submit(f, 1)  # not kept in a list of ours: the queue holds it
        print((resident() - before) / tasks)
    finally:
        ex.shutdown(wait=False, cancel_futures=True)
        release.set()  # only now, so that none of those that waited is run
        ex.shutdown()


def block(begun: threading.Event, release: threading.Event) -> None:
    begun.set()
    release.wait()


def f(i: int) -> int:
    return i


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024  # "VmRSS:   10240 kB"
    raise RuntimeError(f"no VmRSS in {STATUS}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
