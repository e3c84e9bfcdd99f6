"""What workers print, with ``capture_output=True``: by whole lines to the parent's `sys.stdout` and `sys.stderr`, each with the worker's name.

::

    worker: fd 1, 2 ── pipes ──▶ supervisor: Output.feed ── lines ──▶ callbacks' thread: sys.stdout.write
                                                  └── more than MOST waits there: lines are dropped, and counted

The supervisor always reads, so no worker waits for a slow terminal; and never writes, so a slow terminal holds up no task. No lock:
`_asked` belongs to the supervisor's thread and `_written` to the callbacks'; each reads the other's, which is one reference.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Output", "Printer"]

LINE = 1 << 16
"""Bytes after which a line is broken."""
MOST = 1 << 23
"""Bytes that may wait to be written, of all workers of a pool; what comes beyond is dropped."""


class Printer:
    """Writes lines in the callbacks' thread; of one pool.

    Args:
        put: has that thread call a function with a value.
    """

    def __init__(self, put: Callable[[Callable[[tuple[str, str, int]], None], tuple[str, str, int]], None]) -> None:
        self._put = put
        self._asked = self._written = 0

    def put(self, stream: str, text: str, size: int, *, always: bool = False) -> bool:
        """Have `text` written to ``sys.stdout`` or ``sys.stderr``; False if too much waits already."""
        if self._asked - self._written + size > MOST and not always:
            return False
        self._asked += size
        self._put(self._write, (stream, text, size))
        return True

    def _write(self, what: tuple[str, str, int]) -> None:
        stream, text, size = what
        self._written += size
        file = getattr(sys, stream)  # what it is now: pytest, notebooks and contextlib.redirect_stdout replace it
        if file is not None:
            file.write(text)
            file.flush()


class Output:
    """One stream of one worker.

    Args:
        printer: of the pool.
        stream: ``"stdout"`` or ``"stderr"``.
        name: what its lines begin with.
    """

    def __init__(self, printer: Printer, stream: str, name: str) -> None:
        self._printer = printer
        self._stream = stream
        self._prefix = f"[{name}] "
        self._rest = b""
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        """Take what has been read."""
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._tell(self._rest + whole)
            self._rest = rest
        else:
            self._rest += rest
        while len(self._rest) >= LINE:
            self._tell(self._rest[:LINE])
            self._rest = self._rest[LINE:]

    def end(self) -> None:
        """Nothing more comes: write the last line, although it has no end."""
        if self._rest:
            self._tell(self._rest)
            self._rest = b""
        if self._dropped:
            self._tell_dropped(always=True)

    def _tell(self, lines: bytes) -> None:
        if self._dropped and not self._tell_dropped():
            self._dropped += lines.count(b"\n") + 1
            return
        prefix = self._prefix
        text = "".join(f"{prefix}{line}\n" for line in lines.decode(errors="replace").split("\n"))
        if not self._printer.put(self._stream, text, len(lines)):
            self._dropped += lines.count(b"\n") + 1

    def _tell_dropped(self, *, always: bool = False) -> bool:
        told = f"{self._prefix}… {self._dropped} lines are missing here: they came faster than they could be written\n"
        if not self._printer.put(self._stream, told, len(told), always=always):
            return False
        self._dropped = 0
        return True
