"""What is whole of a damaged journal, copied into a new one. Nothing is unpickled, and of the damaged one nothing is changed.

::

    FILE ─▶ tables found ─▶ rows, by ranges of ids ─▶ checksum ─▶ file of a large result, its checksum ─▶ NEW, in one transaction
              │ not: page 1 of a new journal         │ fails: with the key that the index has
              ▼ in its place, in a copy              ▼
            again                                   dropped, and counted
      rows that no way leads to ─▶ each leaf alone, in a copy

A table is a tree whose leaves hold rows in the order of their ids. A leaf that cannot be read costs its own rows: from both ends of a range all is read until it fails,
and what is left between is cut in two, down to single ids. The index has a copy of each key with the id of its row: it tells which rows should
have been found, and mends a key. A damaged page that leads to other pages would cost all of theirs: so, if rows are missing, each leaf that has not been come to is put into
the place of the table's first page, in a copy, and read as the whole table.

Each row has a checksum of whatever decides which task's result it is (`schema.checksum`), so what is copied is what was written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core.journal import Journal
from abreast.core.journal_errors import JournalError
from abreast.journal import codec, schema
from abreast.journal.identity import is_unstable
from abreast.journal.large import Files
from abreast.journal.reading import connect, is_ours, is_whole, open_file, would_leave_another
from abreast.journal.store import Store, beginning_of
from abreast.journal.trust import is_yours

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    Row = tuple[Any, ...]

__all__ = ["Salvaged", "salvage"]

_SELECT = f"SELECT id, {schema.COLUMNS} FROM tasks"
_INSERT = f"INSERT INTO tasks (id, {schema.COLUMNS}) VALUES ({', '.join('?' * 14)}) ON CONFLICT DO NOTHING"
_RUNS = "run_id, uuid, started, ended, pid, boot_id, host, argv, fn_name, fn_digest, fn_scheme, status, n_seen"
_SMALLEST = 24
"""Bytes of the smallest row, less than that in truth: a file of so many bytes has no greater ids, whatever a broken page says."""
_FAILURES = 40_000
"""Attempts in a row that found nothing, after which the rest of a table is given up. A page that leads to pages leads to some 20,000 rows."""
_PAGE = 4096

_UNREADABLE = (sqlite3.DatabaseError, MemoryError, OverflowError)


class Salvaged(NamedTuple):
    """What came of it.

    Attributes:
        tasks, runs, files: how many have been copied.
        functions: names of the functions that those runs were of.
        dropped: why, and how many tasks.
        is_all: whether nothing was dropped, as far as that is known.
        remarks: what else should be known, as sentences without their ends.
    """

    tasks: int
    runs: int
    files: int
    functions: list[str]
    dropped: dict[str, int]
    is_all: bool
    remarks: list[str]


def salvage(path: str, new: str, *, trust: bool = False) -> Salvaged:
    """Copy what is whole of the journal `path` into a new journal, `new`.

    That will be yours, so the next run unpickles what is in it. Pickles out of a journal that others may have written are copied only with `trust`.

    Raises:
        JournalError: there is nothing that could be copied, or `new` is there already, or cannot be written; nothing is left of it then.
    """
    ends = ("", "-lock", "-wal", "-shm", "-journal", ".d")
    for end in ends:
        if os.path.lexists(new + end):
            raise JournalError(f"{new + end!r} exists, and is left as it is; give the new journal another path")
    start, found = open_file(path)
    size = found.st_size + _size(f"{path}-wal")
    try:
        with contextlib.closing(Store(Journal(new))) as store, contextlib.ExitStack() as stack:
            source = _Source(path, new, size, takes_pickles=trust or is_yours(path))
            try:
                stack.enter_context(contextlib.closing(source))
                source.open(mended=False)
            except _NoTables:
                with contextlib.suppress(_NoTables):
                    source.open(mended=True)
            result = _copy(source, store)
            if not result.tasks and not result.is_all:
                raise JournalError(f"nothing of {path!r} could be copied: {_why_not(start)}")
        return result
    except BaseException as error:
        for end in ends[:-1]:
            with contextlib.suppress(OSError):
                os.unlink(new + end)
        shutil.rmtree(new + ends[-1], ignore_errors=True)
        if isinstance(error, (sqlite3.Error, OSError)) and not isinstance(error, JournalError):
            why = getattr(error, "strerror", None) or error
            raise JournalError(
                f"the new journal {new!r} cannot be written: {why}; make room or mend that, and do it again"
            ) from error
        raise


def _why_not(start: bytes) -> str:
    with contextlib.suppress(JournalError):
        version = beginning_of("", start, was_journal=False)
        if version is not None and version > schema.VERSION:
            return f"it seems to be of a newer abreast (its version is {version}, this one knows {schema.VERSION}); use that"
        return "nothing in it is whole; start with a new journal"
    return "it is no journal of abreast, or nothing in it is whole; give the path that the run was given"


class _NoTables(Exception):
    """The file does not say where its tables are."""


class _Source:
    """The damaged file, or a copy with another first page."""

    def __init__(self, path: str, beside: str, size: int, *, takes_pickles: bool) -> None:
        self.path = path
        self.beside = beside
        self.takes_pickles = takes_pickles
        self.files = Files(path)
        self.most = size // _SMALLEST + 1
        self.remarks: list[str] = []
        self._connection: sqlite3.Connection | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def ask(self, text: str, values: tuple[Any, ...] = ()) -> Iterator[Row]:
        if self._connection is None:
            raise sqlite3.DatabaseError("there are no tables")
        return self._connection.execute(text, values)

    def open(self, *, mended: bool) -> None:
        """Open the file, or, `mended`, a copy of it with the first page of a new journal: tables have the same places in all journals.

        Raises:
            _NoTables: it does not say where its tables are.
        """
        path = self.path
        if mended:
            self._folder = tempfile.TemporaryDirectory(prefix="salvage-", dir=os.path.dirname(os.path.abspath(self.beside)))
            path = os.path.join(self._folder.name, "copy")
            _copy_with_first_page(self.path, path)
            self.remarks.append("it was read with the first page of a new journal: its own does not say where its tables are")
        connection = None
        try:
            immutable = not mended and _size(f"{path}-wal") == 0
            if not immutable and not mended and would_leave_another(path, os.stat(path)):
                raise _NoTables
            connection = connect(path, immutable=immutable)
            # Read what is there of a file that is shorter than it says, and of tables when others are not understood.
            connection.execute("PRAGMA writable_schema = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 256 << 20)  # results in rows have 1 MiB at most
            connection.execute("BEGIN")
            if not is_ours(connection):
                raise _NoTables
        except (*_UNREADABLE, _NoTables) as error:
            if connection is not None:
                connection.close()
            raise _NoTables from error
        self._connection = connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()


def _copy_with_first_page(path: str, copy: str) -> int:
    """Copy a file and its log, with the first page of a new journal; return where the table of tasks begins."""
    with contextlib.closing(sqlite3.connect(f"{copy}-page", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("PRAGMA synchronous = OFF")
        schema.create(connection, {})
        root = int(connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'tasks'").fetchone()[0])
    with open(f"{copy}-page", "rb") as file:
        page = bytearray(file.read(_PAGE))
    shutil.copyfile(path, copy)
    os.chmod(copy, 0o600)
    with open(copy, "r+b") as file:
        pages = max(1, -(-file.seek(0, os.SEEK_END) // _PAGE))
        file.truncate(pages * _PAGE)
        page[18:20] = b"\2\2" if _size(f"{path}-wal") else b"\1\1"  # with a log, or without
        page[28:32] = pages.to_bytes(4, "big")
        file.seek(0)
        file.write(page)
    if _size(f"{path}-wal"):
        shutil.copyfile(f"{path}-wal", f"{copy}-wal")
    return root


def _of_leaves(source: _Source, seen: bytearray) -> Iterator[Row]:
    """Yield the rows of the leaves of tables whose first ids have not been seen."""
    folder = os.path.dirname(os.path.abspath(source.beside))
    with tempfile.TemporaryDirectory(prefix="salvage-", dir=folder) as temporary:
        path = os.path.join(temporary, "copy")
        root = _copy_with_first_page(source.path, path)
        if os.path.exists(f"{path}-wal"):
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection, contextlib.suppress(*_UNREADABLE):
                connection.execute("PRAGMA writable_schema = ON")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(path, "r+b", buffering=0) as file:
            free = _free_pages(file)
            for number in range(2, file.seek(0, os.SEEK_END) // _PAGE + 1):
                file.seek((number - 1) * _PAGE)
                page = file.read(_PAGE)
                first = _first_id(page)
                if number in free or first is None or (first >> 3 < len(seen) and seen[first >> 3] & 1 << (first & 7)):
                    continue
                file.seek((root - 1) * _PAGE)
                file.write(page)
                with contextlib.suppress(*_UNREADABLE), contextlib.closing(connect(path, immutable=True)) as connection:
                    connection.execute("PRAGMA writable_schema = ON")
                    yield from connection.execute(f"{_SELECT} ORDER BY id").fetchall()


def _free_pages(file: io.RawIOBase) -> set[int]:
    """Return the pages that are not in use, which may hold rows as they were before; as far as that can be read."""
    free: set[int] = set()
    file.seek(32)
    number = int.from_bytes(file.read(4) or b"", "big")
    while number and number not in free:
        free.add(number)
        file.seek((number - 1) * _PAGE)
        page = file.read(_PAGE) or b""
        words = [int.from_bytes(page[place : place + 4], "big") for place in range(0, len(page), 4)]
        free.update(words[2 : 2 + words[1]] if len(words) > 2 else ())
        number = words[0] if words else 0
    return free


def _first_id(page: bytes) -> int | None:
    """Return the first id on a leaf of a table; None if it is none. https://sqlite.org/fileformat2.html, 1.6."""
    if len(page) < _PAGE or page[0] != 13 or page[3:5] == b"\0\0":
        return None
    place = int.from_bytes(page[8:10], "big")
    for _ in range(2):  # the size of the row, then its id
        number = 0
        for _ in range(8):
            if place >= _PAGE:
                return None
            byte = page[place]
            place += 1
            number = number << 7 | byte & 127
            if byte < 128:
                break
    return number


def _copy(source: _Source, store: Store) -> Salvaged:
    harvest = _Harvest(source, store)
    writer = store._writer
    assert writer is not None
    runs, functions, lost_runs = _runs_of(source)
    if lost_runs:
        source.remarks.append(
            "not all of its runs could be read: whether the function has changed since is not known of their results"
        )
    writer.execute("BEGIN IMMEDIATE")
    writer.executemany(f"INSERT INTO runs ({_RUNS}) VALUES ({', '.join('?' * 13)}) ON CONFLICT DO NOTHING", runs)
    done = writer.executemany(_INSERT, harvest.rows()).rowcount
    twice = harvest.given - max(0, done)
    if twice:
        harvest.dropped["there twice"] += twice
    meta = {
        "uuid": str(uuid.uuid4()),
        "salvaged": time.time(),
        "abreast": getattr(sys.modules.get("abreast"), "__version__", ""),
    }
    if harvest.has_unstable:
        meta["unstable"] = 1
    writer.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
    writer.execute("COMMIT")
    if not harvest.is_complete:
        source.remarks.append("pages of it are damaged: more tasks may have been in it")
    assert store._lock is not None
    store._lock.tell(str(meta["uuid"]))
    is_all = not harvest.dropped and harvest.is_complete and not lost_runs
    return Salvaged(max(0, done), len(runs), harvest.files, functions, dict(harvest.dropped), is_all, source.remarks)


def _runs_of(source: _Source) -> tuple[list[Row], list[str], bool]:
    """Return the runs that can be read, names of their functions, and whether some could not."""
    found = _Found()
    rows = []
    for row in _by_ranges(source, f"SELECT {_RUNS} FROM runs", "run_id", found):
        number, run, started, ended, pid, boot, host, argv, name, digest, scheme, status, seen = row
        if isinstance(name, str) and isinstance(started, float):
            texts = [_clean(text) for text in (run, boot, host, argv, name, scheme, status)]
            run, boot, host, argv, name, scheme, status = texts
            digest = digest if isinstance(digest, bytes) else b""
            rows.append((number, run, started, ended, pid, boot, host, argv, name, digest, scheme, status, seen))
        else:
            found.is_complete = False
    return rows, sorted({str(row[8]).replace(":", ".") for row in rows}), not found.is_complete


class _Found:
    """Whether all of a table has been read."""

    is_complete = True


class _Harvest:
    """The rows that are whole."""

    def __init__(self, source: _Source, store: Store) -> None:
        self.source = source
        self.store = store
        self.dropped: Counter[str] = Counter()
        self.given = 0
        self.files = 0
        self.has_unstable = False
        self.is_complete = True
        self._index_is_whole = False

    def rows(self) -> Iterator[Row]:
        expected = self._ids_of_index()
        seen = bytearray(len(expected or b"") or self.source.most // 8 + 1)
        found = _Found()
        doubtful: set[int] = set()
        for row in _by_ranges(self.source, _SELECT, "id", found, expected):
            seen[row[0] >> 3] |= 1 << (row[0] & 7)
            if is_whole(*_decisive(row)):
                yield from self._give(row)
            else:
                doubtful.add(row[0])
        if doubtful:
            for number, key, occurrence in self._index():
                if number in doubtful and (mended := self._mended(number, key, occurrence)):
                    doubtful.discard(number)
                    yield from self._give(mended)
        if doubtful:
            self.dropped["not what was written (checksum)"] += len(doubtful)
        if not found.is_complete and (
            expected is None or any(wanted & ~there for wanted, there in zip(expected, seen, strict=True))
        ):
            for row in _of_leaves(self.source, seen):
                number = row[0]
                if type(number) is not int or not 0 < number <= self.source.most or not is_whole(*_decisive(row)):
                    continue
                bit = 1 << (number & 7)
                if not seen[number >> 3] & bit and (expected is None or expected[number >> 3] & bit):
                    seen[number >> 3] |= bit
                    yield from self._give(row)
        if expected is not None:
            lost = sum((wanted & ~there).bit_count() for wanted, there in zip(expected, seen, strict=True))
            if lost:
                self.dropped["in pages that cannot be read"] += lost
        if expected is None or not (found.is_complete or self.dropped):  # in the latter case the index lacks the same ones
            self.is_complete = False

    def _ids_of_index(self) -> bytearray | None:
        """Return a bit for each id that the index knows; None if it cannot be read, or not all of it."""
        ids = bytearray(self.source.most // 8 + 1)
        for number, *_ in self._index():
            if not 0 < number <= self.source.most:
                return None
            ids[number >> 3] |= 1 << (number & 7)
        return ids if self._index_is_whole else None

    def _index(self) -> Iterator[Row]:
        """Yield id, key and occurrence of what the index knows, as far as it can be read."""
        self._index_is_whole = False
        with contextlib.suppress(*_UNREADABLE):
            rows = self.source.ask("SELECT id, key, occ FROM tasks INDEXED BY ik ORDER BY key, occ")
            for count, row in enumerate(rows, 1):
                if count > self.source.most or type(row[0]) is not int:  # it runs in a circle, say
                    return
                yield row
            self._index_is_whole = True

    def _mended(self, number: int, key: object, occurrence: object) -> Row | None:
        """Return a row with the key that the index has for it, if it is whole so."""
        with contextlib.suppress(*_UNREADABLE):
            for row in self.source.ask(f"{_SELECT} WHERE id = ?", (number,)):
                mended = (number, key, occurrence, *row[3:])
                if is_whole(*_decisive(mended)):
                    return mended
        return None

    def _give(self, row: Row) -> Iterator[Row]:
        number, key, occurrence, index, status, attempts, run, started, duration, kind, payload, crc, error_type, error_text = row
        if kind & ~codec.IN_FILE == codec.PICKLE and not self.source.takes_pickles:
            self.dropped["pickled, where others may have written"] += 1
            return
        if kind & codec.IN_FILE:
            try:
                self.store.files.write(self.source.files.read(payload or b""))
            except JournalError:  # of reading; what is raised by writing is an OSError
                self.dropped["whose files are gone or damaged"] += 1
                return
            self.files += 1
        self.given += 1
        self.has_unstable |= is_unstable(key)
        yield (
            number,
            key,
            occurrence,
            index if type(index) is int else None,
            status,
            attempts if type(attempts) is int and 0 <= attempts < 1 << 31 else 1,
            run if type(run) is int else None,
            started if isinstance(started, float) else 0.0,
            duration if isinstance(duration, float) else 0.0,
            kind,
            payload,
            crc,
            _clean(error_type),
            _clean(error_text),
        )


def _decisive(row: Row) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Return key, occurrence, status, codec, payload, checksum."""
    return row[1], row[2], row[4], row[9], row[10], row[11]


def _by_ranges(source: _Source, select: str, key: str, found: _Found, expected: bytearray | None = None) -> Iterator[Row]:
    """Yield the rows of a table that can be read, whose first column is `key`, its id.

    What fails is cut in two as long as it has any of the `expected` ids, if those are known: a bit for each.
    """
    failures = 0
    ranges = [(1, source.most)]
    while ranges:
        low, high = ranges.pop()
        for order in ("", " DESC"):
            is_readable = False
            try:
                # Of a single id the next row is not looked at: Python asks for that before it gives this one, and would lose it.
                where = f"{key} = ? AND ?" if low == high else f"{key} BETWEEN ? AND ? ORDER BY {key}{order}"
                for row in source.ask(f"{select} WHERE {where}", (low, high)):
                    number = row[0]
                    if type(number) is not int or not low <= number <= high:
                        break  # a page that is not where it belongs
                    if order:
                        high = number - 1
                    else:
                        low = number + 1
                    failures = 0
                    yield row
                else:
                    is_readable = True
            except _UNREADABLE:
                pass
            if is_readable or low >= high:
                break
        if is_readable:
            continue
        found.is_complete = False
        failures += 1
        if failures > _FAILURES:
            return
        if low < high and (expected is None or any(expected[low >> 3 : (high >> 3) + 1])):
            middle = (low + high) // 2
            ranges += [(middle + 1, high), (low, middle)]


def _clean(text: object) -> str | None:
    """Return a text as it can be written."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else None


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
