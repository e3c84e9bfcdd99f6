"""Results in the order of their inputs: pieces come in any order, and go out as one sequence."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

__all__ = ["InOrder"]

T = TypeVar("T", bound="list[Any]")


class InOrder(Generic[T]):
    """Pieces that wait for those before them. Each is a list of results of consecutive inputs, put once, under its start.

    Pieces, not results: what is done is per batch, however small the tasks.
    """

    def __init__(self) -> None:
        self.next = 0
        """The index that goes out next."""
        self._waiting: dict[int, T] = {}

    def put(self, start: int, piece: T) -> None:
        if piece:
            self._waiting[start] = piece

    def take(self) -> T | None:
        """Return the piece that is next, or None if it is not there yet."""
        piece = self._waiting.pop(self.next, None)
        if piece is not None:
            self.next += len(piece)
        return piece

    def __len__(self) -> int:
        """Return how many pieces wait."""
        return len(self._waiting)
