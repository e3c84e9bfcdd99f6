"""A recording as a table, a line per attempt, in the order that they began: CSV for spreadsheets and scripts, after the job log of GNU parallel."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from abreast.core.states import OUTCOMES
from abreast.report.files import writing

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from abreast.core.recording import Recording

__all__ = ["COLUMNS", "write_table"]

COLUMNS = (
    "function", "task", "attempt", "worker", "host", "pid", "native_id",
    "start", "queued", "wall", "cpu", "gil", "runqueue", "lock",
    "outcome", "call", "error",
)  # fmt: skip
"""`start` is in seconds since 1970; `queued`, `wall`, `cpu`, `gil` (an estimate), `runqueue` and `lock` are durations in seconds."""


def write_table(recording: Recording, path: str | os.PathLike[str]) -> None:
    r"""Write a line of CSV (UTF-8, comma, a heading) for each attempt that was kept, beside the file's place, and rename it when it is whole.

    What is not known is empty. Seconds have nine decimals, so no nanosecond is lost. Characters that are not printable are written as ``\n``, so that each
    attempt is one line, and a file's name that is no text can be written.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    with writing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(_lines(recording))
        text.detach()


def _lines(recording: Recording) -> Iterator[tuple[object, ...]]:
    for one in sorted(recording.attempts, key=lambda one: (one.begin, one.end)):
        row = recording.rows[one.row]
        yield (
            _line(recording.works[one.work].name), one.number, one.attempt, _line(row.name), _line(recording.host.name), row.pid, row.native_id,
            _seconds(recording.zero + one.begin), _seconds(None if one.queued is None else one.begin - one.queued),
            _seconds(one.end - one.begin), _seconds(one.cpu), _seconds(one.gil), _seconds(one.runqueue), _seconds(one.lock),
            OUTCOMES[one.outcome], _line(one.call), _line(one.error or ""),
        )  # fmt: skip


def _line(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _seconds(time: int | None) -> str:
    if time is None:
        return ""
    sign, time = ("-", -time) if time < 0 else ("", time)
    return f"{sign}{time // 1_000_000_000}.{time % 1_000_000_000:09d}"
