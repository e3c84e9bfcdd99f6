"""Make the pictures of the README from what the commands really print: ``python docs/pictures/make.py``, about 25 seconds.

Both are of ``abreast demo`` in a terminal of 80 columns: demo.svg is the pool of three and what follows on threads, and the table;
processes.svg is the same computing one by one, on threads and in processes.
"""

from __future__ import annotations

import argparse
import os
import pty
import struct
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COLUMNS = 80


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
    threads = part(told, "5. A pool of three threads", "Processes against threads") + part(told, "What it bought", None)
    picture(threads, "abreast demo", chosen.to / "demo.svg")
    picture(part(told, "8. Computing, one by one", "11. What is shared"), "abreast demo", chosen.to / "processes.svg")


def part(told: str, begin: str, end: str | None) -> str:
    """Return the lines from one that holds `begin` to the one before that holds `end`."""
    lines = told.split("\n")
    first = next(i for i, line in enumerate(lines) if begin in line)
    last = len(lines) if end is None else next(i for i, line in enumerate(lines) if i > first and end in line)
    return "\n".join(lines[first:last]) + "\n"


if __name__ == "__main__":
    main()
