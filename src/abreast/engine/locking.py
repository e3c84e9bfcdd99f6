"""How the methods of a run take its lock, and how workers call a run without keeping it alive."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from abreast.engine.run import Run
    from abreast.executors.batch import Batch

__all__ = ["locked", "weakly", "weakly_told"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def locked(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Run a method under the run's lock.

    `acquire` stands inside the ``try``: signals are handled right after the call, so Ctrl-C would else leave the lock held for good.
    (``with`` does so on 3.14; see core/future.py.)
    """

    @functools.wraps(method)
    def with_lock(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            self._acquire()
            return method(self, *args, **kwargs)
        finally:
            try:  # noqa: SIM105  # suppress() is Python code, which another Ctrl-C may interrupt
                self._release()
            except RuntimeError:  # Ctrl-C struck while the lock was waited for: it is not ours to release
                pass

    return cast("Callable[Concatenate[Any, P], R]", with_lock)


def weakly(run: Run, method: Callable[[Run, Batch], bool]) -> Callable[[Batch], bool]:
    """Return what a worker calls between tasks. Weak: else a run would hold itself until a collection of garbage."""
    run_of = weakref.ref(run)

    def ask(batch: Batch) -> bool:
        run = run_of()
        return run is None or method(run, batch)

    return ask


def weakly_told(run: Run, method: Callable[[Run, Batch, T], bool]) -> Callable[[Batch, T], bool]:
    """The same for what an executor tells of a batch."""
    run_of = weakref.ref(run)

    def tell(batch: Batch, what: T) -> bool:
        run = run_of()
        return run is not None and method(run, batch, what)

    return tell
