"""What travels to a worker for a line: in a module of its own, since a process that runs tasks imports nothing else of the command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core.current import Around

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Call", "Line", "to_json"]


class Line(NamedTuple):
    """One input, and where it came from."""

    number: int
    value: Any
    source: str | None = None
    """The line itself, if `value` was made of it as JSON: the function may alter that."""

    def __repr__(self) -> str:
        """As the function sees it: errors show a task as a call."""
        return repr(self.value)


class Call(Around):
    """The task: the function on a line's value, and its result as JSON."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn

    @property
    def __wrapped__(self) -> Callable[[Any], Any]:
        """The function that a journal belongs to."""
        return self.fn

    def call(self, args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.fn, tuple(line.value for line in args)

    def __call__(self, line: Line) -> str:
        value = self.fn(line.value)
        try:
            return to_json(value)
        except RecursionError:
            raise _not_json("it is nested too deep") from None
        except (TypeError, ValueError) as error:
            # `from None`: where json gave up is of no use to anybody
            raise _not_json(str(error)) from None


def _not_json(why: str) -> TypeError:
    error = TypeError(f"the result is not JSON: {why}")
    error.is_of_result = True  # type: ignore[attr-defined]  # for engine/journaled.py: the function has done its work
    return error


def to_json(value: object) -> str:
    """Return a value as JSON in one line; NaN and infinities are not JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
