"""Progress of one run: counts from the engine, shown on whatever sink ``progress=`` names.

::

    collecting thread ──update(finished, failed=, running=)──▶ Progress ──show(view)──▶ sink
      (the only one)    at most every 0.1 s, once at the end     counts, time left

    progress=                       sink       made by us and closed by us
    None  True  "label"             _Bar       a rich bar: on a terminal, in a notebook with ipywidgets
                                    _Lines     plain lines on stderr, anywhere else
    a tqdm class                    _Tqdm      yes
    a tqdm bar                      _Tqdm      no
    a rich Progress                 _RichTask  no, one row of it
    a callable                      _Call      no

There is no thread and no lock here, and workers never draw: bars drawn from several threads or processes jump (tqdm/tqdm#285,
#407, #565). A sink that raises an `Exception` is logged once and dropped, and the run goes on; Ctrl-C and SystemExit pass
through. A forked child shows nothing of its parent's run.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import time
import weakref
from collections import deque
from importlib.util import find_spec
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from abreast.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import Progress as RichProgress

__all__ = ["Progress", "check_progress", "open_progress"]

LOGGER = logging.getLogger("abreast")

DELAY = 0.5  # seconds a run lasts before a bar that nobody asked for appears: a short run neither flickers nor imports rich
WINDOW = 30.0  # seconds that the speed is taken from: shorter jumps, longer is late to see a change
FEWEST = 10  # tasks that it is taken from, where those took longer: from a single slow task it would be far off
LINE_EVERY = 30.0  # seconds between plain lines at most
REDRAW = 1.0  # seconds between two pictures that differ in time only: one costs 1.5 ms with the GIL held


def check_progress(value: object) -> None:
    """Raise TypeError unless `value` is something that ``progress=`` takes."""
    if value is None or isinstance(value, (bool, str)):
        return
    if isinstance(_class_of_bar(value), type):
        # Any class can be called, so int would pass, and fail in the middle of the run; dict has an update too, but no close.
        taken = _has(_class_of_bar(value), "update", "close")
    else:
        taken = _is_tqdm(value) or _is_rich(value) or callable(value)
    if not taken:
        raise TypeError(
            "progress must be None, a bool, a label, a tqdm class or bar, a rich Progress or a callable, "
            f"not {short(value)} ({type(value).__name__})"
        )


def open_progress(value: object, *, total: int | None, name: str, clock: Callable[[], float] = time.monotonic) -> Progress | None:
    """Return what shows the progress of a run that begins now, or None if nothing is to be shown.

    `value` is one that `check_progress` has let pass; `total` is None if nobody knows it; `name` is the label if none is given.
    Whatever was asked for is shown at once; what None chooses, when the run has lasted `DELAY`.
    """
    if value is False:
        return None
    label = printable(value if isinstance(value, str) else name)
    make: Callable[[], _Sink | None]
    if value is None or value is True or isinstance(value, str):
        stream = sys.stderr
        if stream is None or getattr(stream, "closed", False):
            return None
        notebook = _in_notebook()
        if _can_draw(stream, notebook=notebook):
            make = functools.partial(_bar_or_lines, value, label, total, stream, notebook=notebook, clock=clock)
        elif value is None and not notebook:
            return None
        else:
            make = functools.partial(_Lines, value, stream)
    elif isinstance(_class_of_bar(value), type):
        make = functools.partial(_Tqdm.made, value, label, total)
    elif _is_tqdm(value):
        make = functools.partial(_Tqdm.given, value, total)
    elif _is_rich(value):
        make = functools.partial(_RichTask, value, label, total)
    else:
        make = functools.partial(_Call, value)
    return Progress(value, make, total=total, delay=DELAY if value is None else 0.0, clock=clock)


class Progress:
    """How far one run is. `update` and `close` are called by the thread that collects the results, and by no other."""

    interval = 0.1  # seconds between two updates, also when nothing finishes: the time that is shown goes on

    def __init__(
        self,
        value: object,
        make: Callable[[], _Sink | None],
        *,
        total: int | None,
        delay: float,
        clock: Callable[[], float],
    ) -> None:
        self._value = value
        self._make: Callable[[], _Sink | None] | None = make  # not called before it is time: it may import rich
        self._sink: _Sink | None = None
        self._total = total
        self._clock = clock
        self._start = clock()
        self._show_from = self._start + delay
        self._pid = os.getpid()
        self._closed = False
        self._finished = self._failed = self._running = 0
        self._samples: deque[tuple[float, int]] = deque([(self._start, 0)])
        if delay == 0:
            self._show(final=False)

    def update(self, finished: int, *, failed: int, running: int) -> None:
        """Say how many tasks have finished so far (`failed` of them in vain) and how many are running now."""
        if self._closed or os.getpid() != self._pid:
            return
        self._finished, self._failed, self._running = finished, failed, running
        now = self._clock()
        if finished != self._samples[-1][1]:
            self._samples.append((now, finished))
        while len(self._samples) > 1 and self._is_old(*self._samples[1], now):
            self._samples.popleft()
        if now >= self._show_from:
            self._show(final=False)

    def close(self) -> None:
        """Leave the last state drawn and the terminal as it was; close a bar that we made. May be called again.

        What has not been shown so far is not begun here.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self._make = None
        try:
            self._show(final=True)
        finally:  # also if a Ctrl-C comes while it draws
            sink, self._sink = self._sink, None
            if sink is not None:
                try:
                    sink.close()
                except Exception as error:  # the user's bar must not take the results with it
                    self._log(error)

    def _show(self, *, final: bool) -> None:
        try:
            if self._make is not None:
                make, self._make = self._make, None
                self._sink = make()
            if self._sink is not None:
                self._sink.show(self._view(final=final))
        except Exception as error:  # the user's bar must not take the results with it
            self._log(error)
            sink, self._sink = self._sink, None
            if sink is not None:
                with contextlib.suppress(Exception):  # one line in the log is enough
                    sink.close()

    def _view(self, *, final: bool) -> _View:
        now = self._clock()
        since, before = (self._start, 0) if final else self._samples[0]
        speed = (self._finished - before) / (now - since) if now > since else 0.0
        left = None
        if not final and self._total is not None and self._finished < self._total and speed > 0:
            left = (self._total - self._finished) / speed
        return _View(self._finished, self._failed, self._running, self._total, now - self._start, speed, left, final)

    def _is_old(self, when: float, finished: int, now: float) -> bool:
        """Whether the speed may be taken from here on, so that what was before can be forgotten."""
        return now - when >= WINDOW and self._finished - finished >= FEWEST

    def _log(self, error: Exception) -> None:
        # logging itself raises where sys.stderr is closed (its handleError lets ValueError out), and the run shall go on.
        with contextlib.suppress(Exception):
            LOGGER.error("progress=%s raised an error and is dropped; the run goes on", short(self._value), exc_info=error)


class _View(NamedTuple):
    """One look at a run: all that a sink may show."""

    finished: int
    failed: int
    running: int
    total: int | None
    elapsed: float
    speed: float  # tasks per second, lately; of the whole run in the last view
    left: float | None  # seconds, if that can be said
    final: bool

    def percent(self) -> int:
        """100 only when all is done, which rounding would say too early."""
        if not self.total or self.finished >= self.total:
            return 100
        return min(99, round(100 * self.finished / self.total))

    def times(self) -> str:
        return seconds(self.elapsed) + (f", {seconds(self.left)} left" if self.left is not None else "")


class _Sink(Protocol):
    def show(self, view: _View) -> None:
        """Show how it stands; the last time with ``view.final``."""

    def close(self) -> None:
        """Give back what was taken: also after `show` has raised."""


class _Lines:
    """Plain lines for logs: every tenth of the whole, or every 30 s, and at the end."""

    def __init__(self, value: object, stream: Any) -> None:
        self._stream = stream
        self._opening = "abreast: "  # one word to search a log for, then the user's label
        if value and isinstance(value, str):
            self._opening += _for_stream(printable(value), stream) + ": "
        self._tenths = 0
        self._told_at = 0.0
        self._told_all = False

    def show(self, view: _View) -> None:
        tenths = 10 * view.finished // view.total if view.total else 0
        is_due = not self._told_all if view.final else tenths > self._tenths or view.elapsed - self._told_at >= LINE_EVERY
        if not is_due:
            return
        self._tenths = tenths
        self._told_at = view.elapsed
        self._told_all = view.total is not None and view.finished >= view.total
        if view.total is None:
            count = f"{view.finished} done, {rate(view.speed)},"
        else:
            count = f"{view.finished}/{view.total} ({view.percent()} %)"
        # One write a line, or two threads' lines could be mixed.
        self._stream.write(f"{self._opening}{count} {view.times()}, {view.failed} failed\n")
        self._stream.flush()

    def close(self) -> None:
        pass


# The bar that is being drawn on the terminal of this process: two at once would overwrite each other, since neither knows
# where the other has left the cursor. By process, so that a forked child may have its own. `setdefault` is atomic.
_drawn: dict[int, RichProgress] = {}


def _bar_or_lines(
    value: object, label: str, total: int | None, stream: Any, *, notebook: bool, clock: Callable[[], float]
) -> _Sink | None:
    """Return a bar; lines, if one was asked for and cannot be drawn here; else None."""
    from rich.console import Console

    # Not with stderr=True, which looks sys.stderr up at each write: redirected in the middle of the run (in the loop over
    # `imap`, say) the bar would go elsewhere, and so would the code that brings the cursor back.
    console = Console(file=stream, force_jupyter=notebook)
    bar = _Bar(console, label, total, clock)
    # rich knows more of terminals than isatty: TTY_COMPATIBLE, TTY_INTERACTIVE, FORCE_COLOR, IDLE
    if (notebook or console.is_interactive) and bar.begin():
        return bar
    return None if value is None else _Lines(value, stream)


class _Bar:
    """A bar drawn by rich, in the thread that calls `show`."""

    def __init__(self, console: Console, label: str, total: int | None, clock: Callable[[], float]) -> None:
        from rich.progress import BarColumn, ProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column
        from rich.text import Text

        plain = console.options.ascii_only
        self._between = ", " if plain else " · "
        self._overflow: Literal["crop", "ellipsis"] = "crop" if plain else "ellipsis"
        self._label = Text(_for_stream(label, console.file))
        # Text is never markup: `load [/foo]` would raise, `load [red]x` lose a word. And never a second line: after a resize
        # it would stay behind.
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow=self._overflow)),
            BarColumn(bar_width=None, table_column=Column(max_width=40)),
            TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=True, overflow=self._overflow)),
        ]
        if total is None:  # no bar then: it could only swing, and would still do so in the last picture
            del columns[1]
        # Without auto-refresh rich starts no thread. With a redirection, and a console on stderr, it would send the user's
        # print there too, so that `script | next` loses its output; each printing thread would draw; a forked worker too.
        self._rich = RichProgress(
            *columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, get_time=clock
        )
        self._task = self._rich.add_task("", total=total, numbers="")
        # rich hides the cursor. Also if the run is dropped in the middle, or the program ends there, it comes back.
        self._end = weakref.finalize(self, _end_of_bar, self._rich, os.getpid())
        self._seen: tuple[int, int, int] | None = None
        self._seen_at = 0.0

    def begin(self) -> bool:
        """Take the terminal; False if another bar has it."""
        if not self._rich.console.is_jupyter and _drawn.setdefault(os.getpid(), self._rich) is not self._rich:
            return False
        self._rich.live.start()  # Progress.start would draw a first picture, without numbers
        return True

    def show(self, view: _View) -> None:
        seen = (view.finished, view.failed, view.running)
        if seen == self._seen and view.elapsed - self._seen_at < REDRAW and not view.final:
            return
        self._seen, self._seen_at = seen, view.elapsed
        label, numbers = self._fit(view, self._rich.console.width)
        self._rich.update(self._task, completed=view.finished, description=label, numbers=numbers)
        self._rich.refresh()

    def _fit(self, view: _View, width: int) -> tuple[str, str]:
        """Return label and numbers for one line. A narrow one takes from the bar, then the label, then the numbers; failures last.

        Left to itself, rich would cut the numbers at their end.
        """
        if view.total is None:
            count = f"{view.finished} done {rate(view.speed)}"
        else:
            count = f"{view.finished}/{view.total} {view.percent()} %"
        failed = f"{view.failed} failed"
        running = f"{view.running} running{self._between}"
        elapsed = seconds(view.elapsed)
        numbers = f"{count} {view.times()} {running}{failed}"
        for shorter in (f"{count} {elapsed} {running}{failed}", f"{count} {elapsed} {failed}", f"{count} {failed}"):
            if len(numbers) + 1 + min(12, self._label.cell_len) <= width:
                break
            numbers = shorter
        label = self._label.copy()
        wanted = max(12, min(width // 3, width - len(numbers) - 12))  # leaves a bar of 10
        label.truncate(max(1, min(wanted, width - len(numbers) - 1)), overflow=self._overflow)
        return label.plain, numbers

    def close(self) -> None:
        self._end()


def _end_of_bar(rich: RichProgress, pid: int) -> None:
    if os.getpid() != pid:  # a forked child that ends: the terminal is its parent's
        return
    with contextlib.suppress(Exception):  # the terminal may be gone; nobody could be told
        rich.console.quiet = rich.console.is_jupyter  # all is shown; rich would add an empty output below it
        rich.live.stop()  # Progress.stop would print an empty line for a bar that has not begun
    if _drawn.get(pid) is rich:
        del _drawn[pid]


class _Tqdm:
    """A tqdm bar, or what looks like one."""

    def __init__(self, bar: Any, *, ours: bool) -> None:
        self._bar = bar
        self._ours = ours
        self._told = 0

    @classmethod
    def made(cls, make: Any, label: str, total: int | None) -> _Tqdm:
        return cls(make(total=total, desc=label), ours=True)

    @classmethod
    def given(cls, bar: Any, total: int | None) -> _Tqdm:
        if total is not None and getattr(bar, "total", total) is None:
            bar.total = total
        return cls(bar, ours=False)

    def show(self, view: _View) -> None:
        new, self._told = view.finished - self._told, view.finished
        if self._ours and hasattr(self._bar, "set_postfix_str"):  # on a given bar it may be the user's
            self._bar.set_postfix_str(f"{view.running} running, {view.failed} failed", refresh=False)
        if new > 0:
            self._bar.update(new)
        if view.final and hasattr(self._bar, "refresh"):  # update draws only now and then
            self._bar.refresh()

    def close(self) -> None:
        if self._ours:
            self._bar.close()


class _RichTask:
    """A row in the user's rich Progress."""

    def __init__(self, progress: Any, label: str, total: int | None) -> None:
        from rich.markup import escape

        self._progress = progress
        self._auto = getattr(getattr(progress, "live", None), "auto_refresh", True)
        # Its columns may read a description as markup (rich's own do). The counts are fields, for a column that wants them.
        self._task = progress.add_task(escape(label), total=total, failed=0, running=0)

    def show(self, view: _View) -> None:
        # At the end the total is known: or the row would go on swinging for as long as the user's Progress is open.
        more = {"total": view.finished} if view.final and view.total is None else {}
        self._progress.update(self._task, completed=view.finished, failed=view.failed, running=view.running, **more)
        if view.final or not self._auto:  # nobody else could refresh it, while the user's thread waits for the run
            self._progress.refresh()

    def close(self) -> None:
        pass


class _Call:
    """A function that gets the number newly done."""

    def __init__(self, fn: Any) -> None:
        self._fn = fn
        self._told = 0

    def show(self, view: _View) -> None:
        new, self._told = view.finished - self._told, view.finished
        if new > 0:
            self._fn(new)

    def close(self) -> None:
        pass


def _class_of_bar(value: object) -> object:
    """Return the class that `value` is or, as in ``partial(tqdm, leave=False)``, wraps.

    As a callable, either would make a bar per update.
    """
    return value.func if isinstance(value, functools.partial) else value


def _is_tqdm(value: object) -> bool:
    return _has(value, "update", "n")


def _is_rich(value: object) -> bool:
    return _has(value, "add_task", "advance")


def _has(value: object, *names: str) -> bool:
    return all(hasattr(value, name) for name in names)


def _can_draw(stream: Any, *, notebook: bool) -> bool:
    """Whether a bar can be drawn, and not only lines, as far as this can be known without importing rich."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):  # it keeps a log, even where it has a terminal
        return False
    if notebook:
        return _has_ipywidgets()  # without them rich warns, and shows nothing
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return False
    try:
        return bool(stream.isatty())
    except Exception:  # a stand-in for stderr may have no isatty, or one that raises
        return False


def _in_notebook() -> bool:
    """Whether this is Jupyter or Colab. IPython is not imported for it: where it is not yet, this is none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in str(type(shell))


def _has_ipywidgets() -> bool:
    return sys.modules.get("ipywidgets") is not None or find_spec("ipywidgets") is not None


def _for_stream(text: str, stream: Any) -> str:
    """Return `text` with what the stream's encoding lacks escaped, so that its width is known."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def seconds(value: float) -> str:
    """Return a time as a person reads it: ``1.0 s``, ``108 s``, ``12 min 05 s``, ``2 h 05 min``."""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 600:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def rate(value: float) -> str:
    """Return a speed as a person reads it: ``250/s``, ``2.5/s``, ``6.0/min``."""
    if value < 1:
        return f"{60 * value:.1f}/min"
    return f"{value:.1f}/s" if value < 99.95 else f"{value:.0f}/s"
