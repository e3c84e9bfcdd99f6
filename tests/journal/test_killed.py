"""A run that is killed at any moment, and run again (J1 of docs/design/failures.md), and what a power cut could do (J2).

``program.py`` is killed; each time what the journal holds, read with `sqlite3` alone, is compared with what the program said it did:

P1  what was delivered is recorded      P3  nothing is half there
P2  what is recorded is not run again   P4  at most what was in flight ran without being recorded
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import pytest

from abreast.core.journal import Journal
from abreast.journal.store import Store
from tests.helpers import ROOT
from tests.journal import program
from tests.journal.program import hash_of, value_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes run on Linux only so far")

COUNT = 60
AHEAD = 8
"""Inputs that are taken ahead of the consumer: so many can be in flight."""

# ---- the program, and what it has said


class Programs:
    """Runs programs, each a fork of one that has imported everything."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, program.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip

    def start(self, job) -> int:
        print(json.dumps(job), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def status(self) -> int:
        """Wait until the program has ended, or stopped; return minus the signal, or the exit status."""
        status = int(self.server.stdout.readline())
        return -os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)

    def run(self, job) -> int:
        self.start(job)
        return self.status()

    def close(self) -> None:
        self.server.communicate(timeout=30)


@pytest.fixture(scope="module")
def programs():
    programs = Programs()
    yield programs
    programs.close()


class Case:
    """One journal, the runs that have used it, and what must be so after each."""

    def __init__(self, folder: Path, programs: Programs, **job) -> None:
        self.folder = folder
        self.programs = programs
        self.job = {"journal": str(folder / "run.db"), "log": str(folder / "log"), "count": COUNT, "kind_of_result": "mixed", **job}
        self.job.setdefault("options", {}).setdefault("buffersize", AHEAD)
        self.log = folder / "log"
        self.kept: dict[int, object] = {}  # recorded successes
        self.started: dict[int, int] = {}

    def run(self, **more) -> int:
        status = self.programs.run({**self.job, **more})
        self.look()
        return status

    def look(self) -> list[list[str]]:
        """The program has ended, in whatever way: hold what it said against what is recorded. Return what it said."""
        wait_until_all_are_gone(self.folder)
        said = [line.split() for line in self.log.read_text().split("run\n")[-1].splitlines()] if self.log.exists() else []
        starts = [int(words[1]) for words in said if words[0] == "start"]
        got = {int(words[1]): words[2] for words in said if words[0] == "got"}
        assert len(got) == sum(words[0] == "got" for words in said), "delivered twice"
        assert not self.kept.keys() & set(starts), "recorded, and run again"
        before, self.kept = self.kept, recorded(self.job["journal"])
        assert before.keys() <= self.kept.keys(), "recorded, and gone"
        for i, text in got.items():
            if not text.startswith("!"):
                assert text == hash_of(value_of(i, self.job["kind_of_result"])), "delivered, and wrong"
                assert i in self.kept, "delivered, and not recorded"
        for i, value in self.kept.items():
            assert value == value_of(i, self.job["kind_of_result"]), "recorded, and wrong"
        assert len(starts) == len(set(starts)), "run twice in one run"
        assert len(set(starts) - self.kept.keys()) <= self.job["options"]["buffersize"] + 1, "more than was in flight"
        for i in starts:
            self.started[i] = self.started.get(i, 0) + 1
        return said

    def finish(self) -> None:
        """Let it run to its end, twice: everything is delivered; the second time nothing runs."""
        for again in (False, True):
            assert self.run(failpoint=None) == 0
            said = [line.split() for line in self.log.read_text().split("run\n")[-1].splitlines()]
            assert said[-1] == ["over"]
            got = [int(words[1]) for words in said if words[0] == "got"]
            assert sorted(got) == list(range(self.job["count"]))
            if self.job.get("way", "imap") != "outcomes":
                assert got == sorted(got)
            assert len(self.kept) == self.job["count"]
            assert not (again and any(words[0] == "start" for words in said))


def wait_until_all_are_gone(folder: Path) -> None:
    """Workers have the log open, whose folder is theirs alone; they end within a second of their parent."""
    deadline = time.monotonic() + 10
    while left := [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid() and has_open(pid, f"{folder}/")]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.002)


def has_open(pid: str, prefix: str) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith(prefix) for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # it has just ended, or is somebody else's
        return False


def recorded(journal: str) -> dict[int, object]:
    """Read the recorded successes with SQLite alone, from a copy, so that whoever opens the journal next finds it as it was left."""
    if not os.path.exists(journal):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy")
        for end in ("", "-wal", "-journal"):
            if os.path.exists(journal + end):
                shutil.copyfile(journal + end, copy + end)
        with closing(sqlite3.connect(copy)) as database:
            assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'tasks'").fetchone():
                return {}
            rows = database.execute("SELECT idx, codec, payload, crc FROM tasks WHERE status = 1").fetchall()
            assert database.execute("SELECT count(*) FROM tasks WHERE status = 1 AND codec = 0").fetchone() == (0,)
    values = {}
    for i, codec, payload, crc in rows:
        assert zlib.crc32(payload) == crc
        if codec & 4:
            name = payload.decode()
            payload = Path(f"{journal}.d", name[:2], name).read_bytes()
            assert blake2b(payload, digest_size=32).hexdigest() == name
        values[i] = pickle.loads(payload) if codec & 3 == 2 else json.loads(payload)
    assert len(values) == len(rows)
    return values


@pytest.fixture
def case(tmp_path, programs):
    return lambda **job: Case(tmp_path, programs, **job)


# ---- J1: at every failpoint

ONCE = ("before_create", "mid_create", "before_tell", "mid_tell", "before_begin_run", "after_begin_run", "before_end_run", "before_close", "before_release")
"""Passed once in a run: killed there, and again in the next one, and the one after that."""
ONLY_ONCE = ("after_create", "before_migration", "before_migrated")
"""Not passed again once it has been passed, or not as these are set up."""
GROUPS = ("before_begin", "after_begin", "before_commit", "after_commit", "before_deliver")
LARGE = ("before_fsync", "before_rename", "after_rename")
SWEEP = ("before_sweep",)
AT_MOST_ONCE = ("before_started", "after_started")


def test_every_failpoint_is_in_the_lists():
    texts = [path.read_text() for folder in ("journal", "engine") for path in (ROOT / "src/abreast" / folder).glob("*.py")]
    names = [name for text in texts for name in re.findall(r'hit\("journal\.(\w+)"\)', text)]
    assert sorted(names) == sorted((*ONCE, *ONLY_ONCE, *GROUPS, *LARGE, *SWEEP, *AT_MOST_ONCE))


KINDS = ["thread", pytest.param("process", marks=pytest.mark.slow)]


class TestFailpoints:
    @pytest.mark.parametrize("name", [*GROUPS, *LARGE])
    @pytest.mark.parametrize("kind", KINDS)
    def test_while_results_are_written(self, case, kind, name, tmp_path):
        self.killed_at_each(case, name, kind=kind)

    @pytest.mark.parametrize("name", GROUPS)
    def test_serially(self, case, name):
        self.killed_at_each(case, name, kind="serial", kind_of_result="tiny", way="outcomes")

    @pytest.mark.parametrize("name", AT_MOST_ONCE)
    @pytest.mark.parametrize("kind", KINDS)
    def test_at_most_once(self, case, kind, name):
        self.killed_at_each(case, name, kind=kind, kind_of_result="tiny", at_most_once=True, way="outcomes")

    def killed_at_each(self, case, name, **job):
        for occurrence in (1, 2, 3):
            one = case(**job, durability="power" if occurrence == 2 else "process")
            one.job["journal"] += str(occurrence)
            assert one.run(failpoint=f"journal.{name}=kill@{occurrence}") == -signal.SIGKILL, "never reached"
            if job.get("at_most_once"):
                finish_at_most_once(one)
            else:
                one.finish()

    @pytest.mark.parametrize("name", ONCE)
    @pytest.mark.parametrize("kind", KINDS)
    def test_at_the_beginning_and_the_end(self, case, kind, name):
        one = case(kind=kind, way="outcomes")
        for _ in range(3):
            assert one.run(failpoint=f"journal.{name}=kill") == -signal.SIGKILL, "never reached"
        one.finish()

    def test_after_it_was_made(self, case):
        one = case()
        assert one.run(failpoint="journal.after_create=kill") == -signal.SIGKILL
        one.finish()

    @pytest.mark.parametrize("name", ["before_migration", "before_migrated"])
    def test_while_an_older_version_becomes_a_newer_one(self, case, name):
        one = case(migrates=True)
        assert one.run(failpoint="journal.before_commit=kill@4") == -signal.SIGKILL
        assert one.kept
        with closing(sqlite3.connect(one.job["journal"])) as database:
            database.execute("PRAGMA user_version = 0")
        for _ in range(3):
            assert one.run(failpoint=f"journal.{name}=kill") == -signal.SIGKILL
        one.finish()
        with closing(sqlite3.connect(one.job["journal"])) as database:
            assert database.execute("SELECT count(*) FROM more").fetchone() == (0,)

    @pytest.mark.parametrize("occurrence", [1, 2, 3])
    def test_while_files_that_nobody_knows_are_deleted(self, case, occurrence):
        one = case(kind_of_result="large", count=5)
        for _ in range(3):
            assert one.run(failpoint="journal.after_rename=kill") == -signal.SIGKILL
        folder = Path(f"{one.job['journal']}.d")
        orphan = next(folder.glob("??/*"))
        for name in ("a" * 64, f"{'b' * 64}.tmp", "c" * 64):
            (orphan.parent / name).write_bytes(b"")
        (folder / "mine").mkdir()
        assert one.run(failpoint=f"journal.before_sweep=kill@{occurrence}") == -signal.SIGKILL
        one.finish()
        assert len(list(folder.glob("??/*"))) == 5
        assert (folder / "mine").exists()


def finish_at_most_once(one: Case) -> None:
    """What is not known comes as Interrupted, each time again, and nothing runs twice, ever."""
    assert one.run(failpoint=None) == 0
    said = one.look_again()
