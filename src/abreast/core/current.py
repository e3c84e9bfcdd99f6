"""What runs in this thread now, and how it is asked to end.

::

    Scope of a group ◀─watches─ Scope of a run inside it ◀─watches─ sleep() in one of its tasks
          cancel() ───────────────▶ cancel() ───────────────────────▶ wakes, raises CancelledError

A `Scope` is what is cancelled as one: a run, a group, a worker that was left behind. Nothing is stopped by force; who asks
(`current_task().cancelled`, `checkpoint`, `sleep`) is told.

A thread knows its innermost scopes by `here`, a thread-local object that whoever runs a task sets and restores, once per batch:
a task that does not ask pays nothing. The body of a ``with TaskGroup()`` block is known by a context variable instead, because
a coroutine may await inside it while others use the same thread; with it stands the thread, and what that was running, since
contexts are copied to tasks and workers, and the body of a block is none of theirs.

A scope's lock guards its watchers. It is re-entrant, for a finalizer or signal handler that cancels while this thread holds it;
watchers are called without it.
"""

from __future__ import annotations

import functools
import threading
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from abreast.core.future import Future

    class Running(Protocol):
        """Who runs the user's function in a thread: a batch of a run, a task of a group."""

        @property
        def scope(self) -> Scope: ...
        def current_task(self) -> Task:
            """Return the task that runs now; called in the thread that runs it."""

    class Worker(Protocol):
        """A thread of an executor."""

        task: Future[Any] | None

        @property
        def scope(self) -> Scope: ...


__all__ = ["Around", "Body", "Scope", "Task", "current_scopes", "current_task", "here", "locked", "name_of"]

P = ParamSpec("P")
R = TypeVar("R")


def locked(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Run a method under its object's `_lock`, an RLock, which no Ctrl-C leaves held.

    `acquire` stands inside the ``try``: signals are handled right after the call. (``with`` is not safe so on 3.14; see core/future.py.)
    """

    @functools.wraps(method)
    def with_lock(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        lock = self._lock
        try:
            lock.acquire()
            return method(self, *args, **kwargs)
        finally:
            try:  # noqa: SIM105  # suppress() is a call, after which a signal could be handled
                lock.release()
            except RuntimeError:  # Ctrl-C while another thread held it: that goes on
                pass

    return cast("Callable[Concatenate[Any, P], R]", with_lock)


class Scope:
    """What is cancelled as one. `cancel` may be called from any thread, more than once: again, if Ctrl-C has interrupted it."""

    __slots__ = ("_lock", "_watchers", "cancelled")

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.RLock()
        self._watchers: dict[Callable[[], object], None] = {}

    def cancel(self) -> None:
        self.cancelled = True
        while (watcher := self._next()) is not None:
            try:
                watcher()
            except BaseException:  # Ctrl-C, maybe before it did anything; or out of a user's callback, which is not called twice
                self.cancel()
                raise
            self.unwatch(watcher)  # only now: one that has not been told stays

    @locked
    def _next(self) -> Callable[[], object] | None:
        return next(iter(self._watchers), None)

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call `watcher` when this is cancelled: at once, if it is; twice, if two cancel at once. It must not raise or block."""
        if not self._enter(watcher):
            watcher()

    @locked
    def _enter(self, watcher: Callable[[], object]) -> bool:
        if self.cancelled:
            return False
        self._watchers[watcher] = None
        return True

    @locked
    def unwatch(self, watcher: Callable[[], object]) -> None:
        self._watchers.pop(watcher, None)

    def forget_threads(self) -> None:
        """In a forked child: a thread that is not here may have held the lock."""
        self._lock = threading.RLock()


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
        """Whether the task has been asked to end."""
        return any(scope.cancelled for scope in self._scopes)

    def __repr__(self) -> str:
        index = "" if self.index is None else f" {self.index}"
        return f"<Task {self.name}{index}, attempt {self.attempt}{', cancelled' if self.cancelled else ''}>"


class _Here(threading.local):
    running: Running | None = None
    worker: Worker | None = None


here = _Here()


class Body:
    """The body of a with block: its scope, and the thread it was entered in and what that was running.

    Entered when made. Contexts that were copied meanwhile, by a coroutine or for a worker, keep it: it is over for them as well.
    """

    __slots__ = ("outer", "over", "running", "scope", "thread")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.running = here.running
        self.thread = get_ident()
        self.outer = _innermost()
        self.over = False
        _body.set(self)

    def leave(self) -> None:
        """The block has been left; not always in the context it was entered in (a generator's), nor the innermost first."""
        self.over = True
        self.running = None
        if _body.get() is self:
            _body.set(_innermost())

    def is_here(self) -> bool:
        return self.running is here.running and self.thread == get_ident()


_body: ContextVar[Body | None] = ContextVar("abreast.body", default=None)


def _innermost() -> Body | None:
    body = _body.get()
    while body is not None and body.over:
        body = body.outer
    return body


def current_scopes() -> tuple[Scope, ...]:
    """Return the scopes this thread works in now; if one is cancelled, what runs here should end."""
    body, running, worker = _innermost(), here.running, here.worker
    return (
        *(() if body is None or not body.is_here() else (body.scope,)),
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
    fn = None if worker is None else getattr(worker.task, "_fn", None)
    if worker is None or fn is None:  # also in a callback: its task has ended
        return None
    return Task(name_of(fn), None, 1, (worker.scope,))


class Around:
    """A function of ours around one of the user's, which errors are to show instead."""

    def call(self, args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return the user's function, and what it is called with if this is called with `args`. Runs no code of the user's."""
        raise NotImplementedError


def name_of(fn: object) -> str:
    """Return what to call a function in names of threads, notes and reports."""
    while isinstance(fn, functools.partial):  # more telling than 'partial'
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__
