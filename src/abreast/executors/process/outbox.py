"""Outcomes on their way out of a worker: kept for a moment, so that tiny tasks share the cost of a write.

::

    a task has ended ─▶ open run: outcomes of one kind, in a row ─▶ frames ─▶ one write, when the rule says so
                        plain values: one pickle for all            errors, large results: a frame of their own
                        others: a pickle each

The rule
    An outcome is written before the next task begins if its task took more than `LONG`, and if work of more than `MOST` has gathered; an
    error and a large result at once; everything before the worker waits for more to do, and with ``flush="each"`` always.
    So when a worker dies amid tiny tasks, those that ended in its last 200 us *of work* may be unsent. They run again: they had no
    effect that anybody was told of, and `Outcome.attempts` says it.

Why these figures: a frame of its own costs about 8 us, and as much again in the parent. With a threshold of 20 us, tasks of 50 us took 62; of
100 us, they are written together, and a task of 100 us pays 8 %.

Only the worker's thread that runs tasks is here. `next` is the number of the task whose outcome is due.
"""

from __future__ import annotations

import struct
from pickle import dumps
from typing import TYPE_CHECKING, Any

from abreast.executors.process.frames import BadFrame, Kind, Phase, frame
from abreast.executors.process.page import Page
from abreast.executors.process.sending import (
    CONNECTIONS,
    ERROR,
    OK,
    SMALL_RESULT,
    Payload,
    encode_error,
    encode_result,
    goes_by_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LONG", "MOST", "PLAIN", "RECORD", "RECORDS", "TIMED", "Outbox"]

LONG = 100_000
"""Nanoseconds that a task may take whose outcome is kept back."""
MOST = 200_000
"""Nanoseconds of work whose outcomes are kept back."""
SMALL = 1 << 12
"""Bytes of a text that may share a pickle."""
LARGE = 1 << 16
"""Bytes of a pickle, or of several together, that are written at once."""

RECORD = struct.Struct("<d")
"""The opening of a RECORD's body: seconds that the task took."""
RECORDS = struct.Struct("<dI")
"""The opening of a RECORDS' body: seconds that the tasks took, and how many they are."""
PLAIN, TIMED = 1, 2
"""Flags of RECORDS: one pickle for all; the seconds of each are told."""

_PHASE, _ENCODE = Page.PHASE, Phase.ENCODE
FIXED: frozenset[type] = frozenset((type(None), bool, int, float))
"""Types of which a value goes into a shared pickle without a second look."""
NONE: frozenset[type] = frozenset()


class Outbox:
    """What a worker has not written yet.

    Args:
        words: of the worker's page.
        write: writes parts of frames to the result pipe.
        clock: nanoseconds.
    """

    __slots__ = (
        "_bytes", "_clock", "_durations", "_frames", "_is_quick", "_pickles", "_timed", "_words", "_write", "begin", "first", "gathered", "urgent", "values", "work",
    )  # fmt: skip

    def __init__(self, words: memoryview, write: Callable[[list[Any]], None], clock: Callable[[], int]) -> None:
        self._words, self._write, self._clock = words, write, clock
        self.values: list[Any] = []
        """The open run, if it is one of plain values. The same list always: the worker's loop holds its `append`."""
        self._pickles: list[bytes] = []
        """The open run, if it is one of pickles."""
        self._is_quick = False
        """Whether a plain pickle will do, lately: a large result would be pickled twice."""
        self._bytes = 0
        self._durations: list[float] = []
        self._timed = False
        self._frames: list[Any] = []
        self.first = 0
        """The number of the open run's first task, or of the next one."""
        self.begin = 0
        """When what is not accounted for has begun."""
        self.work = 0
        """Nanoseconds of the open run that are accounted for."""
        self.gathered = 0
        """Nanoseconds of work since the last write."""
        self.urgent = False

    @property
    def next(self) -> int:
        """The number of the task whose outcome is due."""
        return self.first + len(self.values) + len(self._pickles)

    def open(self, first: int, begin: int, *, timed: bool) -> frozenset[type]:
        """Tasks from number `first` on are about to run; if `timed`, each task is accounted for alone. Returns as `add` does."""
        if first != self.next or timed != self._timed:
            self._close()
            self.first = first
            self._timed = timed
        self.begin = begin
        return NONE if self._pickles else FIXED

    def add(self, value: object) -> frozenset[type]:
        """Take a result; return the types of which results may just be appended to `values`, until the next write.

        Raises:
            BaseException: it cannot be pickled; nothing has been taken.
        """
        pickles = self._pickles
        if pickles and self._is_quick:  # the usual way of what is not plain, written out: 0.5 us less
            self._words[_PHASE] = _ENCODE
            try:
                data = dumps(value, 5)
            except Exception:  # noqa: S110  # told by the slower way
                pass
            else:
                size = len(data)
                if size <= SMALL_RESULT and b"_main__" not in data and CONNECTIONS not in data:
                    pickles.append(data)
                    self._bytes += size
                    if self._bytes > LARGE:
                        self.urgent = True
                    return NONE
        return self._add_carefully(value)

    def _add_carefully(self, value: object) -> frozenset[type]:
        kind = type(value)
        if not self._pickles and (kind in FIXED or ((kind is str or kind is bytes) and len(value) < SMALL)):  # type: ignore[arg-type]  # a text
            if kind not in FIXED:
                self._bytes += len(value)  # type: ignore[arg-type]  # a text
                self.urgent |= self._bytes > LARGE
            self.values.append(value)
            return FIXED
        self._words[_PHASE] = _ENCODE
        payload = encode_result(value)
        data, buffers = payload
        self._is_quick = not buffers and len(data) <= SMALL_RESULT and not goes_by_value()
        if buffers or len(data) > LARGE:
            self._record(OK, payload)
            return NONE
        if self.values:
            self._close()
        self._pickles.append(data)
        self._bytes += len(data)
        if self._bytes > LARGE:
            self.urgent = True
        return NONE

    def fail(self, error: BaseException) -> None:
        """Take what a task has raised."""
        self._words[Page.PHASE] = Phase.ENCODE
        self._record(ERROR, encode_error(error))

    def fail_encoded(self, payload: Payload) -> None:
        """The same, of an error that is encoded already."""
        self._record(ERROR, payload)

    def account(self, now: int) -> int:
        """Tasks have ended by `now`, all that are in; return the nanoseconds since `begin`."""
        elapsed = now - self.begin
        self.begin = now
        self.work += elapsed
        self.gathered += elapsed
        if self._timed and len(self._durations) < len(self.values) + len(self._pickles):
            self._durations.append(elapsed / 1e9)
        return elapsed

    def flush(self) -> None:
        """Write everything."""
        self._close()
        frames = self._frames
        if frames:
            self._frames = []
            self._words[Page.PHASE] = Phase.WRITE
            self._write(frames)
        self.gathered = 0
        self.urgent = False

    def over(self, first: int) -> None:
        """The call has ended before its last task: write that those from number `first` on have not begun."""
        self._close()
        self._frames += frame(Kind.OVER, first)
        self.flush()

    def _record(self, status: int, payload: Payload) -> None:
        """An outcome that has a frame of its own."""
        self._close()
        seconds = self.account(self._clock()) / 1e9
        try:
            parts = frame(Kind.RECORD, self.first, RECORD.pack(seconds) + payload.data, payload.buffers, status)
        except BadFrame as error:  # too large
            data = encode_error(ValueError(f"the result is too large to be sent: {error}"))
            parts = frame(Kind.RECORD, self.first, RECORD.pack(seconds) + data.data, data.buffers, ERROR)
        self._frames += parts
        self.first += 1
        self.work = 0
        self.urgent = True

    def _close(self) -> None:
        """Make a frame of the open run."""
        values, pickles = self.values, self._pickles
        count = len(values) or len(pickles)
        if not count:
            return
        seconds = self.work / 1e9
        if count == 1:
            data = dumps(values[0], 5) if values else pickles[0]
            self._frames += frame(Kind.RECORD, self.first, RECORD.pack(seconds) + data, (), OK)
        else:
            parts = [RECORDS.pack(seconds, count)]
            flags = 0
            if self._timed:
                flags |= TIMED
                told = self._durations
                parts.append(struct.pack(f"<{count}d", *told, *[0.0] * (count - len(told))))
            if values:
                flags |= PLAIN
                parts.append(dumps(values, 5))
            else:
                parts.append(struct.pack(f"<{count}I", *map(len, pickles)))
                parts += pickles
            self._frames += frame(Kind.RECORDS, self.first, b"".join(parts), (), flags)
        values.clear()
        pickles.clear()
        self._durations.clear()
        self._bytes = self.work = 0
        self.first += count
