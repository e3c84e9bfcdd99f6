"""`abreast map`, run as a user runs it: what it reads and writes, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import abreast as library
import pytest

from tests.cli.helpers import (
    ENVIRONMENT,
    MODULE,
    PATIENCE,
    abreast,
    end,
    ended,
    here,  # noqa: F401
    numbers,
    one_line,
    results,
    shell,
    started,
    until,
    wait_for_line,
)

pytestmark = pytest.mark.usefixtures("here")
SIGNALS = [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")]


class TestOnEveryPython:
    """The rest hardly depends on it."""

    def test_lines_become_lines_and_failures_are_told(self):
        done = abreast("map", "m:odd_fails", given=numbers(4), status=1)
        assert done.stdout == "10\n10\n"
        assert done.stderr.count("ZeroDivisionError") == 2
        assert len(results(abreast("map", "--outcomes", "-j", "2", "m:nap", given=numbers(50)).stdout)) == 50

    def test_ctrl_c_ends_hanging_tasks(self, here):
        with started("map", "m:hang", "m.py", "-o", "out") as process:
            wait_for_line(process)
            said, status = end(process)
        assert status == 130
        assert "abreast map: ended by Ctrl-C: 0 lines written" in said.splitlines()
        assert not here.joinpath("out").exists()

    def test_the_demo_is_right(self):
        assert "WRONG" not in abreast("demo", "--fast").stdout


@pytest.mark.whole
class TestLines:
    def test_a_line_is_an_input_as_text_and_a_result_a_line_of_json(self):
        assert abreast("map", "m:upper", given="a b\n\n 1 \nü\n").stdout == '"A B"\n""\n" 1 "\n"Ü"\n'

    def test_with_json_a_line_is_a_json_value(self):
        given = '{"a": [1, 2.5, null]}\n"text"\n 17 \n'
        assert results(abreast("map", "--json", "m:same", given=given).stdout) == [{"a": [1, 2.5, None]}, "text", 17]

    @pytest.mark.parametrize("given", ["", "\ufeff"])
    def test_no_line_gives_no_line(self, given):
        wanted = "" if not given else '""\n'
        assert abreast("map", "m:same", given=given).stdout == wanted

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            (b"a\nb", ["a", "b"]),
            (b"a\r\nb\r\n", ["a", "b"]),
            (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
            (b"\n\n", ["", ""]),
            (b"a\rb\x0cc\xe2\x80\xa8d\n", ["a\rb\x0cc\u2028d"]),
        ],
        ids=["no end", "CRLF", "BOM", "empty", "not ends of lines"],
    )
    def test_ends_of_lines_are_not_part_of_inputs(self, here, given, wanted):
        here.joinpath("lines.txt").write_bytes(given)
        assert results(abreast("map", "m:same", "lines.txt").stdout) == wanted
        assert results(abreast("map", "m:same", given=given).stdout) == wanted

    def test_nul_separates_inputs_on_request(self):
        assert results(abreast("map", "-0", "m:same", given=b"a\nb\0\xef\xbb\xbfc\r\0d").stdout) == ["a\nb", "\ufeffc\r", "d"]

    def test_a_line_may_be_very_long(self, here):
        here.joinpath("long.txt").write_bytes(b"x" * 30_000_000 + b"\nab\n")
        begin = time.monotonic()
        assert abreast("map", "builtins:len", "long.txt").stdout == "30000000\n2\n"
        assert time.monotonic() - begin < 10  # it was 41 s for 100 MB, and grew with the square

    @pytest.mark.parametrize(
        "options", [[], ["-j", "32"], ["-j", "1"], ["--kind", "serial"], ["-k"]], ids=lambda options: " ".join(options)
    )
    def test_order_is_that_of_the_lines_whatever_the_naps(self, options):
        assert results(abreast("map", "m:nap", *options, given=numbers(300)).stdout) == [str(n) for n in range(300)]

    def test_unordered_gives_results_as_completed(self):
        with started("map", "-u", "-j", "2", "m:first_hangs", stdin=subprocess.PIPE) as process:
            process.stdin.write(b"0\n1\n2\n")
            process.stdin.close()
            assert sorted(process.stdout.readline() + process.stdout.readline()) == sorted(b'"1"\n"2"\n')
            assert end(process)[1] == 130

    def test_a_big_run_gives_what_one_call_after_another_gives(self, here):
        lines = [random.Random(n).randbytes(n % 40).hex() for n in range(50_000)]
        here.joinpath("big.txt").write_text("\n".join(lines))
        wanted = "".join(json.dumps(line.upper()) + "\n" for line in lines)
        assert abreast("map", "m:upper", "big.txt").stdout == wanted
        abreast("map", "m:upper", "big.txt", "-o", "big.out")
        assert here.joinpath("big.out").read_text() == wanted

    def test_half_a_surrogate_pair_is_written_in_ascii(self):
        given = '{"\\ud800": 1}'
        done = abreast("map", "--json", "--outcomes", "m:same", given=given)
        assert done.stdout.startswith(f'{{"index": 0, "input": {given}, "value": {given}, ')


@pytest.mark.whole
class TestOutcomes:
    def test_a_record_has_its_keys_in_order_and_only_those(self):
        done = abreast("map", "--outcomes", "m:odd_fails", given="0\n1\n", status=1)
        fine, failed = (json.loads(line, object_pairs_hook=list) for line in done.stdout.splitlines())
        assert fine[:4] == [("index", 0), ("input", "0"), ("value", 10), ("attempts", 1)]
        assert fine[4][0] == "duration"
        assert [name for name, _ in failed] == ["index", "input", "error", "attempts", "duration"]
        assert dict(failed)["error"].startswith("ZeroDivisionError: ")
        assert 0 <= fine[4][1] < PATIENCE
        assert one_line(done.stderr) == "abreast map: 1 of 2 tasks failed\n"

    def test_the_input_is_as_it_was_given_whatever_the_function_does_to_it(self, here):
        here.joinpath("spoils.py").write_text("def spoils(record):\n    record['seen'] = {1}\n    return 1\n")
        given = '{"id":1}\r\n {"id" :  1e999}\n'
        lines = abreast("map", "--json", "--outcomes", "spoils:spoils", given=given).stdout.splitlines()
        assert [line[: line.index(', "value"')] for line in lines] == [
            '{"index": 0, "input": {"id":1}',
            '{"index": 1, "input": {"id" :  1e999}',
        ]

    def test_a_json_input_of_several_lines_stays_in_one(self):
        done = abreast("map", "-0", "--json", "--outcomes", "m:same", given="\n[1,\r\n2]\n\0")
        assert results(done.stdout)[0]["input"] == [1, 2]

    def test_what_a_timeout_cut_off_is_said_of_every_input(self, here):
        here.joinpath("lines.txt").write_text(numbers(700))
        done = abreast("map", "--outcomes", "--timeout", "0.3", "-j", "2", "m:first_hangs", "lines.txt", status=1)
        records = results(done.stdout)
        assert [record["index"] for record in records] == list(range(700))
        assert "the timeout of 0.3 s" in records[0]["error"]
        assert "the timeout of 0.3 s was over: 700 lines written" in done.stderr


def line_of(beginning):
    """The number of a line of the module."""
    return next(number for number, line in enumerate(MODULE.splitlines(), 1) if line.startswith(beginning))


@pytest.mark.whole
class TestFailures:
    def test_a_failed_task_is_told_and_the_run_goes_on(self):
        done = abreast("map", "m:odd_fails", given=numbers(4), status=1)
        assert done.stdout == "10\n10\n"
        first, second, last = done.stderr.splitlines()
        assert first.startswith("abreast map: line 2 ('1'): ZeroDivisionError: ")
        assert first.endswith(f"(m.py, line {line_of('def odd_fails')})")
        assert second.startswith("abreast map: line 4 ('3'): ")
        assert last == "abreast map: 2 of 4 tasks failed; they have no line in the output, --outcomes gives each input one"

    def test_each_failure_is_one_line_and_only_the_first_are_shown(self):
        lines = abreast("map", "m:boom", given=numbers(50), status=1).stderr.splitlines()
        assert lines[0] == f"abreast map: line 1 ('0'): ValueError: bad 0 (m.py, line {line_of('def boom')})"
        assert lines[19].startswith("abreast map: line 20 ")
        assert [line.partition(": ")[2][:20] for line in lines[20:]] == ["more failures are co", "50 of 50 tasks faile"]

    @pytest.mark.parametrize(
        ("expression", "why"),
        [
            ("{1}", "Object of type set"),
            ("float('nan')", "Out of range float"),
            ("[float('-inf')]", "Out of range float"),
            ("b'bytes'", "Object of type bytes"),
            ("loop", "Circular reference"),
            ("{(1, 2): 3}", "keys must be str"),
            ("deep", "nested too deep"),
            ("10 ** 5000", "limit"),
            ("(n for n in [1])", "Object of type generator"),
        ],
    )
    def test_a_result_that_is_not_json_is_its_tasks_error(self, here, expression, why):
        here.joinpath("odd.py").write_text(
            "loop = []; loop.append(loop)\ndeep = []\nfor _ in range(100_000): deep = [deep]\n"
            f"def give(text): return 'fine' if text == '0' else {expression}\n"
        )
        done = abreast("map", "odd:give", given="0\n1\n0\n", status=1)
        assert done.stdout == '"fine"\n"fine"\n'
        assert done.stderr.startswith("abreast map: line 2 ('1'): TypeError: the result is not JSON: ")
        assert why.lower() in done.stderr.lower()

    def test_whatever_an_error_is_like_it_is_told(self, here):
        here.joinpath("odd.py").write_text(
            "import m\ndef give(text):\n    if text == '1': raise m.Mute\n    if text == '2': raise SystemExit(3)\n"
            "    if text == '3': raise KeyboardInterrupt\n    raise OSError('x' * 100_000)\n"
        )
        lines = abreast("map", "odd:give", given="1\n2\n3\n4\n", status=1).stderr.splitlines()
        assert lines[0] == "abreast map: line 1 ('1'): Mute (odd.py, line 3)"
        assert lines[1] == "abreast map: line 2 ('2'): SystemExit: 3 (odd.py, line 4)"
        assert lines[2] == "abreast map: line 3 ('3'): KeyboardInterrupt (odd.py, line 5)"
        assert lines[3].endswith("xxx… (100,026 characters)")

    def test_an_escape_code_in_an_error_is_not_obeyed(self):
        done = abreast("map", "m:boom", given="\x1b[31mred\n", status=1)
        assert "\x1b" not in done.stderr
        assert "\\x1b[31mred" in done.stderr

    def test_max_failures_ends_the_run(self):
        done = abreast("map", "-j", "1", "--max-failures", "2", "m:odd_fails", given=numbers(1000), status=1)
        assert done.stdout == "10\n10\n10\n"
        last = "abreast map: ended after 3 failed tasks, more than --max-failures 2 allows: 3 lines written"
        assert done.stderr.splitlines()[-1] == last

    def test_task_timeout_fails_that_task_only(self):
        done = abreast("map", "--task-timeout", "0.3", "-j", "2", "m:first_hangs", given="0\n1\n2\n", status=1)
        assert done.stdout == '"1"\n"2"\n'
        assert "line 1 ('0'): TaskTimeout: first_hangs('0') ran longer than its task_timeout of 0.3 s" in done.stderr

    def test_timeout_ends_a_run_whose_tasks_hang(self):
        begin = time.monotonic()
        done = abreast("map", "--timeout", "0.3", "m:first_hangs", given="0\n1\n2\n", status=1)
        assert time.monotonic() - begin < 5
        assert done.stdout == '"1"\n"2"\n'
        assert done.stderr.splitlines()[-1] == "abreast map: the timeout of 0.3 s was over: 2 lines written"

    def test_timeout_ends_a_run_whose_input_does_not_come(self):
        with started("map", "--timeout", "0.3", "m:same", stdin=subprocess.PIPE) as process:
            said, status = ended(process, time.monotonic())
        assert status == 1
        assert "while a line of the input was waited for" in one_line(said)

    @pytest.mark.parametrize("seconds", ["inf", "1e300", "1e10"])
    def test_a_timeout_may_be_as_long_as_you_like(self, seconds):
        assert abreast("map", "--timeout", seconds, "--task-timeout", seconds, "m:same", given="a\n").stdout == '"a"\n'


@pytest.mark.whole
class TestRefusals:
    """What can be known at the start is said in one line, with exit status 2, and nothing is run or made."""

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["mp", "m:same"], "abreast: no command 'mp'; did you mean 'map'? (see abreast --help)"),
            (["map"], "abreast map: Missing argument 'MODULE:FUNCTION' (see abreast map --help)"),
            (["map", "m:smae"], "abreast map: m has no 'smae'; did you mean 'same'?"),
            (["map", "m:Namespace.smae"], "abreast map: m.Namespace has no 'smae'; did you mean 'same'?"),
            (["map", "jsn:loads"], "abreast map: there is no module 'jsn', here or installed; did you mean 'json'?"),
            (["map", "nowhere.at:all"], "abreast map: there is no module 'nowhere', here or installed"),
            (["map", "m:a_value"], "abreast map: m:a_value cannot be called: it is of type int"),
            (["map", "m:json"], "abreast map: m:json cannot be called: it is a module"),
            (["map", "m:coroutine"], "abreast map: m:coroutine is a coroutine function, which cannot be run on threads"),
            (["map", "len"], "abreast map: 'len' is not MODULE:FUNCTION; did you mean builtins:len? (see abreast map --help)"),
            (["map", "m.same"], "abreast map: 'm.same' is not MODULE:FUNCTION; did you mean m:same? (see abreast map --help)"),
            (["map", "m"], "abreast map: 'm' is not MODULE:FUNCTION; which function of m? (see abreast map --help)"),
            (["map", "xyz"], "abreast map: 'xyz' is not MODULE:FUNCTION, such as os.path:getsize (see abreast map --help)"),
            (["map", "./m.py:same"], "abreast map: './m.py' is a file; its module is 'm': say m:same, in its directory"),
            (["map", "m:same", "nofile"], "abreast map: cannot read 'nofile': No such file or directory"),
            (["map", "m:same", "."], "abreast map: cannot read '.': it is a directory"),
            (["map", "m:same", "-o", "nowhere/out"], "abreast map: cannot write 'nowhere/out': No such file or directory"),
            (["map", "m:same", "-o", "."], "abreast map: cannot write '.': Is a directory"),
            (["map", "m:same", "m.py", "more"], "abreast map: Got unexpected extra argument (more) (see abreast map --help)"),
            (["map", "m:same", "-j", "0"], "abreast map: Invalid value for '-j'"),
            (["map", "m:same", "--jbs", "2"], "abreast map: No such option"),
            (["map", "m:same", "--timeout", "nan"], "abreast map: timeout must be greater than 0 seconds, not nan"),
            (["map", "m:same", "--kind", "serial", "-j", "2"], "abreast map: max_workers=2: kind='serial' runs one task"),
            (["map", "m:same", "--kind", "serial", "--task-timeout", "2"], "abreast map: task_timeout=2.0: kind='serial'"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_is_named_in_one_line(self, here, words, message):
        before = sorted(here.iterdir())
        assert one_line(abreast(*words, status=2).stderr).removesuffix("\n").startswith(message)
        assert [path for path in sorted(here.iterdir()) if path.name != "__pycache__"] == before

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("1 / 0", "importing broken failed: ZeroDivisionError: division by zero (broken.py, line 2)"),
            ("raise SystemExit('enough')", "importing broken failed: SystemExit: enough (broken.py, line 2)"),
            ("import nowhere", "importing broken failed: ModuleNotFoundError: No module named 'nowhere' (broken.py, line 2)"),
            ("def", "importing broken failed: SyntaxError: invalid syntax (broken.py, line 2)"),
            ("input()", "importing broken failed: EOFError: EOF when reading a line (broken.py, line 2)"),
        ],
    )
    def test_a_module_that_cannot_be_imported_says_why(self, here, code, message):
        here.joinpath("broken.py").write_text(f"# a module\n{code}\n")
        done = abreast("map", "broken:same", "-o", "out", given="a\n", status=2)
        assert one_line(done.stderr) == f"abreast map: {message}\n"
        assert not here.joinpath("out").exists()

    def test_what_a_module_prints_is_not_a_result(self, here):
        here.joinpath("chatty.py").write_text("import os\nprint('hello')\nos.write(1, b'low\\n')\nfrom m import same\n")
        done = abreast("map", "chatty:same", given="a\n")
        assert done.stdout == '"a"\n'
        assert sorted(done.stderr.splitlines()) == ["hello", "low"]

    def test_an_unreadable_file_is_named(self, here):
        here.joinpath("secret").write_text("a\n")
        here.joinpath("secret").chmod(0)
        drop = []
        if os.access("secret", os.R_OK):
            if shutil.which("setpriv") is None:
                pytest.skip("root reads everything, and setpriv is not installed")
            drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        done = shell(f"{shlex.join([*drop, sys.executable])} -m abreast map m:same secret", status=2)
        assert one_line(done.stderr) == "abreast map: cannot read 'secret': Permission denied\n"

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (b"fine\n\xffoo\nfine\n", "standard input, line 2, is not UTF-8: byte 0xff at place 1"),
            (b"fine\nsch\xf6n\n", "standard input, line 2, is not UTF-8: byte 0xf6 at place 4"),
        ],
    )
    def test_a_line_that_is_not_utf_8_is_named_by_its_number(self, given, message):
        done = abreast("map", "m:same", given=given, status=2)
        assert one_line(done.stderr) == f"abreast map: {message}; the run ends there: 1 line written\n"
        assert done.stdout == '"fine"\n'

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 2, is not JSON: Expecting property name enclosed in double quotes, at character 2"),
            ("", "line 2, is not JSON: it is empty"),
            ("NaN", "line 2, cannot be read as JSON: NaN is not a JSON value"),
            ("[-Infinity]", "line 2, cannot be read as JSON: -Infinity is not a JSON value"),
            ("1 2", "line 2, is not JSON: Extra data, at character 3"),
            ("9" * 5000, "line 2, cannot be read as JSON: Exceeds the limit"),
            ("[" * 100_000, "line 2, cannot be read as JSON: it is nested too deep"),
        ],
        ids=lambda text: text[:20],
    )
    def test_a_line_that_is_not_json_is_named_by_its_number(self, here, line, message):
        here.joinpath("lines.jsonl").write_text(f"1\n{line}\n3\n")
        done = abreast("map", "--json", "m:same", "lines.jsonl", "-o", "out", status=2)
        assert one_line(done.stderr).startswith(f"abreast map: lines.jsonl, {message}")
        assert done.stderr.endswith("; the run ends there: 1 line written\n")
        assert here.joinpath("out").read_text() == "1\n"

    def test_the_lines_before_a_bad_one_are_done_even_if_they_take_time(self):
        done = abreast("map", "-j", "2", "m:nap", given=numbers(100).encode() + b"\xff\n", status=2)
        assert results(done.stdout) == [str(n) for n in range(100)]


@pytest.mark.whole
class TestStreams:
    def test_what_functions_print_goes_to_standard_error(self):
        done = abreast("map", "-j", "1", "m:printing", given="a\nb\n")  # threads' prints would mix, text and line end
        assert done.stdout == '"a"\n"b"\n'
        assert sorted(done.stderr.splitlines()) == ["echoed"] * 2 + ["printed"] * 2 + ["written"] * 2

    def test_with_an_output_file_it_goes_where_it_went(self, here):
        done = abreast("map", "m:printing", "-o", "out", given="a\n")
        assert sorted(done.stdout.splitlines()) == ["echoed", "printed", "written"]
        assert here.joinpath("out").read_text() == '"a"\n'

    def test_functions_cannot_eat_the_inputs(self):
        assert results(abreast("map", "-j", "1", "m:greedy", given=numbers(100)).stdout) == [["", ""]] * 100

    def test_closed_streams_are_said_or_done_without(self, here):
        here.joinpath("lines.txt").write_text("a\nb\n")
        assert one_line(shell("abreast map m:same <&-", status=2).stderr) == (
            "abreast map: standard input is closed; give a FILE\n"
        )
        assert one_line(shell("abreast map m:same lines.txt >&-", status=2).stderr) == (
            "abreast map: standard output is closed; give an output with -o\n"
        )
        assert shell("abreast map m:printing lines.txt 2>&-").stdout == '"a"\n"b"\n'
        assert shell("abreast map m:printing lines.txt <&-").stdout == '"a"\n"b"\n'

    def test_no_file_takes_the_place_of_a_closed_stream(self, here):
        here.joinpath("lines.txt").write_text("a\nb\n")
        done = shell("abreast map m:printing lines.txt -o out <&- >&- 2>&-; cat out; cat lines.txt")
        assert done.stdout == '"a"\n"b"\na\nb\n'
        assert not done.stderr

    def test_version_help_and_demo_without_an_output(self):
        assert not shell("abreast --version >&-; abreast --help >&-; abreast map --help >&-").stderr
        assert one_line(shell("abreast demo --fast >&-", status=2).stderr) == "abreast demo: standard output is closed\n"

    def test_inputs_may_be_a_terminal_that_says_so(self, here):
        parent, child = os.openpty()
        try:
            with started("map", "m:upper", stdin=child) as process:
                assert process.stderr.readline() == b"abreast map: reads inputs from this terminal; end them with Ctrl-D\n"
                os.write(parent, b"a\nb\n\x04")
                assert process.stdout.read() == b'"A"\n"B"\n'
        finally:
            os.close(parent)
            os.close(child)


@pytest.mark.whole
class TestOutput:
    def test_an_existing_file_is_refused(self, here):
        here.joinpath("out").write_text("old")
        done = abreast("map", "m:same", "-o", "out", given="a\n", status=2)
        assert one_line(done.stderr) == "abreast map: 'out' exists; --force replaces it when the run has come to its end\n"
        assert here.joinpath("out").read_text() == "old"

    def test_force_replaces_it_and_keeps_its_mode_and_the_link_to_it(self, here):
        here.joinpath("target").write_text("old")
        here.joinpath("target").chmod(0o640)
        here.joinpath("out").symlink_to("target")
        abreast("map", "m:same", "-o", "out", "--force", given="a\n")
        assert here.joinpath("target").read_text() == '"a"\n'
        assert here.joinpath("target").stat().st_mode & 0o777 == 0o640
        assert here.joinpath("out").is_symlink()

    def test_a_link_to_nothing_gets_its_target(self, here):
        here.joinpath("out").symlink_to("target")
        abreast("map", "m:same", "-o", "out", given="a\n")
        assert here.joinpath("target").read_text() == '"a"\n'

    def test_force_replaces_when_tasks_have_failed_too(self, here):
        here.joinpath("out").write_text("old")
        abreast("map", "m:odd_fails", "-o", "out", "--force", given="0\n1\n", status=1)
        assert here.joinpath("out").read_text() == "10\n"

    def test_the_input_may_be_the_output(self, here):
        here.joinpath("names").write_text("a\nb\n")
        abreast("map", "m:upper", "names", "-o", "names", "--force")
        assert here.joinpath("names").read_text() == '"A"\n"B"\n'

    def test_a_function_may_change_the_directory(self, here):
        here.joinpath("moves.py").write_text("import os\nos.mkdir('sub')\nos.chdir('sub')\n1 / 0\n")
        abreast("map", "moves:same", "-o", "out", given="a\n", status=2)
        assert not here.joinpath("out").exists()

    @pytest.mark.parametrize(
        ("words", "given", "status"),
        [
            (["m:smae"], b"a\n", 2),
            (["m:same"], b"a\n" * 3 + b"\xff\n", 2),
            (["--json", "m:same"], b"1\n[\n", 2),
            (["--max-failures", "0", "m:odd_fails"], b"0\n1\n2\n", 1),
            (["--timeout", "0.2", "m:first_hangs"], b"1\n0\n", 1),
        ],
        ids=["function", "not UTF-8", "not JSON", "failures", "timeout"],
    )
    def test_a_run_that_is_cut_short_leaves_the_old_file_as_it_was(self, here, words, given, status):
        here.joinpath("out").write_bytes(b"old\xff")
        here.joinpath("out").chmod(0o604)
        done = abreast("map", *words, "-o", "out", "--force", given=given, status=status)
        assert here.joinpath("out").read_bytes() == b"old\xff"
        assert here.joinpath("out").stat().st_mode & 0o777 == 0o604
        parts = list(here.glob("out.*"))
        assert len(parts) == (words != ["m:smae"]), "what there is of the new one stays beside it"
        for part in parts:
            assert len(results(part.read_bytes())) > 0
            assert f"written in {part}; out is as it was" in done.stderr

    def test_dev_null_and_named_pipes_are_written_to_as_they_are(self, here):
        abreast("map", "m:same", "-o", "/dev/null", given="a\n")
        os.mkfifo("pipe")
        with started("map", "m:same", "m.py", "-o", "pipe"):
            assert len(results(here.joinpath("pipe").read_bytes())) == len(here.joinpath("m.py").read_text().splitlines())
        with started("map", "m:same", "m.py", "-o", "pipe", stdin=subprocess.DEVNULL) as process:
            until(lambda: "pipe" in waits_for(process) or waits_for(process) == "?")
            assert end(process)[1] == 130, "while it waits for a reader"

    def test_dry_run_writes_calls_and_makes_none(self):
        done = abreast("map", "--dry-run", "m:boom", given="a\nb'\x1b\n")
        assert done.stdout == "boom('a')\nboom(\"b'\\x1b\")\n"
        assert abreast("map", "--dry-run", "--json", "m:boom", given="[1]\n{\n", status=2).stdout == "boom([1])\n"


def waits_for(process):
    """What a process waits for, as Linux calls it, or ``?``."""
    try:
        with open(f"/proc/{process.pid}/wchan") as file:
            return {"wait_for_partner": "pipe"}.get(name := file.read(), name) or "?"
    except OSError:
        return "?"


@pytest.mark.whole
class TestFullDisk:
    def check(self, done, data, why="No space left on device"):
        whole = results(data)
        assert one_line(done.stderr).startswith("abreast map: cannot write to ")
        assert f": {why}: {len(whole):,} line" in done.stderr
        assert whole == [str(n) * 100 for n in range(len(whole))]

    @pytest.fixture
    def small_disk(self, here):
        """A directory on a disk of 64 kB."""
        disk = here / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.decode().strip()}")
        yield disk
        subprocess.run(["umount", disk], check=True)

    @pytest.mark.parametrize("how", ["-o", ">", ">>"])
    def test_leaves_whole_lines(self, here, small_disk, how):
        here.joinpath("lines.txt").write_text(numbers(1000))
        done = shell(f"abreast map m:times_100 lines.txt {how} disk/out", status=2)
        self.check(done, small_disk.joinpath("out").read_bytes())
        assert small_disk.joinpath("out").stat().st_size > 50_000

    def test_leaves_the_old_file(self, here, small_disk):
        here.joinpath("lines.txt").write_text(numbers(1000))
        small_disk.joinpath("out").write_text("old")
        done = shell("abreast map m:times_100 lines.txt --force -o disk/out", status=2)
        assert small_disk.joinpath("out").read_text() == "old"
        (part,) = small_disk.glob("out.*.part")
        self.check(done, part.read_bytes())

    def test_leaves_whole_lines_at_a_limit_of_size_that_cuts_one(self, here):
        here.joinpath("lines.txt").write_text(numbers(1000))
        done = shell("ulimit -f 31; abreast map m:times_100 lines.txt -o out", status=2)
        self.check(done, here.joinpath("out").read_bytes(), "File too large")
        assert 31 * 1024 - 310 < here.joinpath("out").stat().st_size < 31 * 1024

    def test_leaves_what_was_there_before_a_line_that_does_not_fit(self, here):
        here.joinpath("out").write_text('"old"\n')
        shell("ulimit -f 1; echo x | abreast map m:long >> out", status=2)
        assert here.joinpath("out").read_text() == '"old"\n'

    def test_of_a_device_is_one_clear_line(self):
        done = shell("seq 10 | abreast map m:same > /dev/full", status=2)
        assert one_line(done.stderr) == (
            "abreast map: cannot write to standard output: No space left on device: 0 lines written\n"
        )
        for words in ("--version", "--help", "map --help"):
            done = shell(f"abreast {words} > /dev/full", status=2)
            assert one_line(done.stderr) == "abreast: cannot write to standard output: No space left on device\n"

    def test_of_standard_error_does_not_end_the_run(self):
        assert shell("seq 4 | abreast map m:odd_fails 2> /dev/full", status=1).stdout == "10\n10\n"


@pytest.mark.whole
class TestClosedPipe:
    def test_ends_the_run_with_one_clear_line(self):
        done = shell('yes | abreast map m:same | head -1; echo "${PIPESTATUS[1]}"')
        assert done.stdout == '"y"\n141\n'
        assert one_line(done.stderr).startswith("abreast map: nobody reads standard output any more; the run ends there: ")

    @pytest.mark.parametrize("words", ["--help", "--version", "map --help", "map --dry-run m:same m.py"])
    def test_is_quiet_where_only_text_was_written(self, words):
        done = shell(f'(sleep 0; abreast {words}) | true; wait; echo "${{PIPESTATUS[0]}}"')
        assert done.stdout in ("141\n", "0\n")  # true may still be there
        assert not done.stderr

    def test_of_help_has_its_status(self):
        reads, writes = os.pipe()
        os.close(reads)
        try:
            assert abreast("map", "--help", status=141, stdout=writes).stderr == ""
            assert one_line(abreast("map", "m:same", given="a\n", status=141, stdout=writes).stderr)
        finally:
            os.close(writes)

    def test_does_not_touch_the_old_file(self, here):
        """A named pipe as the output: closed by its reader, in the middle of a line."""
        os.mkfifo("pipe")
        here.joinpath("lines.txt").write_text("a" * 10 + "\n")
        with started("map", "m:long", "-o", "pipe", "lines.txt") as process:
            with open("pipe", "rb") as reader:
                assert len(reader.read(10)) == 10
            said, status = ended(process, time.monotonic())
        assert status == 141
        assert one_line(said) == "abreast map: nobody reads pipe any more; the run ends there: 0 lines written\n"


@pytest.mark.whole
class TestSignals:
    """Whenever a signal comes: whole lines, its exit status, within a second or so, and no traceback."""

    @pytest.mark.parametrize(("number", "status", "name"), SIGNALS)
    def test_while_tasks_hang(self, here, number, status, name):
        here.joinpath("lines.txt").write_text(numbers(100))
        with started("map", "m:late", "lines.txt", "-o", "out") as process:
            wait_for_line(process)
            said, got = end(process, number)
        assert got == status
        lines = results(here.joinpath("out").read_bytes()) if here.joinpath("out").exists() else []
        assert lines == [str(n) for n in range(len(lines))]
        assert one_line(said) == f"abreast map: ended by {name}: {len(lines)} line{'s' * (len(lines) != 1)} written\n"

    @pytest.mark.parametrize(
        "kind", ["thread", pytest.param("process", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux"))]
    )
    @pytest.mark.parametrize("options", [[], ["--outcomes"], ["--unordered"]], ids=["", "outcomes", "unordered"])
    def test_sigterm_lets_what_runs_finish(self, here, kind, options):
        """What ran is written, and in order nothing that stands behind a gap; inputs that were read, and not begun, with --outcomes."""
        here.joinpath("gate.py").write_text(
            "import os, time\ndef waits(text):\n    os.write(2, b'started\\n')\n"
            "    while not os.path.exists('open'):\n        time.sleep(0.01)\n    return text\n"
        )
        here.joinpath("lines.txt").write_text(numbers(100))
        command = ["map", "--grace", "20", "--kind", kind, "-j", "2", *options, "gate:waits", "lines.txt"]
        with started(*command) as process:
            wait_for_line(process)
            wait_for_line(process)
            until(lambda: sleeps(process), "main thread does not wait")
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)  # not for an order: if the gate opens before, more tasks run, which is no less right
            here.joinpath("open").touch()
            said, status = ended(process, time.monotonic())
            lines = results(process.stdout.read())
        assert status == 143
        assert f"abreast map: ended by SIGTERM: {len(lines)} line" in said
        if options == ["--outcomes"]:
            assert [line["index"] for line in lines] == list(range(len(lines)))
            drained = [line for line in lines if "error" in line]
            assert all("Drained" in line["error"] and line["attempts"] == 0 for line in drained)
            assert 2 <= len(lines) - len(drained) < 100
        else:
            assert 2 <= len(lines) < 100
            assert (sorted(lines, key=int) if options else lines) == [str(n) for n in range(len(lines))]

    def test_no_line_leaves_no_file(self, here):
        here.joinpath("old").write_text("old")
        for options in (["-o", "out"], ["-o", "old", "--force"]):
            with started("map", "m:hang", "m.py", *options) as process:
                wait_for_line(process)
                said, status = end(process)
            assert status == 130
            assert "abreast map: ended by Ctrl-C: 0 lines written\n" in said
        assert not here.joinpath("out").exists()
        assert not list(here.glob("old.*"))
        assert here.joinpath("old").read_text() == "old"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_while_standard_input_gives_nothing(self, number):
        with started("map", "m:same", stdin=subprocess.PIPE) as process:
            process.stdin.write(b"a\n" * 2)
            process.stdin.flush()
            until(lambda: pending(process.stdin) == 0)
            assert end(process, number)[1] == 128 + number

    @pytest.mark.parametrize("function", ["same", "times_100", "long"])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_while_nobody_reads_the_pipe(self, here, function, number):
        lines = range(20_000) if function != "long" else range(100, 400)  # one of 90 kB is begun, and its end finds no room
        here.joinpath("lines.txt").write_text("".join(f"{n}\n" for n in lines))
        with started("map", f"m:{function}", "lines.txt") as process:
            until(lambda: is_full(process.stdout))
            said, status = end(process, number)
            data = process.stdout.read()
        assert status == 128 + number
        if function == "long":  # a line longer than the pipe, begun, and nobody to take the rest
            assert data.endswith(b"0")
            data = b""
        given = results(data)
        assert f": {len(given):,} line" in one_line(said)
        assert [line[: len(line) // (100 if function == "times_100" else 1)] for line in given] == [
            str(n) for n in range(len(given))
        ]

    @pytest.mark.parametrize("function", ["times_100", "long"])
    def test_while_a_slow_reader_is_at_a_line(self, here, function):
        here.joinpath("lines.txt").write_text(numbers(3000))
        with started("map", f"m:{function}", "lines.txt") as process:
            data = [os.read(process.stdout.fileno(), 3000)]
            process.send_signal(signal.SIGINT)
            begin = time.monotonic()
            while piece := os.read(process.stdout.fileno(), 3000):
                data.append(piece)
            said, status = ended(process, begin)
        assert status == 130
        assert f": {len(results(b''.join(data))):,} line" in one_line(said)

    def test_while_nobody_reads_what_is_said_either(self, here):
        here.joinpath("lines.txt").write_text(numbers(100_000))
        with started("map", "m:same", "lines.txt", stderr=subprocess.STDOUT) as process:
            until(lambda: is_full(process.stdout))
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            assert time.monotonic() - begin < 3

    def test_two_that_come_together(self, here):
        """systemd sends SIGTERM and SIGHUP; Linux may then give both to a thread that is not the main one."""
        here.joinpath("lines.txt").write_text("0\n")
        for _ in range(5):
            with started("map", "-j", "1", "m:first_hangs", "lines.txt") as process:
                wait_for_line(process)
                until(lambda: sleeps(process), "main thread does not wait")
                begin = time.monotonic()
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGHUP)
                assert ended(process, begin)[1] in (143, 129)

    def test_a_second_one_after_a_while_ends_what_does_not_end(self, here):
        here.joinpath("stubborn.py").write_text(
            "import os, time\ndef stays(text):\n    while True:\n        try:\n            os.write(2, b'started\\n')\n"
            "            time.sleep(60)\n        except BaseException:\n            os.write(2, b'no\\n')\n"
        )
        here.joinpath("lines.txt").write_text("0\n")
        with started("map", "--kind", "serial", "stubborn:stays", "lines.txt") as process:
            wait_for_line(process)
            process.send_signal(signal.SIGINT)
            wait_for_line(process, "no")
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None:  # a user who goes on pressing Ctrl-C
                assert time.monotonic() < deadline
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
            assert process.returncode == 130
            assert b"Traceback" not in process.stderr.read()

    @pytest.mark.parametrize("how", ["-o", "--force", "file", "pipe"])
    def test_several_at_random_moments(self, here, how):
        """Behind the start of the first task: until then, Python itself may be what shows a traceback."""
        here.joinpath("lines.txt").write_text(numbers(100_000))
        chance = random.Random()
        for _ in range(6):
            here.joinpath("out").write_text("old") if how == "--force" else here.joinpath("out").unlink(missing_ok=True)
            for part in here.glob("out.*"):
                part.unlink()
            function = chance.choice(["same", "nap", "times_100", "long"])
            numbers_sent = chance.choices([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], k=chance.choice([1, 2, 3]))
            with contextlib.ExitStack() as stack:
                stdout = stack.enter_context(open("out", "wb")) if how == "file" else subprocess.PIPE
                options = {"-o": ["-o", "out"], "--force": ["-o", "out", "--force"]}.get(how, [])
                process = stack.enter_context(started("map", "tells:" + function, "lines.txt", *options, stdout=stdout))
                taken = bytearray()
                reader = threading.Thread(target=lambda: taken.extend(process.stdout.read() if how == "pipe" else b""))
                wait_for_line(process)
                reader.start()
                time.sleep(chance.random() * 0.1)
                begin = time.monotonic()
                for number in numbers_sent:
                    process.send_signal(number)
                    time.sleep(chance.choice([0, 0.001, 0.01]))
                _, status = ended(process, begin)
                reader.join(PATIENCE)
            assert status in (0, 130, 143, 129), (function, numbers_sent)
            if how == "pipe":
                data = bytes(taken)
            elif how == "--force" and here.joinpath("out").read_text() == "old":
                data = b"".join(part.read_bytes() for part in here.glob("out.*"))
            else:
                data = here.joinpath("out").read_bytes() if here.joinpath("out").exists() else b""
            size = {"same": 1, "nap": 1, "times_100": 100, "long": 30_000}[function]
            assert [int(line[: len(line) // size]) for line in results(data)] == list(range(data.count(b"\n")))

    @pytest.fixture(autouse=True)
    def tells(self, here):
        here.joinpath("tells.py").write_text("import os\nfrom m import *\nos.write(2, b'started\\n')\n")

    @pytest.mark.parametrize("how", ["-o", "file", "pipe"])
    def test_kill_9_leaves_whole_lines(self, here, how):
        """Lines shorter than a page; of others kill -9 may cut the last, at the end of a page: so does every write of Linux."""
        here.joinpath("lines.txt").write_text(numbers(200_000))
        chance = random.Random()
        for _ in range(4):
            here.joinpath("out").unlink(missing_ok=True)
            with contextlib.ExitStack() as stack:
                stdout = stack.enter_context(open("out", "wb")) if how == "file" else subprocess.PIPE
                options = ["-o", "out"] if how == "-o" else []
                process = stack.enter_context(started("map", "tells:nap", "lines.txt", *options, stdout=stdout))
                wait_for_line(process)
                time.sleep(chance.random() * 0.1)
                process.kill()
                data = process.stdout.read() if how == "pipe" else here.joinpath("out").read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            assert results(whole) == [str(n) for n in range(whole.count(b"\n"))]
            assert data == whole or (how != "pipe" and len(data) % 4096 == 0)

    def test_one_that_is_ignored_stays_ignored(self, here):
        here.joinpath("lines.txt").write_text(numbers(30))
        with started("map", "tells:nap", "lines.txt", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
            wait_for_line(process)
            process.send_signal(signal.SIGHUP)
            assert len(results(process.stdout.read())) == 30
            assert process.wait(PATIENCE) == 0


def pending(stream):
    """How many bytes are in a pipe."""
    import array
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(stream.fileno(), termios.FIONREAD, count)
    return count[0]


def is_full(stream):
    """Whether nothing more comes into a pipe that nobody reads."""
    before = pending(stream)
    time.sleep(0.1)
    return before > 30_000 and pending(stream) == before


def sleeps(process):
    """Whether the main thread waits."""
    with open(f"/proc/{process.pid}/task/{process.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


@pytest.mark.whole
class TestHelp:
    @pytest.mark.parametrize("words", [[], ["map"], ["demo"], ["compare"]], ids=lambda words: " ".join(["abreast", *words]))
    def test_fits_80_columns_and_says_what_every_option_does(self, words):
        for columns in ("80", "200"):
            text = abreast(*words, "--help", env={"COLUMNS": columns}).stdout
            assert max(map(len, text.splitlines())) <= min(int(columns), 110)
        assert text == abreast(*words, "-h", env={"COLUMNS": columns}).stdout
        assert text.startswith(" ".join(["Usage: abreast", *words]))

    def test_names_every_option(self):
        text = abreast("map", "--help").stdout
        for option in (
            "--json", "-0, --null", "-o, --output", "--force", "--outcomes", "-j, --max-workers, --jobs", "-k, --keep-order / -u, --unordered",
            "--retries", "--max-per-second", "--delay", "--max-failures", "--timeout", "--task-timeout", "--kind [thread|process|serial]", "--progress", "--no-progress", "--dry-run",
        ):  # fmt: skip
            assert option in text
        assert "--fast" in abreast("demo", "--help").stdout
        assert "--version" in abreast("--help").stdout

    def test_every_example_of_map_works(self, here):
        examples = [line.strip() for line in abreast("map", "--help").stdout.splitlines() if "abreast map " in line[:50]][1:]
        assert len(examples) == 7
        here.joinpath("names.txt").write_text("names.txt\nm.py\n")
        here.joinpath("urls.txt").write_text("http://a\nhttp://b\n")
        here.joinpath("scraper.py").write_text(
            "def fetch(url):\n    if url.endswith('b'): raise OSError(url)\n    return 'page'\n"
        )
        here.joinpath("orders.jsonl").write_text('{"prices": [1, 2]}\n')
        here.joinpath("shop.py").write_text("def total(order): return sum(order['prices'])\n")
        here.joinpath("files.txt").write_text("a.png\nb.png\n")
        here.joinpath("pictures.py").write_text("def shrink(name): return name.removesuffix('.png')\n")
        sizes, found, pages, politely, names, totals, _ = (
            shell(example, status=int("scraper" in example)).stdout for example in examples
        )
        assert sizes == f"15\n{here.joinpath('m.py').stat().st_size}\n"
        assert len(results(found)) >= 2
        assert pages == ""
        assert politely == '"page"\n'
        assert [sorted(record)[-1] for record in results(here.joinpath("pages.jsonl").read_text())] == ["value", "input"]
        assert results(names) == ["a", "b"]
        assert totals == "3\n"
        assert here.joinpath("all.jsonl").read_text() == '"page"\n'

    def test_no_words_give_the_help(self):
        done = shell("abreast || true")  # status 2; with click 8.1 it is 0
        assert (done.stdout + done.stderr).startswith("Usage: abreast [OPTIONS] COMMAND")

    def test_a_shell_can_complete_words(self):
        done = shell("COMP_WORDS='abreast map --o' COMP_CWORD=2 _ABREAST_COMPLETE=bash_complete abreast")
        assert "plain,--output" in done.stdout

    def test_nothing_is_imported_for_the_version(self):
        code = "import sys\nfrom abreast.cli.main import main\ntry: main(['--version'])\nfinally: print('rich' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
        assert done.stdout == f"abreast {library.__version__}\nFalse\n"


@pytest.mark.whole
class TestOptions:
    def test_retries_try_again(self, here):
        here.joinpath("flaky.py").write_text(
            "import abreast\ndef second(text):\n    if abreast.current_task().attempt < 2: raise OSError('busy')\n    return text\n"
        )
        (record,) = results(abreast("map", "--outcomes", "--retries", "1", "flaky:second", given="a\n").stdout)
        assert record["value"] == "a"
        assert record["attempts"] == 2
        assert "OSError: busy" in abreast("map", "--retries", "0", "flaky:second", given="a\n", status=1).stderr

    @pytest.mark.parametrize("option", [["--delay", "0.1"], ["--max-per-second", "10"]], ids=" ".join)
    def test_starts_are_let_pass(self, here, option):
        here.joinpath("clock.py").write_text("import time\ndef now(text): return time.monotonic()\n")
        starts = results(abreast("map", "-j", "4", *option, "clock:now", given=numbers(5)).stdout)
        assert all(start - starts[0] > 0.1 * n - 0.02 for n, start in enumerate(starts))

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["--delay", "1", "--max-per-second", "1"], "--delay 1 and --max-per-second 1 exclude each other"),
            (["--delay", "0"], "--delay"),
            (["--max-per-second", "-1"], "--max-per-second"),
            (["--retries", "-1"], "--retries"),
            (["--max-failures", "-1"], "'-1' is neither a number of tasks, from 0, nor a share of them, as 5%"),
            (["--max-failures", "100%"], "'100%' is neither"),
            (["--max-failures", "some"], "'some' is neither"),
        ],
        ids=" ".join,
    )
    def test_absurd_numbers_are_refused(self, here, words, text):
        assert text in abreast("map", *words, "m:same", given="a\n", status=2).stderr

    def test_a_share_of_failures(self, here):
        done = abreast("map", "-j", "1", "--max-failures", "12.5%", "m:odd_fails", given=numbers(100), status=1)
        assert "ended after 10 failed tasks, more than --max-failures 12.5% allows: 10 lines written" in done.stderr

    @pytest.mark.parametrize("option", ["-j", "--jobs", "--max-workers"])
    def test_jobs_has_three_names(self, here, option):
        here.joinpath("counts.py").write_text(
            "import threading\ngate = threading.Barrier(3, timeout=20)\ndef meets(text): return gate.wait() >= 0\n"
        )
        assert results(abreast("map", option, "3", "counts:meets", given=numbers(3)).stdout) == [True] * 3

    def test_serial_runs_in_the_main_thread(self, here):
        here.joinpath("tells.py").write_text("import threading\ndef name(text): return threading.current_thread().name\n")
        assert results(abreast("map", "--kind", "serial", "tells:name", given="a\n").stdout) == ["MainThread"]
        assert results(abreast("map", "tells:name", given="a\n").stdout) != ["MainThread"]

    def test_progress_is_shown_as_lines_where_no_terminal_is(self):
        assert one_line(abreast("map", "--progress", "m:same", given=numbers(3)).stderr).startswith("abreast: 3 done, ")
        assert abreast("map", "m:same", given=numbers(3)).stderr == ""

    def test_standard_input_and_output_have_a_name(self):
        assert abreast("map", "m:same", "-", "-o", "-", given="a\n").stdout == '"a"\n'

    def test_a_module_here_is_found_first_and_dots_lead_into_a_class(self, here):
        here.joinpath("colorsys.py").write_text("def same(text): return 'mine'\n")
        assert results(abreast("map", "colorsys:same", given="a\n").stdout) == ["mine"]
        assert results(abreast("map", "m:Namespace.same", given="a\n").stdout) == ["a"]
