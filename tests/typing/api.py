"""Checked by mypy, never run: what a user's type checker knows of the public names."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator
from typing import assert_type

import abreast
from abreast import Future, PoolStatistics, SerialExecutor, ThreadPoolExecutor


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

drop_in: concurrent.futures.ThreadPoolExecutor = executor
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
except abreast.AbreastError:
    pass
