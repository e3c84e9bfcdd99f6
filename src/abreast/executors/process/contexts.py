"""What a pool has to do with multiprocessing: start methods, its objects as `initargs`, and what workers are told of themselves.

A *start method* says what a worker is: with ``"forkserver"``, and where none is asked for, a copy of a fresh interpreter that has what workers need
(guardian.py); with ``"spawn"`` a fresh interpreter (launch.py); with ``"fork"`` a copy of this process (template.py).

Locks, queues, pipes and shared values of multiprocessing go to a worker as it starts, or not at all. While `initargs` are pickled,
multiprocessing is told that a process is being spawned (`set_spawning_popen`): it then pickles the numbers of descriptors, which the worker
inherits under the same numbers, and the names of semaphores. Those of a fork context have no name any more: only a copy of this process has them.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "COMPUTES",
    "THREADS",
    "Inherited",
    "encode_initializer",
    "forget_multiprocessing",
    "limit_threads",
    "start_method",
    "tell_multiprocessing",
    "tracker_fd",
]

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
COMPUTES = ("numpy", "scipy", "sklearn", "torch", "faiss")
"""Modules whose libraries compute with threads of their own."""


def start_method(context: Any) -> str | None:
    """Return the start method that ``mp_context`` stands for; None if it is None.

    Raises:
        ValueError, TypeError: it stands for none that is known.
    """
    if context is None:
        return None
    import multiprocessing

    known = multiprocessing.get_all_start_methods()
    name = context
    if not isinstance(context, str):
        get = getattr(context, "get_start_method", None)
        if get is None:
            raise TypeError(
                f"mp_context must be None, a context of multiprocessing or the name of a start method, not {context!r}"
            )
        name = get()
    if name not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"mp_context must be None, or a context of multiprocessing or the name of one, {names}, not {context!r}")
    return str(name)


class Inherited:
    """The initializer and its arguments, as a worker that is a fresh interpreter gets them.

    Attributes:
        initializer: its pickle; None if there is none.
        initargs: their pickle.
        fds: descriptors that the worker has to inherit, under their own numbers; copies, since the user may close his before the last
            worker has been started.
    """

    def __init__(self, initializer: bytes | None = None, initargs: bytes = b"", fds: list[int] | None = None) -> None:
        self.initializer = initializer
        self.initargs = initargs
        self.fds: list[int] = fds or []

    def close(self) -> None:
        """Close the descriptors: no worker will be started any more."""
        fds, self.fds = self.fds, []
        for fd in fds:
            os.close(fd)

    def __del__(self) -> None:
        self.close()  # of a pool that was never used


def encode_initializer(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> Inherited:
    """Return them as they go to fresh interpreters.

    Raises:
        TaskPickleError: they cannot be pickled; names what.
        RuntimeError: multiprocessing says that an object of it cannot be shared so.
    """
    if initializer is None:
        return Inherited()
    from multiprocessing.context import get_spawning_popen, set_spawning_popen

    from abreast.core.current import name_of
    from abreast.executors.process.sending import unpicklable

    before: Any = get_spawning_popen()
    spawning: Any = _Spawning()
    set_spawning_popen(spawning)
    try:
        try:
            definition = spawning.dumps(initializer)
        except RuntimeError:
            raise
        except Exception as error:
            name = name_of(initializer)
            raise unpicklable(f"the initializer {name}", [(name, initializer)], error, spawning.dumps) from error
        try:
            data = spawning.dumps((initargs, None))
        except RuntimeError:
            raise
        except Exception as error:
            parts = [(f"initargs[{n}]", value) for n, value in enumerate(initargs)]
            raise unpicklable("the arguments of the initializer", parts, error, spawning.dumps) from error
        inherited = Inherited(definition, data, spawning.fds)
        spawning.fds = []
        return inherited
    finally:
        set_spawning_popen(before)
        for fd in spawning.fds:
            os.close(fd)


class _Spawning:
    """What multiprocessing asks, while it pickles, for the process that is about to be started."""

    def __init__(self) -> None:
        from multiprocessing.popen_spawn_posix import _DupFd

        self.DupFd = _DupFd
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        copy = os.dup(fd)
        self.fds.append(copy)
        return copy

    def dumps(self, value: object) -> bytes:
        """Return a pickle made as multiprocessing makes it, by value where it has to be."""
        import copyreg
        import pickle
        from multiprocessing.reduction import ForkingPickler

        from abreast.executors.process.sending import is_in_main

        reducers = {**copyreg.dispatch_table, **ForkingPickler._extra_reducers}  # type: ignore[attr-defined]  # private; where they are
        count = len(self.fds)
        if not getattr(sys.modules.get("cloudpickle.cloudpickle"), "_PICKLE_BY_VALUE_MODULES", None):
            try:
                with io.BytesIO() as file:
                    pickler = pickle.Pickler(file, 5)
                    pickler.dispatch_table = reducers
                    pickler.dump(value)
                    data = file.getvalue()
                if not is_in_main(data):
                    return data
            except (MemoryError, RuntimeError):  # multiprocessing says no
                raise
            except Exception:  # noqa: S110  # cloudpickle can do it, or says why not
                pass
        while len(self.fds) > count:
            os.close(self.fds.pop())
        from abreast.executors.process import by_value

        return by_value.dumps_with(value, reducers)


def tracker_fd() -> int | None:
    """Return the descriptor of multiprocessing's resource tracker, which workers share; None if nothing here has use for one.

    Without it a worker that attaches to shared memory has a tracker of its own, which removes the memory when the worker ends (gh-82300).
    """
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is None:
        return None
    used = any(f"multiprocessing.{name}" in sys.modules for name in ("shared_memory", "synchronize", "heap"))
    fd = tracker.getfd() if used else tracker._resource_tracker._fd
    return fd if isinstance(fd, int) else None


# ---- in a worker

parent = 0
"""The process whose worker this is, if that is not the one that has forked it."""
share = 0
"""How many threads the environment allows such libraries, if the guardian has been told: it is the same for all workers of a pool."""


def tell_multiprocessing(name: str, authkey: bytes, tracker: int | None) -> None:
    """Have multiprocessing, once it is imported here, know this process by its name, its parent, and the key that managers ask for."""
    from functools import partial

    from abreast.executors.process.imports import after_import

    after_import("multiprocessing.process", partial(_tell_process, name, authkey, parent or os.getppid()))
    if tracker is not None:
        after_import("multiprocessing.resource_tracker", partial(_tell_tracker, tracker))


def _tell_process(name: str, authkey: bytes, parent: int) -> None:
    process: Any = sys.modules["multiprocessing.process"]
    current = process.current_process()
    current._name = name
    current.authkey = authkey
    try:
        sentinel = os.pidfd_open(parent)
    except (AttributeError, OSError):
        return
    process._parent_process = process._ParentProcess("MainProcess", parent, sentinel)


def _tell_tracker(fd: int) -> None:
    sys.modules["multiprocessing.resource_tracker"]._resource_tracker._fd = fd  # private; as multiprocessing.spawn does


def forget_multiprocessing() -> None:
    """As multiprocessing does in its forked children: finalizers and children are the parent's, which would otherwise be ended here."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children = set()
        process._process_counter = itertools.count(1)
        current = process._current_process
        current._identity = ()
        current._config = {name: value for name, value in current._config.items() if name != "daemon"}
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()


def limit_threads(count: int) -> None:
    """Have the libraries that compute with threads of their own use no more than this worker's share of the cores.

    A fresh interpreter has none of them loaded, and its environment says it; in a copy of the parent they have read that already.
    """
    global share
    if count != share:
        for name in THREADS:
            os.environ.setdefault(name, str(count))
    share = 0  # a task may change the environment, and make a pool of copies of this process
    for name in COMPUTES:
        if name in sys.modules:
            break
    else:
        return
    if all(os.environ[name] == str(count) for name in THREADS):
        import threadpoolctl  # type: ignore[import-untyped]  # it has no types

        threadpoolctl.threadpool_limits(count)
