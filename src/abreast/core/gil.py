"""How long threads were held up by the GIL: an estimate, since nobody tells.

::

    prober (a thread, while a recording goes on): sleeps 10 ms, and looks: was I late? what CPU time has the process had?
    each batch's Measure: CPU time, run queue, how often the thread gave up its CPU to wait
             │
             ▼
    bound     at most min(wait - run queue, times it gave up its CPU * switch interval): waiting for something else is in it too
    share     the prober waits for the GIL as all do: of its looks in that time, how many were late?   `Prober.share`
    ratio     of the bound, what threads that are at work so much would wait for each other            `Prober.ratio`
    estimate  bound * ratio, if enough looks were late; on a busy machine bound * share                `evident`, `plain`

The ratio is that of a *closed queue* with one server: N threads compute for a while, with the GIL, and wait for something else for a while. How much they
compute in all is known (the share of the time that the process had a CPU), and so how long those waits are, hence how long the queue is: by mean value
analysis (Reiser and Lavenberg, "Mean-value analysis of closed multichain queuing networks", J. ACM 27, 1980), with a smaller rest of the time of the one that
holds it (`VARIATION`). Where the GIL is never free all waiting
is for it, and what is measured is better: then it is the bound.

No lock guards anything: the prober alone appends, to `late`, `cpus` and `times` in this order, so a look that has a time is whole.

*Rejected*: the share of late looks times the bound everywhere. The estimate of one after another was 25 % too low for threads that compute and wait, 80 % for eight of them, and up
to 40 % too high for threads that only compute (of 20 looks a share is known to 10 points). Asking the kernel what each thread waits for (/proc/self/task/*/syscall): each look there gives up the GIL itself.
"""

from __future__ import annotations

import bisect
import threading
from time import perf_counter_ns, process_time_ns

from abreast.core import watch

__all__ = ["WAKING", "Prober", "evident", "plain"]

PROBE = 0.01
LATE = 0.001
"""Seconds between two looks of the prober, and over that it is late."""
FEW = 5
"""Looks below which one that was late says little: it counts as one of so many."""
HALF = 0.5
"""Share of its looks that are late from which on there is no doubt that the GIL is waited for."""
OFTEN, ALWAYS = 0.76, 0.86
"""Without the model, up to `OFTEN` that share is what the GIL was waited for. Where it is never free, some 0.86 are late (three threads that compute): who waits may
get it at one of the others' turns, within 1 ms. In between it is a line."""
BUSY, NEVER_FREE = 0.98, 0.99
"""Shares of the time that the GIL is held, between which the model goes over into the bound."""
VARIATION = 0.85
"""Of the times that it is held: the squared coefficient of variation. 0 are equal ones; 1 is what the analysis is exact for, also where who holds it is made to give it up every 5 ms.
Found by trying eleven mixes of computing and waiting: their estimates of one after another are between 15 % too low and 18 % too high with it."""
WAKING = 150_000
"""Nanoseconds that a thread that wakes up waits for a CPU at most, on a machine that is not busy."""
MOST_HELD_BACK = 0.1
"""Of the CPU time: up to 0.08 where nobody else computes, 0.11 and more where one other process does."""
OTHERS = 0.05
"""CPU time per time of threads that are no task's, from which on they count as one more that wants the GIL."""


class Prober:
    """Sleeps for 10 ms again and again, and notes when it was held up for over 1 ms: by the GIL, mostly.

    Attributes:
        times: of its looks, `perf_counter_ns`.
        late: how many of the first n looks were late.
        cpus: the CPU time of the process at each.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.times: list[int] = []
        self.late: list[int] = [0]
        self.cpus: list[int] = []

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._probe, name="abreast-prober", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _probe(self) -> None:
        before, waited = perf_counter_ns(), None
        while not self._stopping.wait(PROBE):
            now, cpu, waited_now = perf_counter_ns(), process_time_ns(), watch.this_thread().runqueue()
            took = now - before
            if waited is not None and waited_now is not None:
                took -= waited_now - waited  # for a CPU, which others keep busy: that is not the GIL
            if len(self.times) < 1_000_000:
                self.late.append(self.late[-1] + (took > (PROBE + LATE) * 1e9))
                self.cpus.append(cpu)
                self.times.append(now)
            before, waited = perf_counter_ns(), waited_now

    def share(self, begin: int, end: int, since: int = 0) -> float:
        """Return which share of the looks between two times was late, 0 to 1; of some time around them, if that is short.

        `since`: when the work began. What was before, as the imports of a first run, is no part of it.
        """
        first = bisect.bisect_left(self.times, begin)
        last = min(bisect.bisect_right(self.times, end) + 1, len(self.times))
        if last - first < 10:
            first, last = max(0, first - 5, bisect.bisect_left(self.times, since)), min(len(self.times), last + 5)
        return (self.late[last] - self.late[first]) / max(FEW, last - first)

    def ratio(self, begin: int, end: int, wall: int, cpu: int, held_back: int, bound: int) -> float | None:
        """Return which part of its bound a work was held up, by the model; None if the model does not hold, since others keep the machine busy.

        Args:
            begin, end: of the work.
            wall, cpu: sums of its attempts.
            held_back: how long they waited for a CPU since others had it, which is more than waking up takes.
            bound: what they were held up at most.
        """
        elapsed = end - begin
        if bound <= 0 or elapsed <= 0:
            return 0.0
        if held_back > MOST_HELD_BACK * cpu:  # who waits for a CPU may hold the GIL
            return None
        share = cpu / elapsed  # with the work's start and end, when not all are at it
        seen = self._busy(begin, end)  # without, and with what others compute; of few looks it is a rough one
        busy = max(share, (share + seen) / 2)
        threads = wall / elapsed + (seen - share > OTHERS)
        held_up = cpu * waiting(min(busy, 1.0), threads)
        over = min(1.0, max(0.0, (busy - BUSY) / (NEVER_FREE - BUSY)))
        return min(1.0, (held_up + over * max(0.0, bound - held_up)) / bound)

    def _busy(self, begin: int, end: int) -> float:
        """Return the CPU time of the process in that time, per time; 0 if there were no two looks."""
        first, last = bisect.bisect_left(self.times, begin), bisect.bisect_right(self.times, end) - 1
        return (self.cpus[last] - self.cpus[first]) / (self.times[last] - self.times[first]) if last > first else 0.0


def evident(share: float) -> float:
    """Return how sure it is that the GIL was waited for, by the share of looks that were late."""
    return min(1.0, share / HALF)


def plain(share: float) -> float:
    """Return which part of the bound that was, without the model."""
    return share if share <= OFTEN else min(1.0, OFTEN + (share - OFTEN) * (1 - OFTEN) / (ALWAYS - OFTEN))


def waiting(busy: float, threads: float) -> float:
    """Return how long who wants the GIL waits for it, in times that it is held, if so many threads hold it for that share of the time.

    >>> round(waiting(0.8, 3), 2)
    0.74
    >>> waiting(0.8, 1)
    0.0
    """
    whole = int(threads)
    part = threads - whole
    return (1 - part) * _waiting(busy, whole) + (part * _waiting(busy, whole + 1) if part else 0.0)


def _waiting(busy: float, threads: int) -> float:
    threads = min(threads, 1000)  # more make no difference, and take time
    if threads < 2:
        return 0.0
    if busy >= _queue(0.0, threads)[0]:
        return threads - 1.0
    shortest, longest = 0.0, float(threads) / max(busy, 1e-6)
    for _ in range(30):
        pause = (shortest + longest) / 2
        if _queue(pause, threads)[0] > busy:
            shortest = pause
        else:
            longest = pause
    return _queue(longest, threads)[1]


def _queue(pause: float, threads: int) -> tuple[float, float]:
    """Return which share of the time it is held, and how long it is waited for, if threads pause so long between two times: mean value analysis."""
    queue = held = wait = 0.0
    for count in range(1, threads + 1):
        # Who comes finds what the others alone would have; of the one that holds it, a part is over.
        wait = queue - held * (1 - VARIATION) / 2
        held = count / (1 + wait + pause)
        queue = held * (1 + wait)
    return held, wait
