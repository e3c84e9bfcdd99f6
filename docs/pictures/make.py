"""Make the pictures of the README from what the commands really print: ``python docs/pictures/make.py``, about 30 seconds.

demo.svg and processes.svg are of ``abreast demo`` in a terminal of 80 columns: the pool of three and what follows on threads, and the table; and the same
computing one by one, on threads and in processes. report.svg is the report of two runs that were recorded, and timeline.png the page of them, in Chromium, where there is one.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

import abreast

HERE = Path(__file__).parent
COLUMNS = 80
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def run_in_terminal(*words: str) -> str:
    """Return what a command writes to a terminal of its own, with its colour codes."""
    import fcntl
    import termios

    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), COLORTERM="truecolor")
        os.environ.pop("NO_COLOR", None)
        os.environ.pop("CI", None)
        os.execv(sys.executable, [sys.executable, "-m", "abreast", *words])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    blocks = []
    while True:
        try:
            block = os.read(fd, 1 << 16)
        except OSError:  # EIO: the other end is closed
            break
        if not block:
            break
        blocks.append(block)
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"abreast {' '.join(words)} failed: {os.waitstatus_to_exitcode(status)}")
    return b"".join(blocks).decode().replace("\r\n", "\n")


def picture(text: str, title: str, path: Path) -> None:
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    for line in text.rstrip("\n").split("\n"):
        console.print(Text.from_ansi(line).plain.rstrip() and _without_spaces_at_the_end(Text.from_ansi(line)))
    console.save_svg(str(path), title=title, unique_id="abreast")


def _without_spaces_at_the_end(text: Text) -> Text:
    text.rstrip()
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="a tenth of every sleep")
    parser.add_argument("--to", type=Path, default=HERE, metavar="FOLDER")
    chosen = parser.parse_args()
    told = run_in_terminal("demo", *["--fast"] * chosen.fast)
    threads = part(told, "5. A pool of three threads", "Processes against threads") + part(
        told, "What it bought", "What was recorded"
    )
    picture(threads, "abreast demo", chosen.to / "demo.svg")
    picture(part(told, "8. Computing, one by one", "11. Interrupted"), "abreast demo", chosen.to / "processes.svg")
    report(chosen.to / "report.svg", speed=10 if chosen.fast else 1)
    if browser := next(filter(None, map(shutil.which, BROWSERS)), None):
        timeline(browser, chosen.to / "timeline.png", speed=10 if chosen.fast else 1)


def square(number: int) -> int:
    time.sleep(0.5 / Speed.factor)
    return number * number


def crunch(count: int) -> int:
    return sum(number * number % 7 for number in range(int(count / Speed.factor)))


def fetch(page: int) -> str:
    time.sleep((0.05 + 0.03 * (page * 7 % 5)) / Speed.factor)
    task = abreast.current_task()
    if page == 5 and task is not None and task.attempt == 1:
        raise ConnectionError("503 Service Unavailable")
    return f"page {page}"


class Speed:
    factor = 1.0


def report(path: Path, *, speed: float) -> None:
    """Draw the reports of work that waits, and of work that computes, both on three threads."""
    Speed.factor = speed
    console = Console(record=True, width=112, file=StringIO(), force_terminal=True)
    for function, inputs in ((square, range(1, 10)), (crunch, [4_000_000] * 3)):
        with abreast.record() as run:
            abreast.map(function, inputs, max_workers=3)
        console.print(run.report())
        console.print()
    console.save_svg(str(path), title="print(run.report())", unique_id="abreast")


def timeline(browser: str, path: Path, *, speed: float) -> None:
    """Draw the page of a program that waits, computes and fails, on threads and in processes."""
    Speed.factor = speed
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "run.html"
        with abreast.record() as run:
            list(abreast.outcomes(fetch, range(24), max_workers=4, retries=abreast.Retry(1, wait_initial=0.05, wait_jitter=0)))
            abreast.map(crunch, [1_500_000] * 6, max_workers=3)
            abreast.map(crunch, [1_500_000] * 6, kind="process")
        run.timeline(page)
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                f"--screenshot={path}",
                "--window-size=1200,800",
                "--virtual-time-budget=3000",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def part(told: str, begin: str, end: str | None) -> str:
    """Return the lines from one that holds `begin` to the one before that holds `end`."""
    lines = told.split("\n")
    first = next(i for i, line in enumerate(lines) if begin in line)
    last = len(lines) if end is None else next(i for i, line in enumerate(lines) if i > first and end in line)
    return "\n".join(lines[first:last]) + "\n"


if __name__ == "__main__":
    main()
