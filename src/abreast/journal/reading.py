"""A journal that is only looked into: by anybody who may read it, also while a run writes it, and whoever it is from.

Nothing of it is believed, and nothing is unpickled. Before a row is read the tables must be those that abreast makes, word for word: a view in their place could
compute for ever. Numbers may be anything, texts may hold whatever a terminal obeys: who shows them makes that visible.

Nothing is written, either::

    there is a log (FILE-wal)      mode=ro: SQLite reads both; the one that writes is not held up
    a run has it                   the same
    else                           immutable=1: the file alone, without a lock. With mode=ro SQLite would leave an empty log beside it, and
                                   the owner of the journal would find a log that belongs to somebody else. Whether the file was changed
                                   meanwhile is looked at in the end (`check_unchanged`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import stat
import time
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from abreast.core.journal_errors import JournalCorrupt, JournalError
from abreast.journal import codec, schema
from abreast.journal.identity import shown_key
from abreast.journal.large import Files
from abreast.journal.locking import Holder, holder_of
from abreast.journal.store import CHECKED_UP_TO, beginning_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

__all__ = ["Overview", "Reading", "SeenRun", "SeenTask", "connect", "open_file", "reading_errors"]

_COLUMNS = f"id, {schema.COLUMNS}"


class SeenRun(NamedTuple):
    """A run, as the journal tells of it.

    Attributes:
        number: of the run, from 1.
        function: its module and name.
        started, ended: as `time.time`; `ended` is 0.0 if that is not recorded.
        pid, host: who ran it.
        how: ``running``, ``finished``, ``stopped`` (by an error, or by who did not want more), ``killed``; or ``running or killed`` where
            it cannot be found out whether its lock is held.
        inputs: how many it has read; 0 while it goes on.
        recorded: how many tasks have their last record from it.
        last: when the last of those ended; 0.0 if there is none.
    """

    number: int
    function: str
    started: float
    ended: float
    pid: int
    host: str
    how: str
    inputs: int
    recorded: int
    last: float


class Overview(NamedTuple):
    """What is in a journal, in numbers; sizes are bytes.

    Attributes:
        runs: all of them.
        tasks: how many, by status.
        json, pickles: results, and their size, without those in files.
        files: results in files, and the size of the files.
        missing: results whose files are not there.
        not_kept: results that could not be recorded.
        size, log: of the file, and of the log beside it.
        created: when it was made, as `time.time`.
        made_by: versions of abreast and of Python.
        holder: who has it.
        now: when this was found out.
    """

    runs: list[SeenRun]
    tasks: dict[str, int]
    json: tuple[int, int]
    pickles: tuple[int, int]
    files: tuple[int, int]
    missing: int
    not_kept: int
    size: int
    log: int
    created: float
    made_by: tuple[str, str]
    holder: Holder
    now: float


class SeenTask(NamedTuple):
    """A task, as the journal tells of it.

    Attributes:
        place: its index.
        key, occurrence, status, attempts, run, started, duration: see `core.outcome`; the key is a text, digests in base 16.
        is_text: whether the key was a text.
        format: ``json``, ``pickle``, or nothing.
        size: bytes of the result, -1 if its file is not there.
        payload: the bytes of the result, or the name of the file that holds them.
        is_in_file: which of both.
        error_type, error_text: of a task that failed; the text with its traceback.
    """

    place: int
    key: str
    is_text: bool
    occurrence: int
    status: str
    attempts: int
    run: int
    started: float
    duration: float
    format: str
    size: int
    payload: bytes
    is_in_file: bool
    error_type: str
    error_text: str


class Reading:
    """A journal that is looked into, at one moment: what is written meanwhile is not seen.

    Attributes:
        path: the file, as it was named.
        holder: who has it.
    """

    def __init__(self, path: str) -> None:
        """Open a journal.

        Raises:
            JournalCorrupt: it is damaged.
            JournalError: it is no journal, of a newer version, or cannot be read; the text names it, and says what to do.
        """
        self.path = path
        self.holder = holder_of(os.path.abspath(path))
        self._files = Files(path)
        start, self._found = open_file(path)
        _check_beginning(path, start, self.holder)
        self._is_immutable = _size(f"{path}-wal") <= 0 and not self.holder.is_held
        if not self._is_immutable and would_leave_another(path, self._found):
            raise _without_index(path, f"there is no '{path}-shm', and it is not yours to make")
        with reading_errors(path):
            self._connection = connect(path, immutable=self._is_immutable)
            try:
                self._check()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()

    def _check(self) -> None:
        ask = self._connection.execute
        ask("BEGIN")
        if not is_ours(self._connection):
            raise _damaged(self.path, "its tables are not those that abreast makes")
        if self._found.st_size <= CHECKED_UP_TO:
            problems = [str(row[0]) for row in ask("PRAGMA quick_check(3)")]
            if problems != ["ok"]:
                raise _damaged(self.path, "; ".join(problems))

    def check_unchanged(self) -> None:
        """To be called when all has been read.

        Raises:
            JournalError: a run has begun meanwhile, and written to what was read without a lock.
        """
        if self._is_immutable:
            with reading_errors(self.path):
                found = os.stat(self.path)
            if (found.st_ino, found.st_mtime_ns, found.st_size) != (
                self._found.st_ino,
                self._found.st_mtime_ns,
                self._found.st_size,
            ):
                raise JournalError(f"the journal {self.path!r} was written while it was being read; do that again")

    # ---- in numbers

    def overview(self) -> Overview:
        """Return what is in it, in numbers. Reads the whole table once, without the results.

        Raises:
            JournalCorrupt, JournalError: it cannot be read.
        """
        tasks = dict.fromkeys(schema.STATUS, 0)
        of_runs: dict[int, tuple[int, float]] = {}
        kept = {codec.JSON: (0, 0), codec.PICKLE: (0, 0), codec.NOTHING: (0, 0)}
        with reading_errors(self.path):
            for status, kind, run, count, size, last in self._connection.execute(
                "SELECT status, codec, run_id, count(*), sum(length(payload)), max(t_start + dur) FROM tasks GROUP BY 1, 2, 3"
            ):
                name = _status(status)
                tasks[name] = tasks.get(name, 0) + count
                before, latest = of_runs.get(_whole(run), (0, 0.0))
                of_runs[_whole(run)] = before + count, max(latest, _real(last))
                if status == schema.OK and not _whole(kind) & codec.IN_FILE:
                    what = codec.JSON if kind == codec.JSON_TEXT else kind if kind in kept else codec.NOTHING
                    kept[what] = kept[what][0] + count, kept[what][1] + _whole(size)
            files, missing = self._files_named()
            runs = self._runs(of_runs)
            told = {str(name): value for name, value in self._connection.execute("SELECT k, v FROM meta")}
        return Overview(
            runs,
            {name: count for name, count in tasks.items() if count},
            kept[codec.JSON],
            kept[codec.PICKLE],
            files,
            missing,
            kept[codec.NOTHING][0],
            self._found.st_size,
            max(0, _size(f"{self.path}-wal")),
            _real(told.get("created")),
            (str(told.get("abreast", "")), str(told.get("python", ""))),
            self.holder,
            time.time(),
        )

    def _files_named(self) -> tuple[tuple[int, int], int]:
        sizes: dict[bytes, int] = {}
        count = missing = 0
        for (payload,) in self._connection.execute(
            f"SELECT payload FROM tasks WHERE status = {schema.OK} AND codec >= {codec.IN_FILE}"
        ):
            name = payload if isinstance(payload, bytes) else b""
            if name not in sizes:
                sizes[name] = self._files.size(name)
            count += sizes[name] >= 0
            missing += sizes[name] < 0
        return (count, sum(size for size in sizes.values() if size > 0)), missing

    def _runs(self, recorded: dict[int, tuple[int, float]]) -> list[SeenRun]:
        rows = self._connection.execute(
            "SELECT run_id, fn_name, started, ended, pid, host, status, n_seen FROM runs ORDER BY run_id"
        ).fetchall()
        runs = []
        for number, name, started, ended, pid, host, status, inputs in rows:
            how = _text(status)
            if how == "running":
                how = self._how(_whole(pid), is_last=number == rows[-1][0])
            runs.append(
                SeenRun(
                    number,
                    _text(name),
                    _real(started),
                    _real(ended),
                    _whole(pid),
                    _text(host),
                    how,
                    _whole(inputs),
                    *recorded.get(number, (0, 0.0)),
                )
            )
        return runs

    def _how(self, pid: int, *, is_last: bool) -> str:
        """Whether a run whose end is not recorded goes on: whoever goes on has the lock."""
        holder = self.holder
        if holder.is_held is None and is_last:
            return "running or killed"
        return "running" if holder.is_held and is_last and holder.pid in (0, pid) else "killed"

    # ---- one by one

    def count(self, statuses: Iterable[int]) -> int:
        """Return how many tasks have one of these statuses."""
        with reading_errors(self.path):
            numbers = ", ".join(map(str, statuses))
            return int(self._connection.execute(f"SELECT count(*) FROM tasks WHERE status IN ({numbers})").fetchone()[0])

    def running(self) -> int:
        """Return the number of the run that goes on; 0 if none does."""
        with reading_errors(self.path):
            runs = self._runs({})
        return runs[-1].number if runs and runs[-1].how.startswith("running") else 0

    def tasks(self, statuses: Iterable[int] | None = None) -> Iterator[SeenTask]:
        """Yield tasks in the order of their indexes, then of their records; those of some statuses, or all.

        Raises:
            JournalCorrupt: a row is not what was written.
            JournalError: it cannot be read.
        """
        where = "" if statuses is None else f"WHERE status IN ({', '.join(map(str, statuses))})"
        with reading_errors(self.path):
            # Numbers are sorted, and not rows, which may be large.
            ids = array("q", (row[0] for row in self._connection.execute(f"SELECT id FROM tasks {where} ORDER BY idx, id")))
        one = f"SELECT {_COLUMNS} FROM tasks WHERE id = ?"
        for number in ids:
            with reading_errors(self.path):
                row = self._connection.execute(one, (number,)).fetchone()
            yield self._task(row)

    def _task(self, row: tuple[Any, ...]) -> SeenTask:
        _, key, occurrence, index, status, attempts, run, started, duration, kind, payload, crc, error_type, error_text = row
        if not is_whole(key, occurrence, status, kind, payload, crc):
            raise _damaged(self.path, f"the record of task {_whole(index)} is not what was written")
        payload = b"" if payload is None else payload
        is_in_file = bool(kind & codec.IN_FILE)
        return SeenTask(
            _whole(index),
            shown_key(key),
            isinstance(key, str),
            occurrence,
            _status(status),
            _whole(attempts),
            _whole(run),
            _real(started),
            _real(duration),
            {codec.JSON: "json", codec.JSON_TEXT: "json", codec.PICKLE: "pickle"}.get(kind & ~codec.IN_FILE, ""),
            self._files.size(payload) if is_in_file else len(payload),
            payload,
            is_in_file,
            _text(error_type),
            _text(error_text),
        )

    def json_of(self, task: SeenTask) -> str:
        """Return the result of a task whose format is ``json``, as one line of JSON that shows whatever a terminal would obey.

        Raises:
            JournalCorrupt: it is not what was written, or no JSON.
        """
        data = self._files.read(task.payload) if task.is_in_file else task.payload
        try:
            text = data.decode("utf-8", "surrogatepass")
            value = json.loads(text, parse_constant=_refuse)
            if not {"\n", "\r", "\t"}.isdisjoint(text):  # between two values: a line end would begin another line of the output
                text = json.dumps(value, ensure_ascii=False)
        except (ValueError, RecursionError) as error:
            raise _damaged(self.path, f"the result of task {task.place} is not JSON") from error
        return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# ---- opening


def open_file(path: str) -> tuple[bytes, os.stat_result]:
    """Return the first 100 bytes of a regular file that can be read, and what the system knows of it.

    Raises:
        JournalError: it is none.
    """
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                raise JournalError(f"{path!r} is a folder; give the path of the journal's file")
            if not stat.S_ISREG(found.st_mode):
                raise JournalError(f"{path!r} is not a regular file; give the path of the journal's file")
            return os.read(fd, 100), found
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise JournalError(f"there is no journal {path!r}; give the path that the run was given") from None
    except IsADirectoryError:  # Windows
        raise JournalError(f"{path!r} is a folder; give the path of the journal's file") from None
    except PermissionError as error:
        raise JournalError(
            f"you may not read the journal {path!r}: {error.strerror}; ask its owner, or read it as that user"
        ) from None
    except (OSError, ValueError) as error:
        raise JournalError(
            f"the journal {path!r} cannot be read: {getattr(error, 'strerror', None) or error}; give another path"
        ) from None


def _check_beginning(path: str, start: bytes, holder: Holder) -> None:
    try:
        version = beginning_of(path, start, was_journal=bool(holder.uuid))
    except JournalCorrupt:
        raise
    except JournalError:
        what = "is a database of another program" if start.startswith(b"SQLite format 3\0") else "is not a journal of abreast"
        raise JournalError(f"{path!r} {what}; give the path that the run was given") from None
    if version is None:
        raise JournalError(f"{path!r} is empty, and not a journal yet; give the path that the run was given")
    if version > schema.VERSION:
        raise JournalError(
            f"the journal {path!r} was written by a newer abreast (its version is {version}, this one knows {schema.VERSION}); look at it with that"
        )
    if version < schema.VERSION:
        raise JournalError(
            f"the journal {path!r} was written by an older abreast (its version is {version}, this one is {schema.VERSION}); the next run on it makes it a new one"
        )


def connect(path: str, *, immutable: bool) -> sqlite3.Connection:
    """Open a file that may be anybody's, to be read."""
    name = quote(os.fsencode(os.path.abspath(path)))
    connection = sqlite3.connect(f"file:{name}?mode=ro{'&immutable=1' * immutable}", uri=True, isolation_level=None, timeout=10.0)
    try:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        for word in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):  # https://sqlite.org/security.html
            connection.execute(f"PRAGMA {word}")
        connection.execute("PRAGMA cache_size = -16384")  # kB
    except BaseException:
        connection.close()
        raise
    return connection


def would_leave_another(path: str, found: os.stat_result) -> bool:
    """Whether SQLite, to read the log, would make a file beside it that is not its owner's, who then could not use the journal."""
    return os.name == "posix" and os.geteuid() not in (0, found.st_uid) and not os.path.lexists(f"{path}-shm")


def is_ours(connection: sqlite3.Connection) -> bool:
    """Whether its tables are those that abreast makes, and there is nothing else."""
    there = {
        (name, text)
        for name, text in connection.execute("SELECT name, sql FROM sqlite_master")
        if not str(name).startswith("sqlite_")  # what SQLite has made for itself
    }
    return there == schema.STATEMENTS


def is_whole(key: Any, occurrence: Any, status: Any, kind: Any, payload: Any, crc: Any) -> bool:
    """Whether a row says what was written."""
    try:
        return bool(
            type(occurrence) is type(status) is type(kind) is int
            and schema.checksum(key, occurrence, status, kind, payload) == crc
        )
    except (TypeError, ValueError):
        return False


@contextlib.contextmanager
def reading_errors(path: str) -> Iterator[None]:
    """Raise what SQLite raises as an error that names the file, and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise JournalError(f"the journal {path!r} is locked by another program; end that, and look again") from error
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise _without_index(path, str(error)) from error
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM):
            raise JournalError(
                f"the journal {path!r} cannot be read: {error}; copy it to another disk, and look there"
            ) from error
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise JournalError(f"the journal {path!r} cannot be read: {error.strerror or error}; look again") from error
    except (MemoryError, OverflowError) as error:
        raise _damaged(path, f"a row is too large to be read: {type(error).__name__}") from error


def _without_index(path: str, why: str) -> JournalError:
    return JournalError(
        f"the journal {path!r} has a log that cannot be read here ({why}); copy {path!r} and '{path}-wal' into a folder of yours, and look there"
    )


def _damaged(path: str, why: str) -> JournalCorrupt:
    return JournalCorrupt(
        f"the journal {path!r} is damaged ({why}); `abreast journal salvage {path} NEW` copies what is whole into a new one"
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


# ---- what may be anything


def _whole(value: object) -> int:
    return value if type(value) is int else 0


def _real(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _status(value: object) -> str:
    return schema.STATUS[value] if type(value) is int and 0 <= value < len(schema.STATUS) else "unknown"
