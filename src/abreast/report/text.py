"""The report of a recording: at most 20 lines that say how long it took, why, and where, and end in a sentence of advice.

::

    square: 9 tasks on 3 threads in 1.50 s    one after another: ≈ 4.50 s    3.00x faster, 100 % of 3 workers

      time in tasks   4.50 s =  computing 0.00 s (  0 %)  +  waiting 4.50 s (100 %)  +  held up by the GIL ≈ 0.00 s (  0 %)
      queued        0.00 … 1.00 s, mean 0.50 s        errors 0        retries 0

      worker     thread id tasks  busy  compute    wait     GIL   0 s                                      1.50 s
      worker_0       21170     3 100 %   0.00 s  1.50 s  0.00 s   ▏1░░░░░░░░░░░░░░▏4░░░░░░░░░░░░░░▏7░░░░░░░░░░░░░░
      …

    Report ── Writer (block.py), Table (workers.py) ── Pen (layout.py) ──▶ lines of styled pieces ──▶ plain text, rich, HTML
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from abreast.core.recording import Recording
from abreast.report.advice import advise
from abreast.report.block import Writer
from abreast.report.layout import Line, Pen, Piece, can_show, plain
from abreast.report.summary import Summary, summarize
from abreast.report.units import count

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Report"]

WIDTH = 120  # where nobody says how wide it may be
LEAST_WIDTH = 60


class Report:
    """What was recorded, told in text.

    ``print(report)`` writes plain text, as wide as the terminal; `rich.print` and notebooks show it in colour.

    Args:
        recording: what it tells of.
        full: whether to tell all: every worker, every type of error, ten slowest tasks, locks. Else it is 20 lines at most.

    >>> from abreast.core.recording import Attempt, Host, Recording, Row, Work
    >>> host = Host("here", "3.13.0", "0.1", True, 2, "linux", 1, "squares.py")
    >>> second = 10**9
    >>> work = Work(0, "square", "thread", 2, 0, second, 2, 2, wall=2 * second, cpu=0, gil=0)
    >>> rows = [Row(n, "thread", f"worker_{n}", 0, 70 + n, 1, 0, second) for n in range(2)]
    >>> attempts = [Attempt(0, n, 1, n, 0, 0, second, 0, f"square({n})", cpu=0, gil=0) for n in range(2)]
    >>> report = Report(Recording(host, 0, second, [work], rows, attempts))
    >>> print(report.text(width=110).splitlines()[0])
    square: 2 tasks on 2 threads in 1.00 s    one after another: ≈ 2.00 s    2.00x faster, 100 % of 2 workers
    >>> report.to_dict()["works"][0]["speed_up"]
    2.0
    """

    def __init__(self, recording: Recording, *, full: bool = False) -> None:
        if not isinstance(recording, Recording):
            raise TypeError(f"recording must be a Recording, not {type(recording).__name__}")
        self._recording = recording
        self._full = full
        self._summary: Summary | None = None

    @property
    def summary(self) -> Summary:
        """The figures that all of it is made of."""
        if self._summary is None:
            self._summary = summarize(self._recording)
        return self._summary

    @property
    def advice(self) -> list[str]:
        """The sentence of advice of each work that has one, in the order in which the works began."""
        found = (advise(work, self.summary.host) for work in self.summary.works)
        return [Pen(LEAST_WIDTH, ascii_only=False).clean(advice.text) for advice in found if advice is not None]

    @property
    def main_advice(self) -> str:
        """The advice of the work that took longest of those that have one, with its name if there are several works; empty if there is none."""
        works = self.summary.works
        for work in sorted(works, key=lambda work: (work.elapsed, work.work.wall), reverse=True):
            if (advice := advise(work, self.summary.host)) is not None:
                pen = Pen(LEAST_WIDTH, ascii_only=False)
                name = f"{pen.cut(work.work.name or work.work.kind, 40)}: " if len(works) > 1 else ""
                return name + pen.clean(advice.text)
        return ""

    def text(self, *, width: int | None = None, ascii_only: bool | None = None, full: bool | None = None) -> str:
        """Return it as plain text, without colours.

        Args:
            width: columns, at least 60; by default as many as the terminal has, and 120 where there is none.
            ascii_only: whether to do without signs such as ``░``; by default if standard output cannot show them.
            full: whether to tell all; by default what was said when it was made.

        Raises:
            TypeError, ValueError: `width` is no whole number, or below 60.
        """
        if width is None:
            width = max(LEAST_WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
        elif isinstance(width, bool) or not isinstance(width, int):
            raise TypeError(f"width must be a whole number, not {width!r}")
        elif width < LEAST_WIDTH:
            raise ValueError(f"width must be at least {LEAST_WIDTH}, not {width}")
        if ascii_only is None:
            ascii_only = not can_show(getattr(sys.stdout, "encoding", None))
        return "\n".join(map(plain, self._lines(width, ascii_only=ascii_only, full=full)))

    def to_dict(self) -> dict[str, Any]:
        """Return its figures as plain values, as JSON has them; times in seconds. ``works`` are in the order in which they began."""
        summary = self.summary
        works = []
        for work in summary.works:
            advice = advise(work, summary.host)
            works.append(
                {**work.to_dict(), "advice": advice and {"rule": advice.rule, "figure": advice.figure, "text": advice.text}}
            )
        return {
            "host": summary.host._asdict(),
            "elapsed": summary.elapsed / 1e9,
            "works": works,
            "complete": summary.complete,
            "dropped_spans": summary.dropped_spans,
            "cost": summary.cost / 1e9,
        }

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        works = self._recording.works
        return f"<Report of {count(len(works), 'work')}, {count(sum(work.tasks for work in works), 'task')}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        width = max(LEAST_WIDTH, options.max_width)
        for line in self._lines(width, ascii_only=not can_show(options.encoding)):
            text = Text(no_wrap=True, overflow="ignore", end="\n")
            for piece in line:
                text.append(piece.text, piece.style)
            text.rstrip()
            yield text

    def _repr_html_(self) -> str:
        """For notebooks."""
        from html import escape

        def in_html(piece: Piece) -> str:
            text = escape(piece.text)
            for word in piece.style.split():
                if word.startswith("#"):
                    text = f'<span style="color:{word}">{text}</span>'
                elif word == "bold":
                    text = f"<b>{text}</b>"
            return text

        lines = ("".join(map(in_html, line)).rstrip() for line in self._lines(WIDTH, ascii_only=False))
        return '<pre style="line-height:1.2;white-space:pre;overflow-x:auto">' + "\n".join(lines) + "</pre>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """For notebooks."""
        del include, exclude  # whoever asks picks
        return {"text/plain": self.text(width=WIDTH, ascii_only=False), "text/html": self._repr_html_()}

    def _lines(self, width: int, *, ascii_only: bool, full: bool | None = None) -> list[Line]:
        is_full = self._full if full is None else full
        return Writer(self.summary, Pen(width, ascii_only=ascii_only), full=is_full).lines()
