"""The errors of abreast, one small tree, branching by whose fault it is.

::

    AbreastError                        catch this for all of them
    ├── DeadlockDetected (RuntimeError)     your use of us: tasks wait for each other, for good
    └── TaskTimeout (TimeoutError)          your function: it ran longer than its task_timeout

    and from the standard library, raised as they are there:
    concurrent.futures.BrokenExecutor
    └── concurrent.futures.thread.BrokenThreadPool   the worker: an initializer failed, threads leak, a fork

An error keeps a parent of the standard library where it has one, so code that is written for the standard library goes on
working. Each one pickles: its constructor takes exactly what ``args`` holds.
"""

from __future__ import annotations

__all__ = ["AbreastError", "DeadlockDetected", "TaskTimeout"]


class AbreastError(Exception):
    """The parent of every error that abreast itself raises; never raised as such.

    An error of your own function is not one of these: it arrives as it was raised.

    >>> import abreast
    >>> issubclass(abreast.TaskTimeout, abreast.AbreastError)
    True
    """


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
