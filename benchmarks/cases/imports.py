"""What a program pays at its start for the import, from bytecode that is compiled already."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import process
from benchmarks.case import ABREAST, STANDARD, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Mapping

# The clock is in the child, around the import alone: the start of the interpreter is longer, and not ours.
CHILD = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def cases(*, quick: bool) -> list[Case]:
    return [
        Case(
            name="import",
            description="import the thread pool in a fresh interpreter, whose start is not counted",
            unit="ms",
            contenders={
                ABREAST: Contender(partial(in_fresh_interpreter, "import abreast; abreast.ThreadPoolExecutor")),
                STANDARD: Contender(partial(in_fresh_interpreter, "import concurrent.futures.thread")),
            },
            reference=STANDARD,
            goal="at most 25 ms more than the standard library",
            reached=reached,
            rounds=5 if quick else 25,
            warm_ups=1,  # compiles the bytecode
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= medians[STANDARD] + 25


def in_fresh_interpreter(statement: str) -> float:
    return process.figure("-c", CHILD.format(statement), seconds=60) * 1000
