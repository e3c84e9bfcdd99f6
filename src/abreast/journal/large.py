"""Results of over 1 MiB: files beside the journal, ``<journal>.d/<xx>/<checksum>``, since they would make the tables slow.

A file is written under a temporary name, made durable, and gets its name, before the row that names it is committed. Its name is the checksum of
what it holds: so it is whole, or not there. What no row names (killed in between) is deleted when the journal is opened.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from hashlib import blake2b
from typing import TYPE_CHECKING

from abreast.core import failpoints
from abreast.core.journal_errors import JournalCorrupt, JournalError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["LARGE", "Files"]

LARGE = 1 << 20
_TEMPORARY = ".tmp"
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Not waiting for the writer of a pipe that somebody has put there."""


class Files:
    """The folder of a journal's large results."""

    def __init__(self, journal: str) -> None:
        self.journal = journal
        self.folder = f"{journal}.d"
        self._durable: set[str] = set()

    def write(self, data: bytes) -> bytes:
        """Keep `data`; return the name that the row is to have."""
        name = blake2b(data, digest_size=32).hexdigest()
        folder = os.path.join(self.folder, name[:2])
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            with contextlib.suppress(JournalCorrupt):
                self.read(name.encode())
                return name.encode()
        self._make(self.folder)
        self._make(folder)
        temporary = f"{path}.{secrets.token_hex(8)}{_TEMPORARY}"
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o600
        )
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                if failpoints.hit is not None:
                    failpoints.hit("journal.before_fsync")
                os.fsync(fd)
            finally:
                os.close(fd)
            if failpoints.hit is not None:
                failpoints.hit("journal.before_rename")
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _make_durable(folder)
        if failpoints.hit is not None:
            failpoints.hit("journal.after_rename")
        return name.encode()

    def _make(self, folder: str) -> None:
        if folder not in self._durable:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            _make_durable(os.path.dirname(folder))  # also if it is there: who made it may have been killed before this
            self._durable.add(folder)

    def read(self, payload: bytes) -> bytes:
        """Return what a row's file holds.

        Raises:
            JournalCorrupt: it is not there, or not what was written.
        """
        name = payload.decode("ascii", "replace")
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise JournalCorrupt(
                f"the journal {self.journal!r} is damaged: a row names a file {name!r}; `abreast journal salvage` copies what is whole"
            )
        path = os.path.join(self.folder, name[:2], name)
        try:
            with open(os.open(path, _READ), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise JournalCorrupt(
                f"the journal {self.journal!r} is not whole: its file {path!r} is gone; move or copy a journal together with the folder "
                f"{self.folder!r}, or have `abreast journal salvage` copy what is whole"
            ) from None
        except OSError as error:
            raise JournalError(f"the file {path!r} of the journal {self.journal!r} cannot be read: {error.strerror}") from error
        if blake2b(data, digest_size=32).hexdigest() != name:
            raise JournalCorrupt(
                f"the journal {self.journal!r} is damaged: its file {path!r} is not what was written; `abreast journal salvage` copies what is whole"
            )
        return data

    def size(self, payload: bytes) -> int:
        """Return the bytes of what a row's file holds, or -1 if it is not there. Does not look into it."""
        name = payload.decode("ascii", "replace")
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            return -1
        try:
            found = os.stat(os.path.join(self.folder, name[:2], name), follow_symlinks=False)
        except OSError:
            return -1
        return found.st_size if stat.S_ISREG(found.st_mode) else -1

    def sweep(self, named: Collection[str]) -> int:
        """Delete the files that no row names; return how many. To be called before anything runs."""
        swept = 0
        if not os.path.isdir(self.folder):
            return 0
        for part in os.listdir(self.folder):
            folder = os.path.join(self.folder, part)
            if len(part) != 2 or os.path.islink(folder) or not os.path.isdir(folder):
                continue  # not ours
            for name in os.listdir(folder):
                if name not in named and (len(name) == 64 or name.endswith(_TEMPORARY)):
                    if failpoints.hit is not None:
                        failpoints.hit("journal.before_sweep")
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(folder, name))
                        swept += 1
        return swept


def _make_durable(folder: str) -> None:
    """Have a folder's names on the disk."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(fd)
    except OSError:  # some file systems cannot
        pass
    finally:
        os.close(fd)
