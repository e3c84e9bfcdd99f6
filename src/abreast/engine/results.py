"""What the consumer of a run holds: a list at the end (`collect`), or an iterator (`Results`). async_results.py has the twins.

A run does not hold its `Results`: an iterator that is dropped, by a ``break`` for instance, ends its run::

    next() ─▶ _ready, if there is something ─▶ else run.step(), run.wait(), until there is a piece

`_turn` guards nothing but the turn of who waits for a piece.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from abreast.core.outcome import RunSummary
    from abreast.engine.run import Run

__all__ = ["BaseResults", "Results", "collect"]


T = TypeVar("T")


def collect(run: Run) -> list[Any]:
    """Run to the end, and return all results."""
    results: list[Any] = []
    try:
        run.start()
        while True:
            piece = run.step()
            if piece is None:
                run.wait()
            elif piece:
                results += piece
                run.taken(len(piece))
            else:
                return results
    except BaseException:  # KeyboardInterrupt above all: what waits is cancelled, what runs is left behind
        run.give_up()
        raise


class BaseResults:
    """What both iterators have."""

    __slots__ = ("__weakref__", "_asked", "_exact", "_piece", "_ready", "_run", "_turn")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ready: deque[Any] = deque()
        self._exact = run.buffersize is not None
        """Whether each result that is taken makes room for one input; else a piece does, when all of it has been taken."""
        self._piece = 0
        self._turn = threading.Lock()  # held by who waits for the next piece: there is one such, as with a generator
        self._asked = False

    def summary(self) -> RunSummary:
        """Return what the run has done so far, or in all (`RunSummary`); its ``str()`` is one line. May be called from any thread."""
        return self._run.summary()

    def __length_hint__(self) -> int:
        left = self._run.left()
        if self._run.over:
            return len(self._ready)
        return NotImplemented if left is None else left if self._exact else left - self._piece + len(self._ready)

    def __repr__(self) -> str:
        state = "over" if self._run.over else "running" if self._run.started else "not started"
        return f"<{type(self).__name__} of {self._run.name}: {state}, {self.summary().tasks} tasks ended>"

    def _take_piece(self) -> None:
        if self._piece:
            taken, self._piece = self._piece, 0
            self._run.taken(taken)

    def _make_room(self) -> None:
        """One more result is taken: read one more input, before the consumer goes on with it."""
        try:
            self._run.taken(1)
            self._run.fill()
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        self._ready.clear()
        self._run.give_up()


class Results(BaseResults, Iterator[T]):
    """The results of a run, one by one: what `imap` and `outcomes` return. The run starts at the first ``next()``.

    A run that is not read to its end is ended by `close`, by leaving a ``with`` block, or by dropping this object: what waits is
    cancelled, what runs is left behind.

    >>> import abreast
    >>> with abreast.imap(str.upper, iter("abc")) as results:
    ...     next(results)
    'A'
    >>> list(results)
    []
    """

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        ready = self._ready
        if not ready:
            self._next_piece()
        result = ready.popleft()  # first: another thread may end the run meanwhile
        if self._exact:
            self._make_room()
        return result  # type: ignore[no-any-return]  # a T

    def _next_piece(self) -> None:
        if not self._turn.acquire(blocking=False):
            raise ValueError(f"{self!r} is being waited for already, by another thread or by its own inputs")
        try:
            self._wait_for_piece()
        finally:
            self._turn.release()

    def _wait_for_piece(self) -> None:
        run = self._run
        self._asked = True
        try:
            if not run.started and not run.over:
                run.start()
            self._take_piece()
            while (piece := run.step()) is None:
                run.wait()
        except StopIteration as error:  # as from a generator (PEP 479): it would end the iteration without a word
            self._drop()
            raise RuntimeError(f"a task of {run.name} raised StopIteration") from error
        except BaseException:
            self._drop()
            raise
        if not piece:
            raise StopIteration
        self._ready.extend(piece)
        if not self._exact:
            self._piece = len(piece)

    def is_next_ready(self) -> bool:
        """Whether ``next()`` has a result at hand and will not wait: for who writes out results, as many at once as there are."""
        return bool(self._ready)

    def close(self) -> None:
        """End the run: cancel what waits, leave behind what runs. Nothing happens if it is over."""
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # One of executor.map that nobody has asked for anything: all of it runs, as in the standard library.
        # Ctrl-C may have struck before there was a run.
        if hasattr(self, "_asked") and (self._asked or not self._run.started):
            try:
                self._drop()
            except Exception:
                if not _is_finalizing():  # else modules may have been emptied (seen free-threaded): nothing is left to be ended
                    raise
