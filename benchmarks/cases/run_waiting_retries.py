"""What a task weighs that waits for its next attempt: a fresh process, since memory that was used once stays."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import abreast
from benchmarks import process
from benchmarks.case import ABREAST, Case, Contender
from benchmarks.cases.memory import STATUS, resident

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 1000  # bytes
RUN, SUBMIT = f"{ABREAST}, a run", f"{ABREAST}, submit"


def cases(*, quick: bool) -> list[Case]:
    tasks = 2_000 if quick else 10_000
    return [
        Case(
            name="run_waiting_retries",
            description=f"{tasks:,} tasks that have failed once and wait for their next attempt, 2 threads, which have nothing to do",
            unit="bytes per task",
            contenders={
                RUN: Contender(partial(in_fresh_process, "run", tasks)),
                SUBMIT: Contender(
                    partial(in_fresh_process, "submit", tasks),
                    note="with a future for each; as much as it took before they failed",
                ),
            },
            reference=RUN,
            goal=f"in a run at most {LIMIT}",
            reached=reached,
            rounds=1 if quick else 3,
            unavailable="" if STATUS.exists() else f"there is no {STATUS}",
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[RUN] <= LIMIT


def in_fresh_process(how: str, tasks: int) -> float:
    return process.figure("-m", __name__, how, str(tasks), seconds=600)


def main(how: str, tasks: int) -> None:
    """Run in the fresh process."""
    failed = threading.Semaphore(0)

    def fail(_: int) -> None:
        failed.release()
        raise ConnectionError

    late = abreast.Retry(1, wait_initial=600, wait_max=600, wait_jitter=0)
    with abreast.ThreadPoolExecutor(2) as executor:
        warm = executor.with_options(retries=late).submit(fail, 0)
        failed.acquire()
        before = resident()
        view = executor.with_options(retries=late)
        if how == "run":
            view.map(fail, range(tasks))
        else:
            for number in range(tasks):
                view.submit(fail, number)
        for _ in range(tasks):
            failed.acquire()
        while executor.statistics().running or executor.statistics().pending:
            time.sleep(0.01)
        print((resident() - before) / tasks)
        warm.cancel()
        executor.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
