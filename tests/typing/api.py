"""Checked by mypy, never run: what a user's type checker knows of the public names."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import assert_type

import abreast
from abreast import (
    AsyncResults,
    Future,
    Outcome,
    PoolStatistics,
    ProcessPoolExecutor,
    Results,
    Retry,
    RunOptions,
    RunSummary,
    SerialExecutor,
    Task,
    TaskGroup,
    TaskOptions,
    ThreadPoolExecutor,
)


def fetch(url: str, *, retries: int = 0) -> bytes:
    return b""


with ThreadPoolExecutor(max_workers=3, thread_name_prefix="fetch", max_pending=10, task_timeout=2.5) as executor:
    assert_type(executor, ThreadPoolExecutor)
    future = executor.submit(fetch, "a", retries=2)
    assert_type(future, Future[bytes])
    assert_type(future.result(timeout=1), bytes)
    assert_type(future.exception(), BaseException | None)
    assert_type(executor.map(fetch, ["a"], timeout=1, buffersize=3), Iterator[bytes])
    assert_type(executor.statistics(), PoolStatistics)
    assert_type(executor.statistics().running, int)
    executor.submit(fetch, 5)  # type: ignore[arg-type]  # the wrong type of argument is seen
    executor.submit(fetch, "a", timeout=3)  # type: ignore[call-arg]  # an option of submit there is not

with ProcessPoolExecutor(
    max_workers=3,
    mp_context="spawn",
    initializer=print,
    initargs=("a",),
    max_tasks_per_child=10,
    task_timeout=2.5,
    max_memory_per_child=10**9,
) as processes:
    assert_type(processes, ProcessPoolExecutor)
    computed = processes.submit(fetch, "a", retries=2)
    assert_type(computed, Future[bytes])
    assert_type(computed.result(timeout=1), bytes)
    assert_type(processes.map(fetch, ["a"], timeout=1, chunksize=3), Iterator[bytes])
    assert_type(processes.map(fetch, ["a"], chunksize="auto", buffersize=3), Iterator[bytes])
    assert_type(processes.imap(fetch, ["a"], ordered=False), Results[bytes])
    assert_type(processes.outcomes(fetch, ["a"]), Results[Outcome[bytes]])
    assert_type(processes.statistics(), PoolStatistics)
    assert_type(processes.kill_workers(), None)
    assert_type(processes.terminate_workers(), None)
    processes.submit(fetch, 5)  # type: ignore[arg-type]
    processes.submit(fetch, "a", timeout=3)  # type: ignore[call-arg]
    processes.imap(fetch, ["a"], wokers=1)  # type: ignore[call-arg]
ProcessPoolExecutor(thread_name_prefix="x")  # type: ignore[call-arg]
ProcessPoolExecutor("3")  # type: ignore[arg-type]

drop_in: concurrent.futures.ThreadPoolExecutor = executor
drop_in_processes: concurrent.futures.ProcessPoolExecutor = processes
any_kind: concurrent.futures.Executor = SerialExecutor()
standard: concurrent.futures.Future[bytes] = future


async def main() -> None:
    asyncio.get_running_loop().set_default_executor(executor)
    assert_type(await asyncio.wrap_future(future), bytes)


try:
    future.result()
except abreast.TaskTimeout as timeout:
    assert_type(timeout.limit, float)
except abreast.DeadlockDetected as deadlock:
    assert_type(deadlock.chain, tuple[str, ...])
except abreast.WorkerCrashed as crashed:
    assert_type(crashed.index, int | None)
    assert_type(crashed.pid, int)
    assert_type(crashed.exitcode, int | None)
    assert_type(crashed.signal, str)
except abreast.MemoryLimitExceeded as exceeded:
    assert_type(exceeded.used, int)
except abreast.TaskPickleError as unpicklable:
    assert_type(unpicklable.place, str)
except abreast.AbreastError:
    pass


# ---- runs

urls = ["a", "b"]


def add(a: int, b: int) -> int:
    return a + b


assert_type(abreast.map(fetch, urls), list[bytes])
assert_type(abreast.map(fetch, (url for url in urls), max_workers=3, ordered=False, timeout=1.5, chunksize="auto"), list[bytes])
assert_type(abreast.imap(fetch, urls, buffersize=3, kind="serial"), Results[bytes])
assert_type(abreast.outcomes(fetch, urls, executor=executor), Results[Outcome[bytes]])
assert_type(abreast.map(fetch, urls, kind="process", max_workers=2, task_timeout=1.5, chunksize=3), list[bytes])
assert_type(abreast.imap(fetch, urls, kind="process"), Results[bytes])
assert_type(abreast.outcomes(fetch, urls, executor=processes), Results[Outcome[bytes]])
assert_type(abreast.aimap(fetch, urls, progress=True), AsyncResults[bytes])
assert_type(abreast.map(add, [1], [2], strict=True), list[int])
assert_type(abreast.map(lambda number: number * 2, [1]), list[int])

# A function of one argument and its inputs have to fit.
abreast.map(fetch, [1, 2])  # type: ignore[arg-type]
abreast.imap(fetch, [1, 2])  # type: ignore[arg-type]
abreast.outcomes(fetch, [1, 2])  # type: ignore[arg-type]
abreast.aimap(fetch, [1, 2])  # type: ignore[arg-type]
abreast.map(add, [1])  # type: ignore[arg-type]
abreast.map(5, [1])  # type: ignore[call-overload]
abreast.map(fetch)  # type: ignore[call-overload]
abreast.map(fetch, 5)  # type: ignore[call-overload]

# Options are those there are, and of their types.
abreast.map(fetch, urls, workers=3)  # type: ignore[call-overload]
abreast.map(fetch, urls, max_workers="3")  # type: ignore[call-overload]
abreast.map(fetch, urls, chunksize="big")  # type: ignore[call-overload]
abreast.map(fetch, urls, kind="threads")  # type: ignore[call-overload]
abreast.map(fetch, urls, initializer=print)  # type: ignore[call-overload]

options: RunOptions = {"max_workers": 3, "timeout": None, "name": "fetch", "executor": None}
wrong: RunOptions = {"max_worker": 3}  # type: ignore[typeddict-unknown-key]
per_task: TaskOptions = {"task_timeout": 3, "name": None}
assert_type(abreast.map(fetch, urls, **options), list[bytes])
assert_type(abreast.map(fetch, urls, **per_task), list[bytes])

with abreast.imap(fetch, urls) as results:
    assert_type(results, Results[bytes])
    for page in results:
        assert_type(page, bytes)
    assert_type(next(results), bytes)
    assert_type(results.summary(), RunSummary)
    assert_type(results.summary().wall_time, float)
    results.close()
pages: Iterator[bytes] = abreast.imap(fetch, urls)
again: Iterable[bytes] = results

for outcome in abreast.outcomes(fetch, urls):
    assert_type(outcome, Outcome[bytes])
    assert_type(outcome.index, int)
    assert_type(outcome.value, bytes | None)
    assert_type(outcome.error, BaseException | None)
    assert_type(outcome.result(), bytes)
    assert_type(outcome.ok, bool)
    assert_type(outcome.attempts, int)
    assert_type(outcome.worker, str)
    assert_type(outcome.duration, float)

assert_type(executor.imap(fetch, urls, buffersize=3), Results[bytes])
assert_type(executor.outcomes(fetch, urls), Results[Outcome[bytes]])
assert_type(SerialExecutor().imap(add, [1], [2]), Results[int])
assert_type(executor.map(add, [1], [2], chunksize="auto"), Iterator[int])
executor.imap(fetch, urls, wokers=1)  # type: ignore[call-arg]

comparison = abreast.compare(fetch, urls, kinds=["thread", "process"], max_workers=[1, 2], rounds=1, equal=lambda a, b: a == b)
assert_type(comparison, abreast.Comparison)
assert_type(comparison.rows[0].median, float | None)
assert_type(comparison.best.kind, str)
assert_type(comparison.advice, str)
comparison.save("a.html")
abreast.compare(fetch, urls, kinds="thread", max_workers=3, timeout=2.5)
abreast.compare(fetch, urls, kinds="threads")  # type: ignore[arg-type]

view = executor.with_options(retries=Retry(3, on=(OSError,)), task_timeout=2.5, name="fetch")
assert_type(view.submit(fetch, "a", retries=1), Future[bytes])
assert_type(view.map(add, [1], [2]), Iterator[int])
assert_type(view.imap(fetch, urls, ordered=False), Results[bytes])
assert_type(view.with_options(retries=1).outcomes(fetch, urls), Results[Outcome[bytes]])
assert_type(abreast.map(fetch, urls, executor=view, retries=2, max_per_second=2), list[bytes])
view.submit(fetch, 5)  # type: ignore[arg-type]
executor.with_options(timeout=3)  # type: ignore[call-arg]
Retry("3")  # type: ignore[arg-type]


async def runs() -> None:
    assert_type(await abreast.amap(fetch, urls, max_workers=3), list[bytes])
    assert_type(await abreast.amap(add, [1], [2]), list[int])
    await abreast.amap(fetch, [1])  # type: ignore[arg-type]
    async for page in abreast.aimap(fetch, urls):
        assert_type(page, bytes)
    async with abreast.aimap(fetch, urls) as results:
        assert_type(results, AsyncResults[bytes])
        assert_type(await anext(results), bytes)
        await results.aclose()
    pages: AsyncIterator[bytes] = abreast.aimap(fetch, urls)
    assert_type(pages, AsyncIterator[bytes])


# ---- groups and tasks

with TaskGroup(max_workers=3, timeout=1.5) as group:
    assert_type(group, TaskGroup)
    assert_type(group.submit(fetch, "a", retries=1), Future[bytes])
    assert_type(group.start(fetch, ("a",), {"retries": 1}, name="fetch a"), Future[bytes])
    assert_type(group.start(threading.Thread()), Future[None])
    assert_type(group.cancelled, bool)
    group.cancel()
    group.submit(fetch, 5)  # type: ignore[arg-type]
    group.start(fetch, 5)  # type: ignore[call-overload]

task = abreast.current_task()
assert_type(task, Task | None)
if task is not None:
    assert_type(task.index, int | None)
    assert_type(task.cancelled, bool)
abreast.sleep(0.5)
abreast.checkpoint()
