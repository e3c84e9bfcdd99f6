"""What runs in this thread now, and how it is asked to end.

::

    Scope of a group ◀─watches─ Scope of a run inside it ◀─watches─ sleep() in one of its tasks
          cancel() ───────────────▶ cancel() ───────────────────────▶ wakes, raises CancelledError

A `Scope` is what is cancelled as one: a run, a group, a worker that was left behind. Nothing is stopped by force; who asks
(`current_task().cancelled`, `checkpoint`, `sleep`) is told.

A thread knows its innermost scopes by `here`, a thread-local object that whoever runs a task sets and restores, once per batch:
a task that does not ask pays nothing. The body of a ``with TaskGroup()`` block is known by a context variable instead, because
a coroutine may await inside it while others use the same thread; with it stands what the thread was running, since contexts
are copied to tasks, and the body of a block is none of theirs.

A scope's lock guards its watchers. It is re-entrant, for a finalizer or signal handler that cancels while this thread holds it;
watchers are called without it.
"""

from __future__ import annotations

import functools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Protocol

    class Running(Protocol):
        """Who runs the user's function in a thread: a batch of a run, a task of a group."""

        @property
        def scope(self) -> Scope: ...
        def current_task(self) -> Task:
            """Return the task that runs now; called in the thread that runs it."""

    class Worker(Protocol):
        """A thread of an executor."""

        @property
        def scope(self) -> Scope: ...
        @property
        def task(self) -> Future[Any] | None: ...


__all__ = ["Scope", "Task", "current_scopes", "current_task", "here", "name_of"]


class Scope:
    """What is cancelled as one. `cancel` may be called from any thread, more than once."""

    __slots__ = ("_lock", "_watchers", "cancelled")

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.RLock()
        self._watchers: list[Callable[[], object]] = []

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call `watcher` once, when this is cancelled: at once, if it is. It must not raise or block."""
        with self._lock:
            if not self.cancelled:
                self._watchers.append(watcher)
                return
        watcher()

    def unwatch(self, watcher: Callable[[], object]) -> None:
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)


class Task:
    """What `abreast.current_task` returns: the task that this thread is running.

    Attributes:
        name (str): the ``name`` it was given, or the name of its function.
        index (int | None): the place of its input in a run, from 0; None for a task of a group or of ``submit``.
        attempt (int): which try this is, from 1.
        cancelled (bool): whether it has been asked to end: its run or group was cancelled, or its thread left behind. Looked
            up anew each time.

    >>> import abreast
    >>> abreast.map(lambda word: (abreast.current_task().index, word), ["a", "b"])
    [(0, 'a'), (1, 'b')]
    """

    __slots__ = ("_scopes", "attempt", "index", "name")

    def __init__(self, name: str, index: int | None, attempt: int, scopes: tuple[Scope, ...]) -> None:
        self.name = name
        self.index = index
        self.attempt = attempt
        self._scopes = scopes

    @property
    def cancelled(self) -> bool:
        return any(scope.cancelled for scope in self._scopes)

    def __repr__(self) -> str:
        index = "" if self.index is None else f" {self.index}"
        return f"<Task {self.name}{index}, attempt {self.attempt}{', cancelled' if self.cancelled else ''}>"


class _Here(threading.local):
    running: Running | None = None
    worker: Worker | None = None


here = _Here()


class Body(NamedTuple):
    """The body of a with block: its scope, and what the thread was running when it was entered."""

    scope: Scope
    running: Running | None


body: ContextVar[Body | None] = ContextVar("abreast.body", default=None)


def current_scopes() -> tuple[Scope, ...]:
    """Return the scopes this thread works in now; if one is cancelled, what runs here should end."""
    inside = body.get()
    running, worker = here.running, here.worker
    return (
        *(() if inside is None or inside.running is not running else (inside.scope,)),
        *(() if running is None else (running.scope,)),
        *(() if worker is None else (worker.scope,)),
    )


def current_task() -> Task | None:
    """Return the `Task` that this thread is running, or None outside of tasks. A task that does not ask pays nothing for it.

    In a run, a group, or ``submit`` of an executor of this library. Use its `cancelled` in a long loop to end early, or
    `abreast.checkpoint` and `abreast.sleep`, which do it for you.

    >>> import abreast
    >>> def work(x):
    ...     task = abreast.current_task()
    ...     return task.name, task.index, task.attempt, task.cancelled
    >>> abreast.map(work, ["a", "b"])
    [('work', 0, 1, False), ('work', 1, 1, False)]
    >>> print(abreast.current_task())
    None
    """
    running, worker = here.running, here.worker
    if running is not None:
        return running.current_task()
    future = None if worker is None else worker.task
    if worker is None or future is None:
        return None
    return Task(name_of(getattr(future, "_fn", None)), None, 1, (worker.scope,))


def name_of(fn: object) -> str:
    """Return what to call a function in names of threads, notes and reports."""
    while isinstance(fn, functools.partial):  # more telling than 'partial'
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__
