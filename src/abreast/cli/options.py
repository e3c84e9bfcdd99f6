"""What the commands over lines have in common: a function, a file of inputs, how those are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Seconds", "function_and_lines"]

_FUNCTION_AND_LINES = (
    click.argument("function", metavar="MODULE:FUNCTION"),
    click.argument("file", metavar="[FILE]", default="-"),
    click.option("--json", "as_json", is_flag=True, help="Each line of FILE is a JSON value, not text."),
    click.option("-0", "--null", is_flag=True, help="Inputs end with a NUL byte, not with a line end, as after find -print0."),
)


def function_and_lines(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``MODULE:FUNCTION [FILE]`` to a command, and what says how the lines of FILE are read."""
    for part in reversed(_FUNCTION_AND_LINES):
        command = part(command)
    return command


class Seconds(click.FloatRange):
    """More than 0."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)
