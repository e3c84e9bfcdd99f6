"""Writing the file of a view: whole, or not at all, and through nobody's link.

The file is made beside its place and renamed when it is whole, so that a reader sees the old one or the new one. A link that stands at the place is replaced,
not followed: in a directory that others may write, it could lead anywhere. A pipe or a device there, as ``/dev/stdout``, is written to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["writing"]


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to be written from its beginning; it stands at its place when the block has ended without an error.

    A new file has the permissions of any other that is made here (umask); one that is replaced keeps its own.

    Raises:
        OSError: it cannot be written; ``filename`` is `path`. What was there is as it was.
    """
    place = os.fspath(path)
    try:
        there = os.stat(place)
    except OSError:  # nothing there, or a link that leads nowhere
        there = None
    part = None
    try:
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(21, "is a directory", place)
        if there is not None and (stat.S_ISFIFO(there.st_mode) or stat.S_ISCHR(there.st_mode)):
            with open(place, "wb") as file:
                yield file
            return
        if there is not None and not stat.S_ISREG(there.st_mode):
            raise OSError(22, "neither a file nor a pipe", place)
        replaced = there if there is not None and not os.path.islink(place) else None
        part = os.path.join(os.path.dirname(place), f".abreast-{secrets.token_hex(6)}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        with open(os.open(part, flags, 0o666 if replaced is None else 0o600), "wb") as file:
            if replaced is not None and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), stat.S_IMODE(replaced.st_mode))
            yield file
        os.replace(part, place)
        part = None
    except OSError as error:
        if error.filename is None or error.filename == part:
            error.filename = place
            del error.filename2  # None would be told too, as " -> None"
        raise
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part)
