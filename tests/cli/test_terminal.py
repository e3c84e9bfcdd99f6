"""The command in a real terminal: bars, colours, Ctrl-C. tmux draws it, and tells what is to be seen."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.cli.helpers import (
    ENVIRONMENT,
    PATIENCE,
    SOON,
    here,  # noqa: F401
    numbers,
    results,
    started,
    until,
)

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("here")]
PROMPT = "READY>"
SLOW = "import time\ndef slow(text): time.sleep(0.02); return text\n"


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # whoever is to bury it takes its time
    except OSError:
        return True


class Terminal:
    """A terminal with a shell in it."""

    def __init__(self, width, height, env):
        self._home = tempfile.mkdtemp(prefix="tmux")
        self._socket = os.path.join(self._home, "s")
        words = [f"{name}={shlex.quote(value)}" for name, value in {**env, "PS1": PROMPT}.items()]
        command = f'abreast() {{ {sys.executable} -m abreast "$@"; }}'
        Path(self._home, "rc").write_text(f"{command}\n")
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height),
                   f"env ENV={self._home}/rc {' '.join(words)} sh -i")  # fmt: skip
        self.wait_for(lambda: self.screen().startswith(PROMPT))

    def _tmux(self, *words):
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words], capture_output=True, text=True, timeout=PATIENCE, env=ENVIRONMENT, check=True
        )
        return done.stdout

    def close(self):
        pid = int(self._tmux("display", "-p", "#{pid}"))
        os.kill(pid, signal.SIGKILL)  # asked to end, it waits a while for its shell
        until(lambda: has_ended(pid), "tmux is still there")
        shutil.rmtree(self._home)

    def screen(self, *, codes=False):
        """What is to be seen, and what has been before it."""
        return self._tmux("capture-pane", "-p", "-S", "-300", *["-e"] * codes).rstrip("\n")

    def type(self, text):
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def press(self, key):
        self._tmux("send-keys", key)

    def cursor_is_visible(self):
        return self._tmux("display", "-p", "#{cursor_flag}").strip() == "1"

    def wait_for(self, found):
        return until(found, lambda: f"the terminal shows:\n{self.screen()}")

    def prompts(self):
        return len(re.findall(f"^{PROMPT}", self.screen(), re.M))

    def run(self, line):
        """Run a command to its end."""
        before = self.prompts()
        self.type(line)
        self.wait_for(lambda: self.prompts() > before)

    def status(self):
        """The exit status of the last command."""
        self.run("echo status=$?")
        return int(re.findall(r"^status=(\d+)", self.screen(), re.M)[-1])


@pytest.fixture
def terminal(here):
    if shutil.which("tmux") is None:
        if os.environ.get("ABREAST_REQUIRE_ALL"):
            pytest.fail("tmux is not installed")
        pytest.skip("tmux is not installed")
    opened = []

    def open_terminal(width=80, height=24, **env):
        opened.append(Terminal(width, height, env))
        return opened[-1]

    here.joinpath("slowly.py").write_text(SLOW)
    here.joinpath("lines.txt").write_text(numbers(400))
    yield open_terminal
    for each in opened:
        each.close()


def bars_on(screen):
    return [line for line in screen.splitlines() if re.search(r"[━╸╺]{5}", line)]


class TestBar:
    def test_is_seen_while_a_file_is_written_and_right_at_the_end(self, here, terminal):
        window = terminal()
        window.type("abreast map -j 4 slowly:slow lines.txt -o out")
        window.wait_for(lambda: re.search(r"slow .*[━╸].* ([1-9]\d?|1\d\d)/400", window.screen()))
        window.wait_for(lambda: window.prompts() == 2)
        (bar,) = bars_on(window.screen())
        assert "400/400" in bar or "100%" in bar
        assert window.cursor_is_visible()
        assert window.status() == 0
        assert len(results(here.joinpath("out").read_bytes())) == 400

    def test_is_not_drawn_among_results(self, here, terminal):
        window = terminal()
        here.joinpath("lines.txt").write_text(numbers(100))
        window.run("abreast map -j 2 slowly:slow lines.txt")
        assert bars_on(window.screen()) == []
        assert window.screen().splitlines()[1:101] == [f'"{n}"' for n in range(100)]

    def test_on_request_it_stays_below_the_results(self, here, terminal):
        window = terminal()
        here.joinpath("lines.txt").write_text(numbers(5))
        here.joinpath("slowly.py").write_text(
            "import os, time\ndef slow(text):\n    while not os.path.exists('go' + text): time.sleep(0.01)\n    return text\n"
        )

        def is_below(result):
            lines = window.screen().splitlines()
            return lines[-2:-1] == [result] and bars_on(lines[-1])

        def let_go(*numbers):
            for n in numbers:
                here.joinpath(f"go{n}").touch()

        window.type("abreast map -j 1 --progress slowly:slow lines.txt")
        let_go(0, 1)
        window.wait_for(lambda: is_below('"1"'))
        let_go(2, 3)
        window.wait_for(lambda: is_below('"3"'))
        let_go(4)
        window.wait_for(lambda: window.prompts() == 2)
        lines = window.screen().splitlines()
        assert lines[1:6] == [f'"{n}"' for n in range(5)]
        assert bars_on(window.screen()) == [lines[6]]
        assert window.cursor_is_visible()

    def test_failures_are_told_above_it(self, here, terminal):
        window = terminal(height=40)
        here.joinpath("lines.txt").write_text(numbers(100))
        here.joinpath("slowly.py").write_text(SLOW + "def fails(text): slow(text); return 1 // (int(text) % 25)\n")
        window.run("abreast map -j 2 slowly:fails lines.txt -o out --force")
        lines = window.screen().splitlines()
        assert [line.split(":")[1] for line in lines if "ZeroDivisionError" in line] == [
            f" line {n + 1} ('{n}')" for n in range(0, 100, 25)
        ]
        assert len(bars_on(window.screen())) == 1
        assert window.status() == 1

    def test_a_dumb_terminal_gets_no_escape_code(self, here):
        here.joinpath("lines.txt").write_text(numbers(10))
        parent, child = os.openpty()
        try:
            with started("map", "m:odd_fails", "lines.txt", "-o", "out", stderr=child, env={"TERM": "dumb"}) as process:
                assert process.wait(PATIENCE) == 1
            said = os.read(parent, 10_000).decode()
        finally:
            os.close(parent)
            os.close(child)
        assert said.startswith("abreast map: line 2 ('1'): ZeroDivisionError")
        assert "\x1b" not in said


class TestCtrlC:
    @pytest.mark.parametrize("options", ["-o out", "", "--progress", "-o out --progress"])
    def test_gives_the_prompt_back(self, here, terminal, options):
        window = terminal()
        window.type(f"abreast map -j 4 slowly:slow lines.txt {options}")
        window.wait_for((lambda: bars_on(window.screen())) if options == "-o out" else (lambda: seen(here, window) > 20))
        begin = time.monotonic()
        window.press("C-c")
        window.wait_for(lambda: window.prompts() == 2)
        assert time.monotonic() - begin < SOON
        assert window.cursor_is_visible()
        screen = window.screen()
        assert len(re.findall(r"^abreast map: ended by Ctrl-C: \d+ lines written$", screen, re.M)) == 1, screen
        assert "Traceback" not in screen
        assert window.status() == 130
        if "out" in options:
            given = results(here.joinpath("out").read_bytes())
            assert given == [str(n) for n in range(len(given))]
            assert f"{len(given)} lines written" in screen

    def test_ends_hanging_tasks_and_a_silent_input(self, here, terminal):
        window = terminal()
        for command, shown in (("abreast map m:hang m.py", "started"), ("abreast map m:same", "end them with Ctrl-D")):
            before = window.prompts()
            window.type(command)
            window.wait_for(lambda shown=shown: shown in window.screen())
            begin = time.monotonic()
            window.press("C-c")
            window.wait_for(lambda before=before: window.prompts() > before)
            assert time.monotonic() - begin < SOON
            assert window.status() == 130

    def test_ends_the_demo(self, terminal):
        window = terminal()
        window.type("abreast demo")
        window.wait_for(lambda: "1. Two" in window.screen())
        window.press("C-c")
        window.wait_for(lambda: window.prompts() == 2)
        assert re.search(r"^abreast: ended by Ctrl-C$", window.screen(), re.M)
        assert window.status() == 130

    def test_lines_that_are_typed_are_inputs(self, terminal):
        window = terminal()
        window.type("abreast map m:upper")
        window.wait_for(lambda: "end them with Ctrl-D" in window.screen())
        window.type("one")
        window.press("C-d")
        window.wait_for(lambda: window.prompts() == 2)
        assert '"ONE"' in window.screen().splitlines()


def seen(here, window):
    """How many results there are to be seen, in the terminal or in the file."""
    path = here / "out"
    return path.read_bytes().count(b"\n") if path.exists() else window.screen().count('"\n')


class TestDemo:
    @pytest.mark.slow  # three demos at once, which start processes now: more than its patience beside other tests
    def test_has_colours_where_they_are_wanted_and_fits_the_window(self, terminal):
        coloured, plain, narrow = windows = terminal(80, 50), terminal(80, 50, NO_COLOR="1"), terminal(40, 30)
        for window in windows:
            window.type("abreast demo --fast")
        for window in windows:
            window.wait_for(lambda window=window: window.prompts() == 2)
            assert window.status() == 0
        screen = coloured.screen(codes=True)
        assert re.search(r"\x1b\[33m[^\x1b]*[▏░]", screen), "the bars"
        assert re.search(r"\x1b\[1m7\. All nine at once", screen), "the titles"
        assert not re.search(r"\x1b\[3[0-7]m", plain.screen(codes=True))
        assert "7. All nine at once" in plain.screen()
        assert "Whoever only waits can wait" in narrow.screen()
        assert len(re.findall(r"▏.* s$", narrow.screen(), re.M)) > 15
