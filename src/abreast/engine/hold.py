"""An executor that stays while a run has retries to come and nobody iterates: ``map`` of a view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from abreast.executors import timers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Hold"]


class Hold:
    """An executor that a run holds, and the alarm for its next retry. The run's lock guards it; `let_go` is called without.

    Attributes:
        rings: False once no alarm can be had: the program ends, and from 3.12 on no thread can be started any more. Who completes the last
            task then waits itself.

    Raises:
        RuntimeError: the executor is shut down.
    """

    def __init__(self, executor: Any, holder: Any) -> None:
        executor.hold(holder)
        self._executor = executor
        self._alarm: timers.Alarm | None = None
        self.rings = True

    def ring_at(self, due: float | None, action: Callable[[], object]) -> None:
        """Have `action` called in the timer thread, when the next retry is `due`."""
        alarm = self._alarm
        if alarm is not None and due is not None and alarm.due <= due:
            return
        self.stop()
        if due is not None and self.rings:
            try:
                self._alarm = timers.Alarm(due, action)
            except RuntimeError:
                self.rings = False

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm = None

    def call_soon(self, action: Callable[[], object]) -> None:
        """Have `action` called in a thread of the executor's, where tasks may be sent."""
        self._executor.call_soon(action)

    def let_go(self, holder: Any) -> None:
        self._executor.let_go(holder)
