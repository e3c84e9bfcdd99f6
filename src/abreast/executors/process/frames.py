"""Bytes on the pipes: frames. The only file that knows what they look like.

::

    ┌─────────┬──────┬───────┬────────┬────────┬──────────────────┬──────┬─────────┐
    │ u32 len │ kind │ flags │ u16    │ u64    │ nbuf x u64       │ body │ buffers │
    │ of body │  u8  │  u8   │ nbuf   │ number │ lengths of       │      │         │
    └─────────┴──────┴───────┴────────┴────────┴ buffers ─────────┴──────┴─────────┘

    parent → worker                                   worker → parent
    BOOT     what it needs to begin                   READY
    DEFINE   number = function; its pickle            FAILED   it cannot work; body = why, as text
    CALL     number = of its first task               RECORD   number = of the task; body = seconds (f64) + pickle
    RETIRE                                            RECORDS  number = of the first of some tasks in a row, all of which returned; body below
                                                      OVER     number = of the first task of the call that has not begun
                                                      RETURN   number = of the first of some tasks that it will not begin, while it is at the
                                                               one before; body = of the last of them (u64)
                                                      LOG      body = pickled log record
    WATCH    number = 1: measure from now on; 0 no    LEAVE    it wants to be replaced (memory)
             more                                     MEASURED what the tasks whose outcomes follow took; number = of the first of them

RECORDS' body: seconds of all of them (f64), how many (u32), and if TIMED the seconds of each (f64); then, if TOGETHER, one pickle of a list of
the results, OBJECTS of simple classes among them or none, or if ROWS of (module, class, names of attributes, list of tuples of their values); else the length of each pickle (u32), and the pickles.

A buffer is what a pickle has kept out of band (sending.py). A frame of a task is written by one thread, so frames never mix; a death
cuts the last one, which is then dropped. The parser takes bytes as they come, and trusts nothing: lengths and kinds are checked.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["MOST", "BadFrame", "Frame", "Kind", "Parser", "Phase", "frame"]

HEADER = struct.Struct("<IBBHQ")
LENGTH = struct.Struct("<Q")
MOST = (1 << 32) - 16
"""Bytes that a body may have. Buffers may have more."""
MOST_BUFFER = 1 << 40
MOST_BUFFERS = (1 << 16) - 1
STEP = 1 << 26
"""Bytes of a buffer that are set aside before any has come, and then four times what has come: a length may be a lie."""


class Kind:
    """What a frame is."""

    BOOT, DEFINE, CALL, RETIRE, WATCH = 1, 2, 3, 4, 5
    READY, FAILED, RECORD, OVER, LOG, LEAVE, RECORDS, MEASURED, RETURN = 11, 12, 13, 14, 15, 16, 17, 18, 19
    OF_PARENT = frozenset((BOOT, DEFINE, CALL, RETIRE, WATCH))
    OF_WORKER = frozenset((READY, FAILED, RECORD, OVER, LOG, LEAVE, RECORDS, MEASURED, RETURN))


class Phase:
    """What a worker is at, as its page says."""

    BOOT, IDLE, DECODE, RUN, ENCODE, WRITE, EXIT, LOAD = range(8)
    AT_WORK = frozenset((LOAD, DECODE, RUN, ENCODE))
    TEXTS = (
        "starting",
        "idle",
        "while its arguments were unpickled",
        "while running",
        "while its result was pickled",
        "while its result was sent",
        "while ending",
        "while its function was unpickled",
    )


class BadFrame(Exception):
    """These bytes are none of ours."""


class Frame(NamedTuple):
    """One that has arrived whole."""

    kind: int
    flags: int
    number: int
    body: Any  # bytes
    buffers: tuple[Any, ...]  # of bytearray


_frame: Callable[[tuple[Any, ...]], Frame] = partial(tuple.__new__, Frame)  # a third of what Frame(…) takes


def frame(kind: int, number: int = 0, body: bytes = b"", buffers: Sequence[Any] = (), flags: int = 0) -> list[Any]:
    """Return the parts of a frame, to be written one after another; large buffers are not copied.

    Raises:
        BadFrame: the body is too large, or there are too many buffers.
    """
    if len(body) > MOST:
        raise BadFrame(f"{len(body):,} bytes in one pickle; at most {MOST:,} can be sent")
    if not buffers:
        return [HEADER.pack(len(body), kind, flags, 0, number) + body]
    if len(buffers) > MOST_BUFFERS:
        raise BadFrame(f"{len(buffers):,} buffers in one pickle; at most {MOST_BUFFERS:,} can be sent")
    raw = [memoryview(buffer).cast("B") for buffer in buffers]  # bytes, so that their len() is what is to be written
    lengths = b"".join(LENGTH.pack(view.nbytes) for view in raw)
    return [HEADER.pack(len(body), kind, flags, len(raw), number) + lengths + body, *raw]


class Parser:
    """Takes bytes as they come, and gives frames as they are whole."""

    __slots__ = ("_buffers", "_data", "_frame", "_kinds", "_lengths", "_missing", "_view")

    def __init__(self, kinds: frozenset[int]) -> None:
        self._kinds = kinds
        self._data = bytearray()
        self._frame: tuple[int, int, int, Any] | None = None  # whose buffers are being filled
        self._lengths: list[int] = []
        self._buffers: list[bytearray] = []
        self._missing = 0  # bytes of the last buffer that are not set aside yet
        self._view: memoryview | None = None  # of the buffer that is being filled: where it is to go on

    def target(self) -> memoryview | None:
        """Return memory that the next bytes belong into, if a large buffer is being filled: read into it, then call `filled`."""
        return self._view

    def filled(self, count: int) -> Iterator[Frame]:
        """So many bytes have been read into `target`."""
        assert self._view is not None
        self._advance(count)
        return self._frames(self._data)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """Take bytes, and yield the frames that are whole now.

        Raises:
            BadFrame: these are none.
        """
        if not self._data:  # nearly always: of bytes a piece is cheap
            return self._frames(data)
        self._data += data
        return self._frames(self._data)

    @property
    def is_between_frames(self) -> bool:
        return not self._data and self._frame is None

    def _frames(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        place = 0
        try:
            while True:
                if self._frame is not None:
                    place = self._fill(data, place)
                    if self._view is not None:
                        return
                    kind, flags, number, body = self._frame
                    self._frame = None
                    buffers, self._buffers = tuple(self._buffers), []
                    yield Frame(kind, flags, number, body, buffers)
                if len(data) - place < HEADER.size:
                    return
                length, kind, flags, count, number = HEADER.unpack_from(data, place)
                if kind not in self._kinds or length > MOST:
                    raise BadFrame(f"a frame of kind {kind} with {length:,} bytes")
                end = place + HEADER.size + count * LENGTH.size + length
                if len(data) < end:
                    return
                begin = end - length
                body = data[begin:end] if type(data) is bytes else bytes(memoryview(data)[begin:end])
                if not count:
                    place = end
                    yield _frame((kind, flags, number, body, ()))
                    continue
                lengths = [LENGTH.unpack_from(data, place + HEADER.size + i * LENGTH.size)[0] for i in range(count)]
                if max(lengths) > MOST_BUFFER:
                    raise BadFrame(f"a buffer of {max(lengths):,} bytes")
                place = end
                self._frame = (kind, flags, number, body)
                self._lengths = lengths[::-1]
                self._begin_buffer()
        finally:
            if data is not self._data:
                self._data += data[place:]
            elif place:
                del self._data[:place]

    def _begin_buffer(self) -> None:
        while self._lengths:
            length = self._lengths.pop()
            buffer = bytearray(min(length, STEP))
            self._buffers.append(buffer)
            self._missing = length - len(buffer)
            if buffer:
                self._view = memoryview(buffer)
                return

    def _advance(self, count: int) -> None:
        """So many bytes have come into the view."""
        assert self._view is not None
        self._view = self._view[count:]
        if self._view:
            return
        self._view = None
        if self._missing:
            self._enlarge_buffer()
        else:
            self._begin_buffer()

    def _enlarge_buffer(self) -> None:
        full = self._buffers[-1]
        more = min(self._missing, 3 * len(full))
        self._missing -= more
        self._buffers[-1] = buffer = bytearray(len(full) + more)  # a new one: whoever reads may still hold a view of the old one
        buffer[: len(full)] = full
        self._view = memoryview(buffer)[len(full) :]

    def _fill(self, data: bytes | bytearray | memoryview, place: int) -> int:
        """Move what is there of the buffers to where it belongs; return where the rest begins."""
        while self._view is not None and place < len(data):
            count = min(len(self._view), len(data) - place)
            self._view[:count] = memoryview(data)[place : place + count]
            place += count
            self._advance(count)
        return place
