"""`Retry`: how often, after which errors, and after how long a failed task is tried again. policy/retry.py decides by it."""

from __future__ import annotations

from math import isfinite
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from abreast.core.check import count_from_zero, number

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Retry", "retry_or_none"]

On: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], object]"


class Retry:
    """How a failed task is tried again: the value of the option ``retries``, where a number is not enough. It cannot be changed.

    Errors, time-outs (`TaskTimeout`) and crashes (`WorkerCrashed`) count together. Attempt n + 1 begins
    ``wait_initial * wait_exp_base ** (n - 1)`` seconds after attempt n has failed, plus a random part of `wait_jitter`, at most `wait_max`;
    and not before the time that the error's ``Retry-After`` asks for, however late that is. That is looked for as ``error.retry_after``, and in
    ``error.headers`` and ``error.response.headers``. A task that waits holds no worker.

    Never tried again: what was cancelled, what would fail again (`TaskPickleError`, `TaskDecodeError`, `ResultDecodeError`,
    `DeadlockDetected`), and what an executor that is broken or shut down raises.

    Args:
        retries: the most attempts after the first, at least 0.
        on: which errors: an exception class, a tuple of classes, or a function that gets the error and tells. What such a function raises is
            the task's error then.
        wait_initial, wait_max, wait_jitter: seconds, at least 0.
        wait_exp_base: at least 1.

    Raises:
        TypeError, ValueError: a wrong argument, named with its value.

    >>> import abreast
    >>> tries = []
    >>> def flaky(number):
    ...     tries.append(number)
    ...     if len(tries) < 3:
    ...         raise ConnectionError("try again")
    ...     return number
    >>> politely = abreast.Retry(3, on=(ConnectionError, TimeoutError), wait_initial=0.01, wait_jitter=0)
    >>> abreast.map(flaky, [7], retries=politely), tries
    ([7], [7, 7, 7])
    """

    __slots__ = ("on", "retries", "wait_exp_base", "wait_initial", "wait_jitter", "wait_max")

    retries: int
    on: On
    wait_initial: float
    wait_max: float
    wait_jitter: float
    wait_exp_base: float

    def __init__(
        self,
        retries: int,
        on: On = Exception,
        wait_initial: float = 0.1,
        wait_max: float = 5.0,
        wait_jitter: float = 1.0,
        wait_exp_base: float = 2.0,
    ) -> None:
        put = super().__setattr__
        put("retries", count_from_zero("retries", retries))
        put("on", _checked_on(on))
        for name, value in (("wait_initial", wait_initial), ("wait_max", wait_max), ("wait_jitter", wait_jitter)):
            put(name, _at_least(name, value, 0, " seconds"))
        put("wait_exp_base", _at_least("wait_exp_base", wait_exp_base, 1, ""))
        if self.wait_initial > self.wait_max:
            raise ValueError(f"wait_initial={wait_initial!r} is above wait_max={wait_max!r}: give both")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Retry cannot be changed ({name}={short(value)}): make another one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Retry cannot be changed ({name}): make another one")

    def _values(self) -> tuple[Any, ...]:
        return (self.retries, self.on, self.wait_initial, self.wait_max, self.wait_jitter, self.wait_exp_base)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Retry) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __reduce__(self) -> tuple[Any, ...]:
        return Retry, self._values()

    def __repr__(self) -> str:
        on = self.on
        if isinstance(on, tuple):
            told = f"({', '.join(each.__name__ for each in on)}{',' * (len(on) == 1)})"
        else:
            told = on.__name__ if isinstance(on, type) else short(on)
        waits = ", ".join(
            f"{name}={getattr(self, name):g}" for name in ("wait_initial", "wait_max", "wait_jitter", "wait_exp_base")
        )
        return f"Retry({self.retries}, on={told}, {waits})"


def retry_or_none(value: object) -> Retry | None:
    """Return the option ``retries`` as a `Retry`, or None if that is for nothing; raise TypeError or ValueError."""
    if not isinstance(value, Retry):
        value = Retry(count_from_zero("retries", value, default=" or a Retry"))
    return value if value.retries else None


def _checked_on(on: Any) -> On:
    classes = on if isinstance(on, tuple) else (on,)
    if isinstance(on, (type, tuple)):
        for each in classes:
            if not (isinstance(each, type) and issubclass(each, BaseException)):
                raise TypeError(f"on must be exception classes or a function; {short(each)} is no exception class")
        if not classes:
            raise ValueError("on=() would retry nothing: leave it out for all errors")
    elif not callable(on):
        raise TypeError(
            f"on must be an exception class, a tuple of classes or a function of the error, not {short(on)} ({type(on).__name__})"
        )
    return on  # type: ignore[no-any-return]  # as has just been seen


def _at_least(name: str, value: object, least: float, unit: str) -> float:
    seconds = number(name, value, f"a number{' of seconds' * bool(unit)}")
    if not (seconds >= least and isfinite(seconds)):  # nan too
        raise ValueError(f"{name} must be finite and at least {least:g}{unit}, not {seconds:g}")
    return seconds
