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
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import pytest

from abreast.core.journal import Journal
from abreast.journal import large, schema
from abreast.journal.store import Store
from tests.helpers import ROOT
from tests.journal import program
from tests.journal.program import hash_of, value_of

pytestmark = [pytest.mark.whole, pytest.mark.skipif(sys.platform != "linux", reason="processes run on Linux only so far")]

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
        self.last = int(self.server.stdout.readline())
        return self.last

    def status(self) -> int:
        """Wait until the program has ended, or stopped; return minus the signal, or the exit status."""
        status = int(self.server.stdout.readline())
        return -os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)

    def run(self, job) -> int:
        self.start(job)
        return self.status()

    def close(self) -> None:
        try:
            self.server.communicate(timeout=10)
        except subprocess.TimeoutExpired:  # a test has failed, and left one that stands still
            os.kill(self.last, signal.SIGKILL)
            self.server.communicate(timeout=10)
            raise


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
        self.job = {
            "journal": str(folder / "run.db"),
            "log": str(folder / "log"),
            "count": COUNT,
            "kind_of_result": "mixed",
            **job,
        }
        self.job.setdefault("options", {}).setdefault("buffersize", AHEAD)
        self.log = folder / "log"
        self.read = 0  # so much of what it has said
        self.said: list[list[str]] = []  # in its last run
        self.kept: dict[int, object] = {}  # recorded successes
        self.started: set[int] = set()

    def run(self, **more) -> int:
        status = self.programs.run({**self.job, **more})
        self.look()
        return status

    def look(self) -> None:
        """The program has ended, in whatever way: hold what it said against what is recorded."""
        if self.job.get("kind") == "process":
            wait_until_all_are_gone(self.folder)
        text = self.log.read_bytes()[self.read :].decode() if self.log.exists() else ""
        self.read += len(text)
        self.said = said = [line.split() for line in text.splitlines()]
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
        if self.job.get("kind") != "process" or self.job.get("at_most_once"):  # F44: tiny ones of a worker that dies
            assert len(starts) == len(set(starts)), "run twice in one run"
        ahead = self.job["options"]["buffersize"]
        assert ahead is None or len(set(starts) - self.kept.keys()) <= ahead + 1, "more than was in flight"
        if self.job.get("at_most_once"):
            assert not self.started & set(starts), "started twice"
            interrupted = {i for i, text in got.items() if text.startswith("!")}
            assert {got[i] for i in interrupted} <= {"!Interrupted"}
            assert not interrupted & self.kept.keys()
        self.started.update(starts)

    def finish(self, *, again: bool = True) -> None:
        """Let it run to its end, and once more: everything is delivered; the second time nothing runs."""
        for is_second in (False, True)[: 1 + again]:
            assert self.run(failpoint=None) == 0
            assert self.said[-1] == ["over"]
            got = [int(words[1]) for words in self.said if words[0] == "got"]
            assert sorted(got) == list(range(self.job["count"]))
            assert got == sorted(got) or self.job.get("way") == "outcomes"
            if not self.job.get("at_most_once"):
                assert len(self.kept) == self.job["count"]
            else:
                assert sum(words[-1] == "!Interrupted" for words in self.said) == self.job["count"] - len(self.kept)
            assert not (is_second and any(words[0] == "start" for words in self.said))


def wait_until_all_are_gone(folder: Path) -> None:
    """Workers have the log open, whose folder is theirs alone; they end within a second of their parent."""
    deadline = time.monotonic() + 10
    while left := [
        pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid() and has_open(pid, f"{folder}/")
    ]:
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
            rows = database.execute("SELECT key, occ, idx, codec, payload, crc FROM tasks WHERE status = 1").fetchall()
            assert database.execute("SELECT count(*) FROM tasks WHERE status = 1 AND codec = 0").fetchone() == (0,)
    values = {}
    for key, occurrence, i, codec, payload, crc in rows:
        assert schema.checksum(key, occurrence, schema.OK, codec, payload) == crc
        if codec & 4:
            name = payload.decode()
            payload = Path(f"{journal}.d", name[:2], name).read_bytes()
            assert blake2b(payload, digest_size=32).hexdigest() == name
        values[i] = pickle.loads(payload) if codec & 3 == 2 else json.loads(payload)
    assert len(values) == len(rows)
    return values


@pytest.fixture
def case(tmp_path, programs):
    def make(name="one", **job):
        (tmp_path / name).mkdir()
        return Case(tmp_path / name, programs, **job)

    return make


def can_trace() -> bool:
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode == 0


def traced(job, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["strace", "-f", "-y", *options, sys.executable, program.__file__, json.dumps(job)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip


# ---- J1: at every failpoint

ONCE = (
    "before_create",
    "mid_create",
    "before_tell",
    "mid_tell",
    "before_begin_run",
    "after_begin_run",
    "before_end_run",
    "before_close",
    "before_release",
)
"""Passed once in a run: killed there, and again in the next one, and the one after that. In the order in which they are passed."""
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
    def test_while_results_are_written(self, case, kind, name):
        self.killed_at_each(case, name, kind=kind, kind_of_result="large" if name in LARGE else "mixed")

    @pytest.mark.slow
    @pytest.mark.parametrize("name", GROUPS)
    def test_serially(self, case, name):
        self.killed_at_each(case, name, kind="serial", kind_of_result="tiny", way="outcomes")

    @pytest.mark.parametrize("name", AT_MOST_ONCE)
    @pytest.mark.parametrize("kind", KINDS)
    def test_at_most_once(self, case, kind, name):
        self.killed_at_each(case, name, kind=kind, kind_of_result="tiny", at_most_once=True, way="outcomes")

    def killed_at_each(self, case, name, **job):
        """In three runs on one journal, at the first, the second, the third time that it comes by."""
        one = case(**job, count=6 if name in LARGE else COUNT)
        for occurrence, durability in enumerate(("process", "power", "process"), 1):
            status = one.run(failpoint=f"journal.{name}=kill@{occurrence}", durability=durability)
            assert status == -signal.SIGKILL, "never reached"
        one.finish()

    @pytest.mark.parametrize("kind", KINDS)
    def test_at_the_beginning_and_the_end(self, case, kind):
        one = case(kind=kind, way="outcomes", count=20)
        for name in ONCE:
            for _ in range(3):
                assert one.run(failpoint=f"journal.{name}=kill") == -signal.SIGKILL, f"{name} is never reached"
        one.finish()

    def test_after_it_was_made(self, case):
        one = case()
        assert one.run(failpoint="journal.after_create=kill") == -signal.SIGKILL
        one.finish()

    def test_while_sqlite_writes_the_tables(self, case):
        """They are in the file, and the log by which they are taken away again, since they might not all be there, is not deleted yet."""
        one = case()
        with closing(sqlite3.connect(one.job["journal"], isolation_level=None)) as database:
            schema.create(database, {"uuid": "1"})
        log = Path(f"{one.job['journal']}-journal")
        log.write_bytes((bytes.fromhex("d9d505f920a163d7") + struct.pack(">5L", 0, 0, 0, 512, 4096)).ljust(512, b"\0"))
        one.finish()

    @pytest.mark.parametrize("name", ["before_migration", "before_migrated"])
    def test_while_an_older_version_becomes_a_newer_one(self, case, name):
        one = case(migrates=True)
        assert one.run(failpoint="journal.before_commit=kill@4") == -signal.SIGKILL
        assert one.kept
        with closing(sqlite3.connect(one.job["journal"])) as database:
            database.execute("PRAGMA user_version = 0")
        copy = Path(f"{one.job['journal']}.version0")
        copy.symlink_to(one.folder / "mine")
        (one.folder / "mine").write_text("mine")
        for _ in range(3):
            assert one.run(failpoint=f"journal.{name}=kill") == -signal.SIGKILL
        one.finish()
        with closing(sqlite3.connect(one.job["journal"])) as database:
            assert database.execute("SELECT count(*) FROM more").fetchone() == (0,)
        assert (one.folder / "mine").read_text() == "mine"
        assert (copy.is_symlink(), copy.stat().st_mode & 0o777) == (False, 0o600)
        with closing(sqlite3.connect(copy)) as database:
            assert database.execute("PRAGMA user_version").fetchone() == (0,)
            assert database.execute("SELECT count(*) FROM tasks").fetchone()[0] > 0

    @pytest.mark.parametrize("occurrence", [1, 2, 3])
    def test_while_files_that_nobody_knows_are_deleted(self, case, occurrence):
        one = case(kind_of_result="large", count=5)
        assert one.run(failpoint="journal.after_rename=kill") == -signal.SIGKILL
        folder = Path(f"{one.job['journal']}.d")
        orphan = next(folder.glob("??/*"))
        for name in ("a" * 64, f"{'b' * 64}.tmp", "c" * 64):
            (orphan.parent / name).write_bytes(b"")
        (folder / "mine").mkdir()
        assert one.run(failpoint=f"journal.before_sweep=kill@{occurrence}") == -signal.SIGKILL
        one.finish(again=False)
        assert len(list(folder.glob("??/*"))) == 5
        assert (folder / "mine").exists()


# ---- J1: at random moments


class TestRandomMoments:
    @pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
    @pytest.mark.parametrize(
        ("kind", "way", "kills"),
        [
            ("thread", "imap", 3),
            pytest.param("thread", "outcomes", 50, marks=pytest.mark.slow),
            pytest.param("thread", "ordered outcomes", 50, marks=pytest.mark.slow),
            pytest.param("process", "imap", 50, marks=pytest.mark.slow),
            pytest.param("process", "outcomes", 50, marks=pytest.mark.slow),
        ],
    )
    def test_killed_and_run_again(self, tmp_path, programs, kind, way, kills, group):
        self.kill_at_random(tmp_path, programs, kills, group, kind=kind, way=way, kind_of_result="mixed")

    @pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
    @pytest.mark.parametrize(
        ("kind", "kills"),
        [
            ("thread", 2),
            pytest.param("thread", 100, marks=pytest.mark.slow, id="thread-many"),
            pytest.param("process", 50, marks=pytest.mark.slow),
        ],
    )
    def test_at_most_once(self, tmp_path, programs, kind, kills, group):
        self.kill_at_random(tmp_path, programs, kills, group, kind=kind, way="outcomes", kind_of_result="tiny", at_most_once=True)

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["imap", "map"])
    @pytest.mark.parametrize("kind", ["thread", "process"])
    def test_tiny_tasks_with_all_that_is_automatic(self, tmp_path, programs, kind, way):
        """Batches as large as they come; what is in flight is not known beforehand."""
        job = {"kind": kind, "way": way, "kind_of_result": "tiny", "count": 5000, "seconds": 0, "options": {"buffersize": None}}
        self.kill_at_random(tmp_path, programs, 25, False, **job)

    def kill_at_random(self, folder, programs, kills, group, **job):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        chance = random.Random(seed)
        done = number = 0
        while done < kills:  # one journal after another
            number += 1
            place = folder / str(number)
            place.mkdir()
            case = Case(
                place, programs, **{"count": 200, "seconds": 0.002, **job}, durability=chance.choice(["process", "power"])
            )
            while done < kills:
                if self.kill_once(case, chance, group):
                    done += 1
                else:  # it was complete before it could be killed
                    break
            case.finish()
            assert number < 20 + kills, "never killed amid"

    def kill_once(self, case: Case, chance: random.Random, group: bool) -> bool:
        """Whether it was killed, and not over before."""
        size = case.log.stat().st_size if case.log.exists() else 0
        lines = chance.randrange(2 * case.job["count"])
        pid = case.programs.start(case.job)
        if chance.random() < 0.3:  # while it begins, too
            time.sleep(chance.random() * 0.1)
        else:
            while size + 12 * lines > (case.log.stat().st_size if case.log.exists() else 0) and os.path.exists(
                f"/proc/{pid}/exe"
            ):
                time.sleep(0.0005)
            time.sleep(chance.random() * 0.005)
        try:
            (os.killpg if group else os.kill)(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        killed = case.programs.status() == -signal.SIGKILL
        case.look()
        return killed


# ---- J1: at every system call that changes a file of the journal


@pytest.mark.slow
class TestSystemCalls:
    """Killed before each of them: the first one of this kind, the second one … until the run is over before there are as many."""

    @pytest.mark.parametrize("is_new", [True, False], ids=["new", "old"])
    @pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "fsync", "unlink", "ftruncate", "rename", "mkdir"])
    def test_killed_before_each(self, tmp_path, programs, call, is_new):
        if not can_trace():
            pytest.skip("strace is not there, or may not trace")
        for number in range(1, 100):
            place = tmp_path / str(number)
            place.mkdir()
            case = Case(place, programs, count=5, kind_of_result="large" if call in ("fsync", "rename", "mkdir") else "mixed")
            if not is_new:
                assert case.run(failpoint="journal.after_commit=kill") == -signal.SIGKILL
            ends = ("", "-journal", "-wal", "-shm", "-lock", ".d")
            paths = (
                [text for end in ends for text in ("-P", case.job["journal"] + end)] if call in ("pwrite64", "ftruncate") else []
            )
            done = traced(case.job, "-o", os.devnull, *paths, "-e", f"inject={call}:signal=SIGKILL:when={number}")
            case.look()
            case.finish(again=False)
            if done.returncode == 0:
                break
            assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        assert number < 99


# ---- J1: a worker dies, the run does not


class TestWorkersDie:
    @pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGSTOP"])
    def test_each_task_has_one_recorded_outcome(self, case, signal_name):
        """Those that are stopped go over their limit, or on: the parent asks for results by SIGCONT."""
        victims = {3: signal_name, 17: signal_name, 29: "raise"}
        options = {"task_timeout": 1.0} if signal_name == "SIGSTOP" else {}
        one = case(kind="process", way="outcomes", count=40, fate=victims, options={"buffersize": None, **options})
        assert one.run() == 0
        errors = {int(words[1]): words[2] for words in one.said if words[0] == "got" and words[2].startswith("!")}
        assert errors.pop(29) == "!ValueError"
        assert errors.keys() <= {3, 17}
        assert options or errors.keys() == {3, 17}
        assert set(errors.values()) <= {"!TaskTimeout" if options else "!WorkerCrashed"}
        status = schema.TIMEOUT if options else schema.CRASHED
        with closing(sqlite3.connect(one.job["journal"])) as database:
            rows = database.execute("SELECT idx, status FROM tasks ORDER BY idx").fetchall()
        assert rows == [(i, status if i in errors else schema.ERROR if i == 29 else schema.OK) for i in range(40)]

    @pytest.mark.slow
    def test_killed_at_random_from_outside(self, tmp_path, programs):
        for number in range(20):
            place = tmp_path / str(number)
            place.mkdir()
            one = Case(place, programs, kind="process", way="outcomes", count=200, seconds=0.002, options={"buffersize": None})
            pid = programs.start(one.job)
            while not one.log.exists() or one.log.stat().st_size < random.randrange(4000):
                time.sleep(0.0005)
            starts = [line.split() for line in one.log.read_text().splitlines() if line.startswith("start")]
            if starts and int(starts[-1][-1]) != pid:
                try:
                    os.kill(int(starts[-1][-1]), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            assert programs.status() == 0
            one.look()
            got = {int(words[1]): words[2] for words in one.said if words[0] == "got"}
            crashed = {i for i, text in got.items() if text.startswith("!")}
            assert {got[i] for i in crashed} <= {"!WorkerCrashed"}
            assert len(crashed) <= 1
            assert got.keys() == set(range(200))
            assert one.kept.keys() == set(range(200)) - crashed
            one.finish(again=False)


# ---- J2: what a power cut could do


class TestPower:
    @pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
    def test_how_sqlite_is_set_up(self, tmp_path, durability, synchronous):
        store = Store(Journal(tmp_path / "run.db", durability=durability))
        try:
            assert store._writer.execute("PRAGMA synchronous").fetchone() == (synchronous,)  # NORMAL, FULL
            assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            store.look_up([("a", 0)])
            assert store._reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        finally:
            store.close()

    @pytest.mark.parametrize("kind", ["thread", "serial", pytest.param("process", marks=pytest.mark.slow)])
    @pytest.mark.parametrize("number", [1, 3])
    def test_nothing_is_delivered_before_its_commit(self, case, kind, number):
        """Everything stops just before a commit: what the consumer has by then is of the commits before."""
        one = case(kind=kind, durability="power")
        pid = one.programs.start({**one.job, "failpoint": f"journal.before_commit=stop@{number}"})
        assert one.programs.status() == -signal.SIGSTOP
        said = [line.split() for line in one.log.read_text().splitlines()]
        got = {int(words[1]) for words in said if words[0] == "got"}
        ended = {int(words[1]) for words in said if words[0] == "end"}
        kept = recorded(one.job["journal"]).keys()
        os.kill(pid, signal.SIGCONT)
        assert one.programs.status() == 0
        assert got <= kept
        assert ended - got
        assert number > 1 or not got
        one.look()
        one.finish(again=False)

    @pytest.mark.parametrize("durability", ["process", "power"])
    def test_it_is_on_the_disk_before_it_is_delivered(self, case, durability):
        """Each result is unlike all others, so that what SQLite writes shows which it is."""
        if not can_trace():
            pytest.skip("strace is not there, or may not trace")
        one = case(kind_of_result="marked", count=20, durability=durability, options={"buffersize": 2})
        calls = one.folder / "calls"
        assert traced(one.job, "-o", str(calls), "-s", "1000000", "-e", "trace=pwrite64,fdatasync,fsync,write").returncode == 0
        one.look()
        written: dict[int, int] = {}  # where in the trace a result is first in the log of SQLite
        synced: list[int] = []
        delivered: dict[int, int] = {}
        for place, line in enumerate(calls.read_text().splitlines()):
            if "run.db-wal" in line:
                if "pwrite64(" in line:
                    for i in re.findall(r"result-(\d{6})-", line):
                        written.setdefault(int(i), place)
                elif "sync(" in line or "sync resumed" in line:
                    synced.append(place)
            elif match := re.search(r'"got (\d+) ', line):
                delivered[int(match[1])] = place
        assert delivered.keys() == written.keys() == set(range(20))
        assert all(written[i] < delivered[i] for i in range(20))
        if durability == "power":
            assert all(any(written[i] < place < delivered[i] for place in synced) for i in range(20))

    def test_folders_of_large_results_are_on_the_disk_too(self, tmp_path, monkeypatch):
        """Also those that somebody has made who was killed before they were."""
        durable = []
        monkeypatch.setattr(large, "_make_durable", lambda folder: durable.append(str(folder)))
        files = large.Files(str(tmp_path / "run.db"))
        name = files.write(b"1").decode()
        assert durable == [str(tmp_path), files.folder, f"{files.folder}/{name[:2]}"]
        durable.clear()
        files = large.Files(str(tmp_path / "run.db"))
        os.unlink(f"{files.folder}/{name[:2]}/{name}")
        files.write(b"1")
        assert durable == [str(tmp_path), files.folder, f"{files.folder}/{name[:2]}"]
        os.unlink(f"{files.folder}/{name[:2]}/{name}")
        files.write(b"1")
        assert durable[3:] == [f"{files.folder}/{name[:2]}"]
