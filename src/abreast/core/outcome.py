"""What came of a task, and of a run: `Outcome`, `RunSummary`."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any, Generic, NamedTuple, TypeVar, cast

from abreast.core.text import shown

__all__ = ["Outcome", "RunSummary"]

T = TypeVar("T")


class Outcome(Generic[T]):
    """What came of one task of a run: what `abreast.outcomes` yields.

    Attributes:
        index (int): the place of the input, from 0.
        input: the input; a tuple where the run has several iterables.
        value: what the function returned; None if it raised or was cancelled.
        error (BaseException | None): what it raised; `CancelledError` if the run ended before the task did.
        attempts (int): how often it was tried; 0 if it never started.
        worker (str): the name of the thread it ran on; empty if it never started or is not known.
        duration (float): seconds from its start to its end; 0.0 where it did not come to its end.
        resumed (bool): whether it was not run, but recorded by an earlier run, in the journal; `attempts` and `duration` are of that run then.

    >>> import abreast
    >>> for outcome in abreast.outcomes(int, ["7", "seven"]):
    ...     print(outcome.index, outcome.input, outcome.value, repr(outcome.error))
    0 7 7 None
    1 seven None ValueError("invalid literal for int() with base 10: 'seven'")
    """

    __slots__ = ("attempts", "duration", "error", "index", "input", "resumed", "value", "worker")

    def __init__(
        self,
        index: int,
        input: object,  # noqa: A002  # the word of this library for it; nothing here reads from a terminal
        value: T | None = None,
        error: BaseException | None = None,
        *,
        attempts: int = 1,
        worker: str = "",
        duration: float = 0.0,
        resumed: bool = False,
    ) -> None:
        self.index = index
        self.input: Any = input
        self.value = value
        self.error = error
        self.attempts = attempts
        self.worker = worker
        self.duration = duration
        self.resumed = resumed

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.error is None

    @property
    def cancelled(self) -> bool:
        """Whether the run ended before the task did: it never started, or what came of it is not known."""
        return isinstance(self.error, CancelledError)

    def result(self) -> T:
        """Return the value, or raise the error: one line for who wants the exception after all.

        Raises:
            BaseException: `error`, if there is one.

        >>> import abreast
        >>> [outcome.result() for outcome in abreast.outcomes(abs, [-1, 2])]
        [1, 2]
        """
        if self.error is not None:
            try:
                raise self.error
            finally:
                self = None  # type: ignore[assignment]  # else: error -> traceback -> this frame -> outcome -> error
        return cast("T", self.value)

    def __repr__(self) -> str:
        came = f"value={shown(self.value)}" if self.error is None else f"error={shown(self.error)}"
        return f"<Outcome {self.index}: input={shown(self.input)} {came} attempts={self.attempts} {self.duration:.3g} s{' from the journal' * self.resumed}>"


class RunSummary(NamedTuple):
    """What a run has done so far, or in all; ``str()`` is one line of text.

    Attributes:
        tasks (int): how many tasks have ended, failed ones included.
        workers (int): how many workers they ran on.
        wall_time (float): seconds from the start of the run to its end, or to now.
        task_time (float): the sum of the times that the tasks took, in seconds: more than `wall_time` where they ran side by side. Under
            the GIL a task's time contains waiting for the turns of others.
        failures (int): how many tasks raised.
        cancelled (int): how many tasks were read but not run to their end.
        retries (int): how many attempts were made after a task's first.
        resumed (int): how many tasks were not run, since the journal has their outcomes; they are not among `tasks`.

    >>> import abreast
    >>> results = abreast.imap(abs, [-1, -2, -3], max_workers=1)
    >>> sum(results)
    6
    >>> print(results.summary())
    3 tasks on 1 worker in ... s; task times add up to ... s; 0 failed
    """

    tasks: int
    workers: int
    wall_time: float
    task_time: float
    failures: int
    cancelled: int = 0
    retries: int = 0
    resumed: int = 0

    def __str__(self) -> str:
        text = (
            f"{self.tasks:,} task{'s' * (self.tasks != 1)} on {self.workers} worker{'s' * (self.workers != 1)} "
            f"in {self.wall_time:.3g} s; task times add up to {self.task_time:.3g} s; {self.failures:,} failed"
        )
        if self.retries:
            text += f", {self.retries:,} retr{'y' if self.retries == 1 else 'ies'}"
        if self.resumed:
            text += f", {self.resumed:,} from the journal"
        return f"{text}, {self.cancelled:,} cancelled" if self.cancelled else text
