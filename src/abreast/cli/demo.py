"""``abreast demo``: a short course on concurrency, played and measured on the reader's machine."""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import abreast
from abreast.cli import course
from abreast.cli.console import whole_console
from abreast.cli.errors import Refused
from abreast.cli.stage import SMAPS, stage
from abreast.report.bars import Span, bars

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

__all__ = ["command", "judge"]

SQUARES = [1, 4, 9, 16, 25, 36, 49, 64, 81]


class Step(NamedTuple):
    """One step of the course.

    Attributes:
        title: what it shows.
        function: plays it; its body is shown.
        shown: functions and classes that are shown before it, whole.
        workers: how many threads share its tasks; None is one each.
        moral: what to take from it.
        part: a heading that stands above it, and those that follow.
        computes: whether its tasks compute all the time. Their times contain waiting for a core or a lock then: what they take one
            after another is what the step that does so has taken.
        is_compared: whether it stands in the table at the end.
    """

    title: str
    function: Callable[[], Any]
    shown: tuple[Any, ...]
    workers: int | None
    moral: str
    part: str = ""
    computes: bool = False
    is_compared: bool = True


def _has_lock() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _cores() -> int:
    """How many cores this program may use, as the pool of processes counts them."""
    with abreast.ProcessPoolExecutor() as executor:  # starts nothing until it gets a task
        return executor.statistics().max_workers


def _steps_of_processes() -> tuple[Step, ...]:
    """The steps on work that computes, as they are true on this machine: with one core processes gain nothing, either."""
    cores = _cores()
    return (
        Step(
            "Computing, one by one",
            course.computing_one_after_another,
            (course.add_up,),
            1,
            "Work that waits for nothing keeps a core busy.",
            part="Processes against threads",
            computes=True,
        ),
        Step(
            "Computing on threads",
            course.computing_on_threads,
            (),
            None,
            "A lock (the GIL) lets one thread at a time run Python: they take turns, and gain nothing."
            if _has_lock()
            else "This Python has no lock (GIL) that would let only one thread at a time run: they compute side by side.",
            computes=True,
        ),
        Step(
            "Computing in processes",
            course.computing_in_processes,
            (),
            None,
            f"Each process has a Python, and a lock, of its own. This program may use {cores} cores, so {cores} compute at a time."
            if cores > 1
            else "Each process has a Python, and a lock, of its own. But this program may use one core only: processes take turns too.",
            computes=True,
        ),
        Step(
            "Interrupted in the middle of a function",
            course.interrupted,
            (course.count_to,),
            None,
            "A thread may be interrupted between any two steps of a function, for another one: so what they share needs a lock."
            if _has_lock()
            else "Without a lock of Python's both run at the same time, and their steps mix: so what they share needs a lock.",
            is_compared=False,
        ),
        Step(
            "What is shared",
            course.what_is_shared,
            (),
            None,
            "Threads share all there is. A process gets a copy, and what it does to that is not seen here; results come back.",
        ),
        Step(
            "What one costs",
            course.what_one_costs,
            (course.time_to_start, course.memory_of),
            None,
            "A process is a Python of its own, which has to be started, and has its memory for itself: "
            f"what is counted is {'private (USS)' if os.path.exists(SMAPS) else 'all that is resident (RSS)'}.",
        ),
        Step(
            "A crash",
            course.a_crash,
            (course.square_or_die,),
            None,
            "The other three have their results, and another process takes the place of the dead one. On a thread, all of it would have ended.",
        ),
    )


STEPS = (
    Step(
        "Two named threads",
        course.two_named_threads,
        (course.task1, course.task2),
        None,
        "Both wait at the same time: all of it takes as long as the longer one. Threads share their process.",
    ),
    Step(
        "The same in a TaskGroup",
        course.a_group,
        (),
        None,
        "The block ends when all in it have ended, with their results and errors, which a Thread alone forgets.",
    ),
    Step(
        "Two subclasses of Thread",
        course.two_subclasses,
        (course.A, course.B),
        None,
        "Neither waits for the other: their lines come as time goes by.",
    ),
    Step("One after another", course.one_after_another, (course.square_number,), 1, "Nine naps of half a second, 4.5 s."),
    Step(
        "A pool of three threads",
        course.a_pool_of_three,
        (),
        3,
        "The same results in the same order, in a third of the time; as with concurrent.futures.",
    ),
    Step("The same in one call", course.one_call, (), 3, "abreast.map makes the pool, and ends it."),
    Step("All nine at once", course.all_at_once, (), 9, "Whoever only waits can wait together with many others."),
    *(_steps_of_processes() if sys.platform == "linux" else ()),  # where processes run so far
)


class Played(NamedTuple):
    """What came of a step, the `number`-th. Times are in seconds."""

    number: int
    step: Step
    wall_time: float
    serial_time: float
    ideal_time: float


@click.command("demo")
@click.option("--fast", is_flag=True, help="A tenth of every sleep, a third of the computing: 3 seconds in all, not 20.")
@click.option("-o", "--output", metavar="FILE", help="Write the timeline, a page, to FILE; by default to a temporary file.")
@click.pass_context
def command(ctx: click.Context, fast: bool, output: str | None) -> None:
    """Show what concurrency does, on this machine, step by step.

    Each step shows its code, its output as it happens, which thread waited when, and how long it took; a table at the end compares
    them. All of it is recorded: a report and the timeline, as a page, come last. The exit status is 0 only if every result and order was right.
    """
    if output is not None and not output.endswith(".html"):
        raise click.UsageError(f"the timeline is a page, so FILE must end with .html, not {output!r}", ctx)
    if sys.stdout is None:
        raise Refused("standard output is closed")
    console = whole_console()
    stage.speed = 10.0 if fast else 1.0
    stage.width = console.width
    course.counts = [course.COUNT // (3 if fast else 1)] * 4
    try:
        played: list[Played] = []
        wrong: list[str] = []
        with abreast.record() as run:
            for number, step in enumerate(STEPS, 1):
                alone = next((done.wall_time for done in played if done.step.computes), None) if step.computes else None
                done, problems = _play(console, number, step, alone)
                if done is not None:
                    played.append(done)
                wrong += [f"step {number}: {problem}" for problem in problems]
        _sum_up(console, [done for done in played if done.step.is_compared], fast=fast)
        _report(console, run, output)
        for problem in wrong:
            console.print(f"WRONG in {problem}", style="bold red", markup=False)
    finally:
        stage.close()
    ctx.exit(1 if wrong else 0)


def _play(console: Console, number: int, step: Step, alone: float | None) -> tuple[Played | None, list[str]]:
    """Play a step, and return its times, if any of its tasks has been watched, and what was wrong.

    Args:
        console: where it is shown.
        number: of the step, from 1.
        step: what is played.
        alone: how long its tasks take one after another, if that has been measured.
    """
    from time import perf_counter

    from rich.text import Text

    console.print()
    if step.part:
        console.print(Text(step.part, style="bold underline"))
        console.print()
    console.print(Text(f"{number}. {step.title}", style="bold"))
    console.print()
    _show_code(console, step)
    console.print()
    sys.stdout.flush()
    stage.clear()
    begin = perf_counter()
    try:
        step.function()
    except Exception as error:  # no process can be started here, say; the other steps can still be shown
        stage.check_output()
        return None, [f"{type(error).__name__}: {error}"]
    wall_time = perf_counter() - begin
    stage.check_output()
    spans = [span for span in stage.spans if span.row != "MainThread" or step.workers == 1]
    played = _times(number, step, wall_time, spans, alone) if spans else None
    if played is not None:
        _show_bars(console, spans)
        if alone is not None:
            _compare(console, played, min(span.begin for span in spans) - begin)
    else:
        console.print()
    console.print(Text.assemble((f"{wall_time:.2f} s", "bold"), f"   {step.moral}"))
    return played, judge(step.function.__name__, stage.lines, os.getpid())


def _compare(console: Console, played: Played, first: float) -> None:
    """Say what the workers have gained, what they could have, and how long the first took to start."""
    cores = _cores()
    console.print(
        f"{played.serial_time / played.wall_time:.2f} times as fast as one by one; "
        f"{played.serial_time / played.ideal_time:.2f} is the most on {cores} core{'s' * (cores > 1)}.",
        f"The first task began after {first:.2f} s.",
        sep="\n",
    )


def _times(number: int, step: Step, wall_time: float, spans: list[Span], alone: float | None) -> Played:
    if alone is not None:
        tasks = len(spans)
        rounds = -(-tasks // _cores())
        return Played(number, step, wall_time, alone, alone * rounds / tasks)
    task_times: dict[str, float] = {}
    for span in spans:
        task_times[span.row] = task_times.get(span.row, 0.0) + span.end - span.begin
    serial_time = sum(task_times.values())
    longest = max(span.end - span.begin for span in spans) if step.workers else max(task_times.values())
    return Played(number, step, wall_time, serial_time, max(longest, serial_time / (step.workers or len(task_times))))


def _show_code(console: Console, step: Step) -> None:
    """Show code without colours of the background, which do not suit every terminal."""
    from rich.padding import Padding
    from rich.syntax import Syntax

    parts = [inspect.getsource(shown) for shown in step.shown]
    body = inspect.getsource(step.function).split("\n", 1)[1]
    body = re.sub(r"\n    return \w+\n$", "\n", body)
    code = "\n".join(textwrap.dedent(part) for part in [*parts, body]).rstrip()
    console.print(Padding(Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True), (0, 0, 0, 2)))


def _show_bars(console: Console, spans: list[Span]) -> None:
    from rich.text import Text

    console.print()
    for line in bars(spans, width=min(console.width, 100) - 4, ascii_only=console.options.ascii_only):
        console.print("    ", Text(line.rstrip(), style="yellow"), sep="", no_wrap=True, overflow="crop")
    console.print()


def _sum_up(console: Console, played: list[Played], *, fast: bool) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="What it bought", title_justify="left", title_style="bold")
    table.add_column("step", overflow="fold")
    for title in ("one by one", "took", "faster", "of the ideal"):
        table.add_column(title, justify="right", overflow="fold")
    for number, step, wall_time, serial_time, ideal_time in played:
        table.add_row(
            f"{number}. {step.title}" if console.width >= 60 else f"{number}.",
            f"{serial_time:.2f} s",
            f"{wall_time:.2f} s",
            f"{serial_time / wall_time:.2f}x",
            f"{ideal_time / wall_time:.0%}",
        )
    console.print()
    console.print(table)
    console.print(
        "The ideal is the longest task, or all task times shared evenly by the workers (by the cores, if they compute), whichever is more."
        + ("\nEvery sleep was a tenth of what the code says (--fast)." if fast else ""),
        "Next: abreast map --help runs a function of yours over the lines of a file.",
        sep="\n",
    )


def _report(console: Console, run: abreast.RecordedRun, output: str | None) -> None:
    """Show what was recorded, and write the page."""
    from rich.text import Text

    console.print()
    console.print(Text("What was recorded", style="bold underline"))
    console.print()
    least = 60  # columns
    console.print(run.report() if console.width >= least else Text(run.report().text(width=least)))
    console.print()
    path = output or os.path.join(tempfile.gettempdir(), f"abreast-demo-{os.getuid() if hasattr(os, 'getuid') else 0}.html")
    try:
        run.timeline(path)
    except OSError as error:
        if output is not None:
            raise
        console.print(Text(f"The timeline cannot be written to {path}: {error.strerror}; -o FILE writes it elsewhere."))
        return
    console.print("The timeline, a page with every thread and process:")
    console.print(Text(path), soft_wrap=True)
    console.print("To record code of your own: with abreast.record() as run: ...; then print(run.report()).")


def judge(step: str, lines: list[str], pid: int) -> list[str]:
    """Return what is wrong with the lines that a step has printed; nothing, if all is as it must be."""
    checks: dict[str, Callable[[list[str], int], list[str]]] = {
        "two_named_threads": _judge_threads,
        "a_group": _judge_group,
        "two_subclasses": _judge_interleaving,
        "computing_one_after_another": _judge_computing,
        "computing_on_threads": _judge_computing,
        "computing_in_processes": _judge_processes,
        "interrupted": _judge_turns,
        "what_is_shared": _judge_sharing,
        "what_one_costs": _judge_costs,
        "a_crash": _judge_crash,
    }
    return checks.get(step, _judge_squares)(lines, pid)


def _judge_threads(lines: list[str], pid: int) -> list[str]:
    wanted = [
        f"{what}: {thread} of process {pid}" for what, thread in (("Task 2", "T2"), ("Task 1", "T1"), ("Main", "MainThread"))
    ]
    return [] if lines == wanted else [f"{lines} instead of {wanted}"]


def _judge_group(lines: list[str], pid: int) -> list[str]:
    wanted = [f"Task 2: T2 of process {pid}", f"Task 1: T1 of process {pid}", "Results: one two"]
    return [] if lines == wanted else [f"{lines} instead of {wanted}"]


def _judge_interleaving(lines: list[str], _pid: int) -> list[str]:
    problems = []
    for name in "AB":
        mine, wanted = (
            [line for line in lines if line.startswith(f"{name} ") and line[2:].isdigit()],
            [f"{name} {n}" for n in range(1, 6)],
        )
        if mine != wanted:
            problems.append(f"{name} printed {mine} instead of {wanted}")
    if not problems and not lines.index("A 1") < lines.index("B 1") < lines.index("A 5"):
        problems.append(f"A and B did not interleave: {lines}")
    if lines[-1:] != ["A and B are complete"] or len(lines) != 11:
        problems.append(f"{lines[-1:]} stands at the end of {len(lines)} lines")
    return problems


def _judge_computing(lines: list[str], pid: int) -> list[str]:
    return _judge_sums(lines, f"(MainThread|add_up_[0-9]) of process {pid}")


def _judge_processes(lines: list[str], pid: int) -> list[str]:
    return _judge_sums(lines, f"MainThread of process (?!{pid}$)[0-9]+")


def _judge_sums(lines: list[str], where: str) -> list[str]:
    # Squares leave 0, 1, 4, 2, 2, 4, 1 when they are divided by 7: 14 for each seven numbers.
    wanted = [f"{2 * count}: {where}" for count in course.counts]
    return _judge_patterns(lines, wanted)


def _judge_turns(lines: list[str], _pid: int) -> list[str]:
    turns = [re.fullmatch(r"([AB]) counts from ([0-9,]+) to ([0-9,]+)(, and [AB] goes on)?", line) for line in lines[:-1]]
    told = re.fullmatch(r"(?:\.\.\. and so on: )?([1-9][0-9]*) turns in all", lines[-1] if lines else "")
    if told is None or not all(turns):
        return [f"{lines} are not turns"]
    at = {"A": 0, "B": 0}
    for turn in turns:
        assert turn is not None
        first, last = (int(turn[place].replace(",", "")) for place in (2, 3))
        if first != at[turn[1]] + 1 or last < first:
            return [f"{turn[0]!r} does not follow {at[turn[1]]:,}"]
        at[turn[1]] = last
    if int(told[1]) < len(turns) or (int(told[1]) > len(turns)) != lines[-1].startswith("..."):
        return [f"{lines[-1]!r} after {len(turns)} turns"]
    return [] if int(told[1]) > 2 else [f"nobody was interrupted: {lines}"]


def _judge_sharing(lines: list[str], _pid: int) -> list[str]:
    wanted = [
        "Thread: ['one']",
        "Here, after the thread: ['one']",
        "Process: ['one', 'two']",
        "Here, after the process: ['one']",
    ]
    return [] if lines == wanted else [f"{lines} instead of {wanted}"]


def _judge_costs(lines: list[str], _pid: int) -> list[str]:
    wanted = [
        "To start: thread [0-9]+[.][0-9]{2} ms, process [0-9]+ ms",
        "Memory: thread -?[0-9]+ kB, process [1-9][0-9,]* kB",
    ]
    return _judge_patterns(lines, wanted)


def _judge_crash(lines: list[str], pid: int) -> list[str]:
    died = rf"task #2 square_or_die\(3\) .* \(pid (?!{pid}\))[0-9]+\) ended with exit code 3 after .* while running"
    return _judge_patterns(lines, ["1 gives 1", "2 gives 4", f"3 fails: {died}", "4 gives 16"])


def _judge_patterns(lines: list[str], wanted: list[str]) -> list[str]:
    right = len(lines) == len(wanted) and all(map(re.fullmatch, wanted, lines))
    return [] if right else [f"{lines} instead of {wanted}"]


def _judge_squares(lines: list[str], _pid: int) -> list[str]:
    wanted = " ".join(map(str, SQUARES))
    return [] if lines == [wanted] else [f"{lines} instead of {[wanted]}"]
