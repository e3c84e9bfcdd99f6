"""Who waits for whom: finds the moment when every worker of an executor waits for a task that only one of them could run.

::

    worker x_0 runs outer(1) ──waits for──▶ future of inner(1) ──pending in──▶ executor x ──its workers──▶ x_0, x_1
    worker x_1 runs outer(2) ──waits for──▶ future of inner(2) ──pending in──▶ executor x ──its workers──▶ x_0, x_1

A worker that is about to block without a time limit, in ``result()``, ``exception()`` or a ``submit`` held up by
``max_pending``, enters its wait here, and asks: of all waits known, which can still end? A wait for a *pending* future can
end if a worker of its executor is not waiting, or one more may be started; for a *running* one, if the worker that runs it
is not waiting. What remains when nothing more can be crossed out is stuck for good (the greatest fixed point of the wait-for
graph, as in Coffman, Elphick and Shoshani, 'System Deadlocks', 1971; waits for *any* worker of a pool make it an AND-OR
graph, so a search for cycles alone would not do). If the newcomer remains, its wait closed the circle: it gets the error, the others go on.

So nothing polls, no thread is needed, and who does not block pays nothing.

`_lock` guards `_waits`. It is taken by a worker that blocks or wakes, never while it holds another lock, and nothing is
called under it but `done`, `may_start_one` and `has_room`, which take no lock.

Not covered: `concurrent.futures.wait` and ``as_completed`` (the standard library's code), waits with a time limit (they end
by themselves), and what a thread outside could still do, such as cancelling a pending task.
"""

from __future__ import annotations

import functools
import os
import reprlib
import threading
import types
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core.current import Around
from abreast.core.errors import DeadlockDetected
from abreast.core.watch import Watched
from abreast.executors.attempt import Attempt
from abreast.executors.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Protocol

    from abreast.core.future import Future

    class Group(Protocol):
        """The workers of one executor."""

        name: str

        @property
        def members(self) -> Collection[Party]: ...
        def may_start_one(self) -> bool:
            """Whether another worker may be started."""

        def has_room(self) -> bool:
            """Whether a submit that waits for room could go on now."""

    class Party(Protocol):
        """One worker."""

        name: str
        task: Future[Any] | None
        """What it runs, or None."""


__all__ = ["describe_call", "wait_or_raise"]


class _Wait(NamedTuple):
    group: Group
    """Whose worker or room is waited for."""
    future: Future[Any] | None
    """The future waited for; None is a submit that waits for room."""


_lock = threading.Lock()
_waits: dict[Party, _Wait] = {}


def wait_or_raise(party: Party, group: Group, future: Future[Any] | None, wait: Callable[[], None]) -> None:
    """Call `wait`, which blocks the worker `party` until `future` (of `group`) is done, or until `group` has room if None.

    Raises:
        DeadlockDetected: that would be for good.
    """
    mine = _Wait(group, future)
    with _lock:
        stuck = _stuck(party, mine)
        if not stuck:
            _waits[party] = mine
    if stuck:
        raise DeadlockDetected(_chain(party, stuck))
    try:
        wait()
    finally:
        with _lock:
            _waits.pop(party, None)


def _stuck(party: Party, mine: _Wait) -> dict[Party, _Wait]:
    """Return the waits that can never end, if the one of `party` is among them; else nothing."""
    stuck = {**_waits, party: mine}
    if _can_end(mine, stuck):  # the usual case, without looking at all the others
        return {}
    while crossed_out := [other for other, wait in stuck.items() if _can_end(wait, stuck)]:
        for other in crossed_out:
            del stuck[other]
    return stuck if party in stuck else {}


def _can_end(wait: _Wait, waiting: dict[Party, _Wait]) -> bool:
    """Whether `wait` can end although all of `waiting` go on waiting."""
    group, future = wait
    if future is None:
        if group.has_room():
            return True
    elif future.done():
        return True
    elif future.running():
        return not any(other.task is future for other in waiting)
    return group.may_start_one() or any(other not in waiting for other in list(group.members))


def _chain(party: Party, stuck: dict[Party, _Wait]) -> tuple[str, ...]:
    others = sorted((other for other in stuck if other is not party), key=lambda other: other.name)
    lines = [_line(other, stuck[other]) for other in (party, *others)]
    if len(lines) > 12:
        lines[12:] = [f"… and {len(lines) - 12} more"]
    return tuple(lines)


def _line(party: Party, wait: _Wait) -> str:
    runs = "runs no task" if party.task is None else f"runs {describe_call(party.task)}"
    group, future = wait
    if future is None:
        return f"{party.name} {runs} and waits in submit for room in {group.name} (max_pending)"
    what = "a task that another of these runs" if future.running() else f"a task that is pending in {group.name}"
    return f"{party.name} {runs} and waits for {what}"


def describe_call(task: Future[Any]) -> str:
    """Return the call that a future carries as text, its arguments shortened: ``fetch('https://…', retries=3)``.

    Runs no code of the user's, whose ``__repr__`` might want a lock that a task which hangs is holding: what is neither a
    built-in value nor a path is shown by its type.
    """
    fn: Any = task._fn
    args, kwargs = task._args, task._kwargs or {}
    if fn is None or args is None:
        return "a task that has just ended"
    if args and isinstance(args[0], Batch):
        fn, args = args[0].current_call()
    if isinstance(fn, Attempt):
        fn = fn.fn
    if isinstance(fn, Watched):
        fn = fn.__wrapped__
    if isinstance(fn, Around):
        fn, args = fn.call(args)
    if isinstance(fn, functools.partial):  # more telling than 'partial(…)'
        fn, args, kwargs = fn.func, (*fn.args, *args), {**fn.keywords, **kwargs}
    name = fn.__qualname__ if isinstance(fn, _NAMED) else type(fn).__qualname__
    arguments = [_VALUES.repr(arg) for arg in args] + [f"{key}={_VALUES.repr(arg)}" for key, arg in kwargs.items()]
    return f"{name}({', '.join(arguments)})"


_NAMED = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodDescriptorType, type)


class _Values(reprlib.Repr):
    """reprlib's, but of built-in values only."""

    def repr1(self, x: object, level: int) -> str:
        if type(x).__module__.partition(".")[0] == "pathlib":  # a subclass of the user's has another
            return f"{type(x).__name__}({self.repr_str(str(x), level)})"
        if type(x).__module__ != "builtins":
            return f"<{type(x).__qualname__}>"
        return super().repr1(x, level)

    def repr_instance(self, x: object, level: int) -> str:  # noqa: ARG002  # as reprlib has it
        return repr(x) if x is None or isinstance(x, (bool, float, complex)) else f"<{type(x).__qualname__}>"


_VALUES = _Values()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it at the fork
    _waits.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
