"""A long stream through a lazy map, its results dropped: memory may not grow with its length. A fresh process for each figure."""

from __future__ import annotations

import multiprocessing.pool
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import abreast
from benchmarks import process
from benchmarks.case import ABREAST, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WORKERS = 2
WARM_UP = 20_000  # tasks before the first look at the memory: what is imported and started by then is not counted
STATUS = Path("/proc/self/status")
ORDERED, UNORDERED = f"{ABREAST}, ordered", f"{ABREAST}, unordered"
THREAD_POOL = "multiprocessing ThreadPool"


def cases(*, quick: bool) -> list[Case]:
    many, few = (1_000_000, 50_000) if quick else (10_000_000, 500_000)
    return [
        Case(
            name="lazy_stream",
            description=f"sum what a lazy map of {many:,} tiny tasks yields, {WORKERS} workers: by how much the peak of the "
            f"resident memory is higher than after {WARM_UP:,} tasks",
            unit="MB",
            contenders={
                ORDERED: Contender(partial(in_fresh_process, ORDERED, many), note="abreast.imap"),
                UNORDERED: Contender(partial(in_fresh_process, UNORDERED, many), note="abreast.imap, ordered=False"),
                THREAD_POOL: Contender(
                    partial(in_fresh_process, THREAD_POOL, few),
                    note=f"imap; only {few:,} tasks, which it reads ahead of its workers",
                ),
            },
            reference=THREAD_POOL,
            goal="less than 30 MB, ordered and unordered",
            reached=reached,
            rounds=1 if quick else 3,
            unavailable="" if STATUS.exists() else f"there is no {STATUS}",
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return max(medians[ORDERED], medians[UNORDERED]) < 30


def in_fresh_process(name: str, tasks: int) -> float:
    return process.figure("-m", __name__, name, str(tasks), seconds=600)


def main(name: str, tasks: int) -> None:
    """Run in the fresh process."""
    total(name, WARM_UP)
    before = peak()
    if total(name, tasks) != tasks * (tasks - 1) // 2:
        raise AssertionError("wrong results")
    print((peak() - before) / 1e6)


def total(name: str, tasks: int) -> int:
    return TOTALS[name](numbers(tasks))


def numbers(tasks: int) -> Iterator[int]:
    """Return a stream: how long it will be, nobody can ask it."""
    yield from range(tasks)


def f(i: int) -> int:
    return i


def by_abreast(stream: Iterator[int], *, ordered: bool) -> int:
    if ordered:
        return sum(abreast.imap(f, stream, max_workers=WORKERS))  # as it is by default
    return sum(abreast.imap(f, stream, max_workers=WORKERS, ordered=False))


def by_thread_pool(stream: Iterator[int]) -> int:
    with multiprocessing.pool.ThreadPool(WORKERS) as pool:
        return sum(pool.imap(f, stream))


TOTALS: dict[str, Callable[[Iterator[int]], int]] = {
    ORDERED: partial(by_abreast, ordered=True),
    UNORDERED: partial(by_abreast, ordered=False),
    THREAD_POOL: by_thread_pool,
}


def peak() -> int:
    """Return the most bytes of this process that were in memory at any time."""
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024  # "VmHWM:   10240 kB"
    raise RuntimeError(f"no VmHWM in {STATUS}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
