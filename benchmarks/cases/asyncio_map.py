"""Run blocking functions from a coroutine: one awaited map, against a future of the event loop for each task."""

from __future__ import annotations

import asyncio
import concurrent.futures
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import abreast
from benchmarks.case import ABREAST, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

WARM_UP = 100  # tasks before the clock starts, which make each pool that stays start its threads
TO_THREAD = "asyncio.to_thread"


def cases(*, quick: bool) -> list[Case]:
    tasks = 2_000 if quick else 5_000
    return [
        Case(
            name="asyncio_map",
            description=f"await the results of {tasks:,} tiny tasks in threads, as many as each takes by default",
            unit="us per task",
            contenders={
                ABREAST: Contender(partial(measured, by_amap, tasks), note="await abreast.amap"),
                TO_THREAD: Contender(partial(measured, by_to_thread, tasks), note="gather; the loop's own pool stands already"),
                "loop.run_in_executor": Contender(
                    partial(measured, by_run_in_executor, tasks), note="gather; a ThreadPoolExecutor"
                ),
            },
            reference=TO_THREAD,
            goal="at least 5 times faster than asyncio.to_thread",
            reached=reached,
            rounds=3 if quick else 15,
        )
    ]


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] * 5 <= medians[TO_THREAD]


def f(i: int) -> int:
    return i


def measured(run: Callable[[int], Awaitable[list[int]]], tasks: int) -> float:
    return asyncio.run(in_loop(run, tasks))


async def in_loop(run: Callable[[int], Awaitable[list[int]]], tasks: int) -> float:
    await run(WARM_UP)
    start = perf_counter()
    results = await run(tasks)
    seconds = perf_counter() - start
    if results != list(range(tasks)):
        raise AssertionError("wrong results")
    return seconds / tasks * 1e6


async def by_amap(tasks: int) -> list[int]:
    return await abreast.amap(f, range(tasks))


async def by_to_thread(tasks: int) -> list[int]:
    return await asyncio.gather(*(asyncio.to_thread(f, i) for i in range(tasks)))


async def by_run_in_executor(tasks: int) -> list[int]:
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor() as ex:
        return await asyncio.gather(*(loop.run_in_executor(ex, f, i) for i in range(tasks)))
