"""``abreast demo``: a short course on concurrency, played and measured on the reader's machine."""

from __future__ import annotations

import inspect
import io
import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from abreast.cli import course
from abreast.cli.errors import Refused
from abreast.cli.stage import stage
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
    """

    title: str
    function: Callable[[], Any]
    shown: tuple[Any, ...]
    workers: int | None
    moral: str


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
)


class Played(NamedTuple):
    """What came of a step. Times are in seconds."""

    step: Step
    wall_time: float
    serial_time: float
    ideal_time: float


@click.command("demo")
@click.option("--fast", is_flag=True, help="A tenth of every sleep: 2 seconds in all, not 20.")
@click.pass_context
def command(ctx: click.Context, fast: bool) -> None:
    """Show what concurrency does, on this machine, step by step.

    Each step shows its code, its output as it happens, which thread waited when, and how long it took; a table at the end compares
    them. The exit status is 0 only if every result and order was right.
    """
    if sys.stdout is None:
        raise Refused("standard output is closed")
    console = _console()
    stage.speed = 10.0 if fast else 1.0
    try:
        played, wrong = [], []
        for number, step in enumerate(STEPS, 1):
            done, problems = _play(console, number, step)
            played.append(done)
            wrong += [f"step {number}: {problem}" for problem in problems]
        _sum_up(console, played, fast=fast)
        for problem in wrong:
            console.print(f"WRONG in {problem}", style="bold red", markup=False)
    finally:
        stage.close()
    ctx.exit(1 if wrong else 0)


def _console() -> Console:
    from rich.console import Console

    class Whole(Console):
        def on_broken_pipe(self) -> None:
            """Let main.py say what the exit status is; rich would end the program with 1."""
            raise BrokenPipeError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # rich writes an ellipsis, in ASCII too
    return Whole(highlight=False)


def _play(console: Console, number: int, step: Step) -> tuple[Played, list[str]]:
    from time import perf_counter

    from rich.text import Text

    console.print()
    console.print(Text(f"{number}. {step.title}", style="bold"))
    console.print()
    _show_code(console, step)
    console.print()
    sys.stdout.flush()
    stage.clear()
    begin = perf_counter()
    step.function()
    wall_time = perf_counter() - begin
    stage.check_output()
    spans = [span for span in stage.spans if span.row != "MainThread" or step.workers == 1]
    task_times: dict[str, float] = {}
    for span in spans:
        task_times[span.row] = task_times.get(span.row, 0.0) + span.end - span.begin
    serial_time = sum(task_times.values())
    longest = max(span.end - span.begin for span in spans) if step.workers else max(task_times.values())
    played = Played(step, wall_time, serial_time, max(longest, serial_time / (step.workers or len(task_times))))
    _show_bars(console, spans)
    console.print(Text.assemble((f"{wall_time:.2f} s", "bold"), f"   {step.moral}"))
    return played, judge(step.function.__name__, stage.lines, os.getpid())


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
    for number, (step, wall_time, serial_time, ideal_time) in enumerate(played, 1):
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
        "The ideal is the longest task, or all task times shared evenly by the workers, whichever is more."
        + (" Every sleep was a tenth of what the code says (--fast)." if fast else ""),
        "Next: abreast map --help runs a function of yours over the lines of a file.",
        sep="\n",
    )


def judge(step: str, lines: list[str], pid: int) -> list[str]:
    """Return what is wrong with the lines that a step has printed; nothing, if all is as it must be."""
    checks: dict[str, Callable[[list[str], int], list[str]]] = {
        "two_named_threads": _judge_threads,
        "a_group": _judge_group,
        "two_subclasses": _judge_interleaving,
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


def _judge_squares(lines: list[str], _pid: int) -> list[str]:
    wanted = " ".join(map(str, SQUARES))
    return [] if lines == [wanted] else [f"{lines} instead of {[wanted]}"]
