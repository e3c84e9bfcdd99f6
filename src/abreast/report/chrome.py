"""The trace file: a recording as Chrome trace-event JSON, for Perfetto and its like, which we read back.

::

    {"otherData":{"producer":"abreast 0.1.0","format":1,…},     what it is
    "displayTimeUnit":"ms",
    "abreast":{…                                                the recording, exact (stored.py): all that is read back
    "traceEvents":[
    {"name":"square","cat":"task","ph":"X",…},                  the picture (events.py), an event a line
    ]}

The recording stands first: nothing behind it has to be read, and a file that was cut off has most of it.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO, NoReturn, cast

from abreast.core.errors import RecordingError
from abreast.report import events, stored
from abreast.report.files import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader

    from abreast.core.recording import Recording

__all__ = ["read_trace", "write_trace"]

FORMAT = 1
"""Raised when an older reader would misunderstand a file; fields more or less need no other number."""

BEGIN = re.compile(rb'\s*\{\s*"otherData"\s*:\s*\{\s*"producer"\s*:\s*"abreast ([^"]{1,80})"\s*,\s*"format"\s*:\s*(\d{1,9})')
EVENTS = b'\n"traceEvents":['
CHUNK = 1 << 20
LARGEST = 1 << 31
"""Bytes of a recording that are read; a million attempts are 85 MB. What is larger would fill the memory, or was made to."""
LARGEST_FOREIGN = 1 << 26
"""Bytes that are looked at to say what else a file is."""


def write_trace(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Write a recording as a trace file, compressed if its name ends in ``.gz``.

    Perfetto (ui.perfetto.dev), chrome://tracing and editors show it, and `read_trace` gives back an equal recording. It is written beside its place, and
    renamed when it is whole; a link at the place is replaced, not followed.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    with writing(path) as file:
        if os.fspath(path).endswith(".gz"):
            # Level 6 takes 0.4 s more for 100,000 attempts, and spares a tenth.
            with gzip.GzipFile("", "wb", 3, file, mtime=0) as packed:
                _write(recording, cast("BinaryIO", packed))
        else:
            _write(recording, file)


def _write(recording: Recording, file: BinaryIO) -> None:
    lines = _lines(recording)
    while block := "".join(islice(lines, 1000)):
        # Of ASCII alone, so that a byte is a character. DEL is one that JSON leaves as it is, and Perfetto ends at.
        file.write(block.replace("\x7f", "\\u007f").encode("ascii"))


def _lines(recording: Recording) -> Iterator[str]:
    host = recording.host
    other = {
        "producer": f"abreast {host.abreast}",
        "format": FORMAT,
        "clock": "perf_counter_ns",
        "epoch_ns": recording.zero + events.base(recording),
        "host": host._asdict(),
        "totals": {f"{work.serial} {work.name}": work._asdict() for work in recording.works},
        "dropped": recording.dropped,
        "dropped_spans": recording.dropped_spans,
        "recording_ns": recording.cost,
        "complete": recording.complete,
    }
    yield f'{{"otherData":{stored.encode(other)},\n"displayTimeUnit":"ms",\n'
    yield from stored.lines(recording)
    yield '"traceEvents":[\n'
    picture = events.lines(recording)
    yield next(picture, "")
    yield from chain.from_iterable((",\n", line) for line in picture)
    yield "\n]}\n"


def read_trace(path: str | os.PathLike[str], *, on_cut: Callable[[str], None] | None = None) -> Recording:
    """Read a trace file of abreast, compressed or not, and return the recording, equal to the one that was written.

    Of a file that was cut off, what is there is returned: then ``complete`` is False, and ``dropped`` counts what is missing; the sums of the works are
    those of all. Events that another program has put into the file, or changed, are not read.

    Args:
        path: the file.
        on_cut: told in a sentence what is missing, if something is.

    Raises:
        RecordingError: there is no such file, or it is none of ours, damaged, or of a newer abreast.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            start = file.peek(2)[:2]
            packed = start == b"\x1f\x8b"
            data, is_whole = _own_part(gzip.GzipFile(fileobj=file) if packed else file)
    except IsADirectoryError:
        _refuse(name, "is a directory; give a trace file in it")
    except FileNotFoundError:
        _refuse(name, "does not exist; record(path) and run.save(path) write a trace file")
    except (gzip.BadGzipFile, zlib.error) as error:
        _refuse(name, f"is damaged: what it holds cannot be unpacked ({error}); get another copy of it, or record again")
    except OSError as error:
        _refuse(name, f"cannot be read: {error.strerror or error}")
    begins = BEGIN.match(data)
    if begins is not None and int(begins[2]) > FORMAT:
        theirs = begins[1].decode(errors="replace")
        _refuse(
            name,
            f"was written by a newer abreast ({theirs!r}, format {int(begins[2])}); this one reads format {FORMAT}: install that one",
        )
    try:
        if begins is None:
            _refuse(name, _described(data))
        text = data.decode()
        start_of_ours = text.find("\n" + stored.BEGIN) + 1
        if not start_of_ours:  # another program has laid it out anew; or too little is left
            return stored.read(text)
        if is_whole:
            return stored.parse(text[start_of_ours:])
        recording, lost = stored.parse_cut(text[start_of_ours:])
        if lost and on_cut is not None:
            on_cut(f"{name!r} was cut off: {lost} attempts and waits at its end are missing; sums are those of all")
        return recording
    except stored.Damaged as error:
        _refuse(name, f"is damaged: {error}; get another copy of it, or record again")
    except (ValueError, RecursionError):
        _refuse(
            name,
            "is damaged, or cut off in its first lines, and nothing of it can be read; get another copy of it, or record again",
        )


def _refuse(name: str, what: str) -> NoReturn:
    raise RecordingError(f"{name!r} {what}") from None


def _own_part(file: BufferedReader | gzip.GzipFile) -> tuple[bytes, bool]:
    """Return what stands before the events, and whether it is whole.

    The rest of a compressed file is read as well: only its end says whether it is undamaged.
    """
    data = bytearray()
    is_whole = False
    try:
        while chunk := file.read1(CHUNK):  # `read` would lose what stands before a cut
            if is_whole:
                continue
            data += chunk
            is_ours = BEGIN.match(data)
            found = data.find(EVENTS, max(0, len(data) - len(chunk) - len(EVENTS)))
            if is_ours and found >= 0:
                del data[found + 1 :]
                is_whole = True
                if not isinstance(file, gzip.GzipFile):
                    break
            elif not is_ours and len(data) > LARGEST_FOREIGN:
                break
            elif len(data) > LARGEST:
                raise OSError(27, f"it has more than {LARGEST >> 20} MB before its events")
    except EOFError:  # compressed, and cut off
        pass
    return bytes(data), is_whole


def _described(data: bytes) -> str:
    """Say what else a file is."""
    import json

    ours = "this reads what record(path) and run.save(path) have written"
    if not data:
        return f"is empty; {ours}"
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        if re.match(rb'\s*(\{\s*"traceEvents"|\[\s*\{\s*"(ph|name|pid|cat|ts)")', data):
            return f"is a trace of another program; ui.perfetto.dev shows it, {ours}"
        return f"is no trace file; {ours}"
    found = value.get("traceEvents") if isinstance(value, dict) else value
    if isinstance(found, list) and found and all(isinstance(event, dict) and "ph" in event for event in found[:100]):
        return f"is a trace of another program, with {len(found)} events; ui.perfetto.dev shows it, {ours}"
    return f"is JSON, but no trace file of abreast; {ours}"
