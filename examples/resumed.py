"""A batch of 400 tasks that is killed ten times with kill -9, at random moments, and run again each time until it is done.

    python examples/resumed.py

The batch is a program of its own, this file with --batch, and its journal keeps what is done: a task whose result is recorded is
not run again. A task that was under way when the program was killed is; how often that happened is counted, from a file in which
every task notes that it begins. In the end all results are there, and right.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import abreast

TASKS = 400
KILLS = 10


def result_of(number: int) -> int:
    return zlib.crc32(b"task %d" % number)


def work(begun: str, number: int) -> int:
    """Take 10 ms, as a request to a server may."""
    with Path(begun).open("a") as file:
        file.write(f"{number}\n")
    time.sleep(0.01)
    return result_of(number)


def batch(folder: Path) -> None:
    """The program that is killed. To be run again, it needs no other line than the one that runs it."""
    results = abreast.map(partial(work, str(folder / "begun")), range(TASKS), max_workers=4, journal=folder / "batch.journal")
    (folder / "results").write_text(json.dumps(results))


def start(folder: Path) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C is for us, and it is we who kill it.
    return subprocess.Popen([sys.executable, __file__, "--batch", str(folder)], start_new_session=True)  # noqa: S603  # this file


def begun(folder: Path) -> list[int]:
    """Return the tasks that have begun so far, in that order."""
    return list(map(int, (folder / "begun").read_text().split())) if (folder / "begun").exists() else []


def recorded(folder: Path) -> set[int]:
    """Look into the journal, which is an SQLite database, for the tasks whose results it has."""
    with closing(sqlite3.connect(folder / "batch.journal")) as database:
        return {number for (number,) in database.execute("SELECT idx FROM tasks WHERE status = 1")}


def run(folder: Path, chance: random.Random) -> bool:
    known: set[int] = set()
    again = 0  # recorded tasks that ran again
    print("kill   begun since   recorded")
    for kill in range(1, KILLS + 2):
        before = len(begun(folder))
        wanted = before + chance.randint(20, 50)
        with start(folder) as program:
            try:
                while program.poll() is None and (len(begun(folder)) < wanted or kill > KILLS):
                    time.sleep(0.002)
            finally:
                program.kill()  # with SIGKILL, unless it has ended
        since = begun(folder)[before:]
        again += len(known & set(since))
        known = recorded(folder)
        print(f"{kill if kill <= KILLS else 'none':>4}   {len(since):>11}   {len(known):>4} of {TASKS}", flush=True)

    twice = sum(times > 1 for times in Counter(begun(folder)).values())
    print(f"ran more than once, since they were under way at a kill: {twice}; recorded, and run again: {again}")
    results = json.loads((folder / "results").read_text())
    is_right = results == list(map(result_of, range(TASKS))) and len(known) == TASKS
    print(f"equal: all {TASKS} results are what they must be" if is_right else "FAILED: not all results are what they must be")
    if again:
        print("FAILED: what is recorded must not run again")
    return is_right and not again


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    folder = parser.parse_args().batch
    if folder is not None:
        batch(folder)
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    print(f"{TASKS} tasks of 10 ms, 4 at once, killed {KILLS} times", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        return 0 if run(Path(temporary), random.Random()) else 1  # noqa: S311  # moments, not keys


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
