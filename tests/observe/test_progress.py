"""Progress: what is shown where, on real terminals, bars of rich and tqdm; what may go wrong without harm to the run."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.metadata
import io
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref

import pytest
from abreast.observe import progress as progress_module
from abreast.core.text import printable
from abreast.observe.progress import check_progress, open_progress, rate, seconds

from tests.helpers import run_python

pytestmark = pytest.mark.whole  # hardly depends on the version of Python; there the fast set has enough to do

RICH = int(importlib.metadata.version("rich").split(".")[0])
needs_rich_14 = pytest.mark.skipif(RICH < 14, reason="rich knows these variables from 14 on")
needs_pty = pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")

QUIET_ENVIRONMENT = ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in QUIET_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(progress_module, "_drawn", {})  # one test that fails, and leaves its bar open, shall not fail the rest


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def drive(shown, clock, steps, *, failed=0, running=3):
    """Update at given times after the start: (seconds, finished) ..."""
    start = clock.now
    for when, finished in steps:
        clock.now = start + when
        shown.update(finished, failed=failed, running=running)


class Screen:
    """What a terminal would show of these bytes: as much of one as rich needs."""

    def __init__(self, raw):
        self.raw = raw
        self.rows, self.row, self.column, self.cursor = [[]], 0, 0, True
        for code, char in re.findall(r"\x1b\[([?\d;]*[A-Za-z])|(.)", raw, flags=re.DOTALL):
            self.obey(code) if code else self.write(char)

    def obey(self, code):
        if code in ("?25l", "?25h"):
            self.cursor = code == "?25h"
        elif code == "2K":
            self.rows[self.row] = []
        elif code.endswith("A"):
            self.row -= int(code[:-1])
        else:
            assert code.endswith("m"), f"the test's terminal does not know {code!r}"

    def write(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
            self.rows += [[]] * (self.row == len(self.rows))
        else:
            row = self.rows[self.row]
            row += " " * (self.column + 1 - len(row))
            row[self.column] = char
            self.column += 1

    @property
    def lines(self):
        return [line for row in self.rows if (line := "".join(row).rstrip())]


class Terminal:
    """A pseudo-terminal that is sys.stderr."""

    def __init__(self, width=100, encoding="utf-8"):
        import fcntl
        import struct
        import termios

        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.stream = open(slave, "w", encoding=encoding, errors="backslashreplace", buffering=1)
        self.seen = b""

    def screen(self):
        """All that has been written so far: up to a mark that is written now."""
        if not self.stream.closed:
            os.write(self.stream.fileno(), b"\0")
        with contextlib.suppress(OSError):  # EIO: it was closed, and all is read
            while not self.seen.endswith(b"\0"):
                self.seen += os.read(self.master, 65536)
        self.seen = self.seen.removesuffix(b"\0")
        return Screen(self.seen.decode())

    def close(self):
        self.stream.close()
        os.close(self.master)


@pytest.fixture
def terminal(monkeypatch):
    if not hasattr(os, "openpty"):
        pytest.skip("no pseudo-terminals here")
    terminals = []

    def make(width=100, encoding="utf-8"):
        terminals.append(Terminal(width, encoding))
        # rich asks stdin and stdout first, and the runner's terminal is another
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "stderr", terminals[-1].stream)
        return terminals[-1]

    yield make
    monkeypatch.undo()
    for one in terminals:
        one.close()


def run_on_terminal(code, **more):
    """Run a script with stdin and stderr on a terminal; return (exit status, its stdout, Screen)."""
    master, slave = os.openpty()
    head = "from abreast.observe.progress import open_progress\n"
    with subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", head + textwrap.dedent(code)],
        stdin=slave, stdout=subprocess.PIPE, stderr=slave, text=True, **more,
    ) as child:  # fmt: skip
        os.close(slave)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the last who had it open has ended
            while chunk := os.read(master, 65536):
                seen += chunk
        os.close(master)
        stdout = child.stdout.read()
        return child.wait(30), stdout, Screen(seen.decode())


class FakeTqdm:
    """What makes a tqdm: update and n."""

    def __init__(self, total=None, desc=None):
        self.total, self.desc, self.n, self.closed, self.updates = total, desc, 0, 0, []

    def update(self, n):
        self.n += n
        self.updates.append(n)

    def close(self):
        self.closed += 1


class TestArgument:
    @pytest.mark.parametrize(
        "value",
        [None, True, False, "label", "", FakeTqdm, FakeTqdm(), functools.partial(FakeTqdm, total=1), print, [].append],
    )
    def test_is_taken(self, value):
        check_progress(value)

    @pytest.mark.parametrize("value", [1, 0, 1.5, b"label", ["a"], {"total": 1}, {1}, object(), int, dict, set, object])
    def test_is_refused_with_its_name_and_value(self, value):
        with pytest.raises(TypeError, match=r"^progress must be None, a bool, a label, a tqdm class .* not ") as raised:
            check_progress(value)
        assert type(value).__name__ in str(raised.value)

    def test_a_long_value_is_shortened(self):
        with pytest.raises(TypeError) as raised:
            check_progress(["x"] * 10000)
        assert len(str(raised.value)) < 200

    def test_a_real_rich_progress_is_taken_its_class_is_not(self):
        from rich.progress import Progress

        check_progress(Progress())
        with pytest.raises(TypeError):
            check_progress(Progress)

    def test_false_is_nothing(self):
        assert open_progress(False, total=9, name="square") is None


class TestLines:
    def test_as_documented(self, capsys, clock):
        shown = open_progress(True, total=3000, name="square", clock=clock)
        drive(shown, clock, [(6, 150), (12, 300)])
        assert capsys.readouterr() == ("", "abreast: 300/3000 (10 %) 12 s, 108 s left, 0 failed\n")

    def test_every_tenth_and_once_at_the_end(self, capsys, clock):
        shown = open_progress(True, total=1000, name="square", clock=clock)
        drive(shown, clock, [(n / 100, n) for n in range(1, 1001)], failed=2)
        shown.close()
        lines = capsys.readouterr().err.splitlines()
        assert [line.split()[1] for line in lines] == [f"{n}/1000" for n in range(100, 1001, 100)]
        assert lines[-1] == "abreast: 1000/1000 (100 %) 10 s, 2 failed"

    def test_every_30_seconds_where_little_happens(self, capsys, clock):
        shown = open_progress(True, total=1000, name="square", clock=clock)
        drive(shown, clock, [(when, 1) for when in range(1, 100)])
        assert [line.split(" ", 4)[4] for line in capsys.readouterr().err.splitlines()] == [
            "30 s, 8 h 19 min left, 0 failed",
            "60 s, 16 h 39 min left, 0 failed",
            "90 s, 24 h 58 min left, 0 failed",
        ]

    def test_a_run_that_ends_early_is_told_as_it_stands(self, capsys, clock):
        shown = open_progress(True, total=100, name="square", clock=clock)
        drive(shown, clock, [(1, 5)], failed=1)
        shown.close()
        assert capsys.readouterr().err == "abreast: 5/100 (5 %) 1.0 s, 1 failed\n"

    def test_unknown_total_count_and_rate(self, capsys, clock):
        shown = open_progress(True, total=None, name="square", clock=clock)
        drive(shown, clock, [(when, when * 20) for when in range(1, 61)])
        clock.now += 20
        shown.close()
        assert capsys.readouterr().err.splitlines() == [
            "abreast: 600 done, 20.0/s, 30 s, 0 failed",
            "abreast: 1200 done, 20.0/s, 60 s, 0 failed",
            "abreast: 1200 done, 15.0/s, 80 s, 0 failed",  # the last one tells of the whole run
        ]

    def test_not_100_percent_before_the_last(self, capsys, clock):
        shown = open_progress(True, total=1000, name="square", clock=clock)
        drive(shown, clock, [(1, 999)])
        assert capsys.readouterr().err == "abreast: 999/1000 (99 %) 1.0 s, 0.0 s left, 0 failed\n"

    def test_no_inputs(self, capsys, clock):
        shown = open_progress(True, total=0, name="square", clock=clock)
        shown.update(0, failed=0, running=0)
        shown.close()
        assert capsys.readouterr().err == "abreast: 0/0 (100 %) 0.0 s, 0 failed\n"

    def test_more_than_the_total(self, capsys, clock):
        shown = open_progress(True, total=2, name="square", clock=clock)  # a __length_hint__ may be wrong
        drive(shown, clock, [(1, 5)])
        shown.close()
        assert capsys.readouterr().err == "abreast: 5/2 (100 %) 1.0 s, 0 failed\n"

    @pytest.mark.parametrize(
        ("label", "shown_as"),
        [
            ("load", "load"),
            ("load [/foo]", "load [/foo]"),
            ("load [red]x", "load [red]x"),
            ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("a\u202eb\u2028c\x9bd\udc80", "a\\u202eb\\u2028c\\x9bd\\udc80"),
            ("grüße 日本語 {task}", "grüße 日本語 {task}"),
        ],
    )
    def test_a_label_is_text_on_one_line(self, label, shown_as, capsys, clock):
        shown = open_progress(label, total=2, name="square", clock=clock)
        drive(shown, clock, [(1, 2)])
        shown.close()
        assert capsys.readouterr().err == f"abreast: {shown_as}: 2/2 (100 %) 1.0 s, 0 failed\n"

    def test_a_label_on_a_stream_that_cannot_hold_it(self, monkeypatch, clock):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
        shown = open_progress("grüße", total=2, name="square", clock=clock)
        drive(shown, clock, [(1, 2)])
        assert raw.getvalue() == b"abreast: gr\\xfc\\xdfe: 2/2 (100 %) 1.0 s, 0 failed\n"

    def test_the_stream_is_that_of_the_start(self, capsys, clock):
        shown = open_progress(True, total=2, name="square", clock=clock)
        with contextlib.redirect_stderr(io.StringIO()) as other:
            drive(shown, clock, [(1, 1)])
        assert other.getvalue() == ""
        assert capsys.readouterr().err.startswith("abreast: 1/2 (50 %)")

    def test_nothing_is_shown_after_close(self, capsys, clock):
        shown = open_progress(True, total=2, name="square", clock=clock)
        shown.close()
        shown.close()
        shown.update(2, failed=0, running=0)
        assert capsys.readouterr().err == "abreast: 0/2 (0 %) 0.0 s, 0 failed\n"


class TestAutomatic:
    def test_is_nothing_off_a_terminal(self):
        assert open_progress(None, total=9, name="square") is None

    def test_appears_when_the_run_has_lasted_half_a_second(self, terminal, clock):
        tty = terminal()
        shown = open_progress(None, total=9, name="square", clock=clock)
        drive(shown, clock, [(0.4, 3)])
        assert tty.screen().raw == ""
        drive(shown, clock, [(0.2, 4)])
        assert tty.screen().lines[0].startswith("square ━")
        shown.close()

    def test_a_shorter_run_shows_nothing_and_does_not_import_rich(self):
        if not hasattr(os, "openpty"):
            pytest.skip("no pseudo-terminals here")
        status, stdout, screen = run_on_terminal("""
            import sys
            shown = open_progress(None, total=9, name="square", clock=lambda: 7)
            shown.update(9, failed=0, running=0)
            shown.close()
            print([name for name in ("rich", "tqdm") if name in sys.modules])
        """)
        assert (status, stdout, screen.raw) == (0, "[]\n", "")

    def test_what_was_not_shown_is_not_begun_at_the_end(self, terminal, clock):
        tty = terminal()
        shown = open_progress(None, total=9, name="square", clock=clock)
        drive(shown, clock, [(0.4, 3)])
        clock.now += 9
        shown.close()
        assert tty.screen().raw == ""

    @pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb"), ("TERM", "unknown")])
    def test_is_nothing_where_a_bar_cannot_be_drawn(self, name, value, terminal, monkeypatch):
        terminal()
        monkeypatch.setenv(name, value)
        assert open_progress(None, total=9, name="square") is None

    @needs_rich_14
    def test_nor_where_rich_knows_better(self, terminal, monkeypatch, clock):
        tty = terminal()
        monkeypatch.setenv("TTY_INTERACTIVE", "0")
        shown = open_progress(None, total=9, name="square", clock=clock)
        drive(shown, clock, [(1, 3), (2, 9)])
        shown.close()
        assert tty.screen().raw == ""


class TestTerminal:
    def test_as_documented(self, terminal, clock):
        tty = terminal()
        shown = open_progress(True, total=9, name="square", clock=clock)
        assert re.fullmatch(r"square ━+ 0/9 0 % 0.0 s 0 running · 0 failed", tty.screen().lines[0])
        drive(shown, clock, [(0.5, 3), (1.0, 6)])
        screen = tty.screen()
        assert re.fullmatch(r"square ━+[╸╺]?━+ 6/9 67 % 1.0 s, 0.5 s left 3 running · 0 failed", screen.lines[0])
        assert not screen.cursor
        drive(shown, clock, [(0.5, 9)], running=0)
        shown.close()
        screen = tty.screen()
        assert re.fullmatch(r"square ━+ 9/9 100 % 1.5 s 0 running · 0 failed", screen.lines[0])
        assert len(screen.lines) == 1
        assert screen.cursor
        assert (screen.row, screen.column) == (1, 0)  # what is printed next stands below

    def test_close_twice_draws_once(self, terminal, clock):
        tty = terminal()
        shown = open_progress(True, total=9, name="square", clock=clock)
        shown.close()
        before = tty.screen().raw
        shown.close()
        shown.update(9, failed=0, running=0)
        assert tty.screen().raw == before

    def test_it_starts_no_thread_and_redirects_nothing(self, terminal, clock):
        terminal()
        before = threading.enumerate(), sys.stdout, sys.stderr
        shown = open_progress(True, total=9, name="square", clock=clock)
        assert (threading.enumerate(), sys.stdout, sys.stderr) == before
        shown.close()

    @pytest.mark.parametrize("label", ["load [/foo]", "load [red]x", "[bold]", ":smile:", "{task.total}", "a\\"])
    def test_a_label_is_not_markup(self, label, terminal, clock):
        tty = terminal()
        shown = open_progress(label, total=9, name="square", clock=clock)
        shown.close()
        assert tty.screen().lines[0].startswith(f"{label} ━")

    def test_escape_codes_in_a_label_are_shown_not_obeyed(self, terminal, clock):
        tty = terminal()
        shown = open_progress("a\x1b[2J\nb\x1b[?25l", total=9, name="square", clock=clock)
        shown.close()
        screen = tty.screen()
        assert screen.lines[0].startswith("a\\x1b[2J\\nb\\x1b[?25l ━")
        assert "\x1b[2J" not in screen.raw
        assert screen.raw.count("\x1b[?25l") == 1

    @pytest.mark.parametrize("width", [8, 20, 30, 40, 60, 80, 200])
    @pytest.mark.parametrize("total", [900, None])
    @pytest.mark.parametrize("label", ["square", "a rather long label, too long for a line in a narrow terminal", "日本語" * 9])
    def test_one_line_at_any_width_and_the_failures_stay_on_it(self, width, total, label, terminal, clock):
        tty = terminal(width)
        shown = open_progress(label, total=total, name="", clock=clock)
        drive(shown, clock, [(0.5, 3), (100.0, 600)], failed=17, running=100)
        screen = tty.screen()
        assert len(screen.lines) == 1
        assert screen.row == 0
        assert len(screen.lines[0]) <= width
        if width >= 30:  # below, rich cuts what is left
            assert screen.lines[0].startswith(label[0])
            assert screen.lines[0].endswith("17 failed")
        assert " 100 s" in screen.lines[0] or width < 60
        shown.close()

    def test_unknown_total_count_and_rate_no_bar(self, terminal, clock):
        tty = terminal()
        shown = open_progress(True, total=None, name="square", clock=clock)
        drive(shown, clock, [(1.0, 20), (2.0, 40)])
        shown.close()
        assert tty.screen().lines == ["square 40 done 20.0/s 2.0 s 3 running · 0 failed"]

    def test_the_time_goes_on_when_nothing_finishes_once_a_second(self, terminal, clock):
        tty = terminal()
        shown = open_progress(True, total=9, name="square", clock=clock)
        drive(shown, clock, [(when / 10, 0) for when in range(1, 52)])
        raw = tty.screen().raw
        assert re.findall(r"0 % (\S+ s)", raw) == ["0.0 s", "0.1 s", "1.1 s", "2.1 s", "3.1 s", "4.1 s", "5.1 s"]
        shown.close()

    def test_no_color(self, terminal, monkeypatch, clock):
        monkeypatch.setenv("NO_COLOR", "1")
        tty = terminal()
        shown = open_progress(True, total=9, name="square", clock=clock)
        drive(shown, clock, [(1, 3)])
        shown.close()
        screen = tty.screen()
        assert "━" in screen.raw
        assert not re.search(r"\x1b\[[\d;]*m", screen.raw)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("CI", "1"),
            ("TERM", "dumb"),
            pytest.param("TTY_INTERACTIVE", "0", marks=needs_rich_14),
            pytest.param("TTY_COMPATIBLE", "0", marks=needs_rich_14),
        ],
    )
    def test_lines_where_a_bar_cannot_be_drawn(self, name, value, terminal, monkeypatch, clock):
        tty = terminal()
        monkeypatch.setenv(name, value)
        shown = open_progress(True, total=9, name="square", clock=clock)
        drive(shown, clock, [(1, 9)])
        shown.close()
        assert tty.screen().raw == "abreast: 9/9 (100 %) 1.0 s, 0 failed\r\n"

    @pytest.mark.parametrize("value", ["", "0", "false"])
    def test_ci_that_says_no(self, value, terminal, monkeypatch, clock):
        tty = terminal()
        monkeypatch.setenv("CI", value)
        open_progress(True, total=9, name="square", clock=clock).close()
        assert "━" in tty.screen().raw

    def test_forced_colours_make_no_bar_in_a_log(self, capsys, monkeypatch, clock):
        monkeypatch.setenv("FORCE_COLOR", "1")
        open_progress(True, total=9, name="square", clock=clock).close()
        assert capsys.readouterr().err == "abreast: 0/9 (0 %) 0.0 s, 0 failed\n"

    def test_a_terminal_that_knows_ascii_only(self, terminal, clock):
        tty = terminal(60, "ascii")
        shown = open_progress("grüße, a rather long label for such a line", total=9, name="square", clock=clock)
        drive(shown, clock, [(1, 9)], running=0)
        shown.close()
        [line] = tty.screen().lines
        assert re.fullmatch(r"gr\\xfc\\xdfe, +-+ 9/9 100 % 1.0 s 0 running, 0 failed", line)

    def test_a_second_bar_waits_for_no_one_and_spoils_nothing(self, terminal, clock):
        """Two runs at once: the one that began first has the bar."""
        tty = terminal()
        first = open_progress("first", total=9, name="", clock=clock)
        automatic = open_progress(None, total=9, name="second", clock=clock)
        drive(automatic, clock, [(1, 3), (2, 9)])
        automatic.close()
        assert "second" not in tty.screen().raw
        asked = open_progress("third", total=2, name="", clock=clock)
        drive(asked, clock, [(1, 2)])
        asked.close()
        assert "abreast: third: 2/2 (100 %) 1.0 s, 0 failed\r\n" in tty.screen().raw
        first.close()
        fourth = open_progress("fourth", total=9, name="", clock=clock)
        fourth.close()
        assert tty.screen().lines[-1].startswith("fourth ━")

    def test_a_bar_that_is_dropped_gives_the_terminal_back(self, terminal, clock):
        tty = terminal()
        shown = open_progress(True, total=9, name="square", clock=clock)
        gone = weakref.ref(shown)
        del shown
        gc.collect()
        assert gone() is None
        assert tty.screen().cursor
        assert not progress_module._drawn

    def test_redirected_in_the_middle(self, terminal, clock):
        tty = terminal()
        shown = open_progress(True, total=9, name="square", clock=clock)
        with contextlib.redirect_stderr(io.StringIO()) as other:
            drive(shown, clock, [(1, 3)])
            shown.close()
        assert other.getvalue() == ""
        screen = tty.screen()
        assert screen.lines[0].split(" ", 2)[2].startswith("3/9 33 %")
        assert screen.cursor

    def test_a_terminal_that_is_gone(self, terminal, clock, caplog):
        tty = terminal()
        shown = open_progress(True, total=9, name="square", clock=clock)
        tty.stream.close()
        drive(shown, clock, [(1, 3), (2, 4)])
        shown.close()
        assert len(caplog.records) <= 1  # rich itself may take it for a file
        assert not progress_module._drawn

    def test_ctrl_c_while_it_draws(self, terminal, clock, monkeypatch):
        tty = terminal()
        shown = open_progress(True, total=9, name="square", clock=clock)

        def interrupted(self):
            raise KeyboardInterrupt

        from rich.progress import Progress

        with monkeypatch.context() as patch:
            patch.setattr(Progress, "refresh", interrupted)
            with pytest.raises(KeyboardInterrupt):
                shown.update(3, failed=0, running=3)
            with pytest.raises(KeyboardInterrupt):
                shown.close()
        assert tty.screen().cursor
        assert not progress_module._drawn


@needs_pty
class TestProgram:
    """Whole programs on a terminal."""

    def test_output_of_the_program_stays_on_stdout(self):
        status, stdout, screen = run_on_terminal("""
            shown = open_progress(True, total=9, name="square")
            print("a result")
            shown.update(9, failed=0, running=0)
            shown.close()
        """)
        assert (status, stdout) == (0, "a result\n")
        assert screen.lines[0].startswith("square ━")
        assert screen.cursor

    @pytest.mark.parametrize("end", ["raise KeyboardInterrupt", "raise SystemExit(3)", "1 / 0", "pass"])
    def test_the_cursor_comes_back_at_the_end_of_a_program_that_has_not_closed(self, end):
        _, _, screen = run_on_terminal(f"""
            shown = open_progress(True, total=9, name="square")
            shown.update(4, failed=0, running=3)
            {end}
        """)
        assert "\x1b[?25l" in screen.raw
        assert screen.cursor

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_draws_nothing_of_its_parents(self):
        status, _, screen = run_on_terminal("""
            import os, sys, warnings
            warnings.simplefilter("ignore")
            shown = open_progress(True, total=9, name="square")
            if os.fork() == 0:
                shown.update(7, failed=7, running=7)
                shown.close()
                sys.exit()
            os.wait()
            shown.update(9, failed=0, running=0)
            shown.close()
        """)
        assert status == 0
        assert "7/9" not in screen.raw
        assert screen.raw.count("0/9") == 1
        assert screen.raw.count("\x1b[?25h") == 1

    def test_a_child_may_have_its_own_bar(self):
        if not hasattr(os, "fork"):
            pytest.skip("no fork here")
        _, _, screen = run_on_terminal("""
            import os, sys, warnings
            warnings.simplefilter("ignore")
            shown = open_progress(True, total=9, name="square")
            if os.fork() == 0:
                inner = open_progress("inner", total=9, name="")
                inner.close()
                os._exit(0)
            os.wait()
        """)
        assert "inner \x1b" in screen.raw

    def test_no_stderr_at_all(self):
        for setting in ("None", "open(os.devnull, 'w'); sys.stderr.close()"):
            done = run_python(f"""
                import os, sys
                from abreast.observe.progress import open_progress
                sys.stderr = {setting}
                print([open_progress(value, total=9, name="x") for value in (None, True, "label")])
            """)
            assert (done.returncode, done.stdout) == (0, "[None, None, None]\n")

    @pytest.mark.parametrize("how", ["sys.stderr.close()", "sys.stderr = None", "os.close(2)"])
    def test_stderr_that_is_closed_in_the_middle(self, how):
        done = run_python(f"""
            import os, sys
            from abreast.observe.progress import open_progress
            shown = open_progress(True, total=9, name="x")
            shown.update(4, failed=0, running=0)
            {how}
            shown.update(9, failed=0, running=0)
            shown.close()
            print("done")
        """)
        assert done.stdout == "done\n"
        assert done.stderr.startswith("abreast: 4/9")

    def test_a_pipe_that_nobody_reads(self):
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent("""
                from abreast.observe.progress import open_progress
                shown = open_progress(True, total=9, name="x")
                shown.update(4, failed=0, running=0)
                shown.close()
                print("done")
            """)], stdout=subprocess.PIPE, stderr=theirs, timeout=30,
        )  # fmt: skip
        os.close(theirs)
        assert done.stdout == b"done\n"

    def test_importing_and_simple_sinks_import_neither_rich_nor_tqdm(self):
        done = run_python("""
            import sys
            from abreast.observe.progress import check_progress, open_progress
            for value in (None, True, False, "label", [].append):
                check_progress(value)
                shown = open_progress(value, total=2, name="x")
                if shown:
                    shown.update(2, failed=0, running=0)
                    shown.close()
            print([name for name in sys.modules if name.split(".")[0] in ("rich", "tqdm", "IPython", "dataclasses", "asyncio")])
        """)
        assert (done.returncode, done.stdout) == (0, "[]\n")


@pytest.fixture
def notebook(monkeypatch):
    """IPython as it is in a kernel, and ipywidgets, or not: as far as abreast and rich look."""
    shell = type("ZMQInteractiveShell", (), {})()
    outputs = []

    class Output:
        def __init__(self):
            self.texts = []
            outputs.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def clear_output(self, wait):
            self.texts.clear()

    def module(name, **members):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**members))

    def make(*, ipywidgets):
        def display(*objects, **_):
            for one in objects:
                if not isinstance(one, Output):
                    outputs[-1].texts.append(str(one.data["text/plain"]) if hasattr(one, "data") else str(one))

        module("IPython", get_ipython=lambda: shell)
        module("IPython.display", display=display)
        if ipywidgets:
            module("ipywidgets", Output=Output)
        else:
            monkeypatch.setitem(sys.modules, "ipywidgets", None)
        import rich.jupyter

        monkeypatch.setattr(rich.jupyter, "display", lambda segments, text: outputs[-1].texts.append(text))
        return outputs

    return make


class TestNotebook:
    @pytest.mark.parametrize("value", [None, True, "square"])
    def test_a_bar_with_ipywidgets(self, value, notebook, capsys, clock):
        outputs = notebook(ipywidgets=True)
        shown = open_progress(value, total=9, name="square", clock=clock)
        drive(shown, clock, [(1.0, 6)])
        [output] = outputs
        assert re.search(r"square .* 6/9 67 % 1.0 s, 0.5 s left 3 running · 0 failed", output.texts[-1])
        drive(shown, clock, [(1.0, 9)])
        shown.close()
        assert len(output.texts) == 1  # nothing empty below it
        assert "9/9 100 % 2.0 s" in output.texts[0]
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("value", [None, True])
    def test_lines_without(self, value, notebook, capsys, clock):
        notebook(ipywidgets=False)
        shown = open_progress(value, total=9, name="square", clock=clock)
        drive(shown, clock, [(1.0, 9)])
        shown.close()
        assert capsys.readouterr().err == "abreast: 9/9 (100 %) 1.0 s, 0 failed\n"

    def test_a_short_run_shows_nothing(self, notebook, capsys, clock):
        notebook(ipywidgets=False)
        shown = open_progress(None, total=9, name="square", clock=clock)
        drive(shown, clock, [(0.4, 9)])
        shown.close()
        assert capsys.readouterr().err == ""

    def test_ipython_in_a_terminal_is_no_notebook(self, monkeypatch):
        shell = type("TerminalInteractiveShell", (), {})()
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
        assert open_progress(None, total=9, name="square") is None


class TestTqdmLike:
    def test_a_class_is_called_and_closed(self, clock):
        made = []

        class Bar(FakeTqdm):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                made.append(self)

        shown = open_progress(Bar, total=9, name="square\x1b[0m", clock=clock)
        drive(shown, clock, [(0.1, 3), (0.2, 3), (0.3, 9)])
        shown.close()
        shown.close()
        [bar] = made
        assert (bar.total, bar.desc, bar.updates, bar.closed) == (9, "square\\x1b[0m", [3, 6], 1)

    def test_a_partial_of_a_class_is_one(self, clock):
        shown = open_progress(functools.partial(FakeTqdm, desc="mine"), total=9, name="square", clock=clock)
        drive(shown, clock, [(0.1, 3), (0.2, 6)])
        assert shown._sink._bar.updates == [3, 3]

    def test_a_bar_gets_its_total_and_is_not_closed(self, clock):
        bar = FakeTqdm()
        shown = open_progress(bar, total=9, name="square", clock=clock)
        assert bar.total == 9
        drive(shown, clock, [(0.1, 3), (0.2, 9)])
        shown.close()
        assert (bar.updates, bar.closed) == ([3, 6], 0)

    @pytest.mark.parametrize(("total", "ours", "after"), [(5, 9, 5), (None, None, None), (0, 9, 0)])
    def test_a_total_of_the_users_stays(self, total, ours, after):
        bar = FakeTqdm(total=total)
        open_progress(bar, total=ours, name="square").close()
        assert bar.total == after


@pytest.fixture
def tqdm(monkeypatch):
    module = pytest.importorskip("tqdm")
    # Its monitor is a thread that stays, its lock a semaphore of multiprocessing's: the guards would find both.
    monkeypatch.setattr(module.tqdm, "monitor_interval", 0)
    monkeypatch.setattr(module.tqdm, "_lock", threading.RLock(), raising=False)
    return module.tqdm


@pytest.mark.clients
class TestTqdm:
    def test_a_class(self, tqdm, monkeypatch, clock):
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        check_progress(tqdm)
        shown = open_progress(tqdm, total=9, name="square", clock=clock)
        drive(shown, clock, [(0.1, 3), (0.2, 9)], failed=1, running=0)
        shown.close()
        last = sys.stderr.getvalue().split("\r")[-1]
        assert re.match(r"square: 100%\|.*\| 9/9 \[.*, 0 running, 1 failed\] *\n$", last)
        assert not tqdm._instances

    def test_a_bar_shows_the_last_state_and_stays_open(self, tqdm, clock):
        out = io.StringIO()
        with tqdm(desc="mine", file=out, mininterval=1000) as bar:
            check_progress(bar)
            shown = open_progress(bar, total=9, name="square", clock=clock)
            drive(shown, clock, [(0.1, 3), (0.2, 9)])
            shown.close()
            assert (bar.n, bar.total) == (9, 9)
            assert "9/9" in out.getvalue().split("\r")[-1]
            assert bar in tqdm._instances

    def test_two_runs_on_one_bar(self, tqdm, clock):
        with tqdm(total=20, file=io.StringIO()) as bar:
            for _ in range(2):
                shown = open_progress(bar, total=9, name="square", clock=clock)
                drive(shown, clock, [(0.1, 3), (0.2, 9)])
                shown.close()
            assert (bar.n, bar.total) == (18, 20)

    def test_its_update_as_a_callable(self, tqdm, clock):
        with tqdm(total=20, file=io.StringIO()) as bar:
            check_progress(bar.update)
            shown = open_progress(bar.update, total=9, name="square", clock=clock)
            drive(shown, clock, [(0.1, 3), (0.2, 9)])
            assert bar.n == 9

    def test_disabled(self, tqdm, clock):
        with tqdm(disable=True) as bar:
            shown = open_progress(bar, total=9, name="square", clock=clock)
            drive(shown, clock, [(0.1, 9)])
            shown.close()


@pytest.fixture
def users_rich():
    from rich.console import Console
    from rich.progress import Progress

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with Progress(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as progress:
        yield progress, out


class TestRich:
    def test_a_row_per_run_and_it_stays_open(self, users_rich, clock):
        progress, out = users_rich
        for name in ("load [/foo]", "load [red]x"):
            shown = open_progress(progress, total=9, name=name, clock=clock)
            drive(shown, clock, [(0.1, 3), (0.2, 9)], failed=1, running=2)
            shown.close()
        assert [(task.total, task.completed, task.fields) for task in progress.tasks] == [(9, 9, {"failed": 1, "running": 2})] * 2
        assert progress.live.is_started
        assert [line.split("━")[0].strip() for line in Screen(out.getvalue()).lines] == ["load [/foo]", "load [red]x"]

    def test_it_is_refreshed_if_nobody_else_would(self, users_rich, clock):
        progress, out = users_rich
        shown = open_progress(progress, total=9, name="square", clock=clock)
        drive(shown, clock, [(0.1, 3)])
        assert "33%" in out.getvalue()
        shown.close()

    def test_an_unknown_total_is_known_in_the_end(self, users_rich, clock):
        progress, _ = users_rich
        shown = open_progress(progress, total=None, name="square", clock=clock)
        drive(shown, clock, [(0.1, 3)])
        assert progress.tasks[0].total is None
        shown.close()
        assert (progress.tasks[0].total, progress.finished) == (3, True)


class TestCallable:
    def test_gets_what_is_newly_done(self, clock):
        got = []
        shown = open_progress(got.append, total=9, name="square", clock=clock)
        drive(shown, clock, [(0.1, 0), (0.2, 3), (0.3, 3), (0.4, 9)])
        shown.close()
        assert got == [3, 6]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_what_ends_a_program_passes(self, error, clock):
        def end(_):
            raise error

        shown = open_progress(end, total=9, name="square", clock=clock)
        with pytest.raises(error):
            shown.update(1, failed=0, running=0)
        shown.close()


class TestFaults:
    """A sink that raises is logged once and dropped."""

    def check(self, shown, clock, caplog):
        with caplog.at_level(logging.DEBUG, "abreast"):
            drive(shown, clock, [(0.1, 1), (0.2, 2), (0.3, 3)])
            shown.close()
            shown.close()
        [record] = [record for record in caplog.records if record.name == "abreast"]
        assert record.levelno == logging.ERROR
        assert re.fullmatch(r"progress=.* raised an error and is dropped; the run goes on", record.getMessage())
        assert record.exc_info[0] is ZeroDivisionError

    def test_a_callable(self, clock, caplog):
        calls = []

        def fail(n):
            calls.append(n)
            1 / 0

        self.check(open_progress(fail, total=9, name="x", clock=clock), clock, caplog)
        assert calls == [1]

    @pytest.mark.parametrize("method", ["__init__", "update", "close"])
    def test_a_class_of_bars(self, method, clock, caplog):
        closed = []

        def fail(*_, **__):
            1 / 0

        Bar = type("Bar", (FakeTqdm,), {"close": lambda _: closed.append(1), method: fail})
        self.check(open_progress(Bar, total=9, name="x", clock=clock), clock, caplog)
        assert len(closed) == (method == "update")  # what was made is closed all the same

    @pytest.mark.parametrize("method", ["add_task", "update", "refresh"])
    def test_a_rich_progress(self, method, clock, caplog, monkeypatch):
        from rich.progress import Progress

        progress = Progress(auto_refresh=False, disable=True)
        monkeypatch.setattr(progress, method, lambda *_, **__: 1 / 0)
        self.check(open_progress(progress, total=9, name="x", clock=clock), clock, caplog)

    def test_rich_itself(self, terminal, clock, caplog, monkeypatch):
        from rich.progress import Progress

        tty = terminal()
        shown = open_progress(True, total=9, name="x", clock=clock)
        monkeypatch.setattr(Progress, "refresh", lambda _: 1 / 0)
        self.check(shown, clock, caplog)
        assert tty.screen().cursor

    def test_a_stderr_that_raises(self, clock, caplog, monkeypatch):
        class Broken(io.StringIO):
            def write(self, _):
                1 / 0

            def isatty(self):
                raise OSError

        monkeypatch.setattr(sys, "stderr", Broken())
        self.check(open_progress(True, total=3, name="x", clock=clock), clock, caplog)


class TestTimeLeft:
    def left(self, shown):
        return shown._view(final=False).left

    def make(self, clock, total):
        return open_progress([].append, total=total, name="x", clock=clock)

    def test_comes_from_the_last_30_seconds(self, clock):
        shown = self.make(clock, 10000)
        drive(shown, clock, [(when, 100 * when) for when in range(1, 31)])
        assert self.left(shown) == pytest.approx(70)
        drive(shown, clock, [(when, 3000 + 10 * when) for when in range(1, 31)])
        assert self.left(shown) == pytest.approx((10000 - 3300) / 10)
        assert len(shown._samples) <= 32

    def test_does_not_jump_with_every_batch(self, clock):
        shown = self.make(clock, 10000)
        drive(shown, clock, [(when, 100 * (when // 10)) for when in range(1, 100)])
        assert self.left(shown) == pytest.approx((10000 - 900) / 10, rel=0.4)

    def test_tasks_longer_than_that_count_ten_of_them(self, clock):
        shown = self.make(clock, 100)
        drive(shown, clock, [(when, when // 60) for when in range(1, 1201)])
        assert self.left(shown) == pytest.approx(80 * 60)
        drive(shown, clock, [(59, 20)])
        assert self.left(shown) > 80 * 60  # nothing has come meanwhile: it grows, it does not vanish

    def test_cannot_be_said_before_the_first_or_after_the_last_or_without_a_total(self, clock):
        shown = self.make(clock, 9)
        drive(shown, clock, [(1, 0)])
        assert self.left(shown) is None
        drive(shown, clock, [(1, 9)])
        assert self.left(shown) is None
        shown = self.make(clock, None)
        drive(shown, clock, [(1, 5)])
        assert self.left(shown) is None

    def test_what_was_there_before_the_run_began(self, clock):
        shown = self.make(clock, 9)
        shown.update(3, failed=0, running=0)  # at the very start: no time has gone by
        assert self.left(shown) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (108, "108 s"), (599.4, "599 s"), (599.6, "10 min 00 s"),
        (725, "12 min 05 s"), (3600, "1 h 00 min"), (7500, "2 h 05 min"), (360000, "100 h 00 min"),
    ],
)  # fmt: skip
def test_seconds(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.0/min"), (0.1, "6.0/min"), (2.5, "2.5/s"), (99.96, "100/s"), (12345, "12345/s")]
)
def test_rate(value, text):
    assert rate(value) == text


def test_printable_leaves_text_alone():
    assert printable("grüße [x] 日本語 😀") == "grüße [x] 日本語 😀"


def test_the_default_clock_is_monotonic():
    shown = open_progress([].append, total=9, name="x")
    assert shown._clock is time.monotonic
    assert shown.interval == 0.1
    shown.close()
