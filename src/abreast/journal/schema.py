"""The file's tables, and its versions.

::

    application_id 0x61627273 ("abrs")        user_version VERSION

    meta    uuid, created, versions of abreast and Python that made it
    runs    each call that has used it: which function, from when to when, how it ended
    tasks   one row for each task that has a recorded outcome, or (at_most_once) has been started; known by key and occurrence

A rowid table with a unique index, not WITHOUT ROWID: rows carry results, which would make the tree of keys wide. `crc` is of whatever decides
which task's result a row is (`checksum`): SQLite's own check sees broken pages, not a flipped bit within a value, or within a key: ``item1`` and
``item3`` differ by one bit, and the result of one would be given for the other.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from abreast.core import failpoints

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

__all__ = [
    "APPLICATION",
    "COLUMNS",
    "CRASHED",
    "ERROR",
    "MIGRATIONS",
    "OK",
    "STARTED",
    "STATEMENTS",
    "STATUS",
    "TIMEOUT",
    "UPSERT",
    "VERSION",
    "checksum",
    "create",
]

APPLICATION = 0x61627273
VERSION = 1

STARTED, OK, ERROR, TIMEOUT, CRASHED = range(5)
STATUS = ("started", "ok", "error", "timeout", "crashed", "cancelled")

_TABLES = (
    "CREATE TABLE meta (k TEXT PRIMARY KEY, v)",
    (
        "CREATE TABLE runs (run_id INTEGER PRIMARY KEY, uuid TEXT, started REAL, ended REAL, pid INT, boot_id TEXT, host TEXT, argv TEXT,"
        " fn_name TEXT, fn_digest BLOB, fn_scheme TEXT, status TEXT, n_seen INT)"
    ),
    (
        "CREATE TABLE tasks (id INTEGER PRIMARY KEY, key BLOB NOT NULL, occ INT NOT NULL, idx INT, status INT, attempts INT, run_id INT,"
        " t_start REAL, dur REAL, codec INT, payload BLOB, crc INT, err_type TEXT, err_text TEXT)"
    ),
    "CREATE UNIQUE INDEX ik ON tasks (key, occ)",
)

STATEMENTS = {(words.split("(")[0].split(" ON ")[0].split()[-1], words) for words in _TABLES}
"""Names of what there is, and the words that it was made with, as SQLite keeps them."""

COLUMNS = "key, occ, idx, status, attempts, run_id, t_start, dur, codec, payload, crc, err_type, err_text"

# What failed before has its attempts counted on, also if it was started again meanwhile (at_most_once): a start alone counts for none.
UPSERT = f"""INSERT INTO tasks ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key, occ) DO UPDATE SET
idx = excluded.idx, status = excluded.status, run_id = excluded.run_id, t_start = excluded.t_start, dur = excluded.dur,
attempts = excluded.attempts + CASE WHEN tasks.status IN ({STARTED}, {ERROR}, {TIMEOUT}, {CRASHED}) THEN tasks.attempts ELSE 0 END,
codec = excluded.codec, payload = excluded.payload, crc = excluded.crc, err_type = excluded.err_type, err_text = excluded.err_text"""


def checksum(key: bytes | str, occurrence: int, status: int, codec: int, payload: bytes | None) -> int:
    """Return what a row has as `crc`.

    Raises:
        TypeError: one of them is of another class, in a damaged file.
    """
    data = key.encode() if isinstance(key, str) else key
    head = b"%d %d %d %d %d " % (data is key, len(data), occurrence, status, codec)
    return zlib.crc32(payload or b"", zlib.crc32(data, zlib.crc32(head)))


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}
"""By version: what makes of a file of this version one of the next. Runs in the transaction that also sets the version."""


def create(connection: sqlite3.Connection, meta: dict[str, object]) -> None:
    """Make the tables of a new file, in one transaction: a file that is killed here is empty, or complete."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        connection.execute(statement)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    if failpoints.hit is not None:
        failpoints.hit("journal.mid_create")
    connection.execute("COMMIT")
