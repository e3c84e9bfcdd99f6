"""What the tests of the journal share."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import abreast
import pytest
from abreast import SerialExecutor, ThreadPoolExecutor

from tests.helpers import ROOT

PATIENCE = 10
"""Seconds after which something that should have happened has not."""


def rows(path, columns="*"):
    """What a journal holds of tasks, in the order of the inputs."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT {columns} FROM tasks ORDER BY idx").fetchall()
    finally:
        connection.close()


def statuses(path):
    return dict(rows(path, "idx, status"))


def child(code: str, *args: object, **more) -> subprocess.Popen[str]:
    """Start a script in a fresh interpreter, whose standard input and output are pipes."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", textwrap.dedent(code), *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, **more
    )  # fmt: skip


@pytest.fixture
def open_folder():
    """A folder that other users can get into: pytest's own are in one of its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


class Calls:
    """A function that notes what it is called with, in the threads of this process."""

    def __init__(self, fn=lambda x: x):
        self.fn = fn
        self.lock = threading.Lock()
        self.seen: list[object] = []

    def __call__(self, x):
        with self.lock:
            self.seen.append(x)
        return self.fn(x)

    def take(self):
        with self.lock:
            seen, self.seen = self.seen, []
        return seen


# ---- every way to run with a journal: a function (fn, inputs, **options) -> the results, as far as there are any in `got`


def by_map(fn, inputs, got, **options):
    got += abreast.map(fn, inputs, **options)


def by_imap(fn, inputs, got, **options):
    for result in abreast.imap(fn, inputs, **options):
        got.append(result)


def by_outcomes(fn, inputs, got, **options):
    for outcome in abreast.outcomes(fn, inputs, **options):
        got.append(outcome.result())


def by_amap(fn, inputs, got, **options):
    async def main():
        got.extend(await abreast.amap(fn, inputs, **options))

    asyncio.run(main())


def by_aimap(fn, inputs, got, **options):
    async def main():
        async for result in abreast.aimap(fn, inputs, **options):
            got.append(result)

    asyncio.run(main())


def by_executor(fn, inputs, got, **options):
    executor = SerialExecutor() if options.pop("kind", "thread") == "serial" else ThreadPoolExecutor(2)
    with executor:
        for result in executor.imap(fn, inputs, **options):
            got.append(result)


WAYS = {"map": by_map, "imap": by_imap, "outcomes": by_outcomes, "amap": by_amap, "aimap": by_aimap, "executor.imap": by_executor}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
