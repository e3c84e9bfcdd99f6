"""What stands behind a task that takes long goes to a worker that has nothing to do, and none begins twice.

The long tasks here wait for those behind them, so each of these tests hangs if that does not work.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import random
import struct
import sys
import threading
import time
import types
from concurrent.futures import wait

import abreast
import pytest
from abreast import ProcessPoolExecutor, TaskTimeout, WorkerCrashed
from abreast.executors.process import core, worker
from abreast.executors.process.frames import Kind, Parser
from abreast.executors.process.outbox import RECORD, RECORDS, RETURN, Outbox

from tests.executors.process import stuck
from tests.executors.process.test_crashes import PATIENCE, Log

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log")


ITEMS = {"plain": list, "pickled": lambda numbers: [[number] for number in numbers]}
every_kind_of_item = pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)


@every_kind_of_item
@pytest.mark.parametrize("flush", ["auto", "each"])
def test_the_rest_of_a_batch(items, flush, log):
    with ProcessPoolExecutor(2, flush=flush) as pool:
        task = functools.partial(stuck.waits_for_the_others, log.path, 40)
        assert list(pool.map(task, items(range(40)), chunksize=20)) == list(range(40))
    assert sorted(log.lines()) == list(range(40))


@every_kind_of_item
def test_with_retries_a_rate_and_a_limit(items, log):
    task = functools.partial(stuck.waits_for_the_others, log.path, 40)
    outcomes = list(
        abreast.outcomes(task, items(range(40)), kind="process", max_workers=2, chunksize=20, retries=2, max_per_second=10_000,
                         task_timeout=PATIENCE)
    )  # fmt: skip
    assert [(outcome.value, outcome.attempts) for outcome in outcomes] == [(i, 1) for i in range(40)]
    assert sorted(log.lines()) == list(range(40))


@every_kind_of_item
def test_calls_of_submit(items, log):
    """Many that are tiny are packed, and several are with a worker."""
    warm = os.devnull
    with ProcessPoolExecutor(2) as pool:
        wait([pool.submit(stuck.waits_for_the_others, warm, 0, item) for item in items([0] * 500)])
        task = functools.partial(stuck.waits_for_the_others, log.path, 300)
        futures = [pool.submit(task, item) for item in items(range(300))]
        assert [future.result(PATIENCE) for future in futures] == list(range(300))
    assert sorted(log.lines()) == list(range(300))


def test_behind_a_task_that_is_a_function_in_c():
    """One that a signal wakes: `select`, `poll` and `sleep` are, `read` and `recv` go on without telling Python."""
    with ProcessPoolExecutor(2) as pool:
        results = pool.outcomes(time.sleep, [PATIENCE] + [0] * 39, chunksize=20, ordered=False)
        assert sorted(next(results).index for _ in range(39)) == list(range(1, 40))
        results.close()


def test_it_goes_to_a_worker_that_is_started_for_it(log):
    """The whole run is one batch; the second worker has not been needed."""
    with ProcessPoolExecutor(2) as pool:
        task = functools.partial(stuck.waits_for_the_others, log.path, 20)
        assert list(pool.map(task, range(20), chunksize=20)) == list(range(20))


@pytest.mark.parametrize("how", ["death", "hang"])
def test_the_long_task_alone_is_lost(how, log):
    task = functools.partial(stuck.dies_when_the_others_have_begun, log.path, 40, how)
    with ProcessPoolExecutor(2, task_timeout=1.5 if how == "hang" else None) as pool:
        outcomes = list(pool.outcomes(task, range(40), chunksize=20))
    assert type(outcomes[3].error) is (TaskTimeout if how == "hang" else WorkerCrashed)
    assert [outcome.value for outcome in outcomes if outcome.index != 3] == [i for i in range(40) if i != 3]
    assert sorted(log.lines()) == list(range(40))


def test_a_run_that_is_recorded_and_watched(log):
    task = functools.partial(stuck.waits_for_the_others, log.path, 40)
    with abreast.record() as recorded:
        abreast.map(task, range(40), kind="process", max_workers=2, chunksize=20)
    assert len(recorded.tasks) == 40
    assert {task.error for task in recorded.tasks} == {None}


def test_a_handler_that_raises_amid_it(log):
    """What it raises is the task's, as ever; what was being written is whole."""
    task = functools.partial(stuck.struck_amid_what_is_asked, log.path, 40, "signal")
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(task, range(40), chunksize=20)) == list(range(40))
    assert sorted(log.lines()) == list(range(40))


def test_an_exception_that_a_thread_throws_in_amid_it(log):
    """Nobody can hold that up: the task is lost with its worker, instead of what was being written."""
    task = functools.partial(stuck.struck_amid_what_is_asked, log.path, 40, "thread")
    with ProcessPoolExecutor(2) as pool:
        outcomes = list(pool.outcomes(task, range(40), chunksize=20))
    assert type(outcomes[3].error) is WorkerCrashed
    assert [outcome.value for outcome in outcomes if outcome.index != 3] == [i for i in range(40) if i != 3]


def test_functions_of_which_calls_are_given_back(tmp_path):
    """The parent counts their use, and so must the worker: else, when it has many, it would forget another one than the parent thinks."""
    gate = tmp_path / "gate"
    long = functools.partial(stuck.waits_for, str(gate))
    functions = [functools.partial(stuck.returns, which) for which in range(worker.FUNCTIONS + 8)]
    with ProcessPoolExecutor(2) as pool:

        def use(fn, times):
            wait([pool.submit(fn, i) for i in range(times)], PATIENCE)

        for fn in functions[: worker.FUNCTIONS - 2]:
            use(fn, 8)
        processes = set(pool._processes)
        for turn in range(4):
            gate.touch()
            use(long, 20)  # it is known to be short then, and others are sent ahead
            gate.unlink()
            waiting = pool.submit(long, 0)
            use(functions[turn], 60)
            gate.touch()
            waiting.result(PATIENCE)
            for fn in functions[worker.FUNCTIONS - 2 + 2 * turn :][:2]:
                use(fn, 8)
            use(functions[turn], 60)
        assert set(pool._processes) == processes


def test_what_is_given_back_for_the_second_time():
    """A worker that is asked twice within a task, and has got more between, gives back only that: when the task has just ended, the parent
    has nothing of the rest that was given back before.
    """
    sent = []
    outbox = Outbox(memoryview(bytearray(64)).cast("Q"), sent.extend, time.perf_counter_ns)
    one = types.SimpleNamespace(returned=0, turn=None, outbox=outbox)
    call = types.SimpleNamespace(first=1, last=11, count=10)
    worker._Worker._give_back(one, call, iter(range(5, 11)), 11, 10)
    worker._Worker._give_back(one, call, *one.turn, 20)
    outbox.flush()
    frames = Parser(Kind.OF_WORKER).feed(b"".join(sent))
    assert [(frame.number, *RETURN.unpack(frame.body)) for frame in frames] == [(5, 10), (11, 20)]
    assert (call.last, call.count) == (5, 4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_task_that_has_just_ended_is_told_with_its_time(count):
    """The parent asks between the end of a task and the line in which it is accounted for."""
    now, sent = [10], []
    outbox = Outbox(memoryview(bytearray(64)).cast("Q"), sent.extend, lambda: now[0])
    outbox.open(1, now[0], timed=True)
    for number in range(count):
        outbox.values.append(number)
        now[0] += 5_000_000
        if number < count - 1:
            outbox.account(now[0])
    outbox.flush()
    outbox.account(now[0])
    (one,) = Parser(Kind.OF_WORKER).feed(b"".join(sent))
    if count == 1:
        assert RECORD.unpack_from(one.body) == (0.005,)
    else:
        assert RECORDS.unpack_from(one.body) == (0.005 * count, count)
        assert struct.unpack_from(f"<{count}d", one.body, RECORDS.size) == (0.005,) * count


def hammer(pool, stop, seed):
    """Ask all workers for all that they have not begun, at any moment, although nobody waits for it."""
    draw = random.Random(seed)
    supervisor = pool._supervisor

    def ask(_):
        for one in list(supervisor.core.workers.values()):
            if one.state == core.Worker.READY and one.calls:
                supervisor._do([core.Ask(one, one.sent)])

    while not stop.is_set():
        supervisor.post(ask)
        time.sleep(draw.random() * 0.002)


@contextlib.contextmanager
def hammered(pool, seed=0):
    stop = threading.Event()
    thread = threading.Thread(target=hammer, args=(pool, stop, seed))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def all_once(flush, items, count, path, seed=0):
    returned = collections.Counter()
    with ProcessPoolExecutor(2, flush=flush) as pool:
        pool.submit(int).result()
        supervisor = pool._supervisor
        real = supervisor.core.returned
        supervisor.core.returned = lambda *args: (returned.update(tasks=args[2] - args[1] + 1), real(*args))[1]
        task = functools.partial(stuck.tiny_or_not, path)
        with hammered(pool, seed):
            assert pool.map(task, items(range(count))) is not None
            assert list(pool.map(task, items(range(count)), chunksize=25)) == list(range(count))
            futures = [pool.submit(task, item) for item in items(range(count))]
            assert [future.result() for future in futures] == list(range(count))
            outcomes = list(pool.outcomes(task, items(range(count)), ordered=False))
            assert sorted(outcome.value for outcome in outcomes) == list(range(count))
            assert {outcome.attempts for outcome in outcomes} == {1}
    assert returned["tasks"] > 0
    runs = collections.Counter(stuck.lines(path))
    assert set(runs.values()) == {4}, {number: n for number, n in runs.items() if n != 4}
    return returned["tasks"]


@every_kind_of_item
def test_asked_at_any_moment_each_runs_once(items, log):
    all_once("auto", items, 600, log.path)


@pytest.mark.slow
@every_kind_of_item
@pytest.mark.parametrize("flush", ["auto", "each"])
@pytest.mark.parametrize("seed", range(5))
def test_asked_at_any_moment_for_longer(seed, items, flush, log):
    all_once(flush, items, 5000, log.path, seed)
