"""The twins of results.py for async code: the same run, but who waits is a coroutine, and the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

from abreast.core.future import STEP
from abreast.engine.results import BaseResults

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from abreast.engine.run import Run

__all__ = ["AsyncResults", "collect_async"]

T = TypeVar("T")


async def collect_async(run: Run) -> list[Any]:
    """As `collect`, without blocking the event loop."""
    results: list[Any] = []
    try:
        run.start()
        while True:
            piece = run.step()
            if piece is None:
                await _wait(run)
            elif piece:
                results += piece
                run.taken(len(piece))
            else:
                return results
    except BaseException:  # asyncio's CancelledError as well
        run.give_up()
        raise


async def _wait(run: Run) -> None:
    """Wait, in a coroutine, until a step is worth while."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def wake_from_any_thread() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    if not run.begin_wait(wake_from_any_thread):
        await asyncio.sleep(0)  # others' turn, however quick the tasks are
        return
    try:
        limit = run.wait_limit()
        await asyncio.wait([waiter], timeout=STEP if limit is None else min(limit, STEP))  # in steps: see acquire_patiently
    finally:
        run.end_wait()


class AsyncResults(BaseResults, AsyncIterator[T]):
    """The results of a run for ``async for``: what `aimap` returns. The run starts when it is first awaited.

    A run that is not read to its end is ended by `aclose`, by leaving an ``async with`` block, or by dropping this object.

    >>> import abreast, asyncio
    >>> async def main():
    ...     async for result in abreast.aimap(str.upper, "ab"):
    ...         print(result)
    >>> asyncio.run(main())
    A
    B
    """

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        ready = self._ready
        if not ready:
            if not self._turn.acquire(blocking=False):
                raise ValueError(f"{self!r} is being awaited already")
            try:
                await self._wait_for_piece()
            finally:
                self._turn.release()
        if not ready:
            raise StopAsyncIteration
        result = ready.popleft()  # first: another thread may end the run meanwhile
        if self._exact:
            self._make_room()
        return result  # type: ignore[no-any-return]  # a T

    async def _wait_for_piece(self) -> None:
        run = self._run
        try:
            if not run.started and not run.over:
                run.start()
            self._take_piece()
            while (piece := run.step()) is None:
                await _wait(run)
            self._ready.extend(piece)
            self._piece = 0 if self._exact else len(piece)
        except (StopIteration, StopAsyncIteration) as error:  # as from a generator (PEP 479)
            self._drop()
            raise RuntimeError(f"a task of {run.name} raised {type(error).__name__}") from error
        except BaseException:
            self._drop()
            raise

    async def aclose(self) -> None:
        """End the run: cancel what waits, leave behind what runs. Nothing happens if it is over."""
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if hasattr(self, "_asked"):
            self._drop()
