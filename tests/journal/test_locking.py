"""One run at a time on one journal: in this process, in others, and with forked children about."""

from __future__ import annotations

import gc
import json
import os
import sys
import re
import signal
import socket
import sqlite3
import threading
import time

import abreast
import pytest
from abreast import JournalBusy, JournalError, ThreadPoolExecutor
from abreast.journal import locking

from tests.helpers import in_threads
from tests.journal.helpers import PATIENCE, Calls, child, rows

pytestmark = [pytest.mark.whole, pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")]


def double(x):
    return 2 * x


OWNER = """
    import abreast, os, sys
    def double(x):
        return 2 * x
    results = abreast.imap(double, range(1000), journal=sys.argv[1], buffersize=4)
    print(next(results), flush=True)
    {more}
    sys.stdin.readline()
"""


def is_whole(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


class TestBusy:
    def test_two_runs_of_one_process(self, tmp_path):
        path = tmp_path / "run.db"
        begun = time.time()
        with abreast.imap(double, range(9), journal=path, buffersize=1) as first:
            assert next(first) == 0
            second = abreast.imap(double, range(9), journal=path)
            with pytest.raises(
                JournalBusy, match=re.escape(str(path)) + r".*which is this one, since .*close\(\) its iterator"
            ) as caught:
                next(second)
            assert (caught.value.pid, caught.value.host) == (os.getpid(), socket.gethostname())
            assert begun - 1 <= caught.value.since <= time.time()
            with pytest.raises(JournalBusy):
                abreast.map(double, range(9), journal=path)
            assert list(first) == [2, 4, 6, 8, 10, 12, 14, 16]
        assert abreast.map(double, range(9), journal=path) == list(range(0, 18, 2))
        assert is_whole(path)

    def test_by_another_path_too(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        with abreast.imap(double, range(9), journal=tmp_path / "real" / "run.db") as first:
            next(first)
            with pytest.raises(JournalBusy):
                abreast.map(double, range(9), journal=tmp_path / "link" / "run.db")

    def test_many_threads_at_once_on_a_new_journal(self, tmp_path, busy_switching):
        for round_ in range(8):
            path = str(tmp_path / f"run{round_}.db")
            got: list[locking.Lock] = []
            refused = []

            def lock():
                try:
                    got.append(locking.Lock(path, trust=False))
                except JournalBusy:
                    refused.append(1)

            in_threads(lock, lock, lock)
            assert len(got) == 1 and len(refused) == 2
            got[0].release()

    def test_another_process(self, tmp_path):
        path = tmp_path / "run.db"
        begun = time.time()
        with child(OWNER.format(more=""), path) as owner:
            try:
                assert owner.stdout.readline() == "0\n"
                at = time.monotonic()
                with pytest.raises(JournalBusy, match=f"in use by process {owner.pid} on .* since") as caught:
                    abreast.map(double, [1], journal=path)
                assert time.monotonic() - at < 2 and begun - 1 <= caught.value.since <= time.time()
                owner.kill()
                owner.wait()
                assert abreast.map(double, range(4), journal=path) == [0, 2, 4, 6]
            finally:
                owner.kill()

    def test_after_kill_free_at_once_although_a_forked_child_lives(self, tmp_path):
        path = tmp_path / "run.db"
        more = """
    pid = os.fork()
    if not pid:
        sys.stdin.readline()
        os._exit(0)
    print(pid, flush=True)
        """
        with child(OWNER.format(more=more), path) as owner:
            try:
                owner.stdout.readline()
                pid = int(owner.stdout.readline())
                owner.kill()
                owner.wait()
                results = abreast.imap(double, range(20), journal=path)
                assert list(results) == list(range(0, 40, 2))
                assert results.summary().resumed >= 1
                os.kill(pid, 0)  # it lives
            finally:
                owner.kill()
                os.kill(pid, signal.SIGKILL)

    def test_one_that_is_still_being_opened_is_told_and_not_the_run_before(self, tmp_path):
        path = tmp_path / "run.db"
        abreast.map(double, [1], journal=path)
        opening = """
            import sys
            from abreast.journal import locking
            lock = locking.Lock(sys.argv[1], trust=False)
            print("has it", flush=True)
            sys.stdin.read()
        """
        with child(opening, path) as other:
            try:
                other.stdout.readline()
                with pytest.raises(JournalBusy) as caught:
                    abreast.map(double, [1], journal=path)
                assert caught.value.pid == other.pid
            finally:
                other.kill()
        assert abreast.map(double, [1], journal=path) == [2]

    def test_a_lock_file_that_is_not_whole(self, tmp_path):
        path = tmp_path / "run.db"
        abreast.map(double, [1], journal=path)
        lock = tmp_path / "run.db-lock"
        whole = json.loads(lock.read_text())
        assert whole["pid"] == os.getpid()
        for text in ["", "{", "[]", "\x00" * 9, '"text"', lock.read_text() + "rest of a longer one", '{"pid": "x", "since": {}}']:
            lock.write_text(text)
            assert abreast.map(double, [1], journal=path) == [2]
        assert json.loads(lock.read_text())["uuid"] == whole["uuid"]

    def test_busy_when_the_lock_file_tells_nothing(self, tmp_path):
        path = tmp_path / "run.db"
        with child(OWNER.format(more=""), path) as owner:
            try:
                owner.stdout.readline()
                (tmp_path / "run.db-lock").write_text("{")
                with pytest.raises(JournalBusy, match="in use by"):
                    abreast.map(double, [1], journal=path)
            finally:
                owner.kill()

    def test_it_is_written_over_before_it_is_cut(self, tmp_path, monkeypatch):
        path = str(tmp_path / "run.db")
        lock = locking.Lock(path, trust=False)
        lock.tell("u" * 36)
        monkeypatch.setattr(os, "pwrite", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="space"):
            lock.tell("v" * 36)
        monkeypatch.undo()
        lock.release()
        lock = locking.Lock(path, trust=False)
        assert lock.uuid == "u" * 36
        lock.release()

    def test_errors_of_the_function_system_of_inputs_and_of_the_consumer_free_it(self, tmp_path):
        path = tmp_path / "run.db"

        def bad():
            yield 1
            raise OSError("no more")

        with pytest.raises(OSError, match="no more"):
            abreast.map(double, bad(), journal=path)
        with pytest.raises(TypeError):
            abreast.map(double, [None], journal=path)
        for _ in abreast.imap(double, range(9), journal=path):
            break
        with pytest.raises(RuntimeError, match="shut"):
            executor = ThreadPoolExecutor(1)
            executor.shutdown()
            list(executor.imap(double, range(99), journal=path))
        assert abreast.map(double, [1], journal=path) == [2]


class TestFork:
    def test_a_child_that_exits_normally_changes_nothing(self, tmp_path):
        path = tmp_path / "run.db"
        script = """
            import abreast, os, sys, multiprocessing
            def double(x):
                return 2 * x
            def nothing():
                pass
            results = abreast.imap(double, range(2000), journal=sys.argv[1], buffersize=10)
            print(next(results))
            for _ in range(2):
                pid = os.fork()
                if not pid:
                    sys.exit(0)
                assert os.waitpid(pid, 0)[1] == 0
            process = multiprocessing.get_context("fork").Process(target=nothing)
            process.start()
            process.join()
            assert process.exitcode == 0
            pid = os.fork()
            if not pid:
                results.close()
                del results
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            print(sum(results))
        """
        with child(script, path, stderr=-1) as process:
            out, error = process.communicate(timeout=30)
        assert (out, error, process.returncode) == ("0\n3998000\n", "", 0)
        assert len(rows(path)) == 2000 and is_whole(path)
        calls = Calls(double)
        assert abreast.map(double, range(2000), journal=path) == list(range(0, 4000, 2)) and not calls.seen

    @pytest.mark.parametrize("end", ["closes it", "is killed"])
    def test_a_child_goes_on_with_the_journal_after_its_parent(self, tmp_path, end):
        """SQLite keeps what it knows of a file by its inode: in the child that was what the parent had when it forked."""
        path = tmp_path / "run.db"
        script = """
            import abreast, os, signal, sys
            def double(x):
                return 2 * x
            path, end = sys.argv[1:]
            results = abreast.imap(double, range(500), journal=path, buffersize=4)
            next(results)
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                os.close(writing)
                os.read(reading, 1)
                for count in (1500, 2000):
                    results = abreast.imap(double, range(count), journal=path)
                    assert sum(results) == sum(range(0, 2 * count, 2))
                    print(results.summary().resumed, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            sum(results)
            results = abreast.imap(double, range(1000), journal=path, buffersize=4)
            for _ in range(900):
                next(results)
            if end == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            sum(results)
            print("parent", flush=True)
            os._exit(0)
        """
        with child(script, path, end) as process:
            out, _ = process.communicate(timeout=30)
        told = out.split()
        if end == "closes it":
            assert told == ["parent", "1000", "1500"]
        else:
            assert 900 <= int(told[0]) <= 1000 and told[1] == "1500"
        results = abreast.imap(double, range(2000), journal=path)
        assert sum(results) == sum(range(0, 4000, 2)) and results.summary().resumed == 2000
        assert is_whole(path) and sorted(os.listdir(tmp_path)) == ["run.db", "run.db-lock"]

    def test_while_its_parent_has_it_a_child_finds_it_busy(self, tmp_path):
        path = tmp_path / "run.db"
        results = abreast.imap(double, range(100), journal=path, buffersize=4, kind="serial")
        next(results)
        pid = os.fork()
        if not pid:
            try:
                abreast.map(double, range(9), journal=path)
            except JournalBusy as busy:
                os._exit(0 if busy.pid == os.getppid() else 2)
            except BaseException:
                os._exit(3)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert list(results) == list(range(2, 200, 2))

    @pytest.mark.skipif(
        not getattr(sys, "_is_gil_enabled", lambda: True)(),
        reason="free-threaded 3.13 may fork while another thread holds a lock of an object",
    )
    @pytest.mark.parametrize("count", [100, 6])
    def test_a_child_that_goes_on_with_its_parents_run_is_told(self, tmp_path, count):
        path = tmp_path / "run.db"
        results = abreast.imap(
            double, range(count), journal=path, buffersize=4, kind="serial"
        )  # all kinds: engine/test_forked.py
        assert next(results) == 0
        pid = os.fork()
        if not pid:
            try:
                list(results)
            except JournalError as error:
                os._exit(0 if str(path) in str(error) and "forked" in str(error) else 2)
            except BaseException:
                os._exit(3)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert list(results) == list(range(2, 2 * count, 2)) and is_whole(path)

    def test_forked_while_other_threads_open_and_close(self, tmp_path):
        stop = threading.Event()
        errors = []

        def open_and_close(name):
            try:
                while not stop.is_set():
                    assert abreast.map(double, range(5), journal=tmp_path / name, kind="serial") == [0, 2, 4, 6, 8]
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=open_and_close, args=(f"{n}.db",)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                pid = os.fork()
                if not pid:
                    gc.collect()
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert not errors and is_whole(tmp_path / "0.db") and is_whole(tmp_path / "1.db")


class Collects:
    """A result that has the garbage collector run where it is recorded."""

    def __reduce__(self):
        gc.collect()
        return Collects, ()


class TestDropped:
    def test_a_run_in_a_cycle_that_its_own_writer_collects(self, tmp_path, no_gc):
        path = tmp_path / "run.db"
        gate = threading.Event()

        def make(x):
            if x:
                assert gate.wait(PATIENCE)
            return Collects() if x else x

        results = abreast.imap(make, range(3), journal=path, max_workers=1)
        assert next(results) == 0
        cycle = [results]
        cycle.append(cycle)
        del results, cycle
        gate.set()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                calls = abreast.imap(make, range(3), journal=path)
                assert next(calls) == 0
                calls.close()
                break
            except JournalBusy:
                assert time.monotonic() < deadline, "its run has never closed it"
                time.sleep(0.01)

    def test_a_run_that_is_closed_by_who_holds_its_lock(self, tmp_path):
        """As a finalizer may be: the writer, which needs that lock, is not waited for, and closes the file."""
        path = tmp_path / "run.db"
        results = abreast.imap(double, range(100), journal=path, buffersize=4)
        assert next(results) == 0
        run = results._run
        with run._lock:
            results.close()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                assert abreast.map(double, range(100), journal=path)[99] == 198
                break
            except JournalBusy:
                assert time.monotonic() < deadline
                time.sleep(0.01)
