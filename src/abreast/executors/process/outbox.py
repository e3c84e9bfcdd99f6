"""Outcomes on their way out of a worker: kept for a moment, so that tiny tasks share the cost of a write.

::

    a task has ended ─▶ open run: outcomes of one kind, in a row ─▶ frames ─▶ one write, when the rule says so
                        one pickle for all, or                      errors, large results: a frame of their own
                        a pickle each

The rule
    An outcome is written before the next task begins if its task took more than `LONG`, and if work of more than `MOST` has gathered; an
    error and a large result at once; everything before the worker waits for more to do, and with ``flush="each"`` always.
    So when a worker dies amid tiny tasks, those that ended in its last 200 us *of work* may be unsent. They run again: they had no
    effect that anybody was told of, and `Outcome.attempts` says it.

Which results share a pickle
    Those that nothing can change any more, nor see changed: plain values; and lists, dicts and objects of simple classes (`is_simple`) that hold
    plain values only, and that *nobody else holds*, as the count of their references says. All others are pickled as their task ends:
    a function may return the same list each time, and append to it. A pickle each takes 1.7 us for a small dataclass, and 1.5 in the
    parent; a share of one 0.6 and 0.8; as rows, if all are of one class with the same attributes, 0.2 and 0.3.

Why these figures: a frame of its own costs about 8 us, and as much again in the parent. With a threshold of 20 us, tasks of 50 us took 62; of
100 us, they are written together, and a task of 100 us pays 8 %.

Only the worker's thread that runs tasks is here. `next` is the number of the task whose outcome is due.
"""

from __future__ import annotations

import struct
from copyreg import dispatch_table
from pickle import dumps
from sys import getrefcount
from typing import TYPE_CHECKING, Any
from weakref import getweakrefcount

from abreast.core.watch import this_thread, usage
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
    encode_rows,
    encode_simple,
    goes_by_value,
    is_simple,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["LONG", "MEASURED", "MOST", "OBJECTS", "RECORD", "RECORDS", "RETURN", "ROWS", "TIMED", "TOGETHER", "Outbox"]

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
MEASURED = struct.Struct("<qqqq")
"""A MEASURED's body: begin and end of work, CPU time, time in the queue for a CPU (-1: not known); in nanoseconds."""
RETURN = struct.Struct("<Q")
"""A RETURN's body: the number of the last task that will not begin."""
TOGETHER, TIMED, OBJECTS, ROWS = 1, 2, 4, 8
"""Flags of RECORDS: one pickle for all; the seconds of each are told; there are objects of simple classes in that pickle; they are all of one class, and
what is pickled is the class and what they hold."""

_PHASE, _ENCODE = Page.PHASE, Phase.ENCODE
FIXED: frozenset[type] = frozenset((type(None), bool, int, float))
"""Types of which a value goes into a shared pickle without a second look."""
NONE: frozenset[type] = frozenset()
_TEXT = frozenset((str,))
_REDUCE_EX: Any = object.__reduce_ex__
_GETSTATE: Any = object.__getstate__
_PLAIN = FIXED | {str, bytes}
PARTS = 64
"""Parts that a list, say, may have that shares a pickle."""
KINDS = 256
"""Classes of which it is remembered whether they are simple."""


def _size_of_parts(parts: Collection[Any]) -> int:
    """Return about how many bytes they take in a pickle; -1 if they are not all plain values, or too many."""
    if len(parts) > PARTS:
        return -1
    if FIXED.issuperset(map(type, parts)):
        return 8 * len(parts)
    if not _PLAIN.issuperset(map(type, parts)):
        return -1
    size = sum(len(part) if type(part) is str or type(part) is bytes else 8 for part in parts)
    return (
        size if size < SMALL else -1
    )  # what is large may be too large, or be more than there is memory for: that is its task's error


def _size_of_text(value: str | bytes) -> int:
    size = len(value)
    return size if size < SMALL else -1


def _size_of_dict(value: dict[Any, Any]) -> int:
    keys = _size_of_parts(value)
    values = _size_of_parts(value.values())
    return -1 if keys < 0 or values < 0 else keys + values


def _size_of_object(value: Any) -> int:
    # Who has its dict can change it, and who has a weak reference can get hold of it again.
    kind: Any = type(value)
    if (
        kind.__reduce_ex__ is not _REDUCE_EX or kind.__getstate__ is not _GETSTATE or kind in dispatch_table
    ):  # by now: it is remembered as simple
        return -1
    attributes = value.__dict__
    if (
        type(attributes) is not dict
        or getrefcount(attributes) != OWN
        or getweakrefcount(value)
        or not _TEXT.issuperset(map(type, attributes))
    ):
        return -1
    return _size_of_parts(attributes.values())


_SIZES: dict[type, Callable[[Any], int] | None] = {
    str: _size_of_text,
    bytes: _size_of_text,
    tuple: _size_of_parts,
    list: _size_of_parts,
    dict: _size_of_dict,
    **dict.fromkeys(FIXED, lambda _: 8),
}
"""By class of a result: what tells its size, or that it cannot share a pickle; None, that no one of the class can."""
_UNCHANGING = _PLAIN | {tuple}


class _Probe:
    """Does what `Outbox.add` and `_size_of_object` do, to measure `ALONE` and `OWN`: what is counted on the way differs from version to version."""

    def add(self, value: object) -> int:
        return getrefcount(value)

    def of_dict(self, value: Any) -> int:
        attributes = value.__dict__
        return getrefcount(attributes)


def _measure() -> tuple[int, int]:
    probe, value = _Probe(), [0]
    return probe.add(value), probe.of_dict(probe)


ALONE, OWN = map(min, zip(*(_measure() for _ in range(3)), strict=True))
"""References that `add` sees of a result that only a variable of its caller holds, and `_size_of_object` of a dict that only the object holds."""


class Meter:
    """What the worker's thread has used, from one write to the next: while somebody watches (core/watch.py)."""

    def __init__(self) -> None:
        self._row = this_thread()
        self._row.open()
        self.begin()

    def begin(self) -> None:
        """What was used so far was not for tasks."""
        self._used = usage()[0]
        self._waited = self._row.runqueue()

    def close(self) -> None:
        self._row.close()

    def frame(self, begin: int, end: int) -> list[Any]:
        """Return the frame that says it of what has been done since the last one."""
        used, waited = usage()[0], self._row.runqueue()
        runqueue = -1 if waited is None or self._waited is None else waited - self._waited
        data = MEASURED.pack(begin, end, used - self._used, runqueue)
        self._used, self._waited = used, waited
        return frame(Kind.MEASURED, 0, data)


class Outbox:
    """What a worker has not written yet.

    Args:
        words: of the worker's page.
        write: writes parts of frames to the result pipe.
        clock: nanoseconds.
    """

    __slots__ = (
        "_bytes", "_clock", "_durations", "_frames", "_has_objects", "_is_quick", "_meter", "_pickles", "_sizes", "_timed", "_words", "_write", "begin", "first",
        "gathered", "urgent", "values", "work",
    )  # fmt: skip

    def __init__(self, words: memoryview, write: Callable[[list[Any]], None], clock: Callable[[], int]) -> None:
        self._words, self._write, self._clock = words, write, clock
        self.values: list[Any] = []
        """The open run, if it is one of results that share a pickle. The same list always: the worker's loop holds its `append`."""
        self._has_objects = False
        """Whether there are objects of simple classes among them."""
        self._sizes = dict(_SIZES)
        self._pickles: list[bytes] = []
        """The open run, if it is one of pickles."""
        self._is_quick = False
        """Whether a plain pickle will do, lately: a large result would be pickled twice."""
        self._bytes = 0
        self._durations: list[float] = []
        self._timed = False
        self._frames: list[Any] = []
        self._meter: Meter | None = None
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

        A variable of the caller's has to hold it, and nothing else of ours (`ALONE`).

        Raises:
            BaseException: it cannot be pickled; nothing has been taken.
        """
        pickles = self._pickles
        if not pickles:
            kind = type(value)
            size_of = self._sizes[kind] if kind in self._sizes else self._look_at(kind)
            if size_of is not None:
                size = size_of(value)
                # Counted last: another thread may have made a strong reference of a weak one meanwhile.
                if size >= 0 and (kind in _UNCHANGING or getrefcount(value) == ALONE):
                    self.values.append(value)
                    self._bytes += size
                    if self._bytes > LARGE:
                        self.urgent = True
                    if size_of is _size_of_object:
                        self._has_objects = True
                    return FIXED
        elif self._is_quick:  # the usual way of what has a pickle of its own, written out: 0.5 us less
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

    def _look_at(self, kind: type) -> Callable[[Any], int] | None:
        if len(self._sizes) > KINDS:
            self._sizes = dict(_SIZES)
        if not is_simple(kind) or goes_by_value():  # not remembered, or classes that tasks make would live on
            return None
        self._sizes[kind] = _size_of_object
        return _size_of_object

    def _add_carefully(self, value: object) -> frozenset[type]:
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
        if elapsed < 0:  # the parent has asked between the look at the clock and this, and so it is accounted for
            return 0
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
            if self._meter is not None and self.gathered:
                frames[:0] = self._meter.frame(self.begin - self.gathered, self.begin)
            self._frames = []
            self._words[Page.PHASE] = Phase.WRITE
            self._write(frames)
        self.gathered = 0
        self.urgent = False

    def watch(self, *, wanted: bool) -> None:
        """Measure from now on what tasks take; or no more."""
        if self._meter is not None:
            self._meter.close()
        self._meter = Meter() if wanted else None

    def loaded(self, begin: int) -> None:
        """The function has been unpickled, which is no part of the task: that begins now."""
        self.begin = begin
        if self._meter is not None and not self.gathered:
            self._meter.begin()

    def over(self, first: int) -> None:
        """The call has ended before its last task: write that those from number `first` on have not begun."""
        self._close()
        self._frames += frame(Kind.OVER, first)
        self.flush()

    def give_back(self, first: int, last: int) -> None:
        """Keep, with the rest, that tasks from number `first` to `last` will not begin; the one before may have."""
        self._close()
        self._frames += frame(Kind.RETURN, first, RETURN.pack(last))

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
        if self._timed and len(self._durations) < count:
            self.account(self._clock())  # the parent has asked just behind a task, which has not been accounted for
        seconds = self.work / 1e9
        if count == 1 and pickles:
            self._frames += frame(Kind.RECORD, self.first, RECORD.pack(seconds) + pickles[0], (), OK)
        elif pickles:
            lengths = struct.pack(f"<{count}I", *map(len, pickles))
            self._frames += frame(
                Kind.RECORDS, self.first, b"".join((self._opening(count), lengths, *pickles)), (), TIMED * self._timed
            )
        else:
            try:
                if self._has_objects:
                    self._look_again()
                rows = encode_rows(values) if self._has_objects and count > 1 else None
                data = rows or dumps(values[0] if count == 1 else values, 5)
            except MemoryError:
                raise
            except Exception:
                if not self._has_objects:
                    raise
                self._close_one_by_one()
                self._sizes = dict(_SIZES)  # classes are looked at again
            else:
                if count == 1:
                    self._frames += frame(Kind.RECORD, self.first, RECORD.pack(seconds) + data, (), OK)
                else:
                    flags = TOGETHER | TIMED * self._timed | (ROWS if rows else OBJECTS * self._has_objects)
                    self._frames += frame(Kind.RECORDS, self.first, self._opening(count) + data, (), flags)
        values.clear()
        pickles.clear()
        self._durations.clear()
        self._has_objects = False
        self._bytes = self.work = 0
        self.first += count

    def _look_again(self) -> None:
        """See whether the classes are still what they were: a task may have patched them, or registered a reducer."""
        for kind in set(map(type, self.values)) - _SIZES.keys():
            if not is_simple(kind) or goes_by_value():
                raise TypeError(kind)

    def _opening(self, count: int) -> bytes:
        opening = RECORDS.pack(self.work / 1e9, count)
        if not self._timed:
            return opening
        told = self._durations
        return opening + struct.pack(f"<{count}d", *told, *[0.0] * (count - len(told)))

    def _close_one_by_one(self) -> None:
        """The results that were to share a pickle cannot: a class is not found by its name any more, say. Each has its own outcome."""
        count = len(self.values)
        for number, value in enumerate(self.values, self.first):
            try:
                status, payload = (
                    OK,
                    encode_simple(value) if self._sizes.get(type(value)) is _size_of_object else encode_result(value),
                )
            except BaseException as error:  # whatever it is: the task's outcome
                status, payload = ERROR, encode_error(error)
            opening = RECORD.pack(self.work / count / 1e9)
            self._frames += frame(Kind.RECORD, number, opening + payload.data, payload.buffers, status)
