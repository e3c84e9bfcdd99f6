"""Saves a recording as a file, by the ending of its name: trace file, page, table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from abreast.core.recording import Recording

__all__ = ["ENDINGS", "save"]

ENDINGS = (".json", ".json.gz", ".html", ".csv")
WIDTH = 120
"""Columns of the report within a page: the same wherever it is made."""


def save(recording: Recording, path: str, *, full: bool = False) -> None:
    """Write a recording to a file, whole or not at all.

    Args:
        recording: what was recorded.
        path: its name, with one of `ENDINGS`.
        full: whether the report within a page tells all.

    Raises:
        OSError: it cannot be written.
    """
    if path.endswith(".html"):
        from abreast.report.text import Report
        from abreast.report.timeline import write_timeline

        report = Report(recording, full=full)
        write_timeline(recording, path, text=report.text(width=WIDTH, ascii_only=False), advice=report.main_advice)
    elif path.endswith(".csv"):
        from abreast.report.table import write_table

        write_table(recording, path)
    else:
        from abreast.report.chrome import write_trace

        write_trace(recording, path)
