"""One sentence of advice: the first row of a table that fits the figures, or none. Nothing is changed by itself.

::

    if                                                say
    tasks failed             > 5 % of them            how many, of which type, and the first input that did
    starting and pickling    > 30 % of the time       larger batches, or threads
    tasks of < 10 µs         slower than in a loop    a loop
    the GIL                  > 30 % of time in tasks  processes, or a free-threaded Python
    waiting for a CPU        > 20 % of time in tasks  as many workers as cores
    one lock                 > 20 % of time in tasks  its name, where it was made, who holds it
    idle, a task waited for  > 30 % of the time       which; ordered=False, or a larger buffersize
    idle, nothing queued     > 50 % of workers' time  fewer workers, or feed them faster
    a tail                   > 30 % of the time       the longest first, or smaller batches
    waiting                  > 80 % of time in tasks  more workers, and the time with them
    tasks failed                                      as above: few that failed do not hide why a run was slow

Pure functions of a `WorkSummary` and the `Host`. Each sentence has the figure that it follows from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from abreast.report.pauses import pauses
from abreast.report.units import about, count, duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from abreast.core.recording import Host
    from abreast.report.summary import WorkSummary

__all__ = ["Advice", "advise"]

_MANY = 32  # workers; up to here, or up to four times as many as there were, an estimate with more of them is dared
_MOST = 256  # threads


class Advice(NamedTuple):
    """What to change.

    Attributes:
        rule: which row of the table it is: ``"errors"``, ``"overhead"``, ``"small"``, ``"gil"``, ``"cpu"``, ``"lock"``, ``"order"``, ``"idle"``, ``"tail"`` or ``"waiting"``.
        figure: what was compared: a share, 0 to 1; of ``"errors"`` the number of failed tasks.
        text: the sentence, without control characters taken out: names and calls are as they were recorded.
    """

    rule: str
    figure: float
    text: str


def advise(work: WorkSummary, host: Host) -> Advice | None:
    """Return the advice that fits one work, or None if none does.

    Args:
        work: its figures.
        host: where it was recorded.
    """
    for rule in _RULES:
        advice = rule(work, host)
        if advice is not None:
            return advice
    return None


def _errors(work: WorkSummary, _host: Host) -> Advice | None:
    failed = work.work.failed
    if failed <= 0:
        return None
    text = f"{failed:,} of {count(max(failed, work.work.tasks), 'task')} failed"
    if work.errors:
        most = work.errors[0]
        first = min(work.errors, key=lambda error: error.number)
        if len(work.errors) == 1 and most.times >= failed:
            text += f" with {most.type}"
        else:
            text += f", {most.times:,} of them with {most.type}"
        text += f"; the first is task {first.number}, {first.call}" if first.call else f"; the first is task {first.number}"
    return Advice("errors", failed, f"{text}.")


def _many_errors(work: WorkSummary, host: Host) -> Advice | None:
    return _errors(work, host) if work.work.failed > 0.05 * work.work.tasks else None


def _overhead(work: WorkSummary, _host: Host) -> Advice | None:
    share = _share(work.overhead, work.elapsed)
    if share <= 0.3 or work.work.tasks < 1:
        return None
    took = f"Starting workers and pickling took {_percent(share)} of the time ({duration(work.overhead or 0)})"
    if work.work.kind == "process":
        return Advice(
            "overhead", share, f'{took}: larger batches (chunksize=) cost less, or kind="thread" if the work mostly waits.'
        )
    return Advice("overhead", share, f"{took}: larger batches (chunksize=) cost less, or threads.")


def _small(work: WorkSummary, _host: Host) -> Advice | None:
    if work.work.attempts < 100 or work.speed_up is None or work.speed_up >= 0.5:
        return None
    each = work.work.wall / work.work.attempts
    if not 0 <= each < 10_000:
        return None
    text = f"Handing tasks out takes longer than they do (≈ {about(each)} each): a plain loop is faster, or tasks that do more."
    return Advice("small", work.speed_up, text)


def _gil(work: WorkSummary, host: Host) -> Advice | None:
    share = _share(work.parts.gil, work.work.wall)
    if share <= 0.3:
        return None
    text = f"The GIL let one thread compute at a time (≈ {_percent(share)})."
    ideal = max((work.parts.computing or 0) / max(host.cores, 1), work.one_after_another / max(work.work.workers, 1))
    gain = min(work.elapsed / ideal if ideal else 1.0, host.cores, work.work.workers)
    if gain < 1.1:
        return Advice(
            "gil", share, f"{text} On {count(host.cores, 'core')} processes would not be faster; fewer threads would do as well."
        )
    text += f' Try kind="process" (up to {gain:.2g}x on {count(host.cores, "core")}) or a free-threaded Python.'
    return Advice("gil", share, text)


def _cpu(work: WorkSummary, host: Host) -> Advice | None:
    share = _share(work.parts.runqueue, work.work.wall)
    if share <= 0.2:
        return None
    text = f"Tasks waited for a CPU {_percent(share)} of their time"
    if work.work.workers > host.cores:
        text += f", {count(work.work.workers, 'worker')} on {count(host.cores, 'core')}: max_workers={host.cores} does as much."
    else:
        text += f" on {count(host.cores, 'core')}, which something else keeps busy too."
    return Advice("cpu", share, text)


def _lock(work: WorkSummary, _host: Host) -> Advice | None:
    if not work.locks:
        return None
    lock = work.locks[0]
    share = _share(lock.waited, work.work.wall)
    if share <= 0.2:
        return None
    text = f"Tasks waited for {lock.what or 'one lock'}{f' ({lock.site})' if lock.site else ''} {_percent(share)} of their time"
    text += f", mostly held by {lock.holder}" if lock.holder else ""
    return Advice("lock", share, f"{text}: hold it for less, or give each worker a thing of its own.")


def _order(work: WorkSummary, _host: Host) -> Advice | None:
    if work.idle <= 0.5 or work.missing or work.work.workers < 2:
        return None
    found = pauses((attempt for worker in work.workers for attempt in worker.attempts), work.elapsed)
    if found is None or (share := _share(found.length, work.elapsed)) <= 0.3:
        return None
    last = found.longest
    what = f"task {last.number}, {last.call}" if last.call else f"task {last.number}"
    what += f", which had {last.attempt} attempts" if last.attempt > 1 else ""
    text = f"For {_percent(share)} of the time nothing new was started, since one task was waited for"
    text += f" ({what})" if found.tasks == 1 else f" ({found.tasks} times; longest for {what})"
    return Advice("order", share, f"{text}: a run in order goes on meanwhile with ordered=False, or a larger buffersize=.")


def _idle(work: WorkSummary, _host: Host) -> Advice | None:
    # With half a task waiting on the average, and less, workers wait for work.
    if work.idle <= 0.5 or work.queue is None or work.queue > 0.5 or work.work.workers < 2 or work.work.attempts < 2:
        return None
    enough = max(1, min(work.work.workers - 1, round((1 - work.idle) * work.work.workers + 0.5)))
    text = f"Workers were idle {_percent(work.idle)} of the time, and nothing was queued: {enough} of {work.work.workers} would do, or feed them faster."
    return Advice("idle", work.idle, text)


def _tail(work: WorkSummary, _host: Host) -> Advice | None:
    tail = work.tail
    if tail is None or (share := _share(tail.length, work.elapsed)) <= 0.3:
        return None
    who = "one worker was" if tail.busy == 1 else f"only {tail.busy} workers were"
    text = f"For the last {duration(tail.length)} ({_percent(share)} of the time) {who} busy: "
    text += "smaller batches would share that out." if tail.several else "start the longest tasks first, or cut them up."
    return Advice("tail", share, text)


def _waiting(work: WorkSummary, host: Host) -> Advice | None:
    share = _share(work.parts.waiting, work.work.wall)
    if share <= 0.8 or work.work.tasks < 2 or _is_gil_unknown(work, host):
        return None
    width = max(work.work.workers, 1)
    right = "threads are right here" if work.work.kind not in ("process", "serial") else 'threads do as well here (kind="thread")'
    text = f"Almost all waiting ({_percent(share)}): {right}"
    more = min(work.work.tasks, max(_MANY, 4 * width), max(_MOST, width))
    took = _with_workers(work, host, more)
    if more > width and took < 0.9 * work.elapsed:
        if work.work.kind == "serial":
            return Advice("waiting", share, f"{text}: ≈ {about(took)} with {more} workers.")
        return Advice("waiting", share, f"{text}, and more would help: ≈ {about(took)} with {more} workers.")
    return Advice("waiting", share, f"{text}.") if work.work.kind == "process" else None


_RULES: tuple[Callable[[WorkSummary, Host], Advice | None], ...] = (
    _many_errors,
    _overhead,
    _small,
    _gil,
    _cpu,
    _lock,
    _order,
    _idle,
    _tail,
    _waiting,
    _errors,
)


def _with_workers(work: WorkSummary, host: Host, workers: int) -> float:
    """Nanoseconds that it would take with more workers: no less than the longest task, and than computing takes on the cores there are."""
    computing = work.parts.computing or 0
    if host.cores > 1 and (work.work.kind == "process" or not host.has_gil):
        computing //= host.cores
    longest = work.slowest[0].end - work.slowest[0].begin if work.slowest else 0
    return max(work.one_after_another / workers, computing, longest)


def _is_gil_unknown(work: WorkSummary, host: Host) -> bool:
    """What looks like waiting may be waiting for the GIL."""
    return host.has_gil and work.work.gil is None and work.work.kind not in ("process", "serial")


def _share(part: int | None, whole: int) -> float:
    return part / whole if part and whole > 0 else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
