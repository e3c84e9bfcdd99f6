"""When nothing new was submitted because one task was waited for: in order, with few inputs taken ahead, one slow or retried task stops a run.

::

    submitted   |||||||||              |||||||||          a pause: much longer than others
    task 3        ├──✗    ├──✗    ├───┤                   one task's life spans it
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from abreast.core.recording import Attempt

__all__ = ["Pauses", "pauses"]

_LONG = 3  # times the mean time between two submits: slow inputs and a rate come evenly, and are no pauses
_SPANNED = 0.9  # of a pause: the first to be submitted afterwards may be seen a moment late


class Pauses(NamedTuple):
    """The pauses in which one task was waited for.

    Attributes:
        length: nanoseconds, of all.
        tasks: how many tasks were waited for.
        longest: the last attempt of the one that was waited for longest.
    """

    length: int
    tasks: int
    longest: Attempt


def pauses(attempts: Iterable[Attempt], elapsed: int) -> Pauses | None:
    """Return the pauses of a work, or None if there are none, or it is not known when its tasks were submitted.

    Args:
        attempts: all of the work's, in any order.
        elapsed: from its begin to its end, nanoseconds.
    """
    submits: list[int] = []
    lives: dict[int, tuple[int, Attempt]] = {}  # of each task: when it was submitted, its last attempt
    for attempt in attempts:
        since, last = lives.get(attempt.number, (attempt.begin, attempt))
        if attempt.attempt == 1 and attempt.queued is not None:
            submits.append(attempt.queued)
            since = attempt.queued
        lives[attempt.number] = (min(since, attempt.begin), max(last, attempt, key=_end))
    submits.sort()
    longest_so_far: list[Attempt] = []  # of those that were submitted until then, the one that ends last
    begins = []
    for begin, last in sorted(lives.values(), key=_since):
        begins.append(begin)
        longest_so_far.append(max(longest_so_far[-1], last, key=_end) if longest_so_far else last)
    waited: dict[int, int] = {}
    found: dict[int, Attempt] = {}
    for begin, end in pairwise(submits):
        if (end - begin) * len(submits) <= _LONG * elapsed:
            continue
        last = longest_so_far[bisect_right(begins, begin) - 1]
        if last.end - begin >= _SPANNED * (end - begin):
            waited[last.number] = waited.get(last.number, 0) + end - begin
            found[last.number] = last
    if not waited:
        return None
    return Pauses(sum(waited.values()), len(waited), found[max(waited, key=waited.__getitem__)])


def _end(attempt: Attempt) -> int:
    return attempt.end


def _since(life: tuple[int, Attempt]) -> int:
    return life[0]
