"""What a worker has measured of tasks whose outcomes come next, while somebody watches (core/watch.py)."""

from __future__ import annotations

from abreast.core import watch

__all__ = ["Measures"]


class Measures:
    """What tasks took whose outcomes come next, given to them one after another.

    Args:
        begin, end: of all of them, nanoseconds.
        cpu, runqueue: of all of them; `runqueue` is -1 if not known.
    """

    __slots__ = ("begin", "cpu", "runqueue", "wall")

    def __init__(self, begin: int, end: int, cpu: int, runqueue: int) -> None:
        self.begin = begin
        self.wall = max(end - begin, 1)
        self.cpu = cpu
        self.runqueue = runqueue

    def take(self, wall: int) -> tuple[int, int]:
        """Return begin and end of the next task."""
        begin = self.begin
        self.begin = begin + wall
        return begin, self.begin

    def share(self, seconds: float) -> watch.Measure:
        """Return what a task of `seconds` has used of all that."""
        part = min(1.0, seconds * 1e9 / self.wall)
        return watch.Measure.of(int(self.cpu * part), None if self.runqueue < 0 else int(self.runqueue * part))
