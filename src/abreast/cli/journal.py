"""``abreast journal FILE``, and ``failed``, ``export`` and ``salvage``: looks into a journal, whoever it is from.

journal/reading.py and journal/salvage.py read; here it is shown. What a terminal would obey is made visible in every text, and long ones are cut where a person is to read
them. Tables are rich's on a terminal, and plain when piped.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from abreast.cli.console import whole_console
from abreast.cli.errors import Refused
from abreast.cli.main import closed_pipe, ended_by, say
from abreast.cli.output import NobodyReads, Output, OutputError, open_output
from abreast.core.journal_errors import JournalError
from abreast.core.text import printable
from abreast.journal import schema
from abreast.journal.reading import Reading
from abreast.journal.salvage import salvage
from abreast.observe.progress import rate, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from abreast.journal.reading import Overview, SeenRun, SeenTask

__all__ = ["command"]

FAILED = (schema.ERROR, schema.TIMEOUT, schema.CRASHED, schema.STARTED)
LONGEST = 1000
"""Characters of a text in a line that a person is to read."""
RUNS_SHOWN = 20
ROWS_SHOWN = 1000
"""Rows of a table on a terminal: all of them have to be there before its first line."""
PIECE = 1 << 16

EPILOG = """\b
Examples
  abreast journal fetch.db
      runs, how many tasks are done, and how far a run is that goes on
  abreast journal failed fetch.db
      a line for each task that has failed; --full shows whole tracebacks
  abreast journal export fetch.db --format csv -o fetch.csv
      every task, for a spreadsheet; JSON lines without --format
  abreast journal salvage fetch.db new.db
      what is whole of a damaged journal

\b
Exit status
  0    everything was shown, or copied
  1    salvage has dropped something
  2    wrong usage, a FILE that is no journal or damaged, unwritable output

A FILE that is called "failed" is given as ./failed.
"""


class _WithoutName(click.Context):
    """Of what has no word of its own: errors call it as its group."""

    @property
    def command_path(self) -> str:
        return self.parent.command_path if self.parent is not None else "abreast journal"


class _Status(click.Command):
    context_class = _WithoutName


class _Journal(click.Group):
    """A group whose command, if none is named, is `status`."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in self.commands or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        if len(args) > 1 and not os.path.lexists(args[0]):
            import difflib

            near = difflib.get_close_matches(args[0], self.commands, 1)
            if near:
                raise click.UsageError(f"no command {args[0]!r}; did you mean {near[0]!r}?", ctx)
        return "status", status, args


@click.group("journal", cls=_Journal, epilog=EPILOG, subcommand_metavar="[failed | export | salvage] FILE ...")
def command() -> None:
    """Look into a journal: FILE is what a run was given as journal=.

    Shows its runs, and what came of their tasks; also while a run goes on, which is not held up. Nothing of FILE is believed, run or
    unpickled, so it may be anybody's.
    """


@click.command("status", cls=_Status)
@click.argument("file", metavar="FILE")
def status(file: str) -> None:
    """Show the runs of a journal, and how many tasks came to what."""
    with _opened(file) as reading:
        overview = reading.overview()
        reading.check_unchanged()
    _show(file, overview)


@command.command("failed", short_help="Show the tasks that have failed.")
@click.argument("file", metavar="FILE")
@click.option("--full", is_flag=True, help="Whole tracebacks, not their first lines.")
@click.pass_context
def failed(ctx: click.Context, file: str, *, full: bool) -> None:
    """Show the tasks of a journal that have failed: error, timeout, crashed.

    Also those that were started with at_most_once, of which nobody knows what came. A line has the index, the key (digests are cut),
    the attempts, and the error; when piped, with tabs between.
    """
    with _opened(file) as reading:
        tasks, under_way = _failed_of(reading)
        if full or not sys.stdout or not sys.stdout.isatty():
            lines = (line for task in tasks for line in (_in_full(task) if full else [_with_tabs(task)]))
            status = _write_all(ctx, None, lines, reading)
        else:
            status = _show_failed(file, tasks, reading.count(FAILED))
            reading.check_unchanged()
    if under_way:
        say(f"abreast journal failed: {_count(len(under_way), 'task')} more of the run that goes on had been started")
    ctx.exit(status)


@command.command("export", short_help="Write every task as a line of JSON or CSV.")
@click.argument("file", metavar="FILE")
@click.option(
    "--format", "kind", type=click.Choice(["jsonl", "csv"]), default="jsonl", help="JSON lines (default), or CSV with a header."
)
@click.option("-o", "--output", metavar="OUT", help="Write to OUT; one that exists is refused.")
@click.option("--force", is_flag=True, help="Replace OUT when all has been written.")
@click.pass_context
def export(ctx: click.Context, file: str, *, kind: str, output: str | None, force: bool) -> None:
    r"""Write every task of a journal as a line, in the order of their indexes.

    Results that are JSON are there as they are; of pickled ones, the size. Times are seconds, dates UTC. Keys that are digests of
    inputs are in base 16. In CSV, line ends and control characters of texts are written as \n and \x1b; JSON lines keep them.

    Texts are written as they are: a spreadsheet may take one that begins with =, +, - or @ for a formula, so import such columns as text.
    """
    with _opened(file) as reading, _output(file, output, force=force) as out:
        make = _csv_lines if kind == "csv" else _json_lines
        status = _write_all(ctx, out, make(reading), reading)
    ctx.exit(status)


@command.command("salvage", short_help="Copy what is whole of a damaged journal into a new one.")
@click.argument("file", metavar="FILE")
@click.argument("new", metavar="NEW")
@click.option("--trust", is_flag=True, help="Copy pickled results out of a FILE that others may have written, too.")
@click.pass_context
def salvage_command(ctx: click.Context, file: str, new: str, *, trust: bool) -> None:
    """Copy what is whole of a damaged journal into NEW, which must not exist.

    FILE is left as it is. What is copied has the checksum that it was written with; the rest is dropped, and counted. A run with NEW
    as its journal returns what was copied, and runs the rest. The exit status is 1 if anything was dropped.
    """
    try:
        told = salvage(file, new, trust=trust)
    except JournalError as error:
        raise Refused(printable(str(error))) from None
    parts = [_count(told.tasks, "task"), _count(told.runs, "run")] + [_count(told.files, "file")] * bool(told.files)
    of = f" of {_cut(printable(', '.join(told.functions)), 200)}" if told.functions else ""
    lines = [f"{printable(new)}: {', '.join(parts)}{of} copied"]
    lines += [f"dropped: {_count(count, 'task')} {why}" for why, count in sorted(told.dropped.items(), key=lambda item: -item[1])]
    lines += [f"note: {remark}" for remark in told.remarks]
    lines.append(
        "nothing was dropped" if told.is_all else f"a run with journal={printable(repr(new))} runs again what is not there"
    )
    _print(lines)
    ctx.exit(0 if told.is_all else 1)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[Reading]:
    try:
        with Reading(file) as reading:
            yield reading
    except JournalError as error:
        raise Refused(printable(str(error))) from None


@contextlib.contextmanager
def _output(file: str, output: str | None, *, force: bool) -> Iterator[Output]:
    with contextlib.suppress(OSError):
        if output is not None and os.path.samefile(file, output):
            raise Refused(f"{output!r} is the journal itself; give another OUT")
    with open_output(output, force=force) as out:
        yield out


# ---- status


def _show(file: str, overview: Overview) -> None:
    of, on = (_cut(printable(version), 30) for version in overview.made_by)
    made = f"made {_date(overview.created)} by abreast {of} on Python {on}; " if overview.created else ""
    log = f", and {_bytes(overview.log)} in its log" if overview.log else ""
    lines = [f"{printable(file)}: {made}{_bytes(overview.size)}{log}", ""]
    shown = overview.runs[-RUNS_SHOWN:]
    earlier = Counter(run.how for run in overview.runs[:-RUNS_SHOWN])
    if earlier:
        counts = ", ".join(f"{count:,} {_cut(printable(how), 30)}" for how, count in earlier.most_common(10))
        lines.append(f"{_count(earlier.total(), 'earlier run')}: {counts}")
    _print(lines)
    if shown:
        titles = ("run", "function", "began", "took", "end", "inputs", "recorded")
        _print_table(titles, [_row_of(run, overview.now) for run in shown], left=("function", "began", "end"))
        _print([""])
    total = sum(overview.tasks.values())
    counts = ", ".join(f"{count:,} {name}" for name, count in overview.tasks.items())
    lines = [f"{_count(total, 'task')}{': ' * bool(counts)}{counts}", *_results_of(file, overview), *_going_on(overview)]
    if any(overview.tasks.get(schema.STATUS[number]) for number in FAILED):
        lines.append(f"What failed, and why: abreast journal failed {printable(file)}")
    _print(lines)


def _row_of(run: SeenRun, now: float) -> tuple[str, ...]:
    end = run.ended or (now if run.how == "running" else run.last)
    took = seconds(max(0.0, end - run.started)) if run.started and end else "?"
    least = "> " * (run.how == "killed" and took != "?")  # it lived at least until then
    return (
        str(run.number),
        _cut(printable(run.function.replace(":", ".")), 80),
        _date(run.started),
        least + took,
        _cut(printable(run.how), 30),
        f"{run.inputs:,}" if run.ended else "?",
        f"{run.recorded:,}",
    )


def _results_of(file: str, overview: Overview) -> list[str]:
    parts = []
    for (count, size), what in ((overview.json, "as JSON"), (overview.pickles, "pickled"), (overview.files, "in files")):
        if count:
            parts.append(f"{count:,} {what} ({_bytes(size)})")
    if overview.missing:
        parts.append(f"{overview.missing:,} whose files are gone from {printable(file)}.d")
    if overview.not_kept:
        parts.append(f"{overview.not_kept:,} that could not be kept")
    return [f"results: {', '.join(parts)}"] if parts else []


def _going_on(overview: Overview) -> list[str]:
    holder = overview.holder
    run = overview.runs[-1] if overview.runs else None
    if run is None or run.how != "running":
        if holder.is_held:
            return [f"{_who(holder.pid, holder.host)} has it: a run begins, or ends"]
        return []
    lasted = max(overview.now - run.started, 0.001)
    last = f", the last {seconds(max(0.0, overview.now - run.last))} ago" if run.last else ""
    speed = f", {rate(run.recorded / lasted)}" if run.recorded else ""
    return [
        f"run {run.number} goes on, in {_who(run.pid, run.host)}: {_count(run.recorded, 'task')} recorded in {seconds(lasted)}{speed}{last}"
    ]


def _who(pid: int, host: str) -> str:
    return f"process {pid} on {_cut(printable(host), 80)}" if pid else "another process"


# ---- failed


def _failed_of(reading: Reading) -> tuple[Iterator[SeenTask], list[int]]:
    """Return tasks that have failed, and a list that is filled with the indexes of those that the run that goes on has just started."""
    running = reading.running()
    under_way: list[int] = []

    def tasks() -> Iterator[SeenTask]:
        for task in reading.tasks(FAILED):
            if task.status == "started" and running and task.run == running:
                under_way.append(task.place)
            else:
                yield task

    return tasks(), under_way


def _show_failed(file: str, tasks: Iterator[SeenTask], count: int) -> int:
    rows = []
    for task in tasks:
        rows.append((f"{task.place}", _short_key(task, 40), task.status, f"{task.attempts}", _first_line(task)))
        if len(rows) == ROWS_SHOWN:
            break
    if not rows:
        _print([f"no task of {printable(file)} has failed"])
        return 0
    _print_table(("task", "key", "status", "attempts", "error"), rows, left=("key", "status", "error"))
    if count > len(rows) == ROWS_SHOWN:
        _print([f"and {count - len(rows):,} more: abreast journal failed {printable(file)} | less"])
    return 0


def _with_tabs(task: SeenTask) -> bytes:
    parts = (str(task.place), _short_key(task, LONGEST), task.status, str(task.attempts), _first_line(task))
    return "\t".join(parts).encode() + b"\n"


def _in_full(task: SeenTask) -> Iterator[bytes]:
    attempts = f" after {_count(task.attempts, 'attempt')}" if task.attempts else ""
    yield f"task {task.place}, key {_short_key(task, LONGEST)}: {task.status}{attempts}\n".encode()
    for line in task.error_text.rstrip("\n").split("\n") if task.error_text else [_first_line(task)]:
        yield f"    {printable(line.expandtabs())}\n".encode()
    yield b"\n"


def _short_key(task: SeenTask, longest: int) -> str:
    return _cut(printable(task.key), longest) if task.is_text else task.key[:12]


def _first_line(task: SeenTask) -> str:
    """Return class and text of an error, the first line of that; of a traceback, what stands below it."""
    if task.status == "started":
        return f"started {_date(task.started)}; what came of it is not known"
    names = (task.error_type, task.error_type.removeprefix("__main__."))
    lines = [line.strip(" |+") for line in task.error_text.split("\n")]
    for line in reversed(lines):
        if any(name and (line == name or line.startswith(f"{name}:")) for name in names):
            return _cut(printable(line), LONGEST)
    last = next((line for line in reversed(lines) if line), "")
    return _cut(printable(f"{task.error_type}: {last}" if last else task.error_type), LONGEST)


# ---- export

COLUMNS = (
    "index",
    "key",
    "occurrence",
    "status",
    "attempts",
    "started",
    "duration",
    "format",
    "value",
    "size",
    "error_type",
    "error",
)


def _fields(task: SeenTask, reading: Reading) -> dict[str, Any]:
    """Return what is exported of a task; its value is JSON already."""
    fields: dict[str, Any] = {
        "index": task.place,
        "key": task.key,
        "occurrence": task.occurrence,
        "status": task.status,
        "attempts": task.attempts,
        "started": _iso(task.started),
        "duration": round(task.duration, 6),
    }
    if task.status == "ok":
        fields["format"] = task.format or "not kept"
        if task.format == "json":
            fields["value"] = reading.json_of(task)
        elif task.format == "pickle":
            fields["size"] = task.size
    elif task.error_type or task.error_text:
        fields |= {"error_type": task.error_type, "error": task.error_text}
    return fields


def _json_lines(reading: Reading) -> Iterator[bytes]:
    for task in reading.tasks():
        fields = _fields(task, reading)
        value = fields.pop("value", None)
        line = json.dumps(fields, ensure_ascii=False)
        if value is not None:
            line = f'{line[:-1]}, "value": {value}}}'
        yield _visible(line).encode() + b"\n"


def _csv_lines(reading: Reading) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for task in reading.tasks():
        yield from _taken(text)
        fields = _fields(task, reading)
        if "value" in fields:
            fields["value"] = _visible(fields["value"])
        for name in ("key", "error_type", "error"):
            fields[name] = printable(fields.get(name, ""))
        writer.writerow(fields)
    yield from _taken(text)


def _taken(text: io.StringIO) -> list[bytes]:
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return [data]


def _visible(text: str) -> str:
    """Return JSON with whatever a terminal would obey, and halves of surrogate pairs, written as JSON's own escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    data = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[place : place + 2].hex()}" for place in range(0, len(data), 2))


def _write_all(ctx: click.Context, out: Output | None, lines: Iterable[bytes], reading: Reading) -> int:
    """Write lines to an output, or to standard output; return the exit status."""
    if out is None:
        with open_output(None, force=False) as standard:
            return _write_all(ctx, standard, lines, reading)
    name = ctx.command_path
    try:
        piece: list[bytes] = []
        size = 0
        try:
            for line in lines:
                piece.append(line)
                size += len(line)
                if size > PIECE:
                    out.write(piece)
                    piece, size = [], 0
        finally:
            if not isinstance(sys.exc_info()[1], (OutputError, NobodyReads, KeyboardInterrupt)):
                out.write(piece)
        reading.check_unchanged()
    except JournalError as error:
        say(f"{name}: {printable(str(error))}; {_written(out)}")
        return 2
    except OutputError as error:
        say(f"{name}: {error}; {_written(out)}")
        return 2
    except NobodyReads:
        return closed_pipe()
    except KeyboardInterrupt as error:
        return ended_by(error, name, f": {_written(out)}")
    out.complete = True
    return 0


def _written(out: Output) -> str:
    where = f" in {out.part}; {out.name} is as it was" if out.part != out.name and out.lines else ""
    return f"{_count(out.lines, 'line')} written{where}"


# ---- words


def _print(lines: Iterable[str]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # in ASCII too
        sys.stdout.writelines(f"{line}\n" for line in lines)


def _print_table(titles: Sequence[str], rows: Sequence[tuple[str, ...]], *, left: Sequence[str]) -> None:
    """Print a table: on a terminal as wide as that, else as wide as it is."""
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        cells = (
            [
                cell.ljust(width) if title in left else cell.rjust(width)
                for title, cell, width in zip(titles, row, widths, strict=True)
            ]
            for row in (titles, *rows)
        )
        _print("  ".join(row).rstrip() for row in cells)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for title in titles:
        is_long = title in ("function", "key", "error")
        table.add_column(title, justify="left" if title in left else "right", overflow="fold", no_wrap=not is_long)
    for row in rows:
        table.add_row(*map(Text, row))
    sys.stdout.flush()
    whole_console().print(table)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _bytes(size: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return _count(size, "byte")


def _date(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else "?"
    except (OverflowError, OSError, ValueError):
        return "?"


def _iso(moment: float) -> str | None:
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds") if moment else None
    except (OverflowError, OSError, ValueError):
        return None
