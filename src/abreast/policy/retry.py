"""Whether a failed task is tried again, and after how long.

The wait is stamina's (tenacity's, AWS's "full jitter" is wider): exponential, plus a random part, capped as a whole, so `wait_max` is what it
says. Where the other side asks for more by ``Retry-After`` (RFC 9110, 10.2.3: seconds, or a date), it gets that, however long: to ask again before
is what the header forbids. Who wants an end of it gives the run a ``timeout``.

Which errors are never tried again, whatever `on` says
    ===================================================  =============================================================
    CancelledError                                       somebody has asked for the end
    BrokenExecutor that is none of ours                  the executor is gone: nothing more can be run there
    TaskPickleError, TaskDecodeError, ResultDecodeError  the same bytes again
    DeadlockDetected                                     the same wait again, and meanwhile another worker would be stuck

and so are, if `on` has them: TaskTimeout, WorkerCrashed, MemoryLimitExceeded (the memory may have been what tasks before it left), TaskError,
everything that a task has raised.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError
from datetime import UTC
from math import isfinite
from typing import TYPE_CHECKING, Any

from abreast.core.errors import AbreastError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from abreast.core.retry import Retry

__all__ = ["is_for_good", "next_attempt", "retry_after"]


def is_for_good(error: BaseException) -> bool:
    """Whether no attempt after this error makes sense, whatever the user says."""
    if isinstance(error, AbreastError):
        return error._fails_again
    return isinstance(error, (CancelledError, BrokenExecutor))


def next_attempt(retry: Retry, error: BaseException, attempts: int, random: float, now: float) -> float | None:
    """Return after how many seconds a task is to be tried again; None if it has failed for good.

    Args:
        retry: the user's wish; its `on`, if it is a function, is called here, and may raise.
        error: what the last attempt raised.
        attempts: how many there have been, at least 1.
        random: a number from 0 to 1.
        now: the time of the day, in seconds (`time.time`), for a ``Retry-After`` that is a date.
    """
    if attempts > retry.retries or is_for_good(error):
        return None
    on = retry.on
    if not (isinstance(error, on) if isinstance(on, (type, tuple)) else on(error)):
        return None
    try:
        wait = retry.wait_initial * retry.wait_exp_base ** (attempts - 1) + random * retry.wait_jitter
    except OverflowError:
        wait = retry.wait_max
    return max(min(wait, retry.wait_max), retry_after(error, now) or 0.0)


def retry_after(error: BaseException, now: float) -> float | None:
    """Return how many seconds an error asks to wait; None if it does not, or asks for nonsense: a date that has passed, nan.

    Whatever class it is of: an attribute ``retry_after``, or the headers of the error (urllib) or of its response (requests, httpx, aiohttp).
    """
    for value in _values(error):
        try:
            seconds = _seconds(value, now)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: S112  # what stands there is the server's, and may be anything
            continue
        if seconds is not None and isfinite(seconds) and seconds > 0:
            return seconds
    return None


def _values(error: BaseException) -> Iterator[Any]:
    yield _attribute(error, "retry_after")
    for owner in (error, _attribute(error, "response")):
        get = _attribute(_attribute(owner, "headers"), "get")
        for name in ("Retry-After", "retry-after"):  # a plain dict knows one of them
            yield _value(get, name)


def _value(get: Any, name: str) -> Any:
    try:
        return get(name)
    except KeyboardInterrupt:
        raise
    except BaseException:  # no mapping after all, but something of the user's
        return None


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute of the user's object; None if there is none, or if asking for it raises."""
    try:
        return getattr(owner, name, None)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None


def _seconds(value: Any, now: float) -> float | None:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        if value is None or isinstance(value, bool):
            return None
        return float(value.total_seconds() if hasattr(value, "total_seconds") else value)
    try:
        return float(value)
    except ValueError:
        from email.utils import parsedate_to_datetime

        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # asctime's form, and "-0000": it is GMT all the same
            date = date.replace(tzinfo=UTC)
        return date.timestamp() - now
