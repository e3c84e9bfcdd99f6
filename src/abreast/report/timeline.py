"""The timeline: one HTML page, to look into what ran where and when. It needs no network, no library, no server.

::

    Recording ──▶ bars, each on a line ──▶ columns ──▶ zlib, base64 ─┐
                  names and texts      ──▶ JSON    ──▶ zlib, base64 ─┼──▶ timeline.html, with its .css and .js inside
                  the report as text   ──▶ escaped  ─────────────────┘

All that a user's program has named (calls, errors, threads, locks) is inside base64, or has gone through `html.escape`; the page's script shows it as text
and never as HTML. The page's policy allows the one script and the one style that are in it, by their hash, and no connection to anywhere.

A *line* is what bars are drawn on without one covering another: a row's first line has its tasks; what happened inside them at a known time (a wait for a
lock, a task within a task) stands on the lines beneath.

How a task's time splits is known as sums, not in what order: the page shows sums as layers of a bar's height. Pieces one after another, longest first, were
rejected: they would look as if that order had been seen.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import html
import json
import math
import re
import sys
import zlib
from array import array
from importlib import resources
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from abreast.core.recording import Attempt, Recording, Span
from abreast.core.states import IDLE, OK, OUTCOMES, STATES
from abreast.report.files import writing

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

__all__ = ["MOST_BARS", "timeline_page", "write_timeline"]

MOST_BARS = 300_000
"""Of more, those that went wrong and the longest are drawn one by one, and of the rest how busy each row was with them. All of a million would be a page of
20 MB, which takes several seconds to open."""
BINS = 512
"""Steps of time in which that is told."""
NOT_KNOWN = math.nan
IN_SECOND = 1e-9
GRAIN = 2.0**26
"""Starts are rounded to 1/GRAIN seconds, 15 ns: less than reading the clock takes. What is left of a float then ends in zeros, which take no room."""

# (column of the page, type): widest first for no reason but to be read like that; the page takes them in this order.
COLUMNS = (
    ("start", "d"),
    ("length", "f"),
    ("wait", "f"),
    ("cpu", "f"),
    ("gil", "f"),
    ("runqueue", "f"),
    ("lock", "f"),
    ("number", "I"),
    ("work", "I"),
    ("attempt", "I"),
    ("submitter", "I"),
    ("shares", "I"),
    ("kind", "B"),
)
ROUNDED = {"wait", "cpu", "gil", "runqueue", "lock"}
"""Columns whose last eight bits are left out: 16 bits, five digits, stay."""
SPAN = 16
"""Kinds below are outcomes of attempts, kinds from here are states of spans."""

Bar = tuple[int, int, int, Attempt | Span]  # row, begin, -end, what: the order in which lines are filled


def write_timeline(recording: Recording, path: str | os.PathLike[str], *, text: str = "", advice: str = "") -> None:
    """Write the timeline of a recording as one HTML page.

    It is written beside its place first, then renamed: a page that is there is whole (`report/files.py`).

    Args:
        recording: what was recorded.
        path: where to write; a file that is there is replaced.
        text: the report as text: what is shown without JavaScript, in print, and on its own tab.
        advice: one sentence, shown above the picture.

    Raises:
        OSError: if the file cannot be written.
    """
    page = timeline_page(recording, text=text, advice=advice)
    # UTF-8 has no half of a surrogate pair: `_shown` has escaped them, and the JSON is in base64
    with writing(path) as file:
        file.write(page.encode())


def timeline_page(recording: Recording, *, text: str = "", advice: str = "") -> str:
    """Return the timeline of a recording as the text of an HTML page; arguments as of `write_timeline`."""
    names, columns = _data(recording)
    names["advice"] = advice
    style, script = _part("timeline.css"), _part("timeline.js")
    title = f"{_shown(recording.host.script) or 'timeline'} · abreast"
    fill = {
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "text": html.escape(_shown(text)),
        "names": _packed(json.dumps(names, separators=(",", ":")).encode()),
        "bars": _packed(columns),
    }
    # one pass over the template: a mark in what is filled in stays what it is
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: fill[mark[1]], _part("timeline.html"))


def _part(name: str) -> str:
    return resources.files("abreast.report").joinpath(name).read_text("utf-8")


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _shown(text: str) -> str:
    r"""Return text with what has no place in an HTML page (controls, halves of surrogate pairs) as Python writes it: ``\x1b``."""
    return re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]", lambda found: ascii(found[0])[1:-1], text
    )


def _data(recording: Recording) -> tuple[dict[str, Any], bytes]:
    """Return what the page shows: names and texts, for JSON, and the columns of the bars."""
    bars: list[Bar] = [(attempt.row, attempt.begin, -attempt.end, attempt) for attempt in recording.attempts]
    bars += [(span.row, span.begin, -span.end, span) for span in recording.spans if span.state != IDLE]
    total = len(bars)
    end = max([recording.end, *(work.end for work in recording.works), *(-bar[2] for bar in bars), 1])
    rest: Iterable[Bar] = ()
    if total > MOST_BARS:
        chosen = {id(bar) for bar in heapq.nlargest(MOST_BARS, bars, key=_weight)}
        rest = [bar for bar in bars if id(bar) not in chosen]
        bars = [bar for bar in bars if id(bar) in chosen]
    bars.sort(key=itemgetter(0, 1, 2))
    lines, ordered = _lines(bars)
    densities = _densities(rest, end)
    names = {
        "host": recording.host._asdict(),
        "zero": str(recording.zero),  # more digits than a number of JavaScript has
        "end": end * IN_SECOND,
        "states": [state._asdict() for state in STATES],
        "outcomes": OUTCOMES,
        "works": [_in_seconds(work._asdict()) for work in recording.works],
        "rows": [_in_seconds(row._asdict()) for row in recording.rows],
        "lines": lines,
        "columns": COLUMNS,
        "count": len(ordered),
        "total": total,
        "dropped": recording.dropped,
        "dropped_spans": recording.dropped_spans,
        "cost": recording.cost * IN_SECOND,
        "complete": recording.complete,
        "texts": [what.call if isinstance(what, Attempt) else what.what for what in ordered],
        "errors": {i: what.error for i, what in enumerate(ordered) if isinstance(what, Attempt) and what.error is not None},
        "places": {i: [what.holder, what.site] for i, what in enumerate(ordered) if isinstance(what, Span)},
        "span": SPAN,
        "bins": BINS,
        "densities": densities,
    }
    return names, _columns(ordered)


def _weight(bar: Bar) -> tuple[bool, int]:
    """What went wrong is what people look for; else the longest are."""
    _, begin, minus_end, what = bar
    return isinstance(what, Attempt) and what.outcome != OK, -minus_end - begin


def _in_seconds(fields: dict[str, Any]) -> dict[str, Any]:
    times = {"begin", "end", "boot", "wall", "cpu", "queued", "gil", "gil_bound", "runqueue", "lock", "overhead"}
    return {name: value * IN_SECOND if name in times and value is not None else value for name, value in fields.items()}


def _lines(bars: list[Bar]) -> tuple[list[tuple[int, int, int]], list[Attempt | Span]]:
    """Lay bars, sorted, on lines: return (row, depth, how many bars) of each line, and the bars line by line."""
    lines: list[tuple[int, int, int]] = []
    ordered: list[Attempt | Span] = []
    i = 0
    while i < len(bars):
        row = bars[i][0]
        filled: list[list[Attempt | Span]] = []
        ends: list[int] = []
        while i < len(bars) and bars[i][0] == row:
            _, begin, minus_end, what = bars[i]
            depth = next((depth for depth, last in enumerate(ends) if last <= begin), len(ends))
            if depth == len(ends):
                ends.append(0)
                filled.append([])
            ends[depth] = max(-minus_end, begin + 1)
            filled[depth].append(what)
            i += 1
        for depth, line in enumerate(filled):
            lines.append((row, depth, len(line)))
            ordered += line
    return lines, ordered


def _densities(bars: Iterable[Bar], end: int) -> dict[int, tuple[int, str]]:
    """Return of each row how many of its bars are not drawn one by one, and what share of each step of time it was at them: 0 to 255, as base64."""
    step = end / BINS
    sums: dict[int, list[float]] = {}
    counts: dict[int, int] = {}
    for row, begin, minus_end, what in bars:
        counts[row] = counts.get(row, 0) + isinstance(what, Attempt)
        bins = sums.setdefault(row, [0.0] * BINS)
        first, last = (max(0, min(BINS - 1, int(t / step))) for t in (begin, -minus_end))
        for bin_ in range(first, last + 1):
            bins[bin_] += max(0.0, min(-minus_end, (bin_ + 1) * step) - max(begin, bin_ * step))
    return {
        row: (counts[row], base64.b64encode(bytes(min(255, math.ceil(255 * busy / step)) for busy in bins)).decode())
        for row, bins in sums.items()
    }


def _columns(ordered: list[Attempt | Span]) -> bytes:
    values: dict[str, Iterable[Any]] = {
        "start": (math.floor(what.begin * IN_SECOND * GRAIN) / GRAIN for what in ordered),
        # a bar without length could be neither seen nor divided
        "length": (max(1, what.end - what.begin) * IN_SECOND for what in ordered),
        "wait": (
            (what.begin - what.queued) * IN_SECOND if isinstance(what, Attempt) and what.queued is not None else NOT_KNOWN
            for what in ordered
        ),
        **{name: _parts(ordered, name) for name in ("cpu", "gil", "runqueue", "lock")},
        "number": (_natural(what.number) if isinstance(what, Attempt) else 0 for what in ordered),
        "work": (_natural(what.work) if isinstance(what, Attempt) else 0 for what in ordered),
        "attempt": (_natural(what.attempt) if isinstance(what, Attempt) else 0 for what in ordered),
        "submitter": (
            _natural(what.submitter + 1) if isinstance(what, Attempt) and what.submitter is not None else 0 for what in ordered
        ),
        "shares": (_natural(what.shares) if isinstance(what, Attempt) else 1 for what in ordered),
        "kind": (what.outcome if isinstance(what, Attempt) else SPAN + what.state for what in ordered),
    }
    planes = []
    for name, kind in COLUMNS:
        column = array(kind, values[name])
        if sys.byteorder == "big":
            column.byteswap()
        raw, size = column.tobytes(), column.itemsize
        # byte by byte of all values: the high bytes are all but equal and take no room, a third less in all
        planes += [bytes(len(column)) if name in ROUNDED and at == 0 else raw[at::size] for at in range(size)]
    return b"".join(planes)


def _parts(ordered: list[Attempt | Span], name: str) -> Iterable[float]:
    for what in ordered:
        part = getattr(what, name) if isinstance(what, Attempt) else None
        yield NOT_KNOWN if part is None else part * IN_SECOND


def _natural(value: int) -> int:
    return max(0, min(value, 2**32 - 1))
