"""A call of ``submit`` that is tried again: one future for the user, and one of the executor for each attempt.

::

    submit ─▶ attempt 1 ─ fails ─▶ judge ─▶ wait: an alarm (executors/timers.py) ─ due ─▶ attempt 2 ─▶ … ─▶ the user's future
              (inner future)       (in the thread that completed the attempt)

It holds its executor from the call to its end: ``shutdown`` waits for it, as for all that was submitted, and the executor takes its next attempt
although it is closed by then. While it waits, no worker does; `Future.cancel` works.

`_lock` guards `_inner` and `_alarm`: which attempt is under way, or what it waits for. Nothing is called under it but what makes or stops an alarm.
The user's future is pending until the end: nobody but `_settle` and `_cancel_now` completes it.

Rejected: the executor's own future, back to pending after each failure. A time limit and a late worker would both want to settle it, and
each would have to be told which attempt it means.
"""

from __future__ import annotations

import threading
from contextvars import Context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from abreast.core import draining, watch
from abreast.core.current import here
from abreast.core.future import Future, pause
from abreast.engine.life import decide
from abreast.executors import timers
from abreast.executors.attempt import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from abreast.core.retry import Retry

__all__ = ["submit_retried"]

T = TypeVar("T")


def submit_retried(
    executor: Any,
    fn: Callable[..., T],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: Context,
    *,
    name: str,
    limit: float | None,
    retry: Retry,
) -> Future[T]:
    """Submit a call to an executor of ours; see the executors' ``submit``."""
    call = _Call(executor, fn, args, kwargs, context, name, limit, retry)
    if hasattr(executor, "hold"):
        call.begin()
    else:
        call.run_here()
    return call.future


class RetriedFuture(Future[T]):
    """What the user gets."""

    __slots__ = ("_call",)

    _call: _Call | None

    def running(self) -> bool:
        """Return True if a worker is running an attempt now."""
        call = self._call
        inner = None if call is None else call._inner
        return inner is not None and not self.done() and inner.running()

    def cancel(self) -> bool:
        """As `Future.cancel`; also while the call waits for its next attempt."""
        call = self._call
        return super().cancel() if call is None else call.cancel_for_user()


class _Call:
    """All attempts at one call."""

    __slots__ = (
        "_alarm",
        "_gives_up",
        "_inner",
        "_lock",
        "_same",
        "args",
        "context",
        "executor",
        "fn",
        "future",
        "kwargs",
        "limit",
        "name",
        "number",
        "retry",
    )

    def __init__(
        self,
        executor: Any,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        name: str,
        limit: float | None,
        retry: Retry,
    ) -> None:
        self.executor = executor
        self.fn = fn
        self.args = args
        # None instead of what is empty: ten thousand may wait.
        self.kwargs = kwargs or None
        self.context = context if len(context) else None
        self.name = name
        self.limit = limit
        self.retry = retry
        self.number = 1
        """Which attempt is under way, or comes next."""
        self.future: RetriedFuture[Any] = RetriedFuture()
        self.future._call = self
        self.future._owner = self
        self._inner: Future[Any] | None = None
        self._alarm: timers.Alarm | None = None
        self._gives_up = False
        self._same: watch.Same | None = None  # if somebody watches
        self._lock = threading.Lock()

    # ---- attempts

    def begin(self) -> None:
        self.executor.hold(self)
        try:
            self._send(held=False)
        except BaseException:
            self.executor.let_go(self)
            raise

    def _send(self, *, held: bool = True) -> None:
        inner = self._submit(held=held)
        self._inner = inner
        inner.add_done_callback(self._ended)

    def _submit(self, *, held: bool) -> Future[Any]:
        attempt = Attempt(self.fn, self.name, self.number, self.limit)
        context = Context() if self.context is None else self.context.copy()
        submit = partial(self.executor.submit_attempt, attempt, self.args, self.kwargs or {}, context, held=held)
        if not watch.active:
            return submit()  # type: ignore[no-any-return]  # any of ours
        if self._same is None:
            self._same = watch.Same(self.fn)
        with self._same:
            return submit()  # type: ignore[no-any-return]  # as above

    def _ended(self, inner: Future[Any]) -> None:
        """An attempt is over: in the thread that completed it, where the user's callbacks may be called."""
        if inner.cancelled():
            self._cancel_now()
            return
        error = inner.exception(0)
        if error is None:
            self._settle(inner.result(0), None)
            return
        try:
            wait, error = self._judge(error)
            if wait is None:
                self._settle(None, error)
            else:
                self._wait(wait)
        except BaseException as why:  # Ctrl-C, out of the user's `on`
            self._settle(None, why)
        finally:
            del error, inner  # an error's traceback may come to hold this frame: `on` may have raised it

    def _judge(self, error: BaseException) -> tuple[float | None, BaseException]:
        """Return after how long there is another attempt, or None, and the error."""
        wait: float | None = None
        try:
            if not self._gives_up:
                wait, error = decide(self.retry, error, self.number)
            if wait is None:
                _cut_off_ours(error)
                if self.number > 1:
                    error.add_note(f"abreast: raised by {self.name}, attempt {self.number}")
            return wait, error
        finally:
            del error

    def _wait(self, wait: float) -> None:
        try:
            with self._lock:
                self._alarm = timers.Alarm(monotonic() + wait, self._ring)
                self._inner = None
                self.number += 1
        except RuntimeError:  # the program ends, and from 3.12 on no thread can be started any more: then this one waits
            self.number += 1
            pause(wait)
            self._send_again()
            return
        if self._gives_up:  # meanwhile
            self.cancel()

    def _ring(self) -> None:
        """The next attempt is due; in the timers' thread, which is not to be held up."""
        if not self._stop_waiting():
            return
        if self.executor.sends_quickly:
            self._send_again()
        else:
            try:
                self.executor.call_soon(self._send_again)
            except BaseException as error:
                self._settle_aside(error)

    def _send_again(self) -> None:
        try:
            self._send()
        except BaseException as error:  # it is broken, or was killed
            self._settle_aside(error)

    def _stop_waiting(self) -> bool:
        """Whether it has waited until now."""
        with self._lock:
            alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.stop()
        return alarm is not None

    def run_here(self) -> None:
        """Make all attempts in this thread, which waits between them: a serial executor's."""
        while True:
            self._inner = inner = self._submit(held=self.number > 1)
            error = inner._exception
            try:
                if error is None:
                    self._settle(inner._result, None)
                    return
                wait, error = self._judge(error)
                if wait is None:
                    self._settle(None, error)
                    return
            finally:
                del error, inner
            self.number += 1
            pause(wait)

    # ---- the end

    def _settle(self, value: Any, error: BaseException | None) -> None:
        future = self.future
        try:
            if future._publish(value, error):
                future._owner = None
                future._invoke_callbacks(BaseException)
        finally:
            self._let_go()
            del error, future

    def _settle_aside(self, error: BaseException) -> None:
        """Where no callbacks of the user's may be called: in a thread for it."""
        try:
            timers.new_thread(lambda: self._settle(None, error), "abreast-callbacks").start()
        except RuntimeError:  # the program ends
            self._settle(None, error)

    def _let_go(self) -> None:
        executor = self.executor
        self.future._call = self._inner = None  # the user may keep the future for long
        if hasattr(executor, "let_go"):
            executor.let_go(self)

    def cancel(self) -> None:
        """The executor cancels what waits: this too, if it does. If an attempt is under way, it is the last one."""
        self._gives_up = True
        if self._stop_waiting():
            self._cancel_now()

    def drain(self) -> None:
        """The program has been asked to end: if it waits, it ends with Drained. If an attempt is under way, it is the last one."""
        self._gives_up = True
        if self._stop_waiting():
            self._settle_aside(draining.drained(f"another attempt at {self.name}"))

    def cancel_for_user(self) -> bool:
        if self._stop_waiting():
            self._cancel_now()
            return True
        inner = self._inner
        if inner is not None and inner.cancel():  # which calls `_ended`
            return True
        return self.future.cancelled()

    def _cancel_now(self) -> None:
        future = self.future
        try:
            if not future.done() and Future.cancel(future):
                future.set_running_or_notify_cancel()  # tells those who wait()
        finally:
            self._let_go()

    # ---- who waits for the user's future; see core/future.py, Owner

    def wait_for(self, future: Future[Any], timeout: float | None) -> None:
        wait_for_call = getattr(self.executor, "wait_for_call", None)
        inner = self._inner
        if timeout is None and here.worker is not None and wait_for_call is not None and inner is not None:
            wait_for_call(inner, lambda: future._park(None))
        else:
            future._park(timeout)

    def cancelled(self, _future: Future[Any]) -> None:
        pass


def _cut_off_ours(error: BaseException) -> None:
    """Let the traceback begin in the user's function."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code in _OURS:
        trace = trace.tb_next
    if trace is not None:
        BaseException.with_traceback(error, trace)  # not error.with_traceback, which a class of the user's may override


_OURS = {Attempt.__call__.__code__, timers.run_limited.__code__, watch.FRAME}
