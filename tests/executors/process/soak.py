"""Random kills for as long as you like: every outcome exactly once, nothing left behind, and no task run twice but tiny ones.

    python -m tests.executors.process.soak SECONDS [SEED]

Pools of 1 to 4 workers, made anew every few seconds; tasks that are tiny, long, large, that crash, raise, hang; by `submit`, by runs with
batches, by several threads. Meanwhile workers get SIGKILL, SIGSEGV, SIGSTOP and SIGCONT at random moments, and now and then the guardian
SIGKILL. The witness is a file opened with O_APPEND, one line for each start of a task. A task may have begun twice only if it is tiny, its pool
has not ``flush="each"``, and, in a run, if `Outcome.attempts` says so. Ends with status 1 at the first thing that is wrong.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from time import monotonic, perf_counter, sleep

import abreast
from abreast.executors.process import guardian

HUNG = 120
"""Seconds without progress, after which all stacks are printed and it ends."""


class Wrong(AssertionError):
    """A promise is broken."""


def insist(true, *told):
    if not true:
        raise Wrong(" ".join(map(str, told)))


class Task:
    """What the worker runs; a class of the main script, so it travels by value."""

    def __init__(self, witness):
        self.witness = witness

    def __call__(self, number):
        fd = os.open(self.witness, os.O_APPEND | os.O_WRONLY)
        os.write(fd, b"%d\n" % number)
        os.close(fd)
        kind = number % 97
        if kind == 1:
            sleep(0.05)
        elif kind == 2:
            return number, bytes(300_000)
        elif kind == 3:
            os._exit(number % 3)
        elif kind == 4:
            raise ValueError(number)
        elif kind == 5:
            sum(range(300_000))
        elif kind == 6:
            sleep(0.3)
        elif kind == 7:
            signal.raise_signal(signal.SIGSEGV)
        elif kind == 8:  # four times what is kept back
            end = perf_counter() + 0.0004
            while perf_counter() < end:
                pass
        return number, b""


LONG = frozenset((1, 2, 5, 6, 8))
"""Kinds that take more than 100 us for sure, or have a large result: what came of them is sent at once."""


def descriptors():
    """Return those of this process, but for the guardian's: another one has others."""
    kept = {str(fd) for one in guardian.kept() for fd in one.descriptors()}
    listed = os.listdir("/proc/self/fd")  # among them the one that lists, whose number is free again
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")} - kept


class Soak:
    def __init__(self, seconds, seed):
        self.seconds = seconds
        self.random = random.Random(seed)
        self.counts = Counter()
        self.numbers = 0
        self.lock = threading.Lock()

    def take(self, count):
        with self.lock:
            first, self.numbers = self.numbers, self.numbers + count
        return range(first, first + count)

    def run(self):
        end = monotonic() + self.seconds
        guardian.start()
        before = descriptors()
        while monotonic() < end:
            faulthandler.dump_traceback_later(HUNG, exit=True)
            self.round()
            faulthandler.cancel_dump_traceback_later()
        guardian.start()  # if the last one was killed
        self.counts["descriptors left"] = len(descriptors() - before)
        insist(not self.counts["descriptors left"], "descriptors are left:", sorted(descriptors() - before))
        guardian.end()
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            raise Wrong("a child is left")

    def round(self):
        """One pool, a few seconds."""
        rng = random.Random(self.random.random())
        with tempfile.NamedTemporaryFile() as witness:
            over = threading.Event()
            errors = []
            workers = rng.choice((1, 2, 2, 3, 4))
            options = rng.choice(
                ({}, {}, {"max_tasks_per_child": 5}, {"task_timeout": 5}, {"mp_context": "fork"}, {"mp_context": "spawn"})
            )
            flush = rng.choice(("auto", "auto", "each"))
            with abreast.ProcessPoolExecutor(workers, flush=flush, **options) as pool:
                self.attempts = {}
                ways = [self.submits, self.ping_pong, self.runs, self.runs]
                threads = [
                    threading.Thread(target=self.guarded, args=(way, pool, Task(witness.name), rng.random(), over, errors))
                    for way in rng.sample(ways, rng.randint(1, 3))
                ]
                killer = threading.Thread(target=self.kills, args=(pool, rng.random(), over))
                for thread in (*threads, killer):
                    thread.start()
                sleep(rng.uniform(0.5, 5))
                over.set()
                for thread in (*threads, killer):
                    thread.join()
                self.go_on(pool)
            ran = Counter(map(int, witness.read().split()))
        if errors:
            raise errors[0]
        twice = [number for number, times in ran.items() if times > 1]
        insist(flush == "auto" or not twice, "ran twice, although each is sent:", twice[:10])
        long = [number for number in twice if number % 97 in LONG]
        insist(not long, "ran twice, and are not tiny:", long[:10])
        for number, attempts in self.attempts.items():
            # One that is lost may have died before its line was written.
            insist(ran[number] in (attempts, attempts - 1), number, "has begun", ran[number], "times in", attempts, "attempts")
        self.counts["ran again"] += len(twice)
        self.counts["rounds"] += 1
        self.counts["tasks that ran"] += len(ran)

    def guarded(self, way, pool, task, seed, over, errors):
        try:
            rng = random.Random(seed)
            while not over.is_set():
                way(pool, task, rng)
        except BaseException as error:
            errors.append(error)
            over.set()

    def judge(self, number, value, error):
        if error is None:
            insist(value is not None and value[0] == number, "the outcome of", number, "is", value)
            insist(len(value[1]) == (300_000 if number % 97 == 2 else 0), "the result of", number, "is cut")
            insist(number % 97 not in (3, 4, 7), number, "should have failed")
            self.counts["results"] += 1
        elif isinstance(error, ValueError):
            insist(error.args == (number,) and number % 97 == 4, number, "has failed with", repr(error))
            self.counts["errors"] += 1
        else:
            insist(isinstance(error, (BrokenProcessPool, abreast.TaskTimeout)), number, "has failed with", repr(error))
            self.counts[type(error).__name__] += 1

    def submits(self, pool, task, rng):
        numbers = self.take(rng.randint(1, 200))
        futures = [(number, pool.submit(task, number)) for number in numbers]
        rng.shuffle(futures)
        for number, future in futures:
            error = future.exception(HUNG)
            self.judge(number, None if error else future.result(0), error)

    def ping_pong(self, pool, task, rng):
        for number in self.take(rng.randint(1, 50)):
            future = pool.submit(task, number)
            error = future.exception(HUNG)
            self.judge(number, None if error else future.result(0), error)

    def runs(self, pool, task, rng):
        numbers = self.take(rng.randint(1, 500))
        chunksize = rng.choice(("auto", "auto", 1, 7, 50))
        seen = []
        for outcome in pool.outcomes(task, numbers, ordered=rng.random() < 0.5, chunksize=chunksize):
            seen.append(outcome.input)
            self.attempts[outcome.input] = outcome.attempts
            self.judge(outcome.input, outcome.value, outcome.error)
        insist(sorted(seen) == list(numbers), "outcomes of", numbers, "are", len(seen))

    def kills(self, pool, seed, over):
        rng = random.Random(seed)
        while not over.wait(rng.uniform(0, 0.1)):
            if rng.random() < 0.002:
                for one in guardian.kept():
                    os.kill(one.pid, signal.SIGKILL)
                    self.counts["guardians"] += 1
                over.wait(
                    30 if self.counts["guardians"] % 2 == 0 else 0
                )  # three in a minute would break the pool, as they should
                continue
            # Those that are ready: three in a row that die before that would break the pool, as they should.
            workers = [worker for worker in list(pool._supervisor.core.workers.values()) if worker.state == worker.READY]
            if not workers:
                continue
            process = rng.choice(workers).handle.process
            how = rng.choice(("KILL", "KILL", "SEGV", "TERM", "STOP"))
            process.signal(getattr(signal, f"SIG{how}"))
            if how == "STOP":
                sleep(rng.uniform(0, 0.05))
                process.signal(signal.SIGCONT)
            self.counts[how] += 1

    def go_on(self, pool):
        """After all that, the pool works."""
        for x in range(20):
            while True:
                try:
                    insist(pool.submit(abs, -x).result(HUNG) == x)
                    break
                except abreast.WorkerCrashed:  # of a signal that was on its way
                    self.counts["late crashes"] += 1


def main():
    seconds = float(sys.argv[1])
    seed = sys.argv[2] if len(sys.argv) > 2 else str(random.SystemRandom().randrange(10**9))
    soak = Soak(seconds, seed)
    try:
        soak.run()
    finally:
        print(f"seed {seed}:", ", ".join(f"{count:,} {what}" for what, count in soak.counts.items()), flush=True)


if __name__ == "__main__":
    main()
