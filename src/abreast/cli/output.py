"""Where results go: whole lines, whatever ends the command, and nothing overwritten.

* A line is never left half written: signals are held while one is being written; what a full disk has cut off is taken back.
* A file that is there is refused, or with ``--force`` replaced when the run has come to its end, and not before.
* With ``--journal`` a file is always written beside its name, as ``FILE.part``, and put there when the run has come to its end. What a killed run has
  left there is written over: the next run writes all of it again. Its lock keeps two runs apart, also those of two journals::

      open FILE.part ─▶ is it ours? ─▶ lock ─▶ is it FILE.part still? ─▶ empty it ─▶ … lines … ─▶ rename to FILE ─▶ close, which frees the lock
                                                else it was renamed meanwhile, by who had the lock: from the beginning
* A pipe is written to when it has room, in pieces that the system takes whole, so that Ctrl-C is heard while nobody reads.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
import tempfile
from time import monotonic
from typing import TYPE_CHECKING, Any

from abreast.cli.errors import Refused
from abreast.cli.signals import PATIENCE, Held, held

if TYPE_CHECKING:
    from collections.abc import Iterator

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["NobodyReads", "Output", "OutputError", "open_output"]

PIECE = (
    4096  # PIPE_BUF of Linux: a write of so much to a pipe with room is taken whole (POSIX grants 512; a line may be cut there)
)


class OutputError(Exception):
    """The output cannot be written; the text says why."""


class NobodyReads(Exception):
    """The reader of a pipe has closed it."""


@contextlib.contextmanager
def open_output(file: str | None, *, force: bool, resumes: bool = False, sync: bool = False) -> Iterator[Output]:
    """Open where results go: a file, or standard output.

    While results go to standard output, what functions print goes to standard error, so that it does not mix with them.

    Args:
        file: its path; None and ``-`` are standard output.
        force: whether a file that is there may be replaced.
        resumes: whether it is written under the name that an earlier run may have left.
        sync: whether it is to be on the disk before it gets its name.

    Raises:
        Refused: the file exists and `force` is False, it cannot be opened, or another run writes it.
    """
    if file is None or file == "-":
        with _standard_output() as fd:
            yield Output(fd, "standard output")
        return
    with _file(file, force=force, resumes=resumes, sync=sync) as output:
        yield output


@contextlib.contextmanager
def _standard_output() -> Iterator[int]:
    if sys.stdout is None:
        raise Refused("standard output is closed; give an output with -o")
    fd = os.dup(1)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(2, 1)
        try:
            yield fd
        finally:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stdout.flush()
            os.dup2(fd, 1)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _file(file: str, *, force: bool, resumes: bool, sync: bool) -> Iterator[Output]:
    old = None
    with contextlib.suppress(OSError):
        old = os.stat(file)
    is_regular = old is None or stat.S_ISREG(old.st_mode)
    if old is not None and is_regular and not force and not resumes:
        raise Refused(f"{file!r} exists; --force replaces it when the run has come to its end")
    part = target = os.path.realpath(file)  # what a link leads to; and whole, since functions may change the directory
    output = None
    try:
        try:
            if not is_regular:  # /dev/null, a pipe: nothing there to be lost; and a pipe waits here for its reader
                output = Output(os.open(file, os.O_WRONLY), file)
            else:
                with held():  # a file that was made is known by the time that a signal is raised
                    if resumes:
                        part = f"{target}.part"
                        fd = _open_part(part, file, None if old is None else stat.S_IMODE(old.st_mode))
                    elif old is None:
                        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
                    else:
                        fd, part = tempfile.mkstemp(".part", os.path.basename(target) + ".", os.path.dirname(target))
                        with contextlib.suppress(OSError, AttributeError):
                            os.fchmod(fd, stat.S_IMODE(old.st_mode))
                    output = Output(fd, file, part if part != target else None, is_new=old is None)
        except OSError as error:
            raise Refused(f"cannot write {file!r}: {error.strerror}") from None
        yield output
    finally:
        if output is not None:
            with held():
                try:
                    if sync and output.complete and output.is_regular:
                        output.sync()
                    if fcntl is None:  # Windows renames no open file
                        output.close()
                    if is_regular and not output.complete and not output.lines:
                        os.unlink(part)  # an empty file would only stand in the way of the next run
                    elif output.complete and part != target:
                        os.replace(part, target)
                finally:
                    output.close()


_PART = (
    os.O_WRONLY
    | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # of a pipe that has no reader: an error, and no waiting
    | getattr(os, "O_BINARY", 0)
)


def _open_part(part: str, file: str, mode: int | None) -> int:
    """Open the file that becomes `file`, empty, and with its mode if there is one; raise Refused unless it is ours alone."""
    while True:
        try:
            fd = os.open(part, _PART, 0o666 if mode is None else mode)
        except OSError as error:
            if os.path.lexists(part):
                why = "it is a link" if os.path.islink(part) else error.strerror
                raise Refused(f"cannot write {part!r}, which is to become {file!r}: {why}; move it away") from None
            raise
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or (os.name == "posix" and found.st_uid != os.geteuid()):
                raise Refused(f"{part!r}, which is to become {file!r}, is not a file of yours alone; move it away")
            if _is_locked(fd):
                raise Refused(f"another run writes {part!r}, which is to become {file!r}; wait for it to end")
            if _is_at(part, found):
                os.ftruncate(fd, 0)
                if mode is not None and hasattr(os, "fchmod"):
                    os.fchmod(fd, mode)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_locked(fd: int) -> bool:
    """Lock a file, and return whether somebody else has done so."""
    if fcntl is not None:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # a file system that has no locks
            pass
    return False


def _is_at(path: str, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), found)
    except OSError:
        return False


class Output:
    """Whole lines to one descriptor.

    Attributes:
        name: what messages call it.
        part: the file that is written now; another than `name` as long as that is not to be replaced.
        lines: how many lines have been written, whole.
        is_regular, is_terminal: what it is.
        is_new: whether there has been no file of that name.
        complete: whether the run has come to its end; set by whoever writes.
    """

    def __init__(self, fd: int, name: str, part: str | None = None, *, is_new: bool = False) -> None:
        self.name = name
        self.part = part or name
        self.lines = 0
        self.is_new = is_new
        self.complete = False
        self._fd = fd
        self.is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
        self.is_terminal = os.isatty(fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def sync(self) -> None:
        """Have everything on the disk."""
        os.fsync(self._fd)

    def write(self, lines: list[bytes]) -> None:
        """Write lines, each with its end; those before an error are there, whole.

        Raises:
            NobodyReads: the pipe was closed.
            OutputError: the disk is full, or another error of the system.
            KeyboardInterrupt: a signal came; the line that was being written is whole.
        """
        if not lines:
            return
        with held() as signals:
            try:
                if self.is_regular:
                    self._write_to_file(lines)
                else:
                    self._write_to_pipe(lines, signals)
            except BrokenPipeError:
                raise NobodyReads from None
            except OSError as error:
                raise OutputError(f"cannot write to {self.name}: {error.strerror}") from None

    def _write_to_file(self, lines: list[bytes]) -> None:
        # At once. Only kill -9 can stop that on its way, between two pages of the file, and so it can whatever is longer than a page.
        data = b"".join(lines)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
            self.lines += len(lines)
        except OSError:
            whole = data.rfind(b"\n", 0, written) + 1
            self.lines += data.count(b"\n", 0, whole)
            self._take_back(written - whole)
            raise

    def _take_back(self, count: int) -> None:
        """Cut off the piece of a line at the end of the file, if nobody has written behind it."""
        if count:
            with contextlib.suppress(OSError):
                end = os.lseek(self._fd, 0, os.SEEK_END)
                os.ftruncate(self._fd, end - count)
                os.lseek(self._fd, end - count, os.SEEK_SET)

    def _write_to_pipe(self, lines: list[bytes], signals: Held) -> None:
        for piece in _pieces(lines):
            view = memoryview(piece)
            begun = False
            while view:
                if not self._has_room(signals, begun=begun):
                    return  # a signal, raised when this is left
                view = view[os.write(self._fd, view[:PIECE]) :]
                begun = True
            self.lines += piece.count(b"\n")
            if signals.number is not None:
                return

    def _has_room(self, signals: Held, *, begun: bool) -> bool:
        """Wait for room; False if a signal has come, and nobody reads for `PATIENCE` what has been begun."""
        if os.name != "posix":
            return True
        since = None
        while True:
            if signals.number is not None:
                since = since or monotonic()
                if not begun or monotonic() - since > PATIENCE:
                    return False
            # In steps: a signal that is held only notes itself, and select goes on waiting (PEP 475).
            if select.select([], [self._fd], [], 0.05)[1]:
                return True


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """Join lines to pieces of at most PIECE bytes; a longer line is a piece of its own."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > PIECE:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece)
