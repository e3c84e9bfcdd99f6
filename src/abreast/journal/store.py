"""The open journal of a run: rows in, rows out, and whatever may be wrong with the file.

::

    the thread that asks for results ── look_up ──▶ [reader]──┐
                                                              ├── one file, SQLite in WAL mode: who reads does not wait for who writes
    the journal's own thread ────────── write ────▶ [writer]──┘

Two connections, each used by one thread at a time. Only the process that has opened it touches it: a forked child lets go of the connections
without closing them (closing would remove the log that the parent still writes: https://sqlite.org/howtocorrupt.html, 2.6).

Opened in this order, so that nothing is read that could be somebody else's, and nothing is written to what is not ours: folder, lock, owner and mode,
beginning of the file (is it ours?), version, `quick_check`, and only then its content. `_open` guards nothing: it is what a forked child has to forget.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import socket
import sqlite3
import sys
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from abreast.core import failpoints
from abreast.core.journal_errors import JournalCorrupt, JournalError
from abreast.journal import locking, log, schema
from abreast.journal.codec import IN_FILE
from abreast.journal.large import LARGE, Files
from abreast.journal.trust import NETWORKS, check_folder, check_others, file_system_of, open_checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from abreast.core.journal import Journal

__all__ = ["Recorded", "Row", "Store", "beginning_of", "forked", "translated"]

T = TypeVar("T")

CHECKED_UP_TO = 1 << 30
"""Bytes of a file that is checked whole when it is opened."""

_CHUNK = 256
_ENDS = ("-wal", "-shm", "-journal", ".d")
_CLASSES = (int, int, int, float, float, int)
"""Of what a `Recorded` begins with."""
_PATIENCE = 10.0
"""Seconds to wait for another program that has the file locked just now, as `sqlite3` on the command line."""


class Row(NamedTuple):
    """What is written for a task."""

    key: bytes | str
    occurrence: int
    place: int
    """Its index."""
    status: int
    attempts: int
    started: float
    duration: float
    codec: int = 0
    payload: bytes | None = None
    error_type: str | None = None
    error_text: str | None = None


class Recorded(NamedTuple):
    """What has been recorded of a task."""

    status: int
    attempts: int
    run: int
    started: float
    duration: float
    codec: int
    payload: bytes | None
    crc: int | None


class Store:
    """An open journal.

    Attributes:
        path: the file, absolute.
        warnings: what the user should know.
        is_empty: whether nothing had been recorded when it was opened.
        run: the number of this run.
    """

    def __init__(self, journal: Journal) -> None:
        """Open a journal, make it if it is not there.

        Raises:
            JournalBusy, JournalTrustError, JournalCorrupt, JournalError: see there.
        """
        self.path = path = os.path.abspath(journal.path)
        self.warnings: list[str] = []
        self.run = 0
        self._journal = journal
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._lock: locking.Lock | None = None
        self._file = (0, 0)
        self._has_log = False
        self.files = Files(path)
        check_folder(path, trust=journal.trust)
        if os.path.isdir(path):
            raise JournalError(f"the journal {path!r} is a folder; give the path of a file")
        if os.path.lexists(path) and not os.path.lexists(
            f"{path}-lock"
        ):  # nobody has it open; and no lock is to be left beside what is no journal
            fd, _ = open_checked(path, trust=journal.trust)
            try:
                beginning_of(path, os.read(fd, 100), was_journal=False)
            finally:
                os.close(fd)
        self._lock = lock = locking.Lock(path, trust=journal.trust)
        _open.add(self)
        try:
            self._open(journal, lock)
        except BaseException:
            _open.discard(self)
            self._close()
            raise

    # ---- opening

    def _open(self, journal: Journal, lock: locking.Lock) -> None:
        path = self.path
        with translated(path):
            if not os.path.lexists(path):
                check_others((f"{path}{end}" for end in _ENDS), trust=journal.trust)
                if log.committed_of(f"{path}-wal"):  # which SQLite would delete, beside a file without content
                    raise _gone(path, "is gone, but its log is there, which may hold all that was recorded")
                if lock.uuid:
                    lock.tell("")  # it was deleted: what comes is a new one, also if this process dies before it is complete
            fd, _ = open_checked(path, trust=journal.trust)
            try:
                found, start = os.fstat(fd), os.read(fd, 100)
                if (found.st_dev, found.st_ino) in _inherited:
                    found = _renew(path, fd)
            finally:
                os.close(fd)  # before SQLite opens it: closing it later would free SQLite's locks
            self._file, size = (found.st_dev, found.st_ino), found.st_size
        check_others((f"{path}{end}" for end in _ENDS), trust=journal.trust)
        with translated(path):
            committed = log.committed_of(f"{path}-wal")
        is_new = beginning_of(path, start, was_journal=bool(lock.uuid) or (not size and bool(committed))) is None
        with translated(path):
            self._writer = writer = self._connect()
            if not is_new and not lock.uuid:
                is_new = not writer.execute("PRAGMA page_count").fetchone()[
                    0
                ]  # killed while it was made, which SQLite has undone
            if is_new:
                if failpoints.hit is not None:
                    failpoints.hit("journal.before_create")
                schema.create(writer, self._meta())
                if failpoints.hit is not None:
                    failpoints.hit("journal.after_create")
            else:
                self._check(writer, size)
            self._set_up(writer)
            check_others(
                (f"{path}{end}" for end in _ENDS), trust=journal.trust
            )  # nobody has put one there meanwhile: nothing has been unpickled
            self._look_at_log(writer, committed)
            if failpoints.hit is not None:
                failpoints.hit("journal.before_tell")
            told = dict(writer.execute("SELECT k, v FROM meta"))
            lock.tell(str(told.get("uuid", "")))
            self.is_empty = writer.execute("SELECT 1 FROM tasks LIMIT 1").fetchone() is None
            self._has_unstable = "unstable" in told
            if os.path.isdir(self.files.folder):
                names = writer.execute(f"SELECT payload FROM tasks WHERE codec >= {IN_FILE}")
                self.files.sweep({name.decode("ascii", "replace") for (name,) in names if isinstance(name, bytes)})

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cache_size = -16384")  # kB
        except BaseException:
            connection.close()
            raise
        return connection

    def _meta(self) -> dict[str, object]:
        return {
            "uuid": str(uuid.uuid4()),
            "created": time.time(),
            "abreast": getattr(sys.modules.get("abreast"), "__version__", ""),
            "python": platform.python_version(),
        }

    def _check(self, writer: sqlite3.Connection, size: int) -> None:
        """Look whether the file is whole, and of a version that is known; make this version of an older one."""
        version = writer.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            raise JournalError(
                f"the journal {self.path!r} was written by a newer abreast (its version is {version}, this one knows {schema.VERSION}); use that, or a new journal"
            )
        if self._journal.check or (self._journal.check is None and size <= CHECKED_UP_TO):
            problems = [row[0] for row in writer.execute("PRAGMA quick_check(3)")]
            if problems != ["ok"]:
                raise _corrupt(self.path, "; ".join(map(str, problems)))
        if version < schema.VERSION:
            self._migrate(writer, version)
        there = {name for (name,) in writer.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")}
        if not {"meta", "runs", "tasks", "ik"} <= there:
            raise _corrupt(self.path, "a table is missing")

    def _migrate(self, writer: sqlite3.Connection, version: int) -> None:
        missing = [number for number in range(version, schema.VERSION) if number not in schema.MIGRATIONS]
        if missing:
            raise JournalError(
                f"the journal {self.path!r} has version {version}, from which this abreast (version {schema.VERSION}) knows no way; use the abreast that wrote it"
            )
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._copy(writer, f"{self.path}.version{version}")
        if failpoints.hit is not None:
            failpoints.hit("journal.before_migration")
        writer.execute("BEGIN IMMEDIATE")
        try:
            for number in range(version, schema.VERSION):
                schema.MIGRATIONS[number](writer)
            writer.execute(f"PRAGMA user_version = {schema.VERSION}")
            if failpoints.hit is not None:
                failpoints.hit("journal.before_migrated")
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    def _copy(self, writer: sqlite3.Connection, path: str) -> None:
        """Make a copy, whole or not at all; not by way of the file itself, since closing that would free SQLite's locks."""
        temporary = _temporary(path)
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with contextlib.closing(sqlite3.connect(temporary)) as target:
                writer.backup(target)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _set_up(self, writer: sqlite3.Connection) -> None:
        kind = file_system_of(self.path)
        if kind.startswith(NETWORKS):
            # No shared memory between machines, which the write-ahead log needs.
            writer.execute("PRAGMA journal_mode = DELETE")
            writer.execute("PRAGMA synchronous = FULL")
            self.warnings.append(
                f"the journal {self.path!r} is on a file system of a network ({kind}): it is written more slowly there, and is as safe as that keeps its promises; "
                "a local disk is better"
            )
            return
        mode = writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        self._has_log = mode == "wal"
        power = self._journal.durability == "power"
        writer.execute(f"PRAGMA synchronous = {'FULL' if power or mode != 'wal' else 'NORMAL'}")
        writer.execute("PRAGMA wal_autocheckpoint = 4000")
        writer.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        if sys.platform == "darwin" and power:
            writer.execute("PRAGMA fullfsync = 1")
            writer.execute("PRAGMA checkpoint_fullfsync = 1")

    def _look_at_log(self, writer: sqlite3.Connection, committed: list[int]) -> None:
        """See whether what was committed to the log has been found there. The last commit may be missing: it was just being written, if so."""
        if committed:
            frames = writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            if sum(number > frames for number in committed) >= 2:
                writer.execute("INSERT OR REPLACE INTO meta VALUES ('lost', ?)", (time.time(),))
                self.warnings.append(
                    f"the log of the journal {self.path!r} is not whole, after a power cut or by damage: what was recorded last is lost, and runs again"
                )
        if self._journal.at_most_once and writer.execute("SELECT 1 FROM meta WHERE k = 'lost'").fetchone() is not None:
            raise JournalCorrupt(
                f"the log of the journal {self.path!r} was not whole, after a power cut or by damage: which tasks had been started last is not known, so none can be "
                "started at most once; find out what was done, and give those that are left to a new journal"
            )

    # ---- runs

    def last_run(self) -> tuple[str, bytes, str] | None:
        """Return name, digest and scheme of the function that ran last."""
        with translated(self.path):
            assert self._writer is not None
            found = self._writer.execute("SELECT fn_name, fn_digest, fn_scheme FROM runs ORDER BY run_id DESC LIMIT 1").fetchone()
        return None if found is None else (self._read(found[0], str), self._read(found[1], bytes), self._read(found[2], str))

    def runs(self) -> list[tuple[int, bytes, str]]:
        """Return number, digest and scheme of all runs."""
        with translated(self.path):
            assert self._writer is not None
            rows = self._writer.execute("SELECT run_id, fn_digest, fn_scheme FROM runs").fetchall()
        return [(run, self._read(digest, bytes), self._read(scheme, str)) for run, digest, scheme in rows]

    def has_results_of(self, runs: Iterable[int]) -> bool:
        """Whether a recorded success is of one of these runs. Reads the whole table."""
        numbers = ", ".join(map(str, runs))
        with translated(self.path):
            assert self._writer is not None
            text = f"SELECT 1 FROM tasks WHERE status = {schema.OK} AND run_id IN ({numbers}) LIMIT 1"
            return self._writer.execute(text).fetchone() is not None

    def _read(self, value: Any, kind: type[T]) -> T:
        if type(value) is not kind:
            raise _corrupt(self.path, "what is recorded of a run is not what was written")
        return value

    def begin_run(self, name: str, digest: bytes, scheme: str) -> None:
        """Record that a run begins."""
        row = (
            str(uuid.uuid4()),
            time.time(),
            os.getpid(),
            _boot_id(),
            socket.gethostname(),
            _argv(),
            name,
            digest,
            scheme,
            "running",
            0,
        )
        if failpoints.hit is not None:
            failpoints.hit("journal.before_begin_run")
        with translated(self.path):
            assert self._writer is not None
            text = "INSERT INTO runs (uuid, started, pid, boot_id, host, argv, fn_name, fn_digest, fn_scheme, status, n_seen) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
            self.run = self._writer.execute(text, row).lastrowid or 0
        if failpoints.hit is not None:
            failpoints.hit("journal.after_begin_run")

    def end_run(self, status: str, seen: int) -> None:
        if self._writer is None or not self.run:
            return  # of a parent process; or it never began
        if failpoints.hit is not None:
            failpoints.hit("journal.before_end_run")
        with translated(self.path):
            text = "UPDATE runs SET ended = ?, status = ?, n_seen = ? WHERE run_id = ?"
            self._writer.execute(text, (time.time(), status, seen, self.run))

    # ---- rows

    def look_up(self, identities: Sequence[tuple[bytes | str, int]]) -> dict[tuple[bytes | str, int], Recorded]:
        """Return what has been recorded of these tasks.

        Raises:
            JournalCorrupt, JournalError: the file cannot be read.
        """
        found: dict[tuple[bytes | str, int], Recorded] = {}
        first: list[bytes | str] = []
        later: dict[bytes | str, list[int]] = {}
        for key, occurrence in identities:
            if occurrence:
                later.setdefault(key, []).append(occurrence)
            else:
                first.append(key)
        with translated(self.path):
            if self._reader is None:
                if self._writer is None:
                    raise forked(self.path)
                self._reader = self._connect()
            for start in range(0, len(first), _CHUNK):
                keys = first[start : start + _CHUNK]
                room = next(size for size in (1, 16, _CHUNK) if size >= len(keys))
                keys += [keys[-1]] * (room - len(keys))  # few statements, which SQLite prepares once
                for key, *rest in self._reader.execute(_of_keys(room), keys):
                    found[key, 0] = self._whole(key, 0, Recorded._make(rest))
            for key, occurrences in later.items():
                for occurrence, *rest in self._reader.execute(_OF_KEY, (key, min(occurrences), max(occurrences))):
                    found[key, occurrence] = self._whole(key, occurrence, Recorded._make(rest))
        return found

    def _whole(self, key: bytes | str, occurrence: int, recorded: Recorded) -> Recorded:
        try:
            crc = schema.checksum(key, occurrence, recorded.status, recorded.codec, recorded.payload)
        except TypeError:
            crc = None
        if crc is None or crc != recorded.crc or tuple(map(type, recorded[:6])) != _CLASSES:
            raise _corrupt(self.path, "what is recorded of a task is not what was written")
        return recorded

    def payload_of(self, recorded: Recorded) -> bytes:
        """Return a recorded result, as it was encoded.

        Raises:
            JournalCorrupt: it is not what was written.
        """
        payload = recorded.payload
        if not isinstance(payload, bytes):
            raise _corrupt(self.path, "a recorded result is not what was written")
        return self.files.read(payload) if recorded.codec & IN_FILE else payload

    def unstable_indexes(self) -> set[int]:
        """Return the places of the inputs whose keys may differ from process to process."""
        if not self._has_unstable:
            return set()
        with translated(self.path):
            assert self._writer is not None
            return {
                index
                for (index,) in self._writer.execute("SELECT idx FROM tasks WHERE typeof(key) = 'blob' AND length(key) = 17")
            }

    def note_unstable(self) -> None:
        """A key of such a kind is going to be written."""
        if not self._has_unstable:
            with translated(self.path):
                assert self._writer is not None
                self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('unstable', 1)")
                self._has_unstable = True

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows in one transaction: all of them, or none.

        Raises:
            JournalError: the disk is full, or whatever else kept it from that.
        """
        run = self.run
        values = []
        for row in rows:
            codec, payload = row.codec, row.payload
            if payload is not None and len(payload) > LARGE:
                codec, payload = codec | IN_FILE, self._write_large(payload)
            crc = schema.checksum(row.key, row.occurrence, row.status, codec, payload)
            values.append(
                (
                    row.key,
                    row.occurrence,
                    row.place,
                    row.status,
                    row.attempts,
                    run,
                    row.started,
                    row.duration,
                    codec,
                    payload,
                    crc,
                    row.error_type,
                    row.error_text,
                )
            )
        with translated(self.path):
            writer = self._writer
            assert writer is not None
            if self._has_moved():
                raise _gone(self.path, "was moved or deleted while this run went on")
            if failpoints.hit is not None:
                failpoints.hit("journal.before_begin")
            writer.execute("BEGIN IMMEDIATE")
            try:
                if failpoints.hit is not None:
                    failpoints.hit("journal.after_begin")
                writer.executemany(schema.UPSERT, values)
                if failpoints.hit is not None:
                    failpoints.hit("journal.before_commit")
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        writer.execute("ROLLBACK")
                raise
            if failpoints.hit is not None:
                failpoints.hit("journal.after_commit")

    def _has_moved(self) -> bool:
        """Whether the file is no longer where it was: SQLite would go on without a word, with a log that nobody finds beside it."""
        if not self._has_log or os.name != "posix":
            return False
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._file

    def _write_large(self, payload: bytes) -> bytes:
        try:
            return self.files.write(payload)
        except OSError as error:
            raise _not_written(self.path, error.strerror or str(error), "a result of over 1 MiB") from error

    # ---- the end

    def close(self) -> None:
        """Close the file, and let others have it. What had been recorded is there, whatever this raises.

        Raises:
            JournalError: SQLite could not tidy up; the next one who opens it does.
        """
        _open.discard(self)
        if failpoints.hit is not None:
            failpoints.hit("journal.before_close")
        with translated(self.path):
            self._close()

    def _close(self) -> None:
        connections = self._reader, self._writer
        self._reader = self._writer = None
        try:
            for connection in connections:
                if connection is not None:
                    connection.close()
        finally:
            if failpoints.hit is not None:
                failpoints.hit("journal.before_release")
            if self._lock is not None:
                self._lock.release()

    def forget(self) -> None:
        """In a forked child: have nothing to do with it any more, and never close it."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                _keep_for_ever(connection)
        self._reader = self._writer = None
        _inherited.add(self._file)
        if self._lock is not None:
            self._lock.forget()


def _of_keys(count: int) -> str:
    return f"SELECT key, {_RECORDED} FROM tasks WHERE occ = 0 AND key IN ({', '.join('?' * count)})"


_RECORDED = "status, attempts, run_id, t_start, dur, codec, payload, crc"
_OF_KEY = f"SELECT occ, {_RECORDED} FROM tasks WHERE key = ? AND occ BETWEEN ? AND ?"


# ---- what is wrong, in words


def beginning_of(path: str, start: bytes, *, was_journal: bool) -> int | None:
    """Return the version that a file has by its first bytes; None if it is empty, and new.

    Raises:
        JournalCorrupt: it was a journal.
        JournalError: it is something else.
    """
    if not start and not was_journal:
        return None
    if len(start) == 100 and start.startswith(b"SQLite format 3\0") and int.from_bytes(start[68:72], "big") == schema.APPLICATION:
        return int.from_bytes(start[60:64], "big")
    if was_journal:
        raise _corrupt(path, "it is empty" if not start else "its first bytes are not a journal's")
    what = "a database of another program" if start.startswith(b"SQLite format 3\0") else "not a journal"
    raise JournalError(f"{path!r} is {what}, and is left as it is; give the journal another path")


def _corrupt(path: str, why: str) -> JournalCorrupt:
    return JournalCorrupt(
        f"the journal {path!r} is damaged ({why}); nothing of it was changed. `abreast journal salvage {path} NEW` copies what is whole into a new one"
    )


def _gone(path: str, what: str) -> JournalError:
    return JournalError(
        f"the journal {path!r} {what}; put the file back beside '{path}-wal', or, to begin anew, delete that too; then run again"
    )


def _not_written(path: str, why: str, what: str | None = None) -> JournalError:
    where = "" if what is None or what == path else f"{what}: "
    return JournalError(
        f"the journal {path!r} cannot be written: {where}{why}; make room or mend that, and run again: what was delivered is recorded"
    )


def forked(path: str) -> JournalError:
    return JournalError(
        f"the journal {path!r} was opened by the process that this one was forked from, which alone may go on with that run; start one of its own here, "
        "when that is over"
    )


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise what SQLite raises as an error that names the file, and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if (
            code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)
            or (code == sqlite3.SQLITE_ERROR and str(error).startswith("no such "))  # table, column
            or (code == 0 and isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.ProgrammingError))
        ):
            raise _corrupt(path, str(error)) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise JournalError(
                f"the journal {path!r} is being written by another program, for over {_PATIENCE:g} s; end that, and run again"
            ) from error
        if code == sqlite3.SQLITE_CANTOPEN:
            raise JournalError(
                f"the journal {path!r} cannot be opened: {error}; are its folder and the files beside it yours to write?"
            ) from error
        if code == sqlite3.SQLITE_READONLY:
            raise JournalError(
                f"the journal {path!r} is on a file system, or in a folder, that cannot be written; copy it, and give the copy's path"
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise _not_written(path, "the disk is full") from error
        raise _not_written(path, str(error)) from error
    except UnicodeDecodeError as error:  # what SQLite says is wrong may name what is damaged
        raise _corrupt(path, str(error)) from error
    except OSError as error:
        raise _not_written(path, error.strerror or str(error), error.filename) from error


def _temporary(path: str) -> str:
    return f"{path}.{uuid.uuid4().hex}.tmp"


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _argv() -> str:
    return "\0".join(sys.argv).encode("utf-8", "replace").decode()


# ---- forked children

_open: weakref.WeakSet[Store] = weakref.WeakSet()
_inherited: set[tuple[int, int]] = set()
"""Device and inode of the files that a parent process had open. SQLite knows of files by these: to open one of them again would be to
go on with the locks, and the index of the log, as they were in the parent when this process was forked."""


def _renew(path: str, fd: int) -> os.stat_result:
    """Have the file be another one to SQLite, of equal content, without anybody being able to see half of it. Its log stays what it is."""
    temporary = _temporary(path)
    copy = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        with open(copy, "wb") as target, open(os.dup(fd), "rb") as source:
            source.seek(0)
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(copy)
            found = os.fstat(copy)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return found


def _keep_for_ever(connection: object) -> None:
    """Have a reference that nothing ever gives back, not even the end of the interpreter, which would close it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _after_fork() -> None:
    locking.after_fork()
    for store in list(_open):
        store.forget()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
