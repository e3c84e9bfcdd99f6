"""``abreast map --journal FILE``: which journal, which files are not to be one, and what the library says about it in the command's words.

A line is known by what the function gets: its text, or its JSON value. So ``abreast.map(function, lines, journal=FILE)`` goes on from what the command has
recorded, and the command from that. Results are kept as JSON values.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import click

from abreast.cli.errors import Refused
from abreast.core.journal import Journal
from abreast.core.journal_errors import JournalWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["in_words", "journal_of", "journal_options", "warnings_told"]

_OPTIONS = (
    click.option(
        "--journal",
        metavar="FILE",
        help="Record what came of each line in FILE. Killed or not, the same command again runs only the rest, and writes all results.",
    ),
    click.option(
        "--durability",
        type=click.Choice(["process", "power"]),
        help="What a recorded result survives: kill -9 (default), or a power cut too, at half the speed.",
    ),
    click.option(
        "--on-change",
        type=click.Choice(["keep", "error", "rerun"]),
        help="When the function's code has changed: keep what is recorded (default), end with an error, or run all again.",
    ),
    click.option(
        "--at-most-once", is_flag=True, help="Start no line again that was at work when a run was killed; it is told as failed."
    ),
    click.option("--trust", is_flag=True, help="Use a journal that is not yours alone; it can run code as you."),
)


def journal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the journal to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def journal_of(path: str | None, settings: dict[str, Any], *, file: str, output: str | None, force: bool) -> Journal | None:
    """Return the journal, if there is to be one.

    Args:
        path: of the journal, if it was given.
        settings: ``durability``, ``on_change``, ``at_most_once``, ``trust``; None or False where they were not given.
        file: where inputs come from.
        output: where results go to.
        force: whether whatever `output` is may be replaced.

    Raises:
        click.UsageError: settings without a journal, an empty path, or one file for two purposes.
        Refused: `output` exists, and cannot be of an earlier run.
    """
    given = {name: value for name, value in settings.items() if value}
    if path is None:
        if given:
            raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} is for a run with --journal, and there is none")
        return None
    try:
        journal = Journal.of_json_texts(path, content=attrgetter("value"), **given)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None
    results = None if output in (None, "-") else output
    _check_files(path, None if file == "-" else file, results)
    # A run that is killed leaves no output without a journal: what is there is something else.
    if results is not None and os.path.isfile(results) and not os.path.lexists(path) and not force:
        raise Refused(
            f"{results!r} exists, and is of no earlier run: the journal {path!r} is new; --force replaces it when the run has come to its end"
        )
    return journal


def _check_files(journal: str, file: str | None, output: str | None) -> None:
    path = os.path.realpath(journal)
    parts = {path} | {path + end for end in ("-lock", "-wal", "-shm", "-journal")}
    for option, other in (("FILE", file), ("--output", output), ("--output", output and f"{output}.part")):
        if other and os.path.realpath(other) in parts:
            raise click.UsageError(f"{option} {other} and --journal {journal} are the same file")
    if file and output and os.path.isfile(output) and os.path.realpath(file) == os.path.realpath(output):
        raise click.UsageError(f"FILE and --output are the same file, {file}: a later run would find no inputs in it")


_WORDS = (
    (re.compile(r"on_change='(\w+)'"), r"--on-change \1"),
    (re.compile(r"\bgive Journal\(…, trust=True\)"), "give --trust"),
    (re.compile(r"\bat_most_once(=True)?"), "--at-most-once"),
    (re.compile(r"; give key=, .*"), ""),
)


def in_words(text: str) -> str:
    """Return what the library says of a journal with the command's options in place of arguments."""
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return " ".join(text.split())


@contextlib.contextmanager
def warnings_told(say: Callable[[str], object]) -> Iterator[None]:
    """Within, a `JournalWarning` is one line of the command's; other warnings are shown as ever."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *more: Any) -> None:
        if issubclass(category, JournalWarning):
            say(f"warning: {in_words(str(message))}")
        else:
            shown(message, category, *more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", JournalWarning)
        warnings.showwarning = show  # type: ignore[assignment]  # takes what that takes
        try:
            yield
        finally:
            warnings.showwarning = shown
