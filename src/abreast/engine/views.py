"""A view of an executor: its workers, with options for the calls that are submitted through it."""

from __future__ import annotations

import concurrent.futures
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from abreast.core.check import function
from abreast.core.current import name_of
from abreast.core.options import check_task_options
from abreast.engine.retried import submit_retried
from abreast.engine.workers import has_limits
from abreast.executors.attempt import Attempt
from abreast.executors.base import has_replaced_submit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from abreast.core.future import Future

__all__ = ["View"]

P = ParamSpec("P")
T = TypeVar("T")


class View(concurrent.futures.Executor):
    """`submit`; the public class adds what runs over many inputs.

    Attributes:
        executor: whose workers these are; one of ours.
        options: as the user gave them (`TaskOptions`).
    """

    executor: Any
    options: dict[str, Any]

    def __init__(self, executor: Any, options: Mapping[str, Any]) -> None:
        if isinstance(executor, View):
            options = {**executor.options, **options}
            executor = executor.executor
        checked = check_task_options(options)
        if has_replaced_submit(executor):
            raise TypeError(
                f"with_options() of a {type(executor).__name__}, whose submit() is not ours: calls with options would not go through it"
            )
        if checked.get("task_timeout") is not None and not has_limits(executor):
            raise ValueError(
                f"task_timeout={options['task_timeout']!r}: a {type(executor).__name__} cannot end a task, it runs it itself"
            )
        self.executor = executor
        self.options = dict(options)
        self._name: str | None = checked.get("name")
        self._limit: float | None = checked.get("task_timeout")
        self._retry = checked.get("retries")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the executor's ``submit``, with this view's options. Every keyword belongs to `fn`.

        Returns:
            The `Future` of the call: done when its last attempt is. It can be cancelled while it waits for the next one. The error is the
            last attempt's; a note says which that was.

        Raises:
            TypeError: `fn` cannot be called.
            RuntimeError: as the executor's ``submit``.
        """
        function("fn", fn)
        name, context = self._name or name_of(fn), copy_context()
        if self._retry is None:
            attempt = Attempt(fn, name, 1, self._limit)
            return self.executor.submit_attempt(attempt, args, kwargs, context)  # type: ignore[no-any-return]  # the executor is any of ours
        return submit_retried(self.executor, fn, args, kwargs, context, name=name, limit=self._limit, retry=self._retry)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down the executor that this is a view of; see there."""
        self.executor.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(self, *exc_info: Any) -> bool | None:
        return self.executor.__exit__(*exc_info)  # type: ignore[no-any-return]  # the executor is any of ours

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.executor!r}.with_options({options})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an executor cannot be pickled: make one where it is used")
