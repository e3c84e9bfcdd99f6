"""The errors that only a pool of processes has; errors.py draws the whole tree.

A module of its own, since their parents in the standard library cost 10 ms to import (multiprocessing) and 2 ms (pickle). Each one
pickles: its constructor takes exactly what ``args`` holds.
"""

from __future__ import annotations

import pickle
from concurrent.futures.process import BrokenProcessPool

from abreast.core.errors import AbreastError

__all__ = ["MemoryLimitExceeded", "ResultDecodeError", "TaskDecodeError", "TaskPickleError", "WorkerCrashed"]


class TaskPickleError(AbreastError, pickle.PicklingError):
    """A function, an argument or a result cannot be sent to another process, or back from it.

    What neither pickle nor cloudpickle can take apart: sockets, locks, open files, generators. Its cause is the error that
    pickling raised.

    What to do: send what it was made from (a path, an address), and make it in the task.

    Attributes:
        what (str): what was to be sent, as ``the arguments of fetch('a.txt')``.
        place (str): the smallest part of it that does not pickle, as ``args[0].conn (socket)``.
        why (str): what pickling that part raised.

    >>> import abreast
    >>> raise abreast.TaskPickleError("the arguments of fetch", "args[0].conn (socket)", "cannot pickle 'socket' object")
    Traceback (most recent call last):
        ...
    abreast.core.process_errors.TaskPickleError: the arguments of fetch cannot be pickled, because of args[0].conn (socket): ...
    """

    _fails_again = True

    def __init__(self, what: str = "", place: str = "", why: str = "") -> None:
        super().__init__(what, place, why)
        self.what = what
        self.place = place
        self.why = why

    def __str__(self) -> str:
        because = f", because of {self.place}" if self.place else ""
        return f"{self.what} cannot be pickled{because}: {self.why}"


class TaskDecodeError(AbreastError, BrokenProcessPool):
    """What was sent for a task arrived in its worker, and could not be unpickled there; the task has not run.

    Its cause is the traceback in the worker. The usual reason is a ``__setstate__`` or an ``__init__`` that raises, or a module
    that the worker cannot import. The executor goes on, although this is a ``BrokenProcessPool``: what the standard library
    raises then, because its pool is broken.

    Attributes:
        why (str): the error in the worker.
        task (str): the call, as ``fetch('a.txt')``; empty if it is not known.

    >>> import abreast
    >>> raise abreast.TaskDecodeError("ModuleNotFoundError: No module named 'shop'", "fetch('a.txt')")
    Traceback (most recent call last):
        ...
    abreast.core.process_errors.TaskDecodeError: fetch('a.txt') could not be unpickled in its worker: ModuleNotFoundError: ...
    """

    _fails_again = True

    def __init__(self, why: str = "", task: str = "") -> None:
        super().__init__(why, task)
        self.why = why
        self.task = task

    def __str__(self) -> str:
        return f"{self.task or 'a task'} could not be unpickled in its worker: {self.why}"


class ResultDecodeError(AbreastError, BrokenProcessPool):
    """The task returned, but what it returned cannot be unpickled in this process. Its cause is the error of the unpickling.

    Raised by `Future.result` and `Future.exception`, where the unpickling is done. The executor goes on, although this is a
    ``BrokenProcessPool``: what the standard library raises then, because its pool is broken.

    Attributes:
        why (str): the error in this process.

    >>> import abreast
    >>> raise abreast.ResultDecodeError("TypeError: __init__() missing 1 required positional argument: 'path'")
    Traceback (most recent call last):
        ...
    abreast.core.process_errors.ResultDecodeError: the result cannot be unpickled in this process: TypeError: ...
    """

    _fails_again = True

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the result cannot be unpickled in this process: {self.why}"


class WorkerCrashed(AbreastError, BrokenProcessPool):
    """The process that ran the task died: killed from outside, out of memory, ``os._exit``, a crash in C code.

    Only this task fails. The worker is replaced and the executor goes on, although this is a ``BrokenProcessPool``: what
    the standard library raises then, because its pool is broken. Whether the task had done its work is not known.

    Attributes:
        task (str): the call, as ``resize('a.png')``.
        index (int | None): the input's place in its run, where there is a run.
        worker (str): the worker's name.
        pid (int): its process id.
        exitcode (int | None): how it ended; negative is a signal's number, None is not known.
        signal (str): the signal's name, as ``SIGKILL``; empty if it was none.
        phase (str): what it was at, as ``while running``.
        after (float): how long it had been at the task, in seconds.
        stack (str): where the worker was, as far as it could still say; empty if not.
        hint (str): why it may have died, as ``kernel OOM killer``; empty if nothing points anywhere.

    >>> import abreast
    >>> raise abreast.WorkerCrashed("resize('a.png')", 17, "worker 3", 912, -9, "SIGKILL", "while running", 41.2, "", "kernel OOM killer")
    Traceback (most recent call last):
        ...
    abreast.core.process_errors.WorkerCrashed: task #17 resize('a.png') — worker 3 (pid 912) died of SIGKILL after 41.2 s while running...
    """

    def __init__(
        self,
        task: str = "",
        index: int | None = None,
        worker: str = "",
        pid: int = 0,
        exitcode: int | None = None,
        signal: str = "",
        phase: str = "",
        after: float = 0.0,
        stack: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(task, index, worker, pid, exitcode, signal, phase, after, stack, hint)
        self.task = task
        self.index = index
        self.worker = worker
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal
        self.phase = phase
        self.after = after
        self.stack = stack
        self.hint = hint

    def __str__(self) -> str:
        task = self.task if self.index is None else f"task #{self.index} {self.task}"
        if self.signal:
            end = f"died of {self.signal}"
        elif self.exitcode is None:
            end = "died, nobody knows how,"
        else:
            end = f"died of signal {-self.exitcode}" if self.exitcode < 0 else f"ended with exit code {self.exitcode}"
        text = f"{task.rstrip() or 'a task'} — {self.worker or 'its worker'} (pid {self.pid}) {end} after {_seconds(self.after)}"
        if self.phase:
            text += f" {self.phase}"
        if self.hint:
            text += f" ({self.hint})"
        if self.stack:
            text += f"; it was here:\n{self.stack.rstrip()}"
        return text


class MemoryLimitExceeded(AbreastError, MemoryError):
    """The task took so much memory that its worker was killed: more than twice the pool's ``max_memory_per_child``.

    Only this task fails, the worker is replaced. A worker that is above the limit itself, after a task, is replaced without a loss.

    Attributes:
        task (str): the call, as ``resize('a.png')``.
        index (int | None): the input's place in its run, where there is a run.
        used (int): bytes that the worker had taken.
        limit (int): ``max_memory_per_child``, in bytes.
        worker (str): which worker it was, with its process id.
        after (float): how long it had been at the task, in seconds.
        stack (str): where the worker was, as far as it could still say; empty if not.

    >>> import abreast
    >>> raise abreast.MemoryLimitExceeded("resize('a.png')", 17, 3_200_000_000, 1_500_000_000, "worker 3 (process 912)", 4.25)
    Traceback (most recent call last):
        ...
    abreast.core.process_errors.MemoryLimitExceeded: task #17 resize('a.png') — worker 3 (process 912) had taken 3.20 GB after 4.2 s, ...
    """

    def __init__(
        self,
        task: str = "",
        index: int | None = None,
        used: int = 0,
        limit: int = 0,
        worker: str = "",
        after: float = 0.0,
        stack: str = "",
    ) -> None:
        super().__init__(task, index, used, limit, worker, after, stack)
        self.task = task
        self.index = index
        self.used = used
        self.limit = limit
        self.worker = worker
        self.after = after
        self.stack = stack

    def __str__(self) -> str:
        task = self.task if self.index is None else f"task #{self.index} {self.task}"
        text = (
            f"{task.rstrip() or 'a task'} — {self.worker or 'its worker'} had taken {_size(self.used)} after {_seconds(self.after)}, "
            f"and was killed: max_memory_per_child is {_size(self.limit)}, and a task may take twice that"
        )
        if self.stack:
            text += f"; it was here:\n{self.stack.rstrip()}"
        return text


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 995_000_000 else f"{count / 1e6:.0f} MB"


def _seconds(value: float) -> str:
    if value < 0.0995:
        return f"{value * 1000:.2g} ms"
    return f"{value:.1f} s"
