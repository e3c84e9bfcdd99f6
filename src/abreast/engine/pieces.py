"""What a run carries about: inputs on their way to the workers, results on their way back, the error that ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextvars import Context

    from abreast.executors.batch import Batch

__all__ = ["Failure", "Piece", "Stretch"]


class Stretch:
    """Consecutive inputs that have been read and are not in a batch."""

    __slots__ = ("context", "items", "place", "start")

    def __init__(self, start: int, items: list[Any], place: int, context: Context | None) -> None:
        self.start = start
        """The index of items[place]."""
        self.items = items
        self.place = place
        self.context = context

    def __len__(self) -> int:
        return len(self.items) - self.place

    def cut(self, size: int) -> list[Any]:
        """Take the first `size` items away."""
        place = self.place
        items = self.items if place == 0 and size >= len(self.items) else self.items[place : place + size]
        self.place += len(items)
        self.start += len(items)
        return items


class Piece(list[Any]):
    """Results of a batch, from place `first` on: consecutive ones."""

    __slots__ = ("batch", "first", "size")

    def __init__(self, results: list[Any], batch: Batch, first: int) -> None:
        super().__init__(results)
        self.batch = batch
        self.first = first
        self.size = len(results)


class Failure:
    """The error that ends a run, with what its note says."""

    __slots__ = ("batch", "error", "index", "place")

    def __init__(self, index: int, error: BaseException, batch: Batch, place: int) -> None:
        self.index = index
        self.error = error
        self.batch = batch
        self.place = place
