"""The console of rich that commands write tables on."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["whole_console"]


def whole_console() -> Console:
    """Return one on standard output, which raises when nobody reads that any more."""
    from rich.console import Console

    class Whole(Console):
        def on_broken_pipe(self) -> None:
            """Let main.py say what the exit status is; rich would end the program with 1."""
            raise BrokenPipeError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # rich writes an ellipsis, in ASCII too
    return Whole(highlight=False)
