"""``abreast map MODULE:FUNCTION [FILE]``: a function over lines.

::

    FILE ─ reading.Inputs ─▶ outcomes(…) ─▶ lines of JSON ─ output.Output ─▶ -o FILE, standard output
      main thread, lazily      task.Call: the function, and its result made JSON, so that either's error is the task's

While results go to standard output, descriptor 1 is standard error (output.py): for what threads print, and for processes, which
inherit it. Those are started when a task needs one, so after that.

With a journal, outcomes go through it on their way, and those of earlier runs come out of it in their places; so every run writes all results.

Everything that can be wrong with the command line is found before anything is run; an output that was opened for nothing is gone then.
"""

from __future__ import annotations

import contextlib
import re
import reprlib
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from abreast.cli.function import described, load_function, name_of_function
from abreast.cli.main import can_draw, closed_pipe, ended_by, say
from abreast.cli.options import Seconds, function_and_lines
from abreast.cli.output import NobodyReads, Output, OutputError, open_output
from abreast.cli.reading import InputError, Inputs, TimeIsUp, open_inputs
from abreast.cli.resuming import in_words, journal_of, journal_options, warnings_told
from abreast.cli.signals import Terminated, draining
from abreast.cli.task import Call, Line, to_json
from abreast.core.errors import Drained, TooManyFailures
from abreast.core.journal_errors import Interrupted, JournalError
from abreast.core.text import printable
from abreast.functions import outcomes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from abreast.cli.signals import Draining
    from abreast.core.journal import Journal
    from abreast.core.outcome import Outcome
    from abreast.engine.results import Results

    Task: TypeAlias = Outcome[str]
    _Number: TypeAlias = click.ParamType[float]
else:  # generic only since 8.4
    _Number = click.ParamType

__all__ = ["command"]

FAILURES_SHOWN = 20
"""Failed tasks named on standard error, one line each; all of them would bury the rest."""

LONGEST = 1000
"""Characters of an error on standard error: some bring a whole page of HTML."""

EPILOG = """\b
Examples
  abreast map os.path:getsize names.txt
      the sizes of the files that names.txt names
  find . -name '*.py' -print0 | abreast map -0 os.path:getsize
      the same of all Python files below here
  abreast map -j 32 --outcomes -o pages.jsonl scraper:fetch urls.txt
      fetch() of scraper.py, 32 at once; each URL has its value or error
  abreast map --retries 3 --delay 0.2 scraper:fetch urls.txt
      politely: at most 5 a second; what fails is tried again, later
  abreast map --kind process --task-timeout 60 pictures:shrink files.txt
      shrink() on all cores; one that takes over a minute is ended
  abreast map --json shop:total orders.jsonl
      total() of shop.py gets each line's object as a dict
  abreast map --journal run.db -o all.jsonl scraper:fetch urls.txt
      killed or not: the same again runs what is missing, and writes all

\b
Exit status
  0    every task has succeeded
  1    a task failed, or a limit ended the run
  2    wrong usage, unreadable input, unwritable output or journal
  130  Ctrl-C (143 SIGTERM, 129 hang-up, 141 nobody reads the output)

SIGTERM starts no further task, and lets those that run finish: see --grace.

With --journal, each result is recorded before it is written. Run again, the command writes recorded results too, and runs lines that
failed, that were at work when it was killed (so what they do may be done twice), or that are new. A line is known by its text
(--json: its value), so lines may be added and moved. The output is FILE.part until the run has come to its end, and FILE then, complete and
in order; one that is there is replaced, unless the journal is new.
"""


class _Failures(_Number):
    """A number of tasks, or a share of them as ``5%``."""

    name = "failures"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            if value.endswith("%"):
                share = float(value[:-1]) / 100
                if 0 < share < 1:
                    return share
            elif (number := int(value)) >= 0:
                return number
        except ValueError:
            pass
        return self.fail(f"{value!r} is neither a number of tasks, from 0, nor a share of them, as 5%", param, ctx)


@click.command("map", epilog=EPILOG)
@function_and_lines
@click.option("-o", "--output", metavar="FILE", help="Write results to FILE; one that exists is refused, but see --journal.")
@click.option("--force", is_flag=True, help="Replace the output FILE when the run has come to its end.")
@click.option(
    "--outcomes",
    "with_outcomes",
    is_flag=True,
    help='Write {"index", "input", "value" or "error", "attempts", "duration"} for every input, failed ones too.',
)
@click.option(
    "-j",
    "--max-workers",
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    help="Tasks at once; by default cores + 4, at most 32; as many processes as cores.",
)
@click.option(
    "-k/-u",
    "--keep-order/--unordered",
    "ordered",
    default=True,
    help="Results in the order of the inputs (default), or as completed.",
)
@click.option(
    "--retries", metavar="N", type=click.IntRange(min=0), help="Try a task that fails up to N times more, each time later."
)
@click.option(
    "--max-per-second", metavar="N", type=click.FloatRange(min=0, min_open=True), help="Start at most N tasks per second."
)
@click.option("--delay", metavar="SECONDS", type=Seconds(), help="Let so long pass between two starts.")
@click.option("--max-failures", metavar="N", type=_Failures(), help="End the run when more than N tasks, or N %, have failed.")
@click.option("--timeout", metavar="SECONDS", type=Seconds(), help="End the run after so long.")
@click.option("--task-timeout", metavar="SECONDS", type=Seconds(), help="A task that runs longer has failed.")
@click.option(
    "--grace",
    metavar="SECONDS",
    type=Seconds(),
    default=1.0,
    show_default=True,
    help="How long tasks that run may go on after SIGTERM; results of those that end are written.",
)
@click.option(
    "--kind",
    type=click.Choice(["thread", "process", "serial"]),
    default="thread",
    help="What the tasks run on: threads suit what waits, processes what computes; serial is one by one.",
    show_default=True,
)
@click.option(
    "--progress/--no-progress",
    "--bar",
    default=None,
    help="Show a bar, on standard error; by default if that is a terminal of its own.",
)
@journal_options
@click.option("--dry-run", is_flag=True, help="Write the calls that would be made, and make none.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    function: str,
    file: str,
    *,
    as_json: bool,
    null: bool,
    output: str | None,
    force: bool,
    with_outcomes: bool,
    max_workers: int | None,
    ordered: bool,
    retries: int | None,
    max_per_second: float | None,
    delay: float | None,
    max_failures: float | None,
    timeout: float | None,
    task_timeout: float | None,
    grace: float,
    kind: str,
    progress: bool | None,
    dry_run: bool,
    journal: str | None,
    **settings: Any,
) -> None:
    """Call a function of a module on every line of FILE, side by side.

    FILE is standard input if it is left out, or "-". Each line is one input, given to the function as text. Each result is written
    as one line of JSON, in the order of the inputs. A failed task is told on standard error, has no line, and the run goes on.

    MODULE is looked for in the current directory first. What the function prints goes to standard error while results go to
    standard output. With --kind process, a process that dies costs the line that it was at, and no other.
    """
    if delay is not None and max_per_second is not None:
        raise click.UsageError(
            f"--delay {delay:g} and --max-per-second {max_per_second:g} exclude each other: they say the same thing", ctx
        )
    kept = journal_of(journal, settings, file=file, output=output, force=force)
    with (
        open_inputs(file, as_json=as_json, separator=b"\0" if null else b"\n") as inputs,
        open_output(output, force=force, resumes=kept is not None, sync=settings["durability"] == "power") as out,
    ):
        fn = load_function(function)  # now: what its module prints is not to mix with results
        bar = _Bar(progress, out)
        if dry_run:
            with warnings_told(bar.say):
                ctx.exit(_tell_calls(name_of_function(function), _to_run(kept, Call(fn), inputs), out))
        options: dict[str, Any] = {"kind": kind, "ordered": ordered, "max_workers": max_workers, "timeout": timeout}
        options |= {"task_timeout": task_timeout, "max_failures": max_failures, "retries": retries or 0}
        options |= {"max_per_second": max_per_second if delay is None else 1 / delay, "journal": kept}
        try:
            results = outcomes(Call(fn), inputs, name=name_of_function(function), progress=bar.progress, **options)
        except (TypeError, ValueError, NotImplementedError) as error:  # options that the library refuses together, or here
            raise click.UsageError(in_words(str(error)), ctx) from None
        if timeout is not None:
            inputs.deadline = monotonic() + timeout
        run = _Run(results, inputs, out, bar, with_outcomes=with_outcomes, timeout=timeout, ordered=ordered, journal=kept)
        with warnings_told(bar.say):
            status = run.play(grace)
    ctx.exit(status)


class _Bar:
    """Whether a bar is drawn, and how to write on the terminal that it is on."""

    def __init__(self, wanted: bool | None, out: Output) -> None:
        self._is_drawn = can_draw() and wanted is not False
        if wanted is None and out.is_terminal:  # a bar among results would be no help
            self._is_drawn = False
        self.progress: object = wanted
        if not wanted and not self._is_drawn:
            # The run then looks up ten times a second, as for a bar. Of two signals that come together (systemd: SIGTERM and SIGHUP),
            # Linux may give both to a worker's thread; the main thread hears of them when it looks up.
            self.progress = _show_nothing

    def step_aside(self) -> None:
        """Clear the line that the bar is on; it comes back below what is written next."""
        if self._is_drawn:
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()

    def say(self, message: str) -> None:
        self.step_aside()
        say(f"abreast map: {message}")


class _Run:
    """Takes outcomes, writes lines, and counts."""

    def __init__(
        self,
        results: Results[Task],
        inputs: Inputs,
        out: Output,
        bar: _Bar,
        *,
        with_outcomes: bool,
        timeout: float | None,
        ordered: bool,
        journal: Journal | None,
    ) -> None:
        self.results = results
        self.inputs = inputs
        self.out = out
        self.bar = bar
        self.with_outcomes = with_outcomes
        self.timeout = timeout
        self.journal = journal
        self.lines: list[bytes] = []
        self.done = self.failures = self.cancelled = self.resumed = 0
        self.ordered = ordered
        self.is_cut = False
        """Whether a task was not started: in order, what stands behind it is not written, since it would seem to stand in its place."""

    def play(self, grace: float) -> int:
        """Run to the end, or to what ends it, or `grace` seconds on from SIGTERM; return the exit status."""
        with draining(grace) as drain:
            return self._play(drain)

    def _play(self, drain: Draining | None) -> int:
        try:
            with self.results:
                try:
                    with contextlib.suppress(Drained):  # SIGTERM: inputs are left that were not read
                        self._take_all()
                except (InputError, TimeIsUp, TooManyFailures, JournalError):
                    self._write()
                    raise
        except InputError as error:
            return self._end(f"{error}; the run ends there", 2)
        except TimeIsUp:
            return self._end(f"the timeout of {self.timeout:g} s was over while a line of the input was waited for", 1)
        except TooManyFailures as error:
            most = (
                f"{error.max_failures:.4%}".rstrip("0%").rstrip(".") + "%"
                if isinstance(error.max_failures, float)
                else error.max_failures
            )
            return self._end(f"ended after {_count(error.failures, 'failed task')}, more than --max-failures {most} allows", 1)
        except OutputError as error:
            return self._end(str(error), 2)
        except JournalError as error:
            self.bar.say(in_words(str(error)) + (f"; {self._written()}" if self.out.lines else ""))
            return 2
        except NobodyReads:
            return self._end(f"nobody reads {self.out.name} any more; the run ends there", closed_pipe())
        except KeyboardInterrupt as error:
            with contextlib.suppress(OutputError):
                if self.out.is_regular:  # a pipe may be what held it up
                    self._write()
            return ended_by(error, "abreast map", f": {self._written()}")
        if drain is not None and drain.signal is not None:
            return ended_by(Terminated(drain.signal), "abreast map", f": {self._written()}")
        if self.cancelled:
            return self._end(f"the timeout of {self.timeout:g} s was over", 1)
        self.out.complete = True
        if self.resumed:
            assert self.journal is not None
            self.bar.say(f"{self.resumed:,} of {_count(self.done - self.failures, 'result')} came from {self.journal.path}")
        if not self.failures:
            return 0
        missing = "" if self.with_outcomes else "; they have no line in the output, --outcomes gives each input one"
        again = "" if self.journal is None else "; the same command again tries them again"
        if self.journal is not None and self.journal.at_most_once:
            again += ", but those of which it is not known whether they were done"
        self.bar.say(f"{self.failures:,} of {_count(self.done, 'task')} failed{missing}{again}")
        return 1

    def _take_all(self) -> None:
        for outcome in self.results:
            self._take(outcome)
            if not self.results.is_next_ready():
                self._write()
        self._write()

    def _take(self, outcome: Task) -> None:
        self.is_cut |= isinstance(outcome.error, Drained) and self.ordered and not self.with_outcomes
        if self.is_cut:
            return
        if outcome.cancelled:
            self.cancelled += 1
        else:
            self.done += 1
            self.failures += not outcome.ok
            self.resumed += outcome.resumed and outcome.ok
        if self.with_outcomes:
            self.lines.append(_encoded(_record(outcome)))
        elif outcome.ok:
            self.lines.append(_encoded(outcome.result()))
        elif not outcome.cancelled:
            self._tell(outcome)

    def _tell(self, outcome: Task) -> None:
        if self.failures <= FAILURES_SHOWN:
            number, value, _ = outcome.input
            assert outcome.error is not None
            self.bar.say(f"line {number} ({_short(value)}): {_cut(_described(outcome.error))}")
        if self.failures == FAILURES_SHOWN:
            self.bar.say("more failures are counted, and not shown")

    def _write(self) -> None:
        lines, self.lines = self.lines, []
        if lines:
            if self.out.is_terminal:
                self.bar.step_aside()
            self.out.write(lines)

    def _end(self, why: str, status: int) -> int:
        """Say why the run was cut short, and what there is of it."""
        self.bar.say(f"{why}: {self._written()}")
        return status

    def _written(self) -> str:
        where = ""
        if self.out.part != self.out.name and self.out.lines:
            there = "is not there yet" if self.out.is_new else "is as it was"
            where = f" in {self.out.part}; {self.out.name} {there}"
        again = "" if self.journal is None else "; the same command again goes on from there"
        return f"{_count(self.out.lines, 'line')} written{where}{again}"


def _record(outcome: Task) -> str:
    """Return the line of an outcome; its value is JSON already."""
    if outcome.ok:
        what = f'"value": {outcome.result()}'
    else:
        assert outcome.error is not None
        what = f'"error": {to_json(_described(outcome.error))}'
    line = outcome.input
    given = to_json(line.value) if line.source is None else line.source.strip().replace("\n", " ").replace("\r", " ")
    return f'{{"index": {outcome.index}, "input": {given}, {what}, "attempts": {outcome.attempts}, "duration": {outcome.duration:.6f}}}'


def _described(error: BaseException) -> str:
    text = described(error)
    return in_words(text) if isinstance(error, (Interrupted, JournalError)) else text


def _to_run(journal: Journal | None, call: Call, inputs: Inputs) -> Iterable[Line]:
    if journal is None:
        return inputs
    from abreast.engine.journaled import unrecorded

    return unrecorded(journal, call, inputs)


def _tell_calls(name: str, inputs: Iterable[Line], out: Output) -> int:
    """Write the calls that would be made, one a line."""
    try:
        for line in inputs:
            out.write([printable(f"{name}({line.value!r})").encode() + b"\n"])
    except (InputError, OutputError, JournalError) as error:
        say(f"abreast map: {in_words(str(error)) if isinstance(error, JournalError) else error}")
        return 2
    except NobodyReads:
        return closed_pipe()
    out.complete = True
    return 0


def _show_nothing(_new: int) -> None:
    pass


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _short(value: object) -> str:
    return printable(reprlib.repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def _encoded(line: str) -> bytes:
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, as names of files may have: JSON can say it in ASCII
        return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", line).encode() + b"\n"
