"""The journal: how many results of tiny tasks it records, and how long a run takes, and how much memory, of which everything is recorded.

joblib.Memory is what people use today: a folder and two files for each result.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import abreast
from benchmarks import process
from benchmarks.case import ABREAST, Case, Contender, peer

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKERS = 2
PROCESS, POWER, NONE = f"{ABREAST}, durability='process'", f"{ABREAST}, durability='power'", f"{ABREAST}, no journal"
MEMORY = "joblib.Memory"
RESULTS_PER_SECOND = {PROCESS: 30_000, POWER: 15_000}
RESUMED_SECONDS = 12
MEGABYTES = 300

_folder = tempfile.TemporaryDirectory(prefix="abreast-benchmark-")  # of the journal that is resumed, which takes a while to make


def cases(*, quick: bool) -> list[Case]:
    tasks = 20_000 if quick else 200_000
    recorded = 50_000 if quick else 1_000_000
    return [
        Case(
            name="run_journal",
            description=f"map x*x over {tasks:,} numbers with {WORKERS} threads, each result recorded before it is delivered",
            unit="us per task",
            contenders={
                PROCESS: Contender(partial(measured, tasks, "process")),
                POWER: Contender(partial(measured, tasks, "power")),
                NONE: Contender(partial(measured, tasks, None)),
                MEMORY: Contender(
                    partial(with_joblib, tasks // 100), "joblib", "joblib", f"{tasks // 100:,} tasks, one after another"
                ),
            },
            reference=PROCESS,
            goal=f"at least {RESULTS_PER_SECOND[PROCESS]:,} and {RESULTS_PER_SECOND[POWER]:,} results/s (33.3 and 66.7 us)",
            reached=lambda medians: all(1e6 / medians[name] >= least for name, least in RESULTS_PER_SECOND.items()),
            rounds=2 if quick else 9,
            warm_ups=1,
        ),
        Case(
            name="run_journal_resume",
            description=f"list(imap) of x*x over {recorded:,} numbers, all of them recorded, in a fresh process",
            unit="s",
            contenders={
                ABREAST: Contender(partial(resumed, recorded, "seconds")),
                MEMORY: Contender(partial(resumed_by_joblib, recorded), "joblib", "joblib", "reckoned from 2,000 tasks"),
            },
            reference=ABREAST,
            goal=f"at most {RESUMED_SECONDS} s",
            reached=lambda medians: medians[ABREAST] <= RESUMED_SECONDS,
            rounds=1 if quick else 5,
        ),
        Case(
            name="run_journal_memory",
            description=f"the same: the most memory that the process has, the list of {recorded:,} results included",
            unit="MB",
            contenders={ABREAST: Contender(partial(resumed, recorded, "megabytes"))},
            reference=ABREAST,
            goal=f"below {MEGABYTES} MB",
            reached=reached_memory,
            rounds=1 if quick else 3,
        ),
    ]


def reached_memory(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] < MEGABYTES


def square(x: int) -> int:
    return x * x


def measured(tasks: int, durability: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        journal = None if durability is None else abreast.Journal(f"{folder}/run.db", durability=durability)
        start = perf_counter()
        results = abreast.map(square, range(tasks), max_workers=WORKERS, journal=journal)
        seconds = perf_counter() - start
    check(results, tasks)
    return seconds / tasks * 1e6


def check(results: list[int], tasks: int) -> None:
    if results != [x * x for x in range(tasks)]:
        raise AssertionError("wrong results")


def with_joblib(tasks: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        remembered = peer("joblib").Memory(folder, verbose=0).cache(square)
        start = perf_counter()
        results = [remembered(x) for x in range(tasks)]
        seconds = perf_counter() - start
    check(results, tasks)
    return seconds / tasks * 1e6


def resumed_by_joblib(tasks: int) -> float:
    some = 2000
    with tempfile.TemporaryDirectory() as folder:
        remembered = peer("joblib").Memory(folder, verbose=0).cache(square)
        for x in range(some):
            remembered(x)
        start = perf_counter()
        results = [remembered(x) for x in range(some)]
        seconds = perf_counter() - start
    check(results, some)
    return seconds / some * tasks


def resumed(tasks: int, what: str) -> float:
    journal = Path(_folder.name) / f"{tasks}.db"
    if not journal.exists():
        process.figure("-m", __name__, str(journal), str(tasks), "seconds", seconds=600)
    return process.figure("-m", __name__, str(journal), str(tasks), what, seconds=600)


def main(journal: str, tasks: int, what: str) -> None:
    """Run in the fresh process: to fill the journal, and to go on from it."""
    fresh = not Path(journal).exists()
    start = perf_counter()
    stream = abreast.imap(square, range(tasks), max_workers=WORKERS, journal=journal)
    results = list(stream)
    seconds = perf_counter() - start
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # of kB
    if stream.summary().resumed != (0 if fresh else tasks):
        raise AssertionError(f"not what was to be measured: {stream.summary()}")
    check(results, tasks)
    print(seconds if what == "seconds" else most)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
