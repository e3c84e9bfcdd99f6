"""``abreast compare MODULE:FUNCTION [FILE]``: which kind and how many workers are fastest, for a function over lines.

While it is measured, descriptor 1 is standard error (output.py): what the function prints does not mix with the report.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Any

import click

import abreast
from abreast.cli.errors import Refused
from abreast.cli.function import described, load_function
from abreast.cli.main import can_draw, closed_pipe, ended_by, say
from abreast.cli.options import Seconds, function_and_lines
from abreast.cli.output import NobodyReads, OutputError, open_output
from abreast.cli.reading import InputError, open_inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from abreast.cli.reading import Inputs

    _Words: TypeAlias = click.ParamType[tuple[Any, ...]]
else:  # generic only since 8.4
    _Words = click.ParamType

__all__ = ["command"]

EPILOG = """\b
Examples
  abreast compare scraper:fetch urls.txt
      fetch() of scraper.py on the first 100 lines, each way
  abreast compare --kinds process -j 1,2,4 -o a.html pics:shrink files.txt
      how far processes go; and a page with the picture of it
  abreast compare --limit 10000 --rounds 7 shop:total orders.txt
      more work, and more often: for functions that take microseconds

\b
Exit status
  0    every way has given the results of the serial run
  1    a way failed, or gave other results; or the function fails one by one
  2    wrong usage, unreadable input, unwritable output
  130  Ctrl-C (143 SIGTERM, 129 hang-up, 141 nobody reads the output)
"""


class _Kinds(_Words):
    """Kinds, as ``thread,process``."""

    name = "kinds"

    def convert(self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        words = tuple(value.split(",")) if isinstance(value, str) else value
        for word in words:
            if word not in ("serial", "thread", "process"):
                self.fail(f"{word!r} is not a kind: serial, thread, process, or several with commas between", param, ctx)
        return words


class _Numbers(_Words):
    """Numbers of workers, as ``1,2,4,8``."""

    name = "numbers"

    def convert(self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not isinstance(value, str):
            return value
        try:
            numbers = tuple(int(word) for word in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} is not a number of workers from 1, or several with commas between, as 1,2,4,8", param, ctx)
        return numbers


@click.command("compare", epilog=EPILOG, short_help="Tell whether threads or processes are faster, and how many.")
@function_and_lines
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Take the first N lines of FILE only.",
)
@click.option("--kinds", metavar="KINDS", type=_Kinds(), help="Of thread, process, with commas between; default: all there are.")
@click.option(
    "-j",
    "--max-workers",
    "--jobs",
    metavar="N,…",
    type=_Numbers(),
    help="How many at once, as 1,2,4,8; default: 2, 4 … up to map's.",
)
@click.option(
    "--rounds", metavar="N", type=click.IntRange(min=1), default=3, show_default=True, help="Run each way N times, in turn."
)
@click.option("--timeout", metavar="SECONDS", type=Seconds(), help="A run that takes longer has failed.")
@click.option("-o", "--output", metavar="FILE", help="Write a page to FILE.html, or the figures to FILE.json, too.")
@click.option("--force", is_flag=True, help="Replace an output FILE that exists.")
@click.option(
    "--progress/--no-progress",
    "--bar",
    default=None,
    help="Show a bar, on standard error, between runs; by default if that is a terminal.",
)
@click.pass_context
def command(
    ctx: click.Context,
    function: str,
    file: str,
    *,
    as_json: bool,
    null: bool,
    limit: int,
    kinds: tuple[str, ...] | None,
    max_workers: tuple[int, ...] | None,
    rounds: int,
    timeout: float | None,
    output: str | None,
    force: bool,
    progress: bool | None,
) -> None:
    """Run a function over lines one by one, on threads and in processes, and tell which is fastest.

    FILE is standard input if it is left out, or "-". Each line is one input, given to the function as text. Every way runs all of them,
    three times, in turn, and its results are compared with those of one by one: so the function is called many times on each line.

    What is timed is whole runs, starting the workers included. MODULE is looked for in the current directory first.
    """
    target = _target(output, force=force)
    width = _width()  # now: while it is measured, descriptor 1 is another
    separator = b"\0" if null else b"\n"
    with (
        open_inputs(file, as_json=as_json, separator=separator, who="abreast compare") as inputs,
        open_output(None, force=False) as out,
    ):
        fn = load_function(function)
        options: dict[str, Any] = {"kinds": kinds, "max_workers": max_workers, "rounds": rounds, "timeout": timeout}
        options["progress"] = progress if progress is not None else None if can_draw() else False
        try:
            comparison = _compare(ctx, fn, _values(inputs, limit), options)
            if target is not None:
                comparison.save(target)
            text = comparison.to_text(width=width, ascii_only=not _is_unicode())
            out.write([f"{line}\n".encode(errors="backslashreplace") for line in text.split("\n")])
            status = 0 if comparison.agrees else 1
        except _Failed as failed:
            say(f"abreast compare: one by one, {failed}")
            status = 1
        except (InputError, OutputError) as error:
            say(f"abreast compare: {error}")
            status = 2
        except NobodyReads:
            status = closed_pipe()
        except KeyboardInterrupt as error:
            status = ended_by(error, "abreast compare", ": nothing was measured to its end")
    ctx.exit(status)


def _target(output: str | None, *, force: bool) -> str | None:
    """Return the whole name of the output, since functions may change the directory; refuse it before minutes are spent on it."""
    if output is None:
        return None
    if not output.lower().endswith((".html", ".htm", ".json")):
        raise Refused(f"cannot write {output!r}: its name must end in .html, for a page, or .json, for the figures")
    if os.path.lexists(output):
        if not os.path.isfile(output):
            raise Refused(f"cannot write {output!r}: it is no regular file")
        if not force:
            raise Refused(f"{output!r} exists; --force replaces it")
    target = os.path.realpath(output)
    if not os.access(os.path.dirname(target), os.W_OK):
        raise Refused(f"cannot write {output!r}: no file can be made in {os.path.dirname(target)!r}")
    return target


def _values(inputs: Inputs, limit: int) -> list[Any]:
    """Read the first lines; say so if there are, or may be, more."""
    there = length_hint(inputs, -1)
    values = [line.value for line in islice(inputs, limit)]
    if not values:
        raise Refused("there is no input: not one line")
    if len(values) == limit != there:
        say(f"abreast compare: took the first {limit:,} line{'s' * (limit != 1)}; --limit takes more")
    return values


class _Failed(Exception):
    """The function failed one by one."""


def _compare(ctx: click.Context, fn: Callable[..., Any], values: list[Any], options: dict[str, Any]) -> abreast.Comparison:
    try:
        return abreast.compare(fn, values, **options)
    except NotImplementedError as error:
        raise click.UsageError(str(error), ctx) from None
    except Exception as error:
        notes = [str(note).removeprefix("abreast: ") for note in getattr(error, "__notes__", ())]
        raise _Failed("; ".join([described(error), *notes])) from error


def _width() -> int:
    """Of the terminal that the report is written on; 80 elsewhere."""
    try:
        return max(60, min(120, os.get_terminal_size(1).columns))
    except OSError:
        return 80


def _is_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
