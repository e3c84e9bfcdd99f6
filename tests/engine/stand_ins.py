"""What the tests of runs share: every way to start a run, executors that are not ours, and gates for tasks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
from collections.abc import AsyncIterator

import abreast
import pytest
from abreast import SerialExecutor, ThreadPoolExecutor

PATIENCE = 10
"""Seconds after which something that should have happened has not."""


class Recording(concurrent.futures.ThreadPoolExecutor):
    """The standard library's threads; notes how many tasks each call brought."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        self.sizes = []

    def submit(self, fn, batch):
        self.sizes.append(len(batch.items))
        return super().submit(fn, batch)


class Inline(concurrent.futures.Executor):
    """Runs each call within ``submit``."""

    def __init__(self):
        self.calls = 0

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        future = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class _Followed(concurrent.futures.Future):
    """Tells when somebody wants to know how it ends."""

    def __init__(self):
        super().__init__()
        self.followed = threading.Event()

    def add_done_callback(self, fn):
        super().add_done_callback(fn)
        self.followed.set()


class Backwards(concurrent.futures.Executor):
    """Waits for `count` calls, and runs them in one thread, last to first."""

    def __init__(self, count):
        self._max_workers = count
        self.count = count
        self.waiting = []

    def submit(self, fn, /, *args):
        future = _Followed()
        self.waiting.append((future, fn, args))
        if len(self.waiting) == self.count:
            waiting, self.waiting = self.waiting, []
            threading.Thread(target=self._run, args=(waiting,)).start()
        return future

    def _run(self, waiting):
        for future, fn, args in reversed(waiting):
            assert future.followed.wait(PATIENCE)
            if future.set_running_or_notify_cancel():
                future.set_result(fn(*args))


class Gate:
    """A function whose calls are held: call it with an input, and it waits until that input is let through."""

    def __init__(self):
        self._lock = threading.Condition()
        self._open = set()
        self._all = False
        self.started = []
        self.refused = []

    def __call__(self, x):
        with self._lock:
            self.started.append(x)
            self._lock.notify_all()
            if not self._lock.wait_for(lambda: self._all or x in self._open, PATIENCE):
                self.refused.append(x)
        return x

    def let(self, *inputs):
        with self._lock:
            self._open.update(inputs)
            self._lock.notify_all()

    def open(self):
        with self._lock:
            self._all = True
            self._lock.notify_all()

    def wait_started(self, *inputs):
        with self._lock:
            assert self._lock.wait_for(lambda: set(inputs) <= set(self.started), PATIENCE), f"only {self.started} started"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open()
        assert not self.refused


class Inputs:
    """0, 1, 2 and so on; who calls `wait` waits until `last` has been read.

    A task that waits for this has others run behind it, whatever the consumer does: what has been read is sent. Without it a run may find a
    result due, and read no further before the consumer has asked again: where reading has taken long, as on a busy machine it may.
    """

    def __init__(self, last):
        self._last = last
        self._numbers = itertools.count()
        self._read = threading.Event()

    def __iter__(self):
        return self

    def __next__(self):
        number = next(self._numbers)
        if number == self._last:
            self._read.set()
        return number

    def wait(self):
        assert self._read.wait(PATIENCE)


def first_then(inputs, gate):
    """Return a function that returns 0 once `inputs` have been read as far as they say, and holds all other inputs at the gate."""

    def task(i):
        if i:
            return gate(i)
        inputs.wait()
        return i

    return task


def join_threads(prefix):
    """Wait until the threads of a run that was given this name have ended, also those it has left behind."""
    for thread in threading.enumerate():
        if thread.name.startswith(prefix):
            thread.join(PATIENCE)
            assert not thread.is_alive()


# ---- every way to start a run


class FromAsync:
    """An asynchronous iterator as a plain one, on a loop of its own."""

    def __init__(self, make):
        self.loop = asyncio.new_event_loop()

        async def call():
            return make()

        try:
            self.results = self.loop.run_until_complete(call())
        except BaseException:
            self.loop.close()
            raise
        assert isinstance(self.results, AsyncIterator)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.loop.run_until_complete(anext(self.results))
        except StopAsyncIteration:
            raise StopIteration from None

    def summary(self):
        return self.results.summary()

    def __length_hint__(self):
        return self.results.__length_hint__()

    def close(self):
        if not self.loop.is_closed():
            self.loop.run_until_complete(self.results.aclose())
            self.loop.close()


class OfOutcomes:
    """Outcomes as results: their values, or the errors raised."""

    def __init__(self, outcomes):
        self.outcomes = outcomes
        self.close = outcomes.close
        self.summary = outcomes.summary
        self.__length_hint__ = outcomes.__length_hint__

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.outcomes).result()


class OnPool:
    """What a method of an executor returns, which is shut down with it."""

    def __init__(self, executor, method, fn, iterables, options):
        self.executor = executor
        try:
            self.results = getattr(executor, method)(fn, *iterables, **options)
        except BaseException:
            executor.shutdown()
            raise
        self.summary = self.results.summary

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.results)

    def close(self):
        self.results.close()
        self.executor.shutdown(wait=False)


def _imap(fn, *iterables, **options):
    return abreast.imap(fn, *iterables, **options)


def _outcomes(fn, *iterables, **options):
    return abreast.outcomes(fn, *iterables, **options)


def _aimap(fn, *iterables, **options):
    return FromAsync(lambda: abreast.aimap(fn, *iterables, **options))


def _on_pool(method):
    def start(fn, *iterables, **options):
        workers = options.pop("max_workers", None)
        kind = {"thread": ThreadPoolExecutor, "serial": SerialExecutor}[options.pop("kind", "thread")]
        executor = kind(
            workers, **({"thread_name_prefix": options["name"]} if "name" in options and kind is ThreadPoolExecutor else {})
        )
        return OnPool(executor, method, fn, iterables, options)

    return start


LAZY = {
    "imap": _imap,
    "outcomes": _outcomes,
    "aimap": _aimap,
    "executor.imap": _on_pool("imap"),
    "executor.outcomes": _on_pool("outcomes"),
}
"""What returns an iterator, by name; outcomes come as `Outcome`."""


def value(result):
    """Return a result as such, of ways that yield outcomes too."""
    return result.result() if isinstance(result, abreast.Outcome) else result


def _map(fn, *iterables, **options):
    return abreast.map(fn, *iterables, **options)


def _amap(fn, *iterables, **options):
    return asyncio.run(abreast.amap(fn, *iterables, **options))


def _to_the_end(start):
    def run(fn, *iterables, **options):
        results = start(fn, *iterables, **options)
        try:
            return [value(result) for result in results]
        finally:
            results.close()

    return run


WAYS = {"map": _map, "amap": _amap, **{name: _to_the_end(start) for name, start in LAZY.items()}}
"""Every way to run a function over inputs, as a function that returns the list of results, or raises."""

kinds = pytest.mark.parametrize("kind", ["thread", "serial"])
lazily = pytest.mark.parametrize("start", LAZY.values(), ids=LAZY)
every_way = pytest.mark.parametrize("run", WAYS.values(), ids=WAYS)
