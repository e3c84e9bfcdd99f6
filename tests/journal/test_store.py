"""The file: full disks, damage at any byte, other versions, files that are no journals."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import sys
import threading
import warnings

import abreast
import pytest
from abreast import Journal, JournalCorrupt, JournalError, JournalWarning
from abreast.journal import schema, store
from abreast.journal.log import committed_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.journal.helpers import PATIENCE, Calls, child, every_way, open_folder, rows, statuses  # noqa: F401  # a fixture

pytestmark = pytest.mark.whole

COUNT = 36
BIG = 1 << 20


def work(x):
    """All sorts of results: JSON, pickles, and some of over 1 MiB."""
    if x in (3, 30):
        return f"{x:08}" * (BIG // 8 + 1)
    return (x, x * x) if x % 2 else {"is": [x, str(x), None, x / 2]}


def key(x):
    return f"item{x}"


EXPECTED = [work(x) for x in range(COUNT)]


def run_again(path, count=COUNT, **options):
    """What the call gives: equal results, or a JournalError; nothing else is right. Returns whether it could be read."""
    got = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JournalWarning)
        try:
            for result in abreast.imap(work, range(count), journal=Journal(path, **options), key=key, kind="serial"):
                got.append(result)
        except JournalError as error:
            assert str(path) in str(error) and len(str(error)) > len(str(path)) + 20
            assert got == EXPECTED[: len(got)]
            return error
    assert got == EXPECTED[:count]
    return None


# ---- J4: damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two folders of a journal's files: closed; and as they are after kill -9, most of it in the log."""
    closed, killed = tmp_path_factory.mktemp("closed"), tmp_path_factory.mktemp("killed")
    assert abreast.map(work, range(COUNT), journal=closed / "run.db", key=key, kind="serial") == EXPECTED
    source = tmp_path_factory.mktemp("running")
    with abreast.imap(work, range(COUNT), journal=source / "run.db", key=key, kind="serial", buffersize=1) as results:
        for _ in range(COUNT - 1):
            next(results)
        shutil.copytree(source, killed, dirs_exist_ok=True)
    assert (killed / "run.db-wal").stat().st_size > 10_000
    return closed, killed


@contextlib.contextmanager
def copied(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("copy") / "files"
    shutil.copytree(folder, path, copy_function=os.link)
    yield path
    shutil.rmtree(path)


def changed(file, data):
    file.unlink()  # it is a hard link
    file.write_bytes(data)


def unlinked(path):
    """Have files of one name each: the journal refuses others."""
    for file in path.iterdir():
        if file.is_file() and file.stat().st_nlink > 1:
            changed(file, file.read_bytes())


def flip(data, bits):
    data = bytearray(data)
    for bit in bits:
        data[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(data)


quick = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class TestDamage:
    def test_whole(self, whole, tmp_path_factory):
        for folder in whole:
            with copied(folder, tmp_path_factory) as path:
                unlinked(path)
                assert run_again(path / "run.db") is None

    @quick
    @given(st.floats(0, 1, exclude_max=True))
    def test_the_file_cut_anywhere(self, whole, tmp_path_factory, part):
        folder = whole[0]
        data = (folder / "run.db").read_bytes()
        with copied(folder, tmp_path_factory) as path:
            unlinked(path)
            changed(path / "run.db", data[: int(part * len(data))])
            error = run_again(path / "run.db")
            if error is not None:  # else nothing that counts was cut off
                assert isinstance(error, JournalCorrupt) and "salvage" in str(error)
                assert (path / "run.db").read_bytes() == data[: int(part * len(data))]
            else:
                assert part > 0.8

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["run.db", "run.db-wal"])
    def test_each_byte(self, whole, tmp_path_factory, name):
        """Bits of many bytes, one at a time, in a file that is checked whole and one that is not."""
        folder = whole[name == "run.db-wal"]
        data = (folder / name).read_bytes()
        for place in range(0, min(len(data), 60_000), 61):
            with copied(folder, tmp_path_factory) as path:
                unlinked(path)
                changed(path / name, flip(data, [8 * place + place % 8]))
                run_again(path / "run.db", check=bool(place % 2))

    @quick
    @given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=3))
    def test_bits_of_the_file(self, whole, tmp_path_factory, bits):
        folder = whole[0]
        with copied(folder, tmp_path_factory) as path:
            unlinked(path)
            changed(path / "run.db", flip((folder / "run.db").read_bytes(), bits))
            run_again(path / "run.db")

    @quick
    @given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=3))
    def test_bits_of_a_file_that_is_not_checked_whole(self, whole, tmp_path_factory, bits):
        folder = whole[0]
        with copied(folder, tmp_path_factory) as path:
            unlinked(path)
            changed(path / "run.db", flip((folder / "run.db").read_bytes(), bits))
            run_again(path / "run.db", check=False)

    @quick
    @given(st.lists(st.integers(0, 1 << 40), min_size=0, max_size=3), st.floats(0, 1))
    def test_the_log_cut_and_changed(self, whole, tmp_path_factory, bits, part):
        folder = whole[1]
        data = (folder / "run.db-wal").read_bytes()
        with copied(folder, tmp_path_factory) as path:
            unlinked(path)
            changed(path / "run.db-wal", flip(data, bits)[: int(part * len(data)) if not bits else None])
            run_again(path / "run.db")

    @pytest.mark.parametrize("where", ["header", "amid"])
    def test_a_log_that_is_not_whole_is_told(self, whole, tmp_path_factory, where):
        folder = whole[1]
        data = (folder / "run.db-wal").read_bytes()
        with copied(folder, tmp_path_factory) as path:
            unlinked(path)
            changed(path / "run.db-wal", flip(data, [8 * (17 if where == "header" else 32 + 4120 * 3 + 500)]))
            once = Journal(path / "run.db", at_most_once=True)
            if where == "header":
                for _ in range(2):  # the log is gone then
                    with pytest.raises(JournalCorrupt, match="log of .* was not whole.*started at most once"):
                        abreast.map(work, range(COUNT), journal=once, key=key, kind="serial")
                return
            with pytest.warns(JournalWarning, match=r"the log of .* is not whole"):
                assert abreast.map(work, range(COUNT), journal=path / "run.db", key=key, kind="serial") == EXPECTED
            with pytest.raises(JournalCorrupt, match="was not whole"):
                abreast.map(work, range(COUNT), journal=once, key=key, kind="serial")
            assert abreast.map(work, range(COUNT), journal=path / "run.db", key=key, kind="serial") == EXPECTED  # told once

    def test_a_log_of_a_killed_run_is_whole(self, whole):
        folder = whole[1]
        committed = committed_of(str(folder / "run.db-wal"))
        assert len(committed) >= COUNT - 1 and committed == sorted(committed)
        assert committed_of(str(folder / "nothing")) == []

    @settings(quick, max_examples=8)
    @given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=2), st.sampled_from(["flip", "cut", "gone", "empty"]))
    def test_a_large_result(self, whole, tmp_path_factory, bits, how):
        folder = whole[0]
        with copied(folder, tmp_path_factory) as path:
            unlinked(path)
            file = sorted((path / "run.db.d").glob("*/*"))[bits[0] % 2]
            data = file.read_bytes()
            changed(file, {"flip": flip(data, bits), "cut": data[: bits[0] % len(data)], "gone": b"", "empty": b""}[how])
            if how == "gone":
                file.unlink()
            error = run_again(path / "run.db")
            assert isinstance(error, JournalCorrupt) or (how == "flip" and len(bits) == 2 and bits[0] == bits[1])

    @pytest.mark.parametrize("size", [0, 1, 15, 16, 60, 72, 99, 100, 4095, 4096])
    def test_cut_at_its_beginning(self, whole, tmp_path_factory, size):
        with copied(whole[0], tmp_path_factory) as path:
            unlinked(path)
            changed(path / "run.db", (path / "run.db").read_bytes()[:size])
            assert isinstance(run_again(path / "run.db"), JournalCorrupt)

    def test_cut_to_nothing(self, tmp_path):
        path = tmp_path / "run.db"
        assert abreast.map(abs, [-1], journal=path) == [1]
        path.write_bytes(b"")
        calls = Calls(abs)
        for _ in range(2):
            with pytest.raises(JournalCorrupt, match="it is empty"):
                abreast.map(abs, [-1], journal=path)
        assert path.read_bytes() == b"" and not calls.seen
        path.unlink()
        assert abreast.map(abs, [-1], journal=path) == [1]  # one that was deleted is a new beginning

    @pytest.mark.skipif(os.name != "posix", reason="a file that is open cannot be moved there")
    @pytest.mark.parametrize("how", ["moved", "deleted"])
    def test_one_that_is_taken_away_ends_the_run_and_its_log_is_kept(self, tmp_path, how):
        path, got = tmp_path / "run.db", []
        with pytest.raises(JournalError, match="was moved or deleted while this run went on; put the file back"):
            for result in abreast.imap(abs, range(10_000), journal=path, buffersize=2):
                got.append(result)
                if result == 5:
                    path.rename(tmp_path / "other.db") if how == "moved" else path.unlink()
        calls = Calls(abs)
        for _ in range(2):
            with pytest.raises(JournalError, match="is gone, but its log is there, which may hold all"):
                abreast.map(calls, range(10), journal=path)
        assert not path.exists() and not calls.seen
        if how == "moved":
            (tmp_path / "other.db").rename(path)
            results = abreast.imap(abs, range(10_000), journal=path)
            assert [next(results) for _ in got] == got and results.summary().resumed >= len(got)
            results.close()
        else:
            (tmp_path / "run.db-wal").unlink()
            assert abreast.map(abs, [-1], journal=path) == [1]

    def test_an_empty_file_beside_a_log_was_a_journal(self, whole, tmp_path_factory):
        with copied(whole[1], tmp_path_factory) as path:
            unlinked(path)
            (path / "run.db-lock").unlink()
            changed(path / "run.db", b"")
            assert isinstance(run_again(path / "run.db"), JournalCorrupt)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE tasks SET status = 'x'", "UPDATE tasks SET attempts = NULL", "UPDATE tasks SET dur = x'00'", "UPDATE tasks SET t_start = 'x'", "UPDATE tasks SET run_id = 'x'",
            "UPDATE runs SET fn_digest = 1000000000000", "UPDATE runs SET fn_digest = 'x'", "UPDATE runs SET fn_name = NULL", "UPDATE tasks SET key = CAST(x'ff' AS TEXT) WHERE idx = 1",
            "DROP INDEX ik", "DROP TABLE meta", "UPDATE tasks SET codec = codec + 4", "UPDATE tasks SET payload = CAST(payload AS TEXT)", "PRAGMA user_version = 0",
        ],
    )  # fmt: skip
    def test_rows_that_nobody_wrote(self, tmp_path, statement):
        path = tmp_path / "run.db"
        abreast.map(work, [1, 2], journal=path, key=key, kind="serial")
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()
        error = run_again(path, 3)
        assert isinstance(error, JournalError) or "SET key" in statement


# ---- J7: other versions, other files


def at_version(path, version):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


class TestVersions:
    def test_newer(self, tmp_path):
        path = tmp_path / "run.db"
        abreast.map(abs, [-1], journal=path)
        at_version(path, schema.VERSION + 1)
        before = path.read_bytes()
        with pytest.raises(JournalError, match="newer abreast") as caught:
            abreast.map(abs, [-1], journal=path)
        assert str(path) in str(caught.value) and path.read_bytes() == before

    def test_older_with_no_way(self, tmp_path):
        path = tmp_path / "run.db"
        abreast.map(abs, [-1], journal=path)
        at_version(path, 0)
        with pytest.raises(JournalError, match="knows no way"):
            abreast.map(abs, [-1], journal=path)

    def test_older_is_copied_and_migrated(self, tmp_path, monkeypatch):
        path = tmp_path / "run.db"
        abreast.map(work, range(5), journal=path, key=key)
        before = path.read_bytes()
        monkeypatch.setattr(schema, "VERSION", 3)
        monkeypatch.setattr(
            schema,
            "MIGRATIONS",
            {1: lambda db: db.execute("ALTER TABLE meta ADD COLUMN more"), 2: lambda db: db.execute("UPDATE meta SET more = 1")},
        )
        results = abreast.imap(work, range(6), journal=path, key=key)
        assert list(results) == EXPECTED[:6] and results.summary().resumed == 5
        copy = tmp_path / "run.db.version1"
        assert copy.stat().st_mode & 0o777 == 0o600
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("SELECT count(more) FROM meta").fetchone()[0] >= 4
        connection.close()
        monkeypatch.undo()
        results = abreast.imap(work, range(6), journal=copy, key=key)  # what was there can still be used
        (tmp_path / "run.db.d").rename(tmp_path / "run.db.version1.d") if (tmp_path / "run.db.d").exists() else None
        assert list(results) == EXPECTED[:6] and results.summary().resumed == 5
        assert before[:16] == copy.read_bytes()[:16]

    @pytest.mark.parametrize("how", ["raises", "is killed"])
    def test_a_migration_that_does_not_end(self, tmp_path, how):
        path = tmp_path / "run.db"
        abreast.map(abs, [-1, -2], journal=path)
        script = """
            import abreast, os, signal, sys
            from abreast.journal import schema
            def migrate(db):
                db.execute("DELETE FROM tasks")
                db.execute("ALTER TABLE meta ADD COLUMN more")
                if sys.argv[2] == "raises":
                    raise ZeroDivisionError("amid")
                os.kill(os.getpid(), signal.SIGKILL)
            schema.VERSION, schema.MIGRATIONS = 2, {1: migrate}
            try:
                abreast.map(abs, [-1, -2], journal=sys.argv[1])
            except ZeroDivisionError:
                sys.exit(7)
        """
        with child(script, path, how) as process:
            assert process.wait(PATIENCE) == (7 if how == "raises" else -signal.SIGKILL)
        results = abreast.imap(abs, [-1, -2], journal=path)
        assert list(results) == [1, 2] and results.summary().resumed == 2

    def test_a_copy_that_a_link_would_lead_elsewhere(self, tmp_path, monkeypatch):
        path = tmp_path / "run.db"
        abreast.map(abs, [-1], journal=path)
        (tmp_path / "precious").write_text("precious")
        (tmp_path / "run.db.version1").symlink_to("precious")
        monkeypatch.setattr(schema, "VERSION", 2)
        monkeypatch.setattr(schema, "MIGRATIONS", {1: lambda db: None})
        with contextlib.suppress(JournalError):
            abreast.map(abs, [-1], journal=path)
        assert (tmp_path / "precious").read_text() == "precious"

    def test_killed_while_it_was_made(self, tmp_path):
        """The file is complete, and what undoes it is still there: SQLite makes it empty again."""
        path, other = tmp_path / "run.db", tmp_path / "other.db"
        connection = sqlite3.connect(other, isolation_level=None)
        execute, undo = connection.execute, []

        class Watched:
            executemany = staticmethod(connection.executemany)

            def execute(self, statement):
                if statement == "COMMIT":
                    undo.append((tmp_path / "other.db-journal").read_bytes())
                return execute(statement)

        schema.create(Watched(), {"uuid": "x"})
        connection.close()
        path.write_bytes(other.read_bytes())
        path.chmod(0o600)
        head = bytearray(undo[0])
        (tmp_path / "run.db-journal").write_bytes(head)
        (tmp_path / "run.db-journal").chmod(0o600)
        assert abreast.map(abs, [-1], journal=path) == [1]
        results = abreast.imap(abs, [-1], journal=path)
        assert list(results) == [1] and results.summary().resumed == 1


class TestOtherFiles:
    def refused(self, path, match, error=JournalError):
        with pytest.raises(error, match=match) as caught:
            abreast.map(abs, [-1], journal=path)
        assert str(path) in str(caught.value)

    def test_a_database_of_another_program(self, tmp_path):
        path = tmp_path / "other.db"
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
        connection.close()
        path.chmod(0o600)
        before = path.read_bytes()
        self.refused(path, "a database of another program, and is left as it is")
        assert path.read_bytes() == before and os.listdir(tmp_path) == ["other.db"]

    @pytest.mark.parametrize("text", [b"x", b"some text\n" * 100, b"\0" * 4096, b"SQLite format 3", b"SQLite format 3\0"])
    def test_a_file_of_something_else(self, tmp_path, text):
        path = tmp_path / "notes.txt"
        path.write_bytes(text)
        path.chmod(0o600)
        self.refused(path, "is left as it is; give the journal another path")
        assert path.read_bytes() == text and os.listdir(tmp_path) == ["notes.txt"]

    def test_an_empty_file_is_a_new_journal(self, tmp_path):
        path = tmp_path / "run.db"
        path.touch(0o600)
        assert abreast.map(abs, [-1], journal=path) == [1]

    def test_a_folder(self, tmp_path):
        self.refused(tmp_path, "is a folder")
        assert not list(tmp_path.parent.glob(f"{tmp_path.name}-lock"))

    def test_a_missing_folder(self, tmp_path):
        self.refused(tmp_path / "no" / "run.db", "no folder .* make it first")

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "no").touch()
        self.refused(tmp_path / "no" / "run.db", "is not a folder|Not a directory")

    def test_a_device(self):
        self.refused("/dev/null", "not a regular file")
        assert not os.path.lexists("/dev/null-lock")

    def test_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe", 0o600)
        self.refused(tmp_path / "pipe", "not a regular file")
        assert os.listdir(tmp_path) == ["pipe"]

    def test_a_name_that_is_too_long(self, tmp_path):
        self.refused(tmp_path / ("x" * 300), "File name too long")

    def test_a_relative_path_stays_where_it_was(self, tmp_path, monkeypatch):
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path)
        for result in abreast.imap(abs, [-1, -2], journal="run.db", buffersize=1):
            os.chdir(tmp_path / "sub")
            assert result > 0
        assert (tmp_path / "run.db").exists() and not os.listdir(tmp_path / "sub")


# ---- J8


def test_another_function_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "run.db"
    abreast.map(work, [1], journal=path)

    def other(x):
        raise AssertionError("runs")

    with pytest.raises(
        JournalError, match=r"belongs to .*work, not to .*other; give each function a journal of its own"
    ) as caught:
        abreast.map(other, [1], journal=path)
    assert str(path) in str(caught.value)
    assert abreast.map(work, [1], journal=path) == [EXPECTED[1]]


# ---- J3: disk full, I/O errors, read-only


class Failing:
    """A connection that fails to commit from the nth time on."""

    def __init__(self, real, what, after):
        self.real, self.what, self.after = real, what, after

    def execute(self, statement, *more):
        if statement == "COMMIT":
            self.after -= 1
            if self.after < 0:
                self.real.execute("ROLLBACK")
                raise self.what()
        return self.real.execute(statement, *more)

    def __getattr__(self, name):
        return getattr(self.real, name)


def io_error():
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    return error


def full():
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def fails_to_commit(monkeypatch, what, after):
    connect = store.Store._connect
    monkeypatch.setattr(store.Store, "_connect", lambda self: Failing(connect(self), what, after + 1))  # one is for the tables


def double(x):
    return 2 * x


class TestDisk:
    @every_way
    @pytest.mark.parametrize("kind", ["thread", "serial"])
    @pytest.mark.parametrize("what", [io_error, full])
    def test_a_commit_fails_during_a_run(self, tmp_path, monkeypatch, way, kind, what):
        path = tmp_path / "run.db"
        fails_to_commit(monkeypatch, what, 1)
        calls, got = Calls(double), []
        gate = threading.Semaphore(8)

        def inputs():
            for x in range(2000):
                yield x

        with pytest.raises(JournalError, match="cannot be written: .*(disk is full|I/O error); make room") as caught:
            way(double, inputs(), got, journal=path, kind=kind, chunksize=4)
        assert str(path) in str(caught.value) and type(caught.value.__cause__) is sqlite3.OperationalError
        monkeypatch.undo()
        recorded = {x for (x,) in rows(path, "idx")}
        assert {value // 2 for value in got} <= recorded and len(recorded) < 2000
        results = abreast.imap(double, range(2000), journal=path)
        assert list(results) == list(range(0, 4000, 2)) and results.summary().resumed == len(recorded)

    def test_no_further_task_is_started(self, tmp_path, monkeypatch):
        """Also of a batch that is at work, and if nobody asks for results."""
        path = tmp_path / "run.db"
        fails_to_commit(monkeypatch, full, 0)
        failed, at_work = threading.Event(), threading.Event()
        seen = []

        def wait(x):
            seen.append(x)
            if x == 1:
                at_work.set()
                assert failed.wait(PATIENCE)
            return x

        results = abreast.imap(wait, range(100), journal=path, max_workers=1, chunksize=50)
        stop = results._run._journal_failed

        def told(error):
            stop(error)
            failed.set()

        results._run._journal_failed = told
        with pytest.raises(JournalError, match="full"):
            next(results)
        assert seen == [0, 1]

    @pytest.mark.slow
    def test_in_processes(self, tmp_path, monkeypatch):
        path = tmp_path / "run.db"
        fails_to_commit(monkeypatch, full, 1)
        got = []
        with pytest.raises(JournalError, match="full"):
            for result in abreast.imap(double, range(5000), journal=path, kind="process", max_workers=1):
                got.append(result)
        monkeypatch.undo()
        recorded = {x for (x,) in rows(path, "idx")}
        assert {value // 2 for value in got} <= recorded
        assert abreast.map(double, range(50), journal=path) == list(range(0, 100, 2))

    def test_outcomes_too_raise_it(self, tmp_path, monkeypatch):
        path = tmp_path / "run.db"
        fails_to_commit(monkeypatch, full, 1)
        got = []
        with pytest.raises(JournalError, match="full"):
            for outcome in abreast.outcomes(double, range(2000), journal=path, timeout=60, ordered=False):
                got.append(outcome.index)
        assert set(got) <= set(statuses(path))

    def test_a_tasks_error_that_cannot_be_recorded(self, tmp_path, monkeypatch):
        path = tmp_path / "run.db"
        fails_to_commit(monkeypatch, full, 0)
        with pytest.raises(JournalError, match="full"):
            abreast.map(int, ["x"], journal=path)

    @pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="files of limited size")
    @pytest.mark.parametrize("large", [False, True])
    def test_a_real_limit(self, tmp_path, large):
        """Files may not grow over a limit: writes fail in SQLite, or in the file of a large result."""
        path = tmp_path / "run.db"
        script = """
            import abreast, resource, sys
            size = int(sys.argv[2])
            def work(x):
                return str(x) * size
            got = 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
            try:
                for result in abreast.imap(work, range(10, 500), journal=sys.argv[1], max_workers=2, buffersize=20):  # few in the first commit
                    assert result == work(10 + got)
                    got += 1
            except abreast.JournalError as error:
                assert sys.argv[1] in str(error) and "make room" in str(error), error
                print(got)
        """
        size = 1_000_000 if large else 2000
        with child(script, path, size, stderr=-1) as process:
            out, error = process.communicate(timeout=30)
            assert not error and out.strip().isdigit(), (out, error)
        got = int(out)
        assert (got == 0) == large and not list(tmp_path.glob("*.d/*/*.tmp"))
        assert len(rows(path)) >= got

    @pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="files of limited size")
    def test_no_room_at_the_opening(self, tmp_path):
        path = tmp_path / "run.db"
        script = """
            import abreast, resource, sys
            def work(x):
                raise SystemExit("runs")
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
            try:
                abreast.map(work, range(10), journal=sys.argv[1])
            except abreast.JournalError as error:
                assert sys.argv[1] in str(error), error
                print("told")
        """
        for limit in (0, 4096):
            with child(script, path, limit, stderr=-1) as process:
                out, error = process.communicate(timeout=30)
            assert (out, error) == ("told\n", "")
        assert abreast.map(abs, [-1], journal=path) == [1]

    @pytest.mark.skipif(
        sys.platform != "linux" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small RAM disk"
    )
    def test_a_full_disk(self, tmp_path):
        import subprocess

        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", disk], capture_output=True).returncode:
            pytest.skip("may not mount")
        try:
            path = disk / "run.db"
            got = []
            with pytest.raises(JournalError, match="full|No space") as caught:
                for result in abreast.imap(lambda x: str(x) * 500, range(2000), journal=path, max_workers=2):
                    got.append(result)
            assert "make room" in str(caught.value)
            for _ in range(2):  # also at the opening
                with pytest.raises(JournalError, match="full|No space"):
                    abreast.map(lambda x: str(x) * 500, range(2000), journal=path)
            subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True, capture_output=True)
            results = abreast.imap(lambda x: str(x) * 500, range(2000), journal=path)
            assert list(results) == [str(x) * 500 for x in range(2000)]
            assert results.summary().resumed >= len(got)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True, capture_output=True)
            for name in ("run.db", "new.db"):
                with pytest.raises(JournalError, match="cannot be written; copy it") as caught:
                    abreast.map(abs, [-1], journal=disk / name)
                assert str(disk / name) in str(caught.value)
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_a_folder_that_may_not_be_written(self, open_folder):
        folder = open_folder
        path = folder / "run.db"
        abreast.map(abs, [-1], journal=path)
        script = """
            import abreast, os, sys, tempfile
            with tempfile.TemporaryDirectory() as other:  # has everything imported
                abreast.map(abs, [-2], journal=os.path.join(other, "run.db"))
            os.chmod(sys.argv[1], 0o500)
            try:
                if os.geteuid() == 0:
                    for name in os.listdir(sys.argv[1]):
                        os.chown(os.path.join(sys.argv[1], name), 54321, 54321)
                    os.chown(sys.argv[1], 54321, 54321)
                    os.seteuid(54321)
                for name in ("run.db", "new.db"):
                    path = os.path.join(sys.argv[1], name)
                    try:
                        abreast.map(abs, [-2], journal=path)
                    except abreast.JournalError as error:
                        assert path in str(error) and ("use another path" in str(error) or "yours to write" in str(error) or "copy" in str(error)), error
                        print("told", error)
            finally:
                os.seteuid(os.getuid())
                os.chmod(sys.argv[1], 0o700)
        """
        with child(script, folder, stderr=-1) as process:
            out, error = process.communicate(timeout=30)
        assert not error and out.count("told") == 2, (out, error)

    def test_reading_fails(self, tmp_path, monkeypatch):
        path = tmp_path / "run.db"
        abreast.map(double, range(10), journal=path)
        real = store.Store.look_up

        def look_up(self, identities):
            with store.translated(self.path):
                raise io_error()

        monkeypatch.setattr(store.Store, "look_up", look_up)
        with pytest.raises(JournalError, match="I/O error"):
            abreast.map(double, range(10), journal=path)
        monkeypatch.setattr(store.Store, "look_up", real)
        assert abreast.map(double, range(10), journal=path) == list(range(0, 20, 2))
