"""The seam between a run and the executor it runs on: `submit_call`.

Any executor will do: a batch goes to ``executor.submit(run_batch, batch)``, and its future tells when it is over. Executors of ours
have a ``submit_call`` of their own, which does the same for less, and can be told to wait for a call in one of their own workers.

A ``submit`` that somebody has replaced, on the instance (tqdm does) or in a subclass, is called: it is there to see every call.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from abreast.executors.batch import Batch, Finished, run_batch

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from typing import Protocol

    class Deliver(Protocol):
        """What the engine is told by: `batch` is over, or `lost` says why nobody knows more of it."""

        def __call__(self, batch: Batch, lost: BaseException | None, /) -> object: ...

    class SubmitCall(Protocol):
        """Has a worker run a batch; `deliver` is called once it is over, in whatever thread completes it (or `Work.settle` instead).

        Outcomes can be taken from the batch before, if it runs in this process. Returns a handle, to cancel what has not started.

        Raises:
            RuntimeError: the executor is shut down, or broken.
        """

        def __call__(self, batch: Batch, deliver: Deliver, /) -> Future[Any]: ...

    class SubmitPlain(Protocol):
        """The same in the executor's own thread; None if it would run code of the user's."""

        def __call__(self, batch: Batch, deliver: Deliver, /) -> Future[Any] | None: ...


__all__ = ["deliver_from", "has_replaced_submit", "is_ours", "plain_sender", "sender"]


def is_ours(executor: Executor) -> bool:
    """Whether `executor` has a `submit_call`, and the ``submit`` that belongs to it."""
    return hasattr(executor, "submit_call") and not has_replaced_submit(executor)


def has_replaced_submit(executor: Executor) -> bool:
    """Whether `executor` is one of ours whose ``submit`` is not."""
    cls = type(executor)
    made_for: Any = next((base for base in cls.__mro__ if "submit_call" in vars(base)), None)
    return hasattr(made_for, "submit") and ("submit" in vars(executor) or cls.submit is not made_for.submit)


def sender(executor: Executor) -> SubmitCall:
    """Return `submit_call` for `executor`."""
    if is_ours(executor):
        ours: SubmitCall = executor.submit_call  # type: ignore[attr-defined]  # is_ours says so
        return ours
    shows_calls = has_replaced_submit(executor)

    def submit_call(batch: Batch, deliver: Deliver) -> Future[Any]:
        is_shown = shows_calls and len(batch.items) == 1
        if is_shown:
            # Somebody wants to see the calls: they get the user's function, not ours.
            fn, args = batch.current_call()
            future = executor.submit(fn, *args)
        else:
            future = executor.submit(run_batch, batch)
        future.add_done_callback(functools.partial(deliver_from, batch, deliver, is_shown=is_shown))
        return future

    return submit_call


def plain_sender(executor: Executor) -> SubmitPlain | None:
    """Return `submit_plain` for `executor`, if it has one."""
    return getattr(executor, "submit_plain", None) if is_ours(executor) else None


def deliver_from(batch: Batch, deliver: Deliver, future: Future[Any], *, is_shown: bool = False) -> None:
    """Pass on what became of a future of `run_batch`, or, where calls are shown, of the one task of the batch.

    A pool of our own threads returns nothing: the batch has everything. It may have no result at all: it was stopped before its first task.
    """
    lost = None
    try:
        finished = future.result()
        if is_shown:
            batch.results.append(finished)
            batch.ends.append(0.0)  # not known
        elif isinstance(finished, Finished):
            batch.load(finished)
    except BaseException as error:  # what the executor, not a task, came to: broken, cancelled, over its limit, not to be pickled
        lost = error
    try:
        deliver(batch, lost)
    finally:
        del lost, future, batch, deliver  # the error's traceback holds this frame
