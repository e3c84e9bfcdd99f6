"""The inputs of a run, read lazily, and only in the thread that asks for results: they may come from a cursor that belongs to it."""

from __future__ import annotations

import itertools
import operator
from reprlib import repr as short
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Source"]


class Source:
    """What is left to read.

    Attributes:
        star: whether an input is a tuple, one item of each of several iterables.
        read: how many inputs have been read.
        exhausted: whether there are no more, or reading failed.
        error: what the iterables raised; the inputs before it are delivered first.
        total: how many there are in all, if the iterables can tell; a hint, which may be wrong.
    """

    __slots__ = ("_inputs", "_iterables", "_returned", "_strict", "error", "exhausted", "read", "star", "total")

    def __init__(self, iterables: tuple[Iterable[Any], ...], *, strict: bool) -> None:
        for iterable in iterables:
            if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
                hint = ": collect it first, [item async for item in …]" if hasattr(iterable, "__aiter__") else ""
                raise TypeError(f"the inputs must be iterables, not {short(iterable)} ({type(iterable).__name__}){hint}")
        self.star = len(iterables) != 1
        self._iterables = iterables
        self._strict = strict
        self._inputs: Iterator[Any] | None = None
        self._returned: list[Any] = []
        self.read = 0
        self.exhausted = not iterables
        self.error: Exception | None = None
        lengths = [_length(iterable) for iterable in iterables]
        self.total = min((length for length in lengths if length is not None), default=None)

    def take(self, count: int | None, *, within: float | None = None) -> list[Any]:
        """Read up to `count` inputs (None: all) and return them; fewer if there are no more, or if an iterable raised.

        With `within`, a number of seconds, also fewer if those took longer: then nobody is to wait for the rest.
        """
        items: list[Any] = []
        is_late = False
        if self.exhausted:
            return items
        if self._returned:
            return self._take_returned(count)
        try:
            if self._inputs is None:
                self._inputs = zip(*self._iterables, strict=self._strict) if self.star else iter(self._iterables[0])
            # Into a list that is there already: list(islice(…)) would lose what was read before an error.
            if within is None or count is None:
                items.extend(self._inputs if count is None else itertools.islice(self._inputs, count))
            else:
                until = perf_counter() + within
                for item in itertools.islice(self._inputs, count):
                    items.append(item)  # until it is late
                    if is_late := perf_counter() > until:
                        break
        except Exception as error:  # KeyboardInterrupt goes up at once: it is for whoever called, not for later
            self.error = error
            self.close()
        if count is None or (len(items) < count and not is_late):
            self.close()
        self.read += len(items)
        return items

    def put_back(self, items: list[Any]) -> None:
        """The last inputs that were taken are to be taken once more."""
        self._returned = [*items, *self._returned]
        self.read -= len(items)
        self.exhausted = False

    def _take_returned(self, count: int | None) -> list[Any]:
        """Take inputs that have been put back; if that were the last ones, there are no more."""
        count = len(self._returned) if count is None else count
        items, self._returned = self._returned[:count], self._returned[count:]
        self.read += len(items)
        if not self._returned and not self._iterables:
            self.close()
        return items

    def left(self) -> int | None:
        """Return how many inputs are left to read, or None if that is not known."""
        if self.exhausted:
            return 0
        return None if self.total is None or self.total < self.read else self.total - self.read

    def close(self) -> None:
        """Read no more, and let the iterables go."""
        self.exhausted = True
        self._inputs = None
        self._iterables = ()
        self._returned = []


def _length(iterable: Iterable[Any]) -> int | None:
    try:
        length = operator.length_hint(iterable, -1)
    except Exception:  # a __len__ that raises: it can be read all the same
        return None
    return None if length < 0 else length
