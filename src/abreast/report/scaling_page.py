"""A comparison as a page: one HTML file with a picture in SVG and the table; no script, nothing is fetched.

Whatever comes from outside is escaped, and a policy in the page forbids everything but its own style: a name cannot become markup, and
if it did, it could not run or load anything.
"""

from __future__ import annotations

from html import escape
from math import log2
from typing import TYPE_CHECKING

from abreast.core.text import duration, printable
from abreast.report.scaling import bounds, headline, problems, seconds_range, ticks
from abreast.report.verdict import verdict

if TYPE_CHECKING:
    from abreast.core.comparison import Contender, Measured

__all__ = ["page"]

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 116, 36, 48
"""Room around the picture, for its words."""

# Okabe and Ito's colours, which colour-blind people can tell apart; lighter ones on dark. Markers differ too: colour is never alone.
STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --faint: #6b6b6b; --line: #ddd;
  --serial: #000; --thread: #0072b2; --process: #d55e00; --other: #009e73; --wrong: #b00020; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181b; --faint: #a0a0a0; --line: #3a3d42;
  --serial: #fff; --thread: #56b4e9; --process: #e69f00; --other: #2fc79a; --wrong: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 56rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: break-word; }
h1 { font-size: 1.4rem; margin: 0; } p.on { color: var(--faint); margin: 0.2rem 0 1rem; }
p.advice { border-left: 4px solid var(--thread); padding-left: 0.8rem; font-size: 1.1rem; }
p.problem { border-left: 4px solid var(--wrong); padding-left: 0.8rem; } p.problem::before { content: "✗ "; color: var(--wrong); }
p.remark { color: var(--faint); font-size: 0.9rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 13px; }
.grid { stroke: var(--line); } .ideal { stroke: var(--faint); stroke-dasharray: 6 5; fill: none; } svg text.faint { fill: var(--faint); }
.serial { --mine: var(--serial); } .thread { --mine: var(--thread); } .process { --mine: var(--process); } .other { --mine: var(--other); }
.curve { fill: none; stroke: var(--mine); stroke-width: 2.5; } .whisker { stroke: var(--mine); stroke-width: 1.5; }
.marker { fill: var(--mine); stroke: var(--paper); stroke-width: 1.5; } .marker.wrong { fill: var(--paper); stroke: var(--wrong); stroke-width: 2.5; }
svg text.name { fill: var(--mine); font-weight: 600; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, td.why { text-align: left; } td.why { white-space: normal; } tr.best td { font-weight: 600; } tr.wrong td { color: var(--wrong); }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(measured: Measured) -> str:
    """Return the whole page."""
    name = _text(printable(measured.name))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}: compared</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{name}</h1>",
        f'<p class="on">{_text(headline(measured))}</p>',
        f'<p class="advice">{_text(verdict(measured))}</p>',
        *(f'<p class="problem">{_text(problem)}</p>' for problem in problems(measured)),
        _picture(measured),
        _table(measured),
        *(f'<p class="remark">{_text(remark)}</p>' for remark in measured.remarks),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _text(text: str) -> str:
    return escape(text.encode("utf-8", "backslashreplace").decode())  # half of a surrogate pair is not UTF-8


def _table(measured: Measured) -> str:
    head = ("kind", "workers", "median", "range", "speed-up", "of ideal", "start-up", "")
    rows = ["<tr>" + "".join(f'<th scope="col">{name}</th>' for name in head) + "</tr>"]
    best = measured.best
    for row in measured.rows:
        cells = [row.kind, str(row.max_workers)]
        if row.median is None or row.speed_up is None or row.efficiency is None:
            why = printable(type(row.error).__name__) if row.error is not None else "not run"
            text = "".join(f"<td>{_text(cell)}</td>" for cell in cells) + f'<td class="why" colspan="6">failed: {_text(why)}</td>'
            rows.append(f'<tr class="wrong">{text}</tr>')
            continue
        cells += [duration(row.median), seconds_range(row), f"{row.speed_up:.2f}x"]
        cells += ["" if row.kind == "serial" else f"{row.efficiency:.0%}"]
        cells += ["" if row.start_up is None else duration(row.start_up)]
        cells += ["✗ differs" if row.differences else "best" if row is best and len(measured.rows) > 1 else ""]
        state = ' class="wrong"' if row.differences else ' class="best"' if row is best else ""
        rows.append(f"<tr{state}>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    return '<div class="table"><table>\n' + "\n".join(rows) + "\n</table></div>"


class _Place:
    """Where speed-ups and numbers of workers stand in the picture: both on scales of powers of two."""

    def __init__(self, measured: Measured) -> None:
        self.most, self.low, self.high = bounds(measured)

    def x(self, workers: float) -> float:
        return LEFT + log2(workers) / log2(self.most) * (WIDTH - LEFT - RIGHT)

    def y(self, speed_up: float) -> float:
        share = log2(max(speed_up, self.low) / self.low) / log2(self.high / self.low)
        return HEIGHT - BOTTOM - min(1.0, share) * (HEIGHT - TOP - BOTTOM)


def _picture(measured: Measured) -> str:
    shown = [row for row in measured.rows if row.speed_up is not None]
    if len(shown) < 2:
        return ""
    place = _Place(measured)
    kinds = list(dict.fromkeys(row.kind for row in shown))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Speed-up over the number of workers; the table has the figures">',
        *_axes(place, sorted({row.max_workers for row in shown})),
    ]
    names: list[tuple[float, str, str]] = [(place.y(place.most), "ideal", "faint")]
    for kind in kinds:
        mine = sorted((row for row in shown if row.kind == kind), key=lambda row: row.max_workers)
        parts += _curve(mine, place, measured)
        names.append((place.y(mine[-1].speed_up or 0.0), kind, f"name {_class(kind)}"))
    parts += _names(names)
    return "\n".join([*parts, "</svg>"])


def _axes(place: _Place, numbers: list[int]) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in ticks(place.low, place.high):
        y = place.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{tick:g}x</text>')
    parts.append('<text class="faint" x="4" y="14">speed-up</text>')
    last = -100.0
    for number in numbers:
        x = place.x(number)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        if x - last > 9 * len(str(number)) + 6:
            parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{number}</text>')
            last = x
    parts.append(f'<text class="faint" x="{(LEFT + right) / 2:.0f}" y="{bottom + 40}" text-anchor="middle">workers</text>')
    corners = f"{place.x(1):.1f},{place.y(1):.1f} {place.x(place.most):.1f},{place.y(place.most):.1f}"
    parts.append(f'<polyline class="ideal" points="{corners}"/>')
    return parts


def _curve(rows: list[Contender], place: _Place, measured: Measured) -> list[str]:
    """The points of one kind, joined, with whiskers from the slowest to the fastest round."""
    kind = rows[0].kind
    parts = [f'<g class="{_class(kind)}">']
    if len(rows) > 1:
        points = " ".join(f"{place.x(row.max_workers):.1f},{place.y(row.speed_up or 0.0):.1f}" for row in rows)
        parts.append(f'<polyline class="curve" points="{points}"/>')
    serial = measured.serial.median or 0.0
    for row in rows:
        x, y = place.x(row.max_workers), place.y(row.speed_up or 0.0)
        if len(row.seconds) > 1:
            ends = [place.y(serial / max(value, 1e-9)) for value in (max(row.seconds), min(row.seconds))]
            parts.append(f'<line class="whisker" x1="{x:.1f}" y1="{ends[0]:.1f}" x2="{x:.1f}" y2="{ends[1]:.1f}"/>')
        told = f"{row.label}: {duration(row.median or 0.0)}, {row.speed_up or 0.0:.2f}x"
        wrong = " wrong" if row.differences else ""
        parts.append(_marker(kind, x, y, f"marker{wrong}", f"{told}, other results" if wrong else told))
    return [*parts, "</g>"]


def _marker(kind: str, x: float, y: float, classes: str, title: str) -> str:
    told = f"<title>{_text(title)}</title>"
    if kind == "thread":
        return f'<circle class="{classes}" cx="{x:.1f}" cy="{y:.1f}" r="7">{told}</circle>'
    corners = {
        "process": ((0, -8), (8, 6), (-8, 6)),
        "serial": ((-6, -6), (6, -6), (6, 6), (-6, 6)),
    }.get(kind, ((0, -8), (8, 0), (0, 8), (-8, 0)))
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{classes}" points="{points}">{told}</polygon>'


def _names(names: list[tuple[float, str, str]]) -> list[str]:
    """What each line is called, at its height, to the right of the picture, and none on another."""
    parts = []
    below = TOP - 10.0
    ordered = sorted(names)
    for number, (y, name, classes) in enumerate(ordered):
        last = HEIGHT - 4 - 18 * (len(ordered) - number - 1)
        below = min(max(y + 4, below + 18), last)
        marker = "" if name == "ideal" else _marker(name, WIDTH - RIGHT + 24, below - 4, "marker", name)
        if name == "ideal":
            marker = f'<line class="ideal" x1="{WIDTH - RIGHT + 14}" y1="{below - 4:.1f}" x2="{WIDTH - RIGHT + 34}" y2="{below - 4:.1f}"/>'
        parts.append(
            f'<g class="{_class(name)}">{marker}<text class="{classes}" x="{WIDTH - RIGHT + 40}" y="{below:.1f}">{_text(name)}</text></g>'
        )
    return parts


def _class(kind: str) -> str:
    return kind if kind in ("serial", "thread", "process") else "other"
