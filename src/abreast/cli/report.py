"""``abreast report FILE``: what a trace file tells, as text, JSON, a page, a table.

::

    FILE ─ read_trace ─▶ Recording ─▶ Report ─▶ standard output (in colour on a terminal, plain elsewhere, or as JSON)
                                   └▶ write_timeline, write_trace, write_table ─▶ -o FILE, by its ending

Everything that can be wrong with the command line is found before the file is read.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import stat
import sys
from typing import TYPE_CHECKING

import click

from abreast.cli.errors import Refused
from abreast.cli.main import say
from abreast.cli.signals import held
from abreast.core.errors import RecordingError
from abreast.report.saving import ENDINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from abreast.core.recording import Recording

__all__ = ["command"]

EPILOG = """\b
Examples
  abreast report run.json
      what record("run.json") has seen: times, workers, advice
  abreast report run.json.gz --full
      the same with every worker, error and lock
  abreast report run.json -o run.html
      the timeline as a page, to look at without a network
  abreast report run.json -o run.csv
      a line for each attempt, in seconds
  abreast report run.json --format json
      the report's figures, for scripts
"""


@click.command("report", epilog=EPILOG, short_help="Tell what a recorded run did, and what to change.")
@click.argument("file", metavar="FILE")
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help=f"Write a file instead, by its ending: {', '.join(ENDINGS)}; one that exists is refused.",
)
@click.option("--force", is_flag=True, help="Replace the file OUT.")
@click.option("--full", is_flag=True, help="Tell all: every worker, error and lock.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), help="How the report is printed: text (default) or json.")
def command(file: str, output: str | None, force: bool, full: bool, form: str | None) -> None:
    """Tell what a run did, from the trace file FILE that it has written.

    FILE is what record("run.json") or run.save("run.json") has written, or the same compressed. Of a file that was cut off, what is there is told.

    A .csv has texts as they are: a spreadsheet may take one that begins with =, +, - or @ for a formula, so import such columns as text.
    """
    _check(file, output, force=force, full=full, form=form)
    if output is None and sys.stdout is None:
        raise Refused("standard output is closed; give an output with -o")
    with _without_collections():
        recording = _read(file)
        if output is None:
            _print(recording, full=full, form=form or "text")
            return
        try:
            with held():
                from abreast.report.saving import save
            save(recording, output, full=full)
        except OSError as error:
            raise Refused(f"cannot write {output!r}: {error.strerror or error}") from None


def _check(file: str, output: str | None, *, force: bool, full: bool, form: str | None) -> None:
    if output is None:
        if force:
            raise click.UsageError("--force is for a file that -o names")
        return
    if form is not None:
        raise click.UsageError("--format is for what is printed; a file that -o names has the format of its ending")
    if not output.endswith(ENDINGS):
        raise click.UsageError(f"the name of the file {output!r} must end in one of {', '.join(ENDINGS)}")
    if full and not output.endswith(".html"):
        raise click.UsageError("--full is for a report; a trace file and a table have everything in any case")
    if not force and os.path.lexists(output) and not _is_pipe_or_device(output):
        if os.path.exists(file) and os.path.exists(output) and os.path.samefile(file, output):
            raise Refused(f"{output!r} is the file to be read")
        raise Refused(f"{output!r} exists; --force replaces it")


def _is_pipe_or_device(file: str) -> bool:
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Let no garbage be looked for: all that is read stays, and looking through it takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(file: str) -> Recording:
    with held():  # raised within an import, a signal may get lost there
        from abreast.report.chrome import read_trace
    try:
        return read_trace(file, on_cut=lambda what: say(f"abreast report: {what}"))
    except RecordingError as error:
        raise Refused(str(error)) from None


def _print(recording: Recording, *, full: bool, form: str) -> None:
    with held():
        from abreast.report.text import Report
    report = Report(recording, full=full)
    if form == "json":
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    elif sys.stdout.isatty():
        with held():
            from rich.console import Console
        Console().print(report)
    else:
        sys.stdout.write(f"{report}\n")
