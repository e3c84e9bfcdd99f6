"""`record`: watches everything inside its block, and hands what was seen to the reports."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abreast.core import watch
from abreast.core.check import count
from abreast.observe.recorder import LIMIT, Recorder
from abreast.report.saving import ENDINGS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from abreast.core.recording import Attempt, Recording
    from abreast.report.text import Report

__all__ = ["RecordedRun", "record"]


def record(path: str | os.PathLike[str] | None = None, *, limit: int = LIMIT, observers: Iterable[Any] = ()) -> RecordedRun:
    """Record what every run, executor and group does that is used inside the block: which task ran where and when, and what it waited for.

    Watching does not change the work. On threads and in processes a task takes below 1 us longer; 3 us if its input is no number, since that is
    made text when it is read, and as long as its ``repr`` takes if it is of a class of yours. What is started before the block is not recorded. What
    other threads of this process start meanwhile is: of blocks in two threads at once, each records what both do.

    Args:
        path: a file to save it to at the end of the block, whatever ends it (if that is an error, one of saving is a note on it): ``.json`` or ``.json.gz`` (a trace file, which ``abreast report``,
            Perfetto and chrome://tracing read), ``.html`` (the timeline as a page) or ``.csv``. None: nothing is written.
        limit: the most attempts at tasks that are kept, at least 1; each takes about 200 bytes. Sums stay exact, and what was dropped is told.
        observers: names of files in abreast/observe that are told of each task as it ends: ``"log"``, ``"otel"``; or objects like theirs.

    Returns:
        `RecordedRun`, which has `report`, `timeline`, `save`, `show`, `tasks` and `stats`.

    Raises:
        TypeError, ValueError: a wrong argument, or an ending of `path` that is none of these.
        OSError: there is no folder for `path`; or, at the end of the block, the file cannot be written.

    >>> import abreast, time
    >>> with abreast.record() as run:
    ...     numbers = abreast.map(abs, [-3, -2, -1], max_workers=2)
    >>> run.stats()["tasks"], sorted(task.call for task in run.tasks)
    (3, ['abs(-1)', 'abs(-2)', 'abs(-3)'])
    """
    return RecordedRun(path, limit=limit, observers=observers)


class RecordedRun:
    """What `record` gives: it watches from the beginning of the block to its end, and tells afterwards, or meanwhile, what it has seen.

    Args:
        path, limit, observers: as for `record`.

    Attributes:
        path (str | None): where it is saved at the end of the block.

    >>> import abreast
    >>> with abreast.record() as run, abreast.ThreadPoolExecutor(2) as executor:
    ...     future = executor.submit(pow, 2, 10)
    >>> [(task.call, task.attempt) for task in run.tasks]
    [('pow(2, 10)', 1)]
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, limit: int = LIMIT, observers: Iterable[Any] = ()) -> None:
        self.path = None if path is None else _checked_path(path)
        if self.path is not None and not (folder := Path(self.path).parent).is_dir():
            # Now, not at the end of the block: what is done there may take hours.
            raise FileNotFoundError(errno.ENOENT, f"there is no folder '{folder}' to write it to; make it first", self.path)
        self._recorder = Recorder(count("limit", limit))
        self._observers = _opened(observers)
        self._entered = False
        self._recording: Recording | None = None

    def __enter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a RecordedRun records one block; call record() again for another")
        self._entered = True
        try:
            for observer in self._observers:
                watch.start(observer)
            self._recorder.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        if self.path is None:
            return
        try:
            self.save(self.path)
        except Exception as error:
            if exc is None:
                raise
            exc.add_note(
                f"abreast: and the recording was not saved: {watch.error_text(error)}"
            )  # the block's own error goes first

    def _stop(self) -> None:
        """Watch no more, whatever an observer raises at its end: that is logged."""
        try:
            self._recorder.stop()
        finally:
            for observer in self._observers:
                watch.stop(observer)
            for observer in self._observers:
                try:
                    getattr(observer, "close", _nothing)()
                except Exception:  # an observer's: watching does not change the work
                    logging.getLogger("abreast").exception("an observer (%s) raised at its end", type(observer).__name__)

    @property
    def recording(self) -> Recording:
        """What has been recorded so far, or in all (`abreast.core.recording.Recording`): plain data."""
        if self._recording is not None:
            return self._recording
        recording = self._recorder.recording()
        if recording.complete:
            self._recording = recording
        return recording

    @property
    def tasks(self) -> list[Attempt]:
        """Each attempt at a task that was kept, as a named tuple: ``call``, ``begin`` and ``end`` (nanoseconds since the recording began), ``cpu``, ``error``, …"""
        return self.recording.attempts

    def stats(self) -> dict[str, Any]:
        """Return the totals: counts of ``tasks``, ``attempts`` and outcomes; seconds (None: not known) of the recording and of all attempts.

        The counts of outcomes are ``failed``, ``timeouts``, ``crashes``, ``retries``, ``cancelled`` and ``resumed``; the seconds are ``wall_time``, ``task_time``,
        ``cpu_time``, ``queued_time`` and ``gil_time`` (held up by the GIL). ``dropped`` is how many attempts were not kept.

        >>> import abreast
        >>> with abreast.record() as run:
        ...     lengths = abreast.map(len, ["a", "bc"])
        >>> stats = run.stats()
        >>> stats["tasks"], stats["failed"]
        (2, 0)
        """
        works = self.recording.works

        def seconds(name: str) -> float | None:
            known = [value for value in (getattr(work, name) for work in works) if value is not None]
            return sum(known) / 1e9 if known else None

        return {
            "tasks": sum(work.tasks for work in works),
            "attempts": sum(work.attempts for work in works),
            **{
                name: sum(getattr(work, name) for work in works)
                for name in ("failed", "timeouts", "crashes", "retries", "cancelled", "resumed")
            },
            "wall_time": self.recording.end / 1e9,
            "task_time": seconds("wall"),
            "cpu_time": seconds("cpu"),
            "queued_time": seconds("queued"),
            "gil_time": seconds("gil"),
            "dropped": self.recording.dropped,
        }

    def report(self, *, full: bool = False) -> Report:
        """Return the report: ``print`` shows it as text, notebooks and `rich.print` in colour.

        Args:
            full: whether to tell all, not only 20 lines.

        >>> import abreast
        >>> with abreast.record() as run:
        ...     lengths = abreast.map(len, ["a", "bc"])
        >>> print(str(run.report()).partition(" on ")[0])
        len: 2 tasks
        """
        from abreast.report.text import Report

        return Report(self.recording, full=full)

    def timeline(self, path: str | os.PathLike[str]) -> None:
        """Write the timeline: a page (``.html``) that works without a network.

        Args:
            path (str | os.PathLike): where to write; a file that is there is replaced.

        Raises:
            TypeError, ValueError: `path` is no path, or does not end so.
            OSError: it cannot be written.

        >>> import abreast, os, tempfile
        >>> with abreast.record() as run:
        ...     lengths = abreast.map(len, ["a", "bc"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run.timeline(os.path.join(folder, "run.html"))
        """
        name = _checked_path(path)
        if not name.endswith(".html"):
            raise ValueError(f"timeline writes a page, so path must end with .html, not as {name!r}; save() writes other files")
        self.save(name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was recorded, by the ending of `path`: ``.json``, ``.json.gz`` (trace file), ``.html`` (timeline), ``.csv`` (a line per attempt).

        It is written beside its place and then renamed, so it is complete or not there. Texts of a ``.csv`` are as they are: a spreadsheet may take
        one that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, so import such columns as text.

        Args:
            path (str | os.PathLike): where to write; a file that is there is replaced.

        Raises:
            TypeError, ValueError: a wrong `path`.
            OSError: it cannot be written.

        >>> import abreast, os, tempfile
        >>> with abreast.record() as run:
        ...     lengths = abreast.map(len, ["a", "bc"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run.save(os.path.join(folder, "run.csv"))
        ...     os.listdir(folder)
        ['run.csv']
        """
        from abreast.report.saving import save

        save(self.recording, _checked_path(path))

    def show(self) -> None:
        """Show the timeline: in a browser, which reads it from a temporary file.

        Raises:
            OSError: that cannot be written.
        """
        import tempfile
        import webbrowser

        fd, path = tempfile.mkstemp(".html", "abreast-")
        os.close(fd)
        self.save(path)
        webbrowser.open(f"file://{path}")

    def __repr__(self) -> str:
        state = "not started" if not self._entered else "over" if self.recording.complete else "recording"
        return f"<RecordedRun {state}: {sum(work.attempts for work in self.recording.works):,} attempts at tasks>"


def _nothing() -> None:
    """Of an observer that has no end."""


def _checked_path(path: Any) -> str:
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(name, str):
        raise TypeError(f"path must be the name of a file, not {path!r} ({type(path).__name__})")
    if not name.endswith(ENDINGS):
        raise ValueError(
            f"path must end with {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, which says what is written; not {name!r}"
        )
    return name


def _opened(observers: Iterable[Any]) -> list[Any]:
    if isinstance(observers, str):
        raise TypeError(f"observers must be a list, as [{observers!r}], not a string")
    found = []
    for observer in observers:
        if isinstance(observer, str):
            from abreast.observe.finding import find

            found.append(find(observer))
        elif callable(getattr(observer, "attempts", None)):
            found.append(observer)
        else:
            raise TypeError(f"observers must be names, or objects with a method attempts(); {observer!r} is neither")
    return found
