"""Lines of a file or of standard input as inputs of a run: read when the run asks for them, each known by its number.

Read with `os.read` and cut here: a buffered file of Python's would wait for its block to be full, and could not be waited for with
a time limit.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import select
import stat
import sys
from time import monotonic
from typing import TYPE_CHECKING

from abreast.cli.errors import Refused
from abreast.cli.task import Line

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["InputError", "Inputs", "TimeIsUp", "open_inputs"]

BLOCK = 1 << 16
LOOK_UP = 0.25  # seconds


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # Python's own takes NaN


class InputError(Exception):
    """An input that cannot be read; the text names the file and the line."""


class TimeIsUp(Exception):
    """The time limit of the run was over while a line was waited for."""


@contextlib.contextmanager
def open_inputs(file: str, *, as_json: bool, separator: bytes = b"\n", who: str = "abreast map") -> Iterator[Inputs]:
    """Open `file` (``-`` is standard input) as inputs of a command, `who`.

    While standard input is read as inputs it is empty for the functions that run: they cannot take lines away.

    Raises:
        Refused: it cannot be opened.
    """
    try:
        if file == "-":
            if sys.stdin is None:
                raise Refused("standard input is closed; give a FILE")
            fd = os.dup(0)
            name = "standard input"
        else:
            fd = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            name = file
    except OSError as error:
        raise Refused(f"cannot read {file!r}: {error.strerror}") from None
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise Refused(f"cannot read {file!r}: it is a directory")
        if file == "-":
            if os.isatty(fd):
                sys.stderr.write(f"{who}: reads inputs from this terminal; end them with Ctrl-D\n")
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.close(nothing)
        try:
            yield Inputs(fd, name, as_json=as_json, separator=separator)
        finally:
            if file == "-":
                os.dup2(fd, 0)
    finally:
        os.close(fd)


class Inputs:
    """The lines that are left of a descriptor, as `Line` objects; its length hint is their number, of a regular file.

    Attributes:
        deadline: on the clock `time.monotonic`; None is no limit. Waiting for a line ends there with `TimeIsUp`.
    """

    def __init__(self, fd: int, name: str, *, as_json: bool, separator: bytes) -> None:
        self.deadline: float | None = None
        self._fd = fd
        self._name = name
        self._as_json = as_json
        self._separator = separator
        self._number = 0
        self._lines: Iterator[bytes] = iter(self._split())

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        line = next(self._lines)
        self._number += 1
        if self._separator == b"\n":  # as programs of Windows write lines
            line = line.removesuffix(b"\r")
            if self._number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{self._where()} is not UTF-8: byte 0x{line[error.start]:02x} at place {error.start + 1}") from None
        if not self._as_json:
            return Line(self._number, text)
        try:
            return Line(self._number, _DECODER.decode(text), text)
        except json.JSONDecodeError as error:
            what = f"{error.msg}, at character {error.pos + 1}" if text.strip() else "it is empty"
            raise InputError(f"{self._where()} is not JSON: {what}") from None
        except RecursionError:
            raise InputError(f"{self._where()} cannot be read as JSON: it is nested too deep") from None
        except ValueError as error:  # NaN; a number of too many digits
            raise InputError(f"{self._where()} cannot be read as JSON: {error}") from None

    def __length_hint__(self) -> int:
        """Count the lines of what is left of a regular file, at about 1 GB/s; others cannot tell."""
        if not stat.S_ISREG(os.fstat(self._fd).st_mode) or not hasattr(os, "pread"):
            return NotImplemented  # type: ignore[no-any-return]  # as the protocol of length hints has it
        place, lines, last = os.lseek(self._fd, 0, os.SEEK_CUR), 0, self._separator
        while block := os.pread(self._fd, 1 << 20, place):
            place += len(block)
            lines += block.count(self._separator)
            last = block[-1:]
        return lines + (last != self._separator)

    def _where(self) -> str:
        return f"{self._name}, line {self._number},"

    def _split(self) -> Iterator[bytes]:
        begun: list[bytes] = []  # pieces, joined once: a line of 100 MB has 1600
        while block := self._read():
            first, *others = block.split(self._separator)
            begun.append(first)
            if others:
                yield b"".join(begun)
                begun = [others.pop()]
                yield from others
        if rest := b"".join(begun):
            yield rest

    def _patience(self) -> float:
        return LOOK_UP if self.deadline is None else min(LOOK_UP, max(0.0, self.deadline - monotonic()))

    def _read(self) -> bytes:
        # In steps: a signal may have been given to another thread, and is then heard of by looking up.
        while os.name == "posix" and not select.select([self._fd], [], [], self._patience())[0]:
            if self.deadline is not None and monotonic() >= self.deadline:
                raise TimeIsUp
        try:
            return os.read(self._fd, BLOCK)
        except OSError as error:
            raise InputError(f"{self._name} cannot be read behind line {self._number}: {error.strerror}") from None
