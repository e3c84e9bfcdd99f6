"""`abreast map --kind process`, run as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.helpers import (
    abreast,
    end,
    here,  # noqa: F401
    numbers,
    results,
    shell,
    started,
    until,
    wait_for_line,
)

FUNCTIONS = """
import functools, os, signal, subprocess, sys, time

def pid(text): return os.getpid()
def parent(text): return os.getppid()
def exits_at_3(text): return os._exit(3) if text == "3" else text
def killed_at_3(text): return os.kill(os.getpid(), signal.SIGKILL) if text == "3" else text
def hangs_at_3(text):
    if text == "3":
        time.sleep(60)
    return text
def marks_and_hangs(text):
    os.write(2, b"started\\n")
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(60)
def marks_and_starts_another(text):
    child = subprocess.Popen(["sleep", "60"])
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n{child.pid}\\n")
    os.write(2, b"started\\n")
    time.sleep(60)
def locked(text):
    import threading
    return threading.Lock()
def where(text): return [os.getcwd(), os.path.dirname(__file__)]
def from_stdin(text): return [sys.stdin.read(), os.read(0, 100).decode()]
def printing_late(text):
    print("printed")  # not flushed
    print("told", file=sys.stderr)
    return text
def fails_deep(text): return fails(text)
def fails(text): raise LookupError("nothing here")
def counts(text):
    end = time.perf_counter() + 200e-6  # no tiny task, which may run again when its process dies
    while time.perf_counter() < end: pass
    fd = os.open("counted", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\\n".encode())
    os.close(fd)
    return os._exit(3) if text in ("50", "150") else int(text)

class Odd(Exception):
    def __init__(self, code, text): super().__init__(text)
def raises_odd(text): raise Odd(3, "odd one")

double = lambda text: text * 2
partial = functools.partial(int, base=16)

class Shop:
    def __init__(self): self.prices = {"pear": 3}
    def price(self, name): return self.prices[name]
shop = Shop()
"""


@pytest.fixture
def functions(here):  # noqa: F811
    here.joinpath("p.py").write_text(FUNCTIONS)
    return here


pytestmark = [
    pytest.mark.whole,
    pytest.mark.slow,  # minutes: run before an issue closes
    pytest.mark.usefixtures("functions"),
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]


def run(function, *options, **more):
    return abreast("map", "--kind", "process", function, *options, **more)


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def pids(here):  # noqa: F811
    path = here.joinpath("pids")
    return [int(line) for line in path.read_text().split()] if path.exists() else []


class TestResults:
    def test_are_lines_in_the_order_of_the_inputs(self):
        assert results(run("m:nap", given=numbers(300)).stdout) == [str(n) for n in range(300)]
        assert sorted(map(int, results(run("m:nap", "-u", given=numbers(100)).stdout))) == list(range(100))

    def test_come_of_processes_as_many_as_asked_for(self):
        seen = set(results(run("p:pid", "-j", "2", given=numbers(100)).stdout))
        assert 1 <= len(seen) <= 2
        assert len(set(results(run("p:parent", "-j", "2", given=numbers(100)).stdout))) == 1

    @pytest.mark.parametrize(
        ("function", "given", "wanted"),
        [
            ("p:double", "ab", "abab"),
            ("p:partial", "ff", 255),
            ("p:shop.price", "pear", 3),
            ("m:Namespace.same", "a", "a"),
            ("builtins:len", "abc", 3),
            ("os.path:basename", "a/b", "b"),
        ],
    )
    def test_of_whatever_can_be_called(self, function, given, wanted):
        assert results(run(function, given=given + "\n").stdout) == [wanted]

    def test_of_a_module_here_that_hides_one_of_the_standard_library(self, functions):
        functions.joinpath("colorsys.py").write_text("def same(text): return 'mine'\n")
        assert results(run("colorsys:same", given="a\n").stdout) == ["mine"]

    def test_of_a_module_that_is_found_here_and_nowhere_else(self, functions):
        assert results(run("p:where", given="a\n").stdout) == [[str(functions)] * 2]
        package = functions / "shop"
        package.mkdir()
        package.joinpath("__init__.py").write_text("")
        package.joinpath("prices.py").write_text("from shop import taxes\ndef total(text): return int(text) + taxes.TAX\n")
        package.joinpath("taxes.py").write_text("TAX = 7\n")
        assert results(run("shop.prices:total", given="1\n").stdout) == [8]

    def test_with_the_other_options(self, functions):
        assert results(run("m:same", "--json", given='{"a": [1]}\n').stdout) == [{"a": [1]}]
        assert results(run("m:same", "-0", given=b"a\nb\0c").stdout) == ["a\nb", "c"]
        run("m:same", "-o", "out", given="a\n")
        assert results(functions.joinpath("out").read_bytes()) == ["a"]

    def test_are_outcomes_on_request(self):
        first, second, third = results(run("m:odd_fails", "--outcomes", given=numbers(3), status=1).stdout)
        assert (first["index"], first["input"], first["value"]) == (0, "0", 10)
        assert second["error"] == "ZeroDivisionError: integer division or modulo by zero (m.py, line 10)"
        assert (second["attempts"], third["value"]) == (1, 10)
        assert 0 < second["duration"] < 20


class TestOutput:
    """What functions print never mixes with results."""

    def test_goes_to_standard_error_while_results_go_to_standard_output(self):
        done = run("m:printing", given=numbers(20))
        assert results(done.stdout) == [str(n) for n in range(20)]
        # counted, not compared by lines: where Python's output is not buffered, a line and its end are written one by one
        assert [done.stderr.count(word) for word in ("printed", "written", "echoed")] == [20] * 3

    def test_that_was_not_flushed_is_not_lost(self):
        done = run("p:printing_late", given=numbers(20))
        assert results(done.stdout) == [str(n) for n in range(20)]
        assert (done.stderr.count("printed"), done.stderr.count("told")) == (20, 20)

    def test_goes_to_standard_output_while_results_go_to_a_file(self, functions):
        done = run("m:printing", "-o", "out", given=numbers(3))
        assert [done.stdout.count(word) for word in ("printed", "written", "echoed")] == [3] * 3
        assert results(functions.joinpath("out").read_bytes()) == ["0", "1", "2"]

    def test_standard_input_is_empty_for_functions(self):
        assert results(run("p:from_stdin", "-j", "1", given="a\nb\n").stdout) == [["", ""]] * 2

    def test_a_pipe_whose_reader_has_left(self):
        done = shell(
            f"yes | {sys.executable} -m abreast map --kind process m:same | head -2; exit ${{PIPESTATUS[1]}}", status=141
        )
        assert done.stdout == '"y"\n"y"\n'


class TestFailures:
    @pytest.mark.parametrize(
        ("function", "said"),
        [
            ("p:exits_at_3", "ended with exit code 3 after "),
            ("p:killed_at_3", "died of SIGKILL after "),
        ],
    )
    def test_a_process_that_dies_costs_its_line(self, function, said):
        done = run(function, given=numbers(30), status=1)
        assert results(done.stdout) == [str(n) for n in range(30) if n != 3]
        line, total = done.stderr.splitlines()
        assert line.startswith(f"abreast map: line 4 ('3'): WorkerCrashed: task #3 {function[2:]}('3') — worker ")
        assert said in line
        assert total.startswith("abreast map: 1 of 30 tasks failed")
        outcomes = results(run(function, "--outcomes", given=numbers(30), status=1).stdout)
        assert [outcome["index"] for outcome in outcomes] == list(range(30))
        (lost,) = [outcome for outcome in outcomes if "error" in outcome]
        assert (lost["index"], lost["input"], lost["attempts"]) == (3, "3", 1)
        assert lost["error"].startswith("WorkerCrashed: task #3 ")

    @pytest.mark.parametrize("options", [[], ["-u"], ["-j", "1"], ["-j", "3"]], ids=" ".join)
    def test_every_other_line_is_run_once(self, functions, options):
        done = run("p:counts", *options, given=numbers(200), status=1)
        assert sorted(results(done.stdout)) == [n for n in range(200) if n not in (50, 150)]
        assert sorted(map(int, functions.joinpath("counted").read_text().split())) == list(range(200))

    def test_a_task_over_its_limit_is_ended(self):
        begin = time.monotonic()
        done = run("p:hangs_at_3", "--task-timeout", "1.5", "-j", "1", given=numbers(10), status=1)
        assert time.monotonic() - begin < 15
        assert results(done.stdout) == [str(n) for n in range(10) if n != 3]
        line, _ = done.stderr.splitlines()
        assert line.startswith(
            "abreast map: line 4 ('3'): TaskTimeout: hangs_at_3('3') ran longer than its task_timeout of 1.5 s on worker 1 (process "
        )
        assert line.endswith(f"(p.py, line {1 + FUNCTIONS.splitlines().index('        time.sleep(60)')})")

    def test_the_timeout_of_the_run_ends_the_processes(self, functions):
        done = run("p:marks_and_hangs", "--timeout", "1.5", "-j", "2", given=numbers(2), status=1)
        assert "the timeout of 1.5 s was over: 0 lines written" in done.stderr
        assert all(map(is_gone, pids(functions)))

    def test_an_error_is_told_with_the_place_where_it_was_raised(self):
        done = run("p:fails_deep", given="a\n", status=1)
        line = 1 + FUNCTIONS.splitlines().index('def fails(text): raise LookupError("nothing here")')
        assert f"line 1 ('a'): LookupError: nothing here (p.py, line {line})\n" in done.stderr

    def test_an_error_that_cannot_be_unpickled_is_told(self):
        assert "TaskError: p.Odd: odd one" in run("p:raises_odd", given="a\n", status=1).stderr

    def test_a_result_that_is_not_json(self):
        done = run("p:locked", given="a\n", status=1)
        assert "line 1 ('a'): TypeError: the result is not JSON: Object of type lock is not JSON serializable\n" in done.stderr

    def test_max_failures_ends_the_run(self):
        done = run("m:boom", "--max-failures", "3", given=numbers(1000), status=1)
        assert "ended after 4 failed tasks, more than --max-failures 3 allows" in done.stderr


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "wanted"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
    )
    def test_end_it_and_leave_no_process(self, functions, number, wanted):
        functions.joinpath("lines.txt").write_text(numbers(2))
        with started("map", "--kind", "process", "-j", "2", "p:marks_and_starts_another", "lines.txt") as process:
            wait_for_line(process)
            until(lambda: len(pids(functions)) == 4)
            said, status = end(process, number)
        assert status == wanted
        assert "abreast map: ended by" in said
        assert ": 0 lines written" in said
        until(lambda: all(map(is_gone, pids(functions))))

    def test_ctrl_c_on_a_terminal_reaches_the_command_alone(self, functions):
        """It goes to the whole foreground group, of which the processes of tasks are not a part."""
        functions.joinpath("lines.txt").write_text(numbers(2))
        command = ["map", "--kind", "process", "-j", "2", "p:marks_and_hangs", "lines.txt"]
        with started(*command, start_new_session=True) as process:
            wait_for_line(process)
            until(lambda: len(pids(functions)) == 2)
            begin = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            said = process.stderr.read().decode()
            assert process.wait(20) == 130
            assert time.monotonic() - begin < 5
        assert "Traceback" not in said
        until(lambda: all(map(is_gone, pids(functions))))

    def test_a_command_that_is_killed_leaves_no_process(self, functions):
        functions.joinpath("lines.txt").write_text(numbers(2))
        with started("map", "--kind", "process", "-j", "2", "p:marks_and_hangs", "lines.txt") as process:
            wait_for_line(process)
            until(lambda: len(pids(functions)) == 2)
            process.kill()
            process.wait(20)
        until(lambda: all(map(is_gone, pids(functions))))

    def test_results_that_were_there_are_written(self, functions):
        functions.joinpath("lines.txt").write_text(numbers(100))
        with started("map", "--kind", "process", "-j", "1", "m:late", "lines.txt") as process:
            wait_for_line(process)
            assert process.stdout.readline() == b'"0"\n'
            said, status = end(process)
            lines = results(b'"0"\n' + process.stdout.read() if process.stdout else b"")
        assert status == 130
        assert lines == [str(n) for n in range(len(lines))]
        assert f"{len(lines)} line" in said


class TestUsage:
    def test_help_says_what_kinds_there_are(self):
        text = abreast("map", "--help").stdout
        assert "--kind [thread|process|serial]" in text
        assert "as many processes as cores" in text

    def test_the_processes_import_little_of_the_command(self, functions):
        """click and rich in each would be 40 ms and 10 MB."""
        functions.joinpath("tells.py").write_text("import sys\ndef has(name): return name in sys.modules\n")
        assert results(run("tells:has", given="click\nrich\nasyncio\njson\n").stdout) == [False, False, False, True]

    def test_a_dry_run_starts_none(self):
        done = run("p:pid", "--dry-run", given="a\n")
        assert done.stdout == "pid('a')\n"

    def test_where_processes_do_not_run_that_is_said(self):
        code = (
            "import sys; sys.platform = 'darwin'; from abreast.cli.main import main; main(['map', '--kind', 'process', 'm:same'])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, input="a\n", timeout=30)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("abreast map: kind='process' runs on Linux only so far; kind='thread' runs everywhere")

    def test_nothing_to_do(self):
        assert run("p:pid", given="").stdout == ""

    def test_all_standard_streams_closed(self, functions):
        functions.joinpath("lines.txt").write_text(numbers(3))
        command = f"{sys.executable} -m abreast map --kind process m:same lines.txt -o out <&- >&- 2>&-"
        assert subprocess.run(["bash", "-c", command], timeout=30).returncode == 0
        assert results(functions.joinpath("out").read_bytes()) == ["0", "1", "2"]
