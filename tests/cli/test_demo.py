"""`abreast demo`: a course that shows what it runs, and knows whether it went as it must."""

from __future__ import annotations

import contextlib
import inspect
import re
import signal
import subprocess
import sys
import time

import pytest
from abreast.cli import course
from abreast.cli.demo import STEPS, judge

from tests.cli.helpers import (
    ENVIRONMENT,
    PATIENCE,
    SOON,
    end,
    here,  # noqa: F401
    one_line,
    shell,
    started,
    wait_for_line,
)

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("here")]

SQUARES = "1 4 9 16 25 36 49 64 81"
PRINTED = {
    "two_named_threads": ["Task 2: T2 of process 7", "Task 1: T1 of process 7", "Main: MainThread of process 7"],
    "a_group": ["Task 2: T2 of process 7", "Task 1: T1 of process 7", "Results: one two"],
    "two_subclasses": ["A 1", "B 1", "A 2", "B 2", "B 3", "A 3", "B 4", "B 5", "A 4", "A 5", "A and B are complete"],
}


NARROW = [
    {"COLUMNS": "40", "PYTHONIOENCODING": "ascii"},
    {"COLUMNS": "40", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.fixture(scope="module")
def all_played():
    """All that the fast demo writes into a pipe: as it is, and where there is little room and ASCII only; played side by side."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started("demo", "--fast", env=env)) for env in ({}, *NARROW)]
        texts = [process.stdout.read().decode() for process in processes]
        assert [process.stderr.read() for process in processes] == [b""] * 3
        assert [process.wait(PATIENCE) for process in processes] == [0] * 3
    return texts


@pytest.fixture
def played(all_played):
    return all_played[0]


def between(text, beginning, end):
    return text.partition(beginning)[2].partition(end)[0]


class TestPlayed:
    def test_every_step_has_its_title_its_output_its_bars_and_its_moral(self, played):
        words = " ".join(played.split())
        for number, step in enumerate(STEPS, 1):
            assert f"\n{number}. {step.title}\n" in played
            assert step.moral in words
        assert played.count(f"\n    {SQUARES}\n") == 4
        lines = [line.strip() for line in played.splitlines()]
        for wanted in ("Results: one two", "A and B are complete", *(f"{name} {n}" for name in "AB" for n in range(1, 6))):
            assert wanted in lines
        (pid,) = set(re.findall(r"of process (\d+)", played))
        for who in ("Task 1: T1", "Task 2: T2", "Main: MainThread"):
            assert f"{who} of process {pid}" in lines

    def test_the_table_compares_the_steps(self, played):
        table = between(played, "What it bought", "The ideal is")
        for number, step in enumerate(STEPS, 1):
            (row,) = re.findall(rf"^ +{number}\. {step.title} +([\d.]+) s +([\d.]+) s +([\d.]+)x +(\d+)% *$", table, re.M)
            one_by_one, took, faster, ideal = map(float, row)
            assert 0 < took < PATIENCE
            assert ideal <= 101
            assert faster == pytest.approx(one_by_one / took, rel=0.2)

    def test_what_is_shown_is_what_is_run(self, played):
        shown = "".join(played.split())  # a long line of code is broken
        for function in (course.task1, course.A, course.square_number):
            assert "".join(inspect.getsource(function).split()) in shown
        assert "  results = abreast.map(square_number, numbers, max_workers=3)" in played
        assert re.search(r"^  def square_number\(number: int\) -> int: *\n      sleep\(0.5\) *$", played, re.M)

    def test_no_line_is_wider_than_80_and_none_has_an_escape_code(self, played):
        assert max(map(len, played.splitlines())) <= 80
        assert "\x1b" not in played

    @pytest.mark.parametrize("which", [1, 2], ids=["PYTHONIOENCODING", "LC_ALL"])
    def test_forty_columns_and_ascii_are_enough(self, all_played, which):
        text = all_played[which]
        assert max(map(len, text.splitlines())) <= 40
        assert text.isascii()
        words = " ".join(text.split())
        for step in STEPS:
            assert step.title in words
            assert step.moral in words
        assert "results = abreast.map(square_number, numbers, max_workers=9)" in words
        assert re.search(r"\|1\.+", text)
        assert len(re.findall(r"\d\.\d\d s$", text, re.M)) > 20


class TestJudge:
    @pytest.mark.parametrize("step", [step.function.__name__ for step in STEPS])
    def test_what_must_be_printed_is_right(self, step):
        assert judge(step, PRINTED.get(step, [SQUARES]), 7) == []

    @pytest.mark.parametrize("step", [step.function.__name__ for step in STEPS])
    def test_every_altered_line_is_wrong(self, step):
        lines = PRINTED.get(step, [SQUARES])
        for place, line in enumerate(lines):
            without = lines[:place] + lines[place + 1 :]
            for altered in (without, [*without, line + "0"], [*lines[:place], line + "0", *lines[place + 1 :]], [*lines, line]):
                assert judge(step, altered, 7), altered
        assert judge(step, [], 7)

    @pytest.mark.parametrize("step", ["two_named_threads", "a_group"])
    def test_another_order_or_process_is_wrong(self, step):
        assert judge(step, PRINTED[step][::-1], 7)
        assert judge(step, PRINTED[step], 8)

    def test_threads_that_take_turns_one_after_the_other_are_wrong(self):
        lines = sorted(PRINTED["two_subclasses"][:-1]) + ["A and B are complete"]
        assert judge("two_subclasses", lines, 7) == [f"A and B did not interleave: {lines}"]


class TestEnds:
    @pytest.mark.parametrize(
        ("step", "code"),
        [
            (3, "def square_number(n): course.sleep(0.1); return n * n + (n == 5)\ncourse.square_number = square_number"),
            (5, "real = abreast.map\nabreast.map = lambda *args, **options: real(*args, **options)[::-1]"),
            (0, "def task1(): course.sleep(0.1); course.print('Task 1: early')\ncourse.task1 = task1"),
            (2, "course.B = course.A"),
        ],
        ids=["a result", "the order of results", "a line", "a thread"],
    )
    def test_with_1_if_something_is_wrong(self, step, code):
        script = (
            f"import abreast\nfrom abreast.cli import course, demo\nfrom abreast.cli.main import main\n{code}\n"
            f"demo.STEPS = demo.STEPS[{step}:{step + 1}]\nmain(['demo', '--fast'])\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE)
        assert done.returncode == 1, done.stderr
        assert "\nWRONG in step 1: " in done.stdout
        assert done.stderr == ""

    @pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
    @pytest.mark.parametrize("step", range(len(STEPS)), ids=[step.function.__name__ for step in STEPS])
    def test_soon_at_a_signal(self, step, number, name):
        """Whatever the step waits for: here each sleep takes a minute."""
        script = (
            "import os\nfrom abreast.cli import course, demo\nfrom abreast.cli.main import main\nfrom abreast.cli.stage import stage\n"
            "def sleep(seconds):\n    os.write(2, b'started\\n')\n    stage.sleep(60)\n"
            f"course.sleep = sleep\ndemo.STEPS = demo.STEPS[{step}:]\nmain(['demo'])\n"
        )
        with started(script, command=[sys.executable, "-c"]) as process:
            wait_for_line(process)
            said, status = end(process, number)
        assert status == 128 + number
        assert set(said.splitlines()) - {"started"} == {f"abreast: ended by {name}"}  # a thread may be late to start

    def test_soon_when_nobody_reads(self):
        begin = time.monotonic()
        done = shell('abreast demo --fast | head -1; echo "${PIPESTATUS[0]}"')
        assert done.stdout == "\n141\n"
        assert not done.stderr
        assert time.monotonic() - begin < SOON

    def test_with_one_line_on_a_full_device(self):
        done = shell("abreast demo --fast > /dev/full", status=2)
        assert one_line(done.stderr) == "abreast: cannot write to standard output: No space left on device\n"

    def test_while_a_thread_of_it_cannot_write(self, here):
        """The pipe is closed in the middle of a step: its threads meet that, and show no traceback."""
        with started("demo", "--fast") as process:
            while b"A 1" not in process.stdout.readline():
                pass
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(PATIENCE) == 141
