"""The command itself: finds subcommands, says errors in one line, and ends with the right status.

==========  ======================================================================
status      meaning
==========  ======================================================================
0           everything was done
1           a task failed, or the run was cut short by one of its own limits
2           the command was used wrongly, an input is not readable, an output not writable
128 + n     ended by signal n: 130 Ctrl-C, 143 SIGTERM, 129 hang-up, 141 nobody reads the output
==========  ======================================================================
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import click

import abreast
from abreast.cli.signals import held, number_of, raise_on_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

COMMANDS = ("demo", "map", "journal", "compare", "report")
"""In the order of the help; each is ``command`` in the module of its name."""


class Commands(click.Group):
    """Subcommands whose modules are imported when they are asked for: ``abreast --version`` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in COMMANDS:
            return None
        with held():  # raised within an import, a signal may get lost there
            command: click.Command = importlib.import_module(f"abreast.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            raise click.UsageError(f"no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""), ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(abreast.__version__, "--version", prog_name="abreast", message="%(prog)s %(version)s")
def abreast_command() -> None:
    """Run Python functions side by side, and see what each of them did.

    \b
    Start here:
      abreast demo --fast       two seconds that show what concurrency does here
      abreast map os.path:getsize names.txt
                                a function on every line of a file, on threads
      abreast journal run.db    how far a run with a journal is, and what failed
      abreast compare os.path:getsize names.txt
                                which is fastest: one by one, threads, processes
      abreast report run.json   what a recorded run did, and what to change
    """  # noqa: D301  # the character itself is click's mark of lines to be left as they are


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the program.

    Args:
        args: the words after ``abreast``; those of this process by default.
    """
    if "_ABREAST_COMPLETE" in os.environ:  # a shell asks what could stand here
        abreast_command.main(args, prog_name="abreast")
    try:
        with raise_on_signals():
            fill_places_of_closed_streams()
            status = status_of(sys.argv[1:] if args is None else list(args))
    except KeyboardInterrupt as error:  # wherever it struck: there is one only
        status = ended_by(error, "abreast")
    end(status)


def status_of(args: list[str]) -> int:
    """Run the command, say what was wrong, and return the exit status."""
    try:
        status = run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except click.ClickException as error:
        return tell(error)
    except BrokenPipeError:
        return closed_pipe()
    except OSError as error:
        where = repr(error.filename) if error.filename is not None else "cannot write to standard output"  # of demo or help
        say(f"abreast: {where}: {error.strerror or error}")
        return 2


def run(args: list[str]) -> int:
    """Run the command, and return the exit status.

    Not by click's own `main`: that takes every signal for Ctrl-C, and ends the program with 1 when nobody reads its output.
    """
    try:
        with abreast_command.make_context("abreast", args) as ctx:
            abreast_command.invoke(ctx)
    except click.exceptions.Exit as error:
        return error.exit_code
    return 0


def fill_places_of_closed_streams() -> None:
    """Put /dev/null where a standard stream is closed (``>&-``): a file opened later would get its number, and what is meant for it."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(fd, True)


def tell(error: click.ClickException) -> int:
    """Say an error of usage in one line, and return the exit status."""
    if type(error).__name__ == "NoArgsIsHelpError":  # not in click 8.1
        say(error.format_message())
        return error.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "abreast"
    message = error.format_message().strip().removesuffix(".")
    help_of = f" (see {command} --help)" if isinstance(error, click.UsageError) else ""
    say(f"{command}: {message}{help_of}")
    return error.exit_code


def say(message: str) -> None:
    """Write one line on standard error, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # nobody is left to be told
            sys.stderr.write(message + "\n")
            sys.stderr.flush()


def ended_by(error: KeyboardInterrupt, who: str, what: str = "") -> int:
    """Say that a signal has ended the command, and `what` came of it, unless nobody listens; return the exit status."""
    number = number_of(error)
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    if sys.stderr is not None and is_writable(2, within=0.5):
        erased = "\r\x1b[2K" if can_draw() else ""  # the ^C that the terminal has shown
        say(f"{erased}{who}: ended by {name}{what}")
    return 128 + number


def can_draw() -> bool:
    """Whether standard error is a terminal that obeys codes."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def is_writable(fd: int, *, within: float) -> bool:
    """Wait until there is room in a pipe or on a terminal."""
    if os.name != "posix":
        return True
    try:
        return bool(select.select([], [fd], [], within)[1])
    except (OSError, ValueError):
        return False


def closed_pipe() -> int:
    """Return the exit status for: nobody reads the output any more, as after ``| head -1``."""
    return 128 + getattr(signal, "SIGPIPE", 13)


def end(status: int) -> NoReturn:
    """End the program without a complaint from the interpreter about an output that is closed, or full."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # What is left in the buffer would be tried again, and complained about, when the interpreter ends: with status 120.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)
