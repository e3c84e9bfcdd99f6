"""The errors of abreast, one small tree, branching by whose fault it is.

::

    AbreastError                        catch this for all of them
    ├── DeadlockDetected (RuntimeError)     your use of us: tasks wait for each other, for good
    ├── Drained (CancelledError)            nobody: the program was asked to end, and this was not started any more
    ├── TaskTimeout (TimeoutError)          your function: it ran longer than its task_timeout
    ├── TooManyFailures                     your function: it failed for more inputs than max_failures allows
    ├── TaskError                           your function: it raised, in another process, what cannot be sent
    ├── TaskPickleError (PicklingError)     your data: it cannot be sent to another process, or back
    ├── RecordingError                      your file: it is no recording, or not one that can be read
    ├── TaskDecodeError (BrokenProcessPool)     your data: it was sent, and cannot be unpickled in the worker
    ├── ResultDecodeError (BrokenProcessPool)   your data: it came back, and cannot be unpickled here
    └── WorkerCrashed (BrokenProcessPool)   the worker: its process died while it ran a task

    (The last four are in process_errors.py, since what they derive from is not cheap to import.)

    and from the standard library, raised as they are there:
    concurrent.futures.BrokenExecutor
    └── concurrent.futures.thread.BrokenThreadPool   the worker: an initializer failed, threads leak, a fork

An error keeps a parent of the standard library where it has one, so code that is written for the standard library goes on
working. Each one pickles: its constructor takes exactly what ``args`` holds.
"""

from __future__ import annotations

from concurrent.futures import CancelledError

__all__ = ["AbreastError", "DeadlockDetected", "Drained", "RecordingError", "TaskError", "TaskTimeout", "TooManyFailures"]


class AbreastError(Exception):
    """The parent of every error that abreast itself raises; never raised as such.

    An error of your own function is not one of these: it arrives as it was raised.

    >>> import abreast
    >>> issubclass(abreast.TaskTimeout, abreast.AbreastError)
    True
    """

    _fails_again = False
    """Whether another attempt at the task could only end the same way."""


class DeadlockDetected(AbreastError, RuntimeError):
    """Every worker of an executor waits for a task that only one of them could run.

    Raised by `Future.result`, `Future.exception` or a waiting ``submit`` in the worker whose wait closed the circle (the
    youngest), at once, instead of waiting for good. Not raised for a wait with a ``timeout``, nor when the executor may
    still start a thread, nor for waits through `concurrent.futures.wait` and ``as_completed``.

    What to do: more workers, another executor for the inner tasks, or do not wait inside a task.

    Attributes:
        chain (tuple[str, ...]): who waits for whom, one line per worker, the one that got this error first.

    >>> import abreast
    >>> with abreast.ThreadPoolExecutor(1) as executor:
    ...     def outer():
    ...         return executor.submit(pow, 2, 3).result()
    ...     executor.submit(outer).result()
    Traceback (most recent call last):
        ...
    abreast.core.errors.DeadlockDetected: no worker is left that could run the task waited for...
    """

    _fails_again = True

    def __init__(self, chain: tuple[str, ...] = ()) -> None:
        super().__init__(chain)
        self.chain = chain

    def __str__(self) -> str:
        return "\n".join(
            (
                "no worker is left that could run the task waited for:",
                *(f"  {line}" for line in self.chain),
                "Give the executor more workers, run the inner tasks on another executor, or do not wait inside a task.",
            )
        )


class Drained(AbreastError, CancelledError):
    """A task was not started, because the program has been asked to end; see `abreast.drain_on`.

    Futures of what waited have it as their exception, `outcomes` yields it for each input that was not begun, and `map`, `imap` and
    ``submit`` raise it. Tasks that were running have ended as ever.

    >>> import abreast
    >>> issubclass(abreast.Drained, abreast.CancelledError)
    True
    """

    _fails_again = True

    def __init__(self, text: str = "the program has been asked to end") -> None:
        super().__init__(text)


class TaskTimeout(AbreastError, TimeoutError):
    """A task ran longer than its ``task_timeout``; its thread was left behind and replaced.

    A thread cannot be killed: it goes on until its function returns, and what it returns is dropped. It starts no other
    task, and neither `shutdown` nor the end of the program waits for it.

    Attributes:
        task (str): the call, as ``fetch('a.txt')``.
        limit (float): the limit, in seconds.
        worker (str): the name of the thread.
        stack (str): where the thread was when time was up, as a traceback's lines; empty on free-threaded builds, where
            it cannot be read safely, and where the task is in no Python function.

    >>> import abreast, threading
    >>> forever = threading.Event()
    >>> with abreast.ThreadPoolExecutor(1, task_timeout=0.01) as executor:
    ...     executor.submit(forever.wait).exception()
    TaskTimeout(...)
    >>> forever.set()
    """

    def __init__(self, task: str = "", limit: float = 0.0, worker: str = "", stack: str = "") -> None:
        # Not super().__init__(): OSError, which TimeoutError is, would take the arguments for errno, message and file name.
        self.args = (task, limit, worker, stack)
        self.task = task
        self.limit = limit
        self.worker = worker
        self.stack = stack

    def __str__(self) -> str:
        where = f"; it was here:\n{self.stack.rstrip()}" if self.stack else ""
        return f"{self.task} ran longer than its task_timeout of {self.limit:g} s on {self.worker}{where}"


class TooManyFailures(AbreastError):
    """More tasks of a run have failed than its ``max_failures`` allows: the run was ended.

    Raised by the iterator of `abreast.outcomes`, after the outcomes of all that is known; its cause is the first task's error.

    Attributes:
        failures (int): how many tasks had failed, after all their attempts.
        ended (int): how many tasks had ended, the failed ones included.
        max_failures (float): the option.

    >>> import abreast
    >>> try:
    ...     for outcome in abreast.outcomes(int, ["1", "x", "y"], max_failures=1):
    ...         print(outcome.index, outcome.ok)
    ... except abreast.TooManyFailures as error:
    ...     print(error)
    0 True
    1 False
    2 False
    2 of 3 tasks failed, and max_failures=1 allows no more than 1: the run was ended
    """

    def __init__(self, failures: int = 0, ended: int = 0, max_failures: float = 0) -> None:
        super().__init__(failures, ended, max_failures)
        self.failures = failures
        self.ended = ended
        self.max_failures: int | float = max_failures  # which of them it is makes the difference

    def __str__(self) -> str:
        most = f"{self.max_failures:.4g} of them" if isinstance(self.max_failures, float) else f"{self.max_failures:,}"
        return (
            f"{self.failures:,} of {self.ended:,} tasks failed, and max_failures={self.max_failures!r} allows no more than {most}: "
            "the run was ended"
        )


class TaskError(AbreastError):
    """A task in another process raised an exception that cannot be sent here; this stands for it.

    The usual reason is an exception class whose ``__init__`` takes other arguments than it hands to ``super().__init__``, or one
    that holds a socket or a lock. A note says what went wrong with it. Its cause is the traceback in the worker.

    What to do: give the class a ``__reduce__``, or let ``args`` be what its constructor takes.

    Attributes:
        type_name (str): the exception's class, as ``shop.errors.OutOfStock``.
        text (str): its ``str()``.
        traceback (str): its traceback in the worker.

    >>> import abreast
    >>> raise abreast.TaskError("shop.errors.OutOfStock", "no more pears")
    Traceback (most recent call last):
        ...
    abreast.core.errors.TaskError: shop.errors.OutOfStock: no more pears
    """

    def __init__(self, type_name: str = "", text: str = "", traceback: str = "") -> None:
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class RecordingError(AbreastError):
    """A file cannot be read as a recording: it is missing, damaged, of another program, or of a newer abreast.

    The text names the file, and what to do. A file that was only cut short is read as far as it goes.

    >>> import abreast
    >>> issubclass(abreast.RecordingError, abreast.AbreastError)
    True
    """

    _fails_again = True
