"""One attempt at a call of ``submit`` that has options of its own, on its way through an executor of ours.

`Attempt` stands in for the user's function: in this process it is called in its place, and says which attempt it is (`current_task`); it is
what a time limit of its own hangs on. Into another process its name and number travel with the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from abreast.core.current import Scope, Task, here

if TYPE_CHECKING:
    from collections.abc import Callable

    from abreast.core.current import Running

__all__ = ["Attempt"]


class Attempt:
    """Calls `fn` as it is called itself.

    Attributes:
        name: what the task is called.
        number: which attempt this is, from 1.
        limit: seconds that it may take; None is as the executor has it.
    """

    __slots__ = ("fn", "limit", "name", "number", "outer")

    def __init__(self, fn: Callable[..., Any], name: str, number: int, limit: float | None) -> None:
        self.fn = fn
        self.name = name
        self.number = number
        self.limit = limit
        self.outer: Running | None = None
        """What its thread is running besides: somebody's task, in which a serial executor is used."""

    @property
    def scope(self) -> Scope:
        if self.outer is not None:
            return self.outer.scope
        return _nobody if here.worker is None else here.worker.scope

    def current_task(self) -> Task:
        return Task(self.name, None, self.number, (self.scope,))

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.outer = before = here.running
        try:
            here.running = self
            if self.limit is not None:
                worker: Any = here.worker  # of a crew: others have no limits here
                return worker.run_limited(self.limit, self.fn, *args, **kwargs)
            return self.fn(*args, **kwargs)
        finally:
            here.running = before
            self.outer = None
            del before


_nobody = Scope()
"""Of a task that nobody can cancel."""
