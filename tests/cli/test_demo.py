"""`abreast demo`: a course that shows what it runs, and knows whether it went as it must."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from xml.etree import ElementTree

import abreast
import pytest
from abreast.cli import course
from abreast.cli.demo import STEPS, judge
from abreast.cli.stage import Stage, done, private_memory

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
from tests.helpers import ROOT

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("here")]

SQUARES = "1 4 9 16 25 36 49 64 81"
PRINTED = {
    "two_named_threads": ["Task 2: T2 of process 7", "Task 1: T1 of process 7", "Main: MainThread of process 7"],
    "a_group": ["Task 2: T2 of process 7", "Task 1: T1 of process 7", "Results: one two"],
    "two_subclasses": ["A 1", "B 1", "A 2", "B 2", "B 3", "A 3", "B 4", "B 5", "A 4", "A 5", "A and B are complete"],
    "computing_one_after_another": ["10500000: MainThread of process 7"] * 4,
    "computing_on_threads": [f"10500000: add_up_{number} of process 7" for number in (0, 2, 1, 3)],
    "computing_in_processes": [f"10500000: MainThread of process {pid}" for pid in (71, 71, 17, 71)],
    "interrupted": [
        "A counts from 1 to 9,876, and B goes on",
        "B counts from 1 to 8,765, and A goes on",
        "A counts from 9,877 to 50,000, and B goes on",
        "B counts from 8,766 to 50,000",
        "4 turns in all",
    ],
    "what_is_shared": [
        "Thread: ['one']",
        "Here, after the thread: ['one']",
        "Process: ['one', 'two']",
        "Here, after the process: ['one']",
    ],
    "what_one_costs": ["To start: thread 0.05 ms, process 35 ms", "Memory: thread 15 kB, process 12,345 kB"],
    "a_crash": [
        "1 gives 1",
        "2 gives 4",
        "3 fails: task #2 square_or_die(3) — worker 1 (pid 77) ended with exit code 3 after 0.6 ms while running",
        "4 gives 16",
    ],
}
PROCESSES = "computing_in_processes"
NAMES = [step.function.__name__ for step in STEPS]

needs_processes = pytest.mark.skipif(PROCESSES not in NAMES, reason="processes run on Linux only so far")


def test_on_linux_no_step_is_left_out():
    assert set(NAMES) >= PRINTED.keys() or sys.platform != "linux"


UNTIMED = ("interrupted", "what_is_shared", "what_one_costs", "a_crash")
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


def cores():
    with abreast.ProcessPoolExecutor() as executor:
        return executor.statistics().max_workers


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
        (pid,) = set(re.findall(r"of process (\d+)", played.partition("Processes against threads")[0]))
        for who in ("Task 1: T1", "Task 2: T2", "Main: MainThread"):
            assert f"{who} of process {pid}" in lines

    def test_the_table_compares_the_steps(self, played):
        table = between(played, "What it bought", "The ideal is")
        timed = [(number, step) for number, step in enumerate(STEPS, 1) if step.function.__name__ not in UNTIMED]
        assert len(re.findall(r"^ +\d+\. ", table, re.M)) == len(timed) == len(STEPS) - (4 if PROCESSES in NAMES else 0)
        for number, step in timed:
            (row,) = re.findall(rf"^ +{number}\. {step.title} +([\d.]+) s +([\d.]+) s +([\d.]+)x +(\d+)% *$", table, re.M)
            one_by_one, took, faster, ideal = map(float, row)
            assert 0 < took < PATIENCE
            assert ideal <= 101 or step.computes  # that is measured in two steps, and the machine may be busier in one
            assert faster == pytest.approx(one_by_one / took, rel=0.2)

    @needs_processes
    def test_where_each_task_has_computed(self, played):
        parts = {step.title: between(played, f". {step.title}\n", "0 s ") for step in STEPS}
        ran_in = [re.findall(r"^    3500000: (\S+) of process (\d+)$", parts[f"Computing{how}"], re.M) for how in (", one by one", " on threads", " in processes")]  # fmt: skip
        assert list(map(len, ran_in)) == [4] * 3
        (here,) = set(ran_in[0])
        assert here[0] == "MainThread"
        assert {pid for _, pid in ran_in[1]} == {here[1]}
        assert "MainThread" not in dict(ran_in[1])
        assert here[1] not in {pid for _, pid in ran_in[2]}
        assert len(set(ran_in[2])) <= cores()
        for _, pid in ran_in[2]:
            assert re.search(rf"^    process {pid} .*▏", parts["Computing in processes"], re.M)

    @needs_processes
    def test_what_could_be_gained_is_told_by_the_cores(self, played):
        said = re.findall(r"^([\d.]+) times as fast as one by one; ([\d.]+) is the most on (\d+) cores?\.$", played, re.M)
        assert len(said) == 2
        for gained, most, on in said:
            assert float(gained) > 0
            assert int(on) == cores()
            assert float(most) == round(4 / -(-4 // cores()), 2)
        assert played.count("The first task began after ") == 2

    @needs_processes
    def test_what_one_costs_is_measured(self, played):
        thread, process = re.search(r"^    To start: thread ([\d.]+) ms, process (\d+) ms$", played, re.M).groups()
        assert 0 <= float(thread)
        assert int(process) > 1
        thread, process = re.search(r"^    Memory: thread (-?\d+) kB, process ([\d,]+) kB$", played, re.M).groups()
        assert int(process.replace(",", "")) > 1000
        assert int(thread) < int(process.replace(",", ""))

    @needs_processes
    def test_a_crash_costs_one_result(self, played):
        words = " ".join(played.split())
        assert re.search(r"3 fails: task #2 square_or_die\(3\) — .* ended with exit code 3 after [\d.e-]+ m?s while running 4 gives 16 ", words)  # fmt: skip

    @needs_processes
    def test_one_core_is_told_of(self):
        one = min(os.sched_getaffinity(0))
        script = (
            f"import os\nos.sched_setaffinity(0, [{one}])\nfrom abreast.cli import demo\nfrom abreast.cli.main import main\n"
            "demo.STEPS = [step for step in demo.STEPS if step.computes]\nmain(['demo', '--fast'])\n"
        )
        played = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE)
        assert (played.returncode, played.stderr) == (0, "")
        words = " ".join(played.stdout.split())
        assert "But this program may use one core only: processes take turns too." in words
        assert words.count("1.00 is the most on 1 core.") == 2

    def test_what_is_shown_is_what_is_run(self, played):
        shown = "".join(played.split())  # a long line of code is broken
        functions = [course.task1, course.A, course.square_number]
        if PROCESSES in NAMES:
            functions += [course.add_up, course.time_to_start, course.memory_of, course.square_or_die]
        for function in functions:
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
            changed = [*lines[:place], f"0{line}", *lines[place + 1 :]]
            longer = [*lines[:place], f"{line}!", *lines[place + 1 :]]
            for altered in (without, [*without, line + "!"], changed, longer, [*lines, line]):
                assert judge(step, altered, 7), altered
        assert judge(step, [], 7)

    @pytest.mark.parametrize("step", ["two_named_threads", "a_group"])
    def test_another_order_or_process_is_wrong(self, step):
        assert judge(step, PRINTED[step][::-1], 7)
        assert judge(step, PRINTED[step], 8)

    @pytest.mark.parametrize(
        ("step", "told", "instead"),
        [
            ("computing_one_after_another", "process 7", "process 8"),
            ("computing_on_threads", "process 7", "process 8"),
            ("computing_on_threads", "10500000", "10500001"),
            ("computing_in_processes", "process 17", "process 7"),
            ("what_is_shared", "process: ['one']", "process: ['one', 'two']"),
            ("what_one_costs", "process 12,345 kB", "process 0 kB"),
            ("what_one_costs", "process 35 ms", "process -1 ms"),
            ("interrupted", "from 9,877", "from 9,878"),
            ("interrupted", "B counts from 8,766", "A counts from 8,766"),
            ("interrupted", "4 turns", "5 turns"),
            ("a_crash", "(pid 77)", "(pid 7)"),
            ("a_crash", "exit code 3", "exit code 0"),
            ("a_crash", "4 gives 16", "4 gives 8"),
        ],
    )
    def test_another_place_or_figure_is_wrong(self, step, told, instead):
        assert told in str(PRINTED[step])
        assert judge(step, [line.replace(told, instead) for line in PRINTED[step]], 7)

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
            pytest.param(7, "right = course.add_up\ncourse.add_up = lambda n: right(n + 2)", marks=needs_processes),
            pytest.param(
                9,
                "real = abreast.map\nabreast.map = lambda fn, counts, **kind: real(fn, [n - 7 for n in counts], **kind)",
                marks=needs_processes,
            ),
            pytest.param(9, "real = abreast.map\nabreast.map = lambda *args, kind: real(*args)", marks=needs_processes),
            pytest.param(11, "real = abreast.map\nabreast.map = lambda *args, **options: real(*args)", marks=needs_processes),
            pytest.param(12, "course.memory_of = lambda threads: (0, 0)", marks=needs_processes),
            pytest.param(13, "course.square_or_die = lambda number: number * number", marks=needs_processes),
        ],
        ids=[
            "a result",
            "the order of results",
            "a line",
            "a thread",
            "a sum",
            "a sum of a process",
            "a process that is a thread",
            "a list that is shared",
            "memory",
            "no crash",
        ],  # fmt: skip
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

    @needs_processes
    def test_with_1_if_no_process_can_be_started(self):
        """It is said in one line, and the other steps are played."""
        script = (
            "import sys, abreast\nfrom abreast.cli import course, demo\nfrom abreast.cli.main import main\n"
            "sys.executable = '/nowhere/python'\ndemo.STEPS = demo.STEPS[8:13]\nmain(['demo', '--fast'])\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE)
        assert done.returncode == 1, done.stderr
        assert [number for number in "12345" if f"\nWRONG in step {number}: " in done.stdout] == ["2", "4", "5"], done.stdout
        assert "\n1. Computing on threads\n" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr

    @pytest.mark.parametrize(
        ("number", "name"), [(signal.SIGINT, "Ctrl-C"), pytest.param(signal.SIGTERM, "SIGTERM", marks=pytest.mark.slow)]
    )
    @pytest.mark.parametrize("step", range(len(STEPS)), ids=[step.function.__name__ for step in STEPS])
    def test_soon_at_a_signal(self, step, number, name):
        """Whatever the step waits for: here each sleep takes a minute, and each task that computes."""
        script = textwrap.dedent(f"""
            import os, time, abreast
            from abreast.cli import course, demo
            from abreast.cli.main import main
            from abreast.cli.stage import stage

            def sleep(seconds):
                os.write(2, b"started\\n")
                stage.sleep(60)

            def hang(given):
                os.write(2, b"started\\n")
                time.sleep(60)

            real = abreast.map
            if demo.STEPS[{step}].function is course.what_is_shared:
                abreast.map = lambda fn, words, **kind: real(hang if kind else fn, words, **kind)
            course.sleep = sleep
            course.add_up = course.memory_of = course.square_or_die = hang
            demo.STEPS = demo.STEPS[{step}:]
            main(["demo"])
        """)
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


class TestStage:
    def test_a_line_that_is_too_long_is_broken(self, monkeypatch):
        told = io.StringIO()
        monkeypatch.setattr(sys, "stdout", told)
        stage = Stage()
        stage.width = 30
        stage.print("as long as", "this line-is, and longer", 17)
        assert told.getvalue() == "    as long as this line-is,\n      and longer 17\n"
        assert stage.lines == ["as long as this line-is, and longer 17"]

    def test_tasks_say_where_they_ran(self, capsys):
        stage = Stage()
        own = done(1, 2.0)
        stage.show([own, own._replace(pid=7, thread="other")])
        assert capsys.readouterr().out == f"    1: MainThread of process {os.getpid()}\n    1: other of process 7\n"
        assert [(span.row, span.begin, span.end, span.label) for span in stage.spans] == [
            ("MainThread", 2.0, own.end, "1"),
            ("process 7", 2.0, own.end, "2"),
        ]

    @pytest.mark.parametrize("file", ["/proc/self/smaps_rollup", "/nowhere"], ids=["USS", "RSS"])
    @needs_processes
    def test_private_memory_grows_with_what_is_taken(self, file, monkeypatch):
        monkeypatch.setattr("abreast.cli.stage.SMAPS", file)
        before = private_memory()
        block = b"1" * 50_000_000
        assert 45_000 < private_memory() - before < 55_000
        assert len(block) == 50_000_000


@needs_processes
def test_the_picture_of_processes_shows_what_the_steps_are():
    """Not what they print: that differs by the machine's cores. ``python docs/pictures/make.py`` makes it anew."""
    texts = ElementTree.parse(ROOT / "docs/pictures/processes.svg").iter("{http://www.w3.org/2000/svg}text")
    shown = "".join("".join(text.itertext()) for text in texts).replace("\xa0", "")
    shown = "".join(shown.split())
    steps = [step for step in STEPS if step.computes]
    for step in steps:
        assert f"{STEPS.index(step) + 1}.{step.title}".replace(" ", "") in shown
    for code in (inspect.getsource(course.add_up), *(inspect.getsource(step.function).split("\n", 1)[1] for step in steps)):
        assert "".join(code.split()) in shown
