"""`abreast journal`, run as a user runs it: journals of real runs, that go on, that were killed, and of people who mean harm."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import types
from datetime import datetime

import abreast as library
import pytest
from abreast.cli.main import status_of
from abreast.journal import codec, schema
from abreast.journal.store import Row, Store

from tests.cli.helpers import ENVIRONMENT, PATIENCE, one_line, shell, started, until

pytestmark = pytest.mark.whole

PROGRAM = """
import sys, threading, abreast

def work(n):
    if n == 99:
        print("started", flush=True)
        sys.stdin.read()
    if n % 10 == 3:
        raise ValueError(f"bad \\x1b[31m{n}\\nand more")
    if n == 7: return {n}
    if n == 8: return "x" * 1_100_000
    if n == 9: return threading.Lock()
    return {"n": n, "text": "\\x7f\\u202e\\xfc"}

if __name__ == "__main__":
    for outcome in abreast.outcomes(work, map(int, sys.argv[2:]), journal=sys.argv[1]):
        pass
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a program, and the journal ``run.db`` of its finished run."""
    place = tmp_path_factory.mktemp("journals")
    place.joinpath("program.py").write_text(PROGRAM)
    subprocess.run(
        [*program(place), "run.db", *map(str, range(20))], cwd=place, env=ENVIRONMENT, check=True, stderr=subprocess.DEVNULL
    )
    return place


def program(place):
    return [sys.executable, str(place / "program.py")]


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A folder with a copy of that journal, which is the current one."""
    shutil.copy(place / "run.db", tmp_path)
    shutil.copytree(place / "run.db.d", tmp_path / "run.db.d")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def abreast(*args, status=0):
    """Run a command to its end, in this process: most of 0.3 s is a Python that starts. Text out."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams, descriptors = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))
        try:
            found = status_of(list(map(str, args)))
        finally:
            sys.stdout.close()
            sys.stderr.close()
            sys.stdout, sys.stderr = streams
            for number, fd in enumerate(descriptors, 1):
                os.dup2(fd, number)
                os.close(fd)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    assert found == status, (found, said)
    return types.SimpleNamespace(stdout=said[0], stderr=said[1])


def exported(*args, **more):
    return [json.loads(line) for line in abreast("journal", "export", *args, **more).stdout.splitlines()]


class TestStatus:
    def test_shows_runs_and_counts_and_leaves_nothing(self, here):
        told = abreast("journal", "run.db").stdout.splitlines()
        assert told[0].startswith("run.db: made 20")
        assert told[2].split() == ["run", "function", "began", "took", "end", "inputs", "recorded"]
        assert told[3].split()[:2] == ["1", "__main__.work"]
        assert told[3].split()[-3:] == ["finished", "20", "20"]
        assert told[5:] == [
            "20 tasks: 18 ok, 2 error",
            "results: 15 as JSON (354 bytes), 1 pickled (18 bytes), 1 in files (1.1 MB), 1 that could not be kept",
            "What failed, and why: abreast journal failed run.db",
        ]
        assert sorted(os.listdir(here)) == ["run.db", "run.db.d"]

    def test_of_a_run_that_goes_on_and_one_that_was_killed(self, place, here):
        inputs = [str(n) for n in (*range(99), *range(100, 110), 99)]
        with started("live.db", *inputs, command=program(place), stdin=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"started\n"
            until(lambda: "109 tasks:" in abreast("journal", "live.db").stdout)
            told = abreast("journal", "live.db").stdout
            assert f"run 1 goes on, in process {process.pid} on " in told
            assert "109 tasks recorded in " in told
            assert " running " in told
            assert len(exported("live.db")) == 109
            assert abreast("journal", "failed", "live.db").stdout.count("\n") == 11
            process.kill()
            process.wait(PATIENCE)
        told = abreast("journal", "live.db").stdout
        assert " killed " in told
        assert "goes on" not in told
        assert "109 tasks: 98 ok, 11 error" in told

    def test_shows_many_runs_in_short(self, here):
        store = Store(library.Journal("many.db"))
        for number in range(30):
            store.begin_run("m:f", b"", "")
            if number % 2:
                store.end_run("stopped", number)
        store.close()
        told = abreast("journal", "many.db").stdout
        assert "10 earlier runs: 5 killed, 5 stopped" in told
        assert told.count("m.f") == 20
        assert "0 tasks\n" in told

    def test_a_file_may_have_the_name_of_a_word(self, here):
        os.rename("run.db", "failed")
        assert "20 tasks" in abreast("journal", "./failed").stdout
        one_line(abreast("journal", "failed", status=2).stderr)


class TestFailed:
    def test_a_line_each_when_piped(self, here):
        lines = [line.split("\t") for line in abreast("journal", "failed", "run.db").stdout.splitlines()]
        assert [(line[0], *line[2:]) for line in lines] == [
            ("3", "error", "1", r"ValueError: bad \x1b[31m3"),
            ("13", "error", "1", r"ValueError: bad \x1b[31m13"),
        ]
        assert all(len(line[1]) == 12 for line in lines)

    def test_in_full(self, here):
        told = abreast("journal", "failed", "--full", "run.db").stdout
        assert told.count("Traceback (most recent call last):") == 2
        assert "    ValueError: bad \\x1b[31m3\n    and more\n" in told
        assert "\x1b" not in told

    def test_every_way_to_fail_and_keys_of_the_user(self, here):
        store = Store(library.Journal("ways.db"))
        store.begin_run("m:f", b"", "")
        group = "  + Exception Group Traceback (most recent call last):\n  | ExceptionGroup: two (2 sub-exceptions)\n  +-+---- 1 ----\n"
        store.write(
            [
                Row(
                    "text\x1b\n",
                    0,
                    0,
                    schema.TIMEOUT,
                    2,
                    1.0,
                    1.0,
                    error_type="abreast.TaskTimeout",
                    error_text="abreast.TaskTimeout: late",
                ),
                Row("b", 0, 1, schema.CRASHED, 3, 1.0, 1.0, error_type="x.Y", error_text="no such line"),
                Row(b"k" * 16, 0, 2, schema.STARTED, 0, 1e9, 0.0),
                Row(b"bkey", 0, 3, schema.ERROR, 1, 1.0, 1.0, error_type="ExceptionGroup", error_text=group),
                Row("c" * 5000, 0, 4, schema.ERROR, 1, 1.0, 1.0, error_type="__main__.Mine", error_text="Mine: " + "x" * 5000),
                Row("ok", 0, 5, schema.OK, 1, 1.0, 1.0, codec.JSON, b"1"),
            ]
        )
        store.close()
        rows = [line.split("\t") for line in abreast("journal", "failed", "ways.db").stdout.splitlines()]
        assert rows[0] == ["0", r"text\x1b\n", "timeout", "2", "abreast.TaskTimeout: late"]
        assert rows[1] == ["1", "b", "crashed", "3", "x.Y: no such line"]
        assert rows[2][:4] == ["2", "6b6b6b6b6b6b", "started", "0"]
        assert rows[2][4].startswith("started 2001-09-0")
        assert rows[3] == ["3", "6b6579", "error", "1", "ExceptionGroup: two (2 sub-exceptions)"]
        assert [len(part) for part in rows[4][1:]] == [1001, 5, 1, 1001]
        assert len(rows) == 5
        assert exported("ways.db")[2]["key"] == "6b" * 16

    def test_nothing_when_nothing_failed(self, here):
        library.map(str, [1], journal="good.db")
        done = abreast("journal", "failed", "good.db")
        assert (done.stdout, done.stderr) == ("", "")


class TestExport:
    def test_json_lines(self, here):
        lines = exported("run.db")
        assert [line["index"] for line in lines] == list(range(20))
        one, error, pickled, large, not_kept = (lines[n] for n in (1, 3, 7, 8, 9))
        assert list(one) == ["index", "key", "occurrence", "status", "attempts", "started", "duration", "format", "value"]
        assert one["value"] == {"n": 1, "text": "\x7f\u202eü"}
        assert abs(time.time() - datetime.fromisoformat(one["started"]).timestamp()) < 3600
        assert (error["status"], error["error_type"]) == ("error", "ValueError")
        assert error["error"].endswith("ValueError: bad \x1b[31m3\nand more\n")
        assert (pickled["format"], pickled["size"]) == ("pickle", 18)
        assert large["value"] == "x" * 1_100_000
        assert (not_kept["status"], not_kept["format"]) == ("ok", "not kept")
        assert not {"value", "size"} & not_kept.keys()

    def test_nothing_that_a_terminal_obeys(self, here):
        for kind in ("jsonl", "csv"):
            text = abreast("journal", "export", "--format", kind, "run.db").stdout
            assert text.replace("\n", "").isprintable()
            assert r"\u202eü" in text

    def test_csv(self, here):
        done = abreast("journal", "export", "--format", "csv", "run.db", "-o", "out.csv")
        assert done.stdout == done.stderr == ""
        text = here.joinpath("out.csv").read_text()
        assert text.count("\n") == 21
        csv.field_size_limit(2_000_000)
        rows = list(csv.DictReader(io.StringIO(text)))
        assert list(rows[0]) == "index key occurrence status attempts started duration format value size error_type error".split()
        assert json.loads(rows[1]["value"]) == {"n": 1, "text": "\x7f\u202eü"}
        assert rows[7]["size"] == "18"
        assert rows[3]["error"].endswith(r"ValueError: bad \x1b[31m3\nand more\n")

    def test_in_the_order_of_indexes(self, here):
        store = Store(library.Journal("order.db"))
        store.begin_run("m:f", b"", "")
        for index in (5, 3, 3, 9, 1):
            store.write([Row(f"{index}", store.write([]) or 0, index, schema.OK, 1, 1.0, 1.0, codec.JSON, b"%d" % index)])
        store.close()
        assert [line["value"] for line in exported("order.db")] == [1, 3, 5, 9]

    def test_output_is_never_overwritten_nor_the_journal(self, here):
        here.joinpath("out").write_text("mine")
        assert "--force replaces it" in one_line(abreast("journal", "export", "run.db", "-o", "out", status=2).stderr)
        assert here.joinpath("out").read_text() == "mine"
        abreast("journal", "export", "run.db", "-o", "out", "--force")
        assert here.joinpath("out").read_text().count("\n") == 20
        before = here.joinpath("run.db").read_bytes()
        assert "is the journal itself" in one_line(
            abreast("journal", "export", "run.db", "-o", "./run.db", "--force", status=2).stderr
        )
        assert here.joinpath("run.db").read_bytes() == before

    def test_a_reader_who_leaves(self, here):
        told = shell("abreast journal export run.db | head -1 | cut -c 1-10; echo ${PIPESTATUS[0]}").stdout
        assert told == '{"index": \n141\n'

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
    def test_a_full_disk_is_told(self, here):
        told = shell(
            "for words in '' failed export; do abreast journal $words run.db > /dev/full; echo $?; done 2>&1"
        ).stdout.splitlines()
        assert told[1::2] == ["2", "2", "2"]
        assert all("No space left" in line for line in told[::2]), told


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


class TestHostile:
    def test_nothing_is_unpickled(self, here):
        store = Store(library.Journal("bomb.db"))
        store.begin_run("m:f", b"", "")
        bomb = pickle.dumps(Bomb())
        store.write(
            [
                Row("a", 0, 0, schema.OK, 1, 1.0, 1.0, codec.PICKLE, bomb),
                Row("b", 0, 1, schema.OK, 1, 1.0, 1.0, codec.PICKLE, bomb + b"." * (2 << 20)),
            ]
        )
        store.close()
        abreast("journal", "bomb.db")
        abreast("journal", "failed", "bomb.db")
        assert [line["size"] for line in exported("bomb.db")] == [len(bomb), len(bomb) + (2 << 20)]
        abreast("journal", "salvage", "bomb.db", "new.db")
        assert not os.path.exists("exploded")
        pickle.loads(bomb)
        assert os.path.exists("exploded")

    def test_texts_numbers_and_results_may_be_anything(self, here):
        store = Store(library.Journal("odd.db"))
        escape = "\x1b]0;owned\x07"
        store.begin_run(f"m:{escape}{'f' * 10_000}", b"", "")
        results = [b"1\n{}", b"NaN", b"[" * 100_000, b"\xff", b'{"a":\n"\xed\xa0\x80"}']
        for n, payload in enumerate(results):
            store.write([Row(f"{escape}{n}", 0, n, schema.OK, 1, 1e300, -1.0, codec.JSON, payload)])
        store.write(
            [
                Row(
                    f"{escape}{'k' * 10_000}",
                    0,
                    9,
                    schema.ERROR,
                    1,
                    -1e300,
                    1e300,
                    error_type=escape,
                    error_text=f"{escape}: {'x' * 10_000}",
                )
            ]
        )
        store.close()
        with sqlite3.connect("odd.db") as connection:
            connection.execute(
                "UPDATE runs SET host = ?, status = ?, started = 1e300, pid = 'x', n_seen = x'00'", (escape, escape)
            )
            connection.execute("UPDATE meta SET v = ? WHERE k = 'abreast'", (escape * 1000,))
            connection.execute(
                "UPDATE tasks SET attempts = 'many', t_start = 'never', run_id = NULL, idx = NULL, err_text = CAST(x'ff1b' AS TEXT) WHERE idx = 9"
            )
        connection.close()
        told = abreast("journal", "odd.db").stdout + abreast("journal", "failed", "odd.db").stdout
        assert told.replace("\n", "").replace("\t", "").isprintable()
        assert max(map(len, told.splitlines())) < 3000
        for place in range(4):
            with sqlite3.connect("odd.db") as connection:
                (number,) = connection.execute("SELECT min(id) FROM tasks").fetchone()
                assert "is not JSON" in one_line(abreast("journal", "export", "odd.db", status=2).stderr), place
                connection.execute("DELETE FROM tasks WHERE id = ?", (number,))
            connection.close()
        assert exported("odd.db")[1]["value"] == {"a": "\ud800"}

    @pytest.mark.parametrize(
        "statement",
        [
            "DROP TABLE runs; CREATE VIEW runs AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS run_id FROM n",
            "CREATE TABLE more (x CHECK (x IN (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n)))",
            "ALTER TABLE tasks ADD COLUMN x AS (zeroblob(1000000000))",
            "DROP INDEX ik",
        ],
        ids=["view", "check", "generated", "no index"],
    )
    def test_other_tables_are_refused(self, here, statement):
        with sqlite3.connect("run.db") as connection:
            if "CHECK" in statement:  # no subqueries there, says SQLite; and others may say otherwise
                statement = "CREATE TABLE more (x)"
            connection.executescript(statement)
        connection.close()
        assert "its tables are not those that abreast makes" in one_line(abreast("journal", "run.db", status=2).stderr)

    def test_a_pipe_in_the_place_of_something_is_not_waited_for(self, here):
        os.mkfifo("pipe.db")
        assert "not a regular file" in one_line(abreast("journal", "pipe.db", status=2).stderr)
        os.mkfifo("run.db-lock")
        assert "20 tasks" in abreast("journal", "run.db").stdout


class TestRefused:
    @pytest.mark.parametrize("words", [[], ["failed"], ["export"]], ids=["status", "failed", "export"])
    def test_what_is_no_journal(self, here, words):
        with sqlite3.connect("other.db") as connection:
            connection.execute("CREATE TABLE t (x)")
        connection.close()
        here.joinpath("text.db").write_text("text")
        here.joinpath("empty.db").touch()
        with sqlite3.connect("run.db") as connection:
            connection.execute("PRAGMA user_version = 7")
        connection.close()
        why = {
            "other.db": "a database of another program",
            "text.db": "not a journal",
            "empty.db": "is empty",
            "none.db": "there is no journal",
        }
        why |= {"run.db": "newer abreast", ".": "is a folder"}
        if words:
            why = {"other.db": why["other.db"]}
        for name, text in why.items():
            told = one_line(abreast("journal", *words, name, status=2).stderr)
            assert text in told
            assert repr(name) in told

    @pytest.mark.parametrize("words", [[], ["failed"], ["export"]], ids=["status", "failed", "export"])
    def test_a_damaged_one(self, here, words):
        data = here.joinpath("run.db").read_bytes()
        here.joinpath("run.db").write_bytes(data[: len(data) // 2])
        told = one_line(abreast("journal", *words, "run.db", status=2).stderr)
        assert "'run.db' is damaged" in told
        assert "abreast journal salvage run.db NEW" in told

    def test_a_value_that_was_changed_ends_the_export(self, here):
        data = here.joinpath("run.db").read_bytes()
        here.joinpath("run.db").write_bytes(data.replace(b'{"n":12', b'{"n":13'))
        done = abreast("journal", "export", "run.db", status=2)
        assert "the record of task 12 is not what was written" in one_line(done.stderr)
        assert done.stderr.endswith("; 12 lines written\n")
        assert done.stdout.count("\n") == 12

    def test_a_file_that_is_gone(self, here):
        shutil.rmtree("run.db.d")
        assert "1 whose files are gone from run.db.d" in abreast("journal", "run.db").stdout
        assert "is gone" in one_line(abreast("journal", "export", "run.db", status=2).stderr)

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be somebody else")
    def test_one_of_somebody_else_is_read_and_nothing_is_left_beside_it(self, here):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o1777)
            os.chdir(folder)
            library.map(str, range(5), journal="run.db")
            before = sorted(os.listdir())
            abreast("journal", "run.db")  # all is imported

            def as_nobody():
                pid = os.fork()
                if pid == 0:
                    code = 70
                    try:
                        os.setgroups([])
                        os.setgid(65534)
                        os.setuid(65534)
                        code = status_of(["journal", "run.db"])
                    finally:
                        os._exit(code)
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

            assert as_nobody() == 2
            os.chmod("run.db", 0o644)
            assert as_nobody() == 0
            assert sorted(os.listdir()) == before
            shutil.copy("run.db", "run.db-wal")  # a log without its index: SQLite would make one, which would be nobody's
            os.chmod("run.db-wal", 0o644)
            assert as_nobody() == 2
            assert sorted(os.listdir()) == sorted([*before, "run.db-wal"])
            os.chdir(here)

    def test_wrong_words(self, here):
        assert "did you mean 'export'" in one_line(abreast("journal", "exprt", "run.db", status=2).stderr)
        assert "extra argument" in one_line(abreast("journal", "run.db", "more", status=2).stderr)
        assert "Missing argument 'NEW'" in one_line(abreast("journal", "salvage", "run.db", status=2).stderr)


class TestSalvage:
    def test_all_is_copied(self, here):
        told = abreast("journal", "salvage", "run.db", "new.db").stdout
        assert told == "new.db: 20 tasks, 1 run, 1 file of __main__.work copied\nnothing was dropped\n"
        assert exported("new.db") == exported("run.db")

    def test_what_is_dropped_is_told(self, here):
        data = here.joinpath("run.db").read_bytes()
        here.joinpath("run.db").write_bytes(data.replace(b'{"n":12', b'{"n":13'))
        shutil.rmtree("run.db.d")
        told = abreast("journal", "salvage", "run.db", "new.db", status=1).stdout.splitlines()
        assert told[0] == "new.db: 18 tasks, 1 run of __main__.work copied"
        assert sorted(told[1:3]) == [
            "dropped: 1 task not what was written (checksum)",
            "dropped: 1 task whose files are gone or damaged",
        ]
        assert told[3] == "a run with journal='new.db' runs again what is not there"

    def test_what_cannot_be_copied(self, here):
        here.joinpath("text").write_text("text")
        assert "nothing of 'text' could be copied" in one_line(abreast("journal", "salvage", "text", "new.db", status=2).stderr)
        assert "'run.db' exists" in one_line(abreast("journal", "salvage", "run.db", "run.db", status=2).stderr)
        assert "no folder" in one_line(abreast("journal", "salvage", "run.db", "none/new.db", status=2).stderr)
        assert sorted(os.listdir(here)) == ["run.db", "run.db.d", "text"]


@pytest.mark.slow
def test_killed_at_random_and_looked_at_while_it_runs(place, here):
    """Whenever it is looked at, what is there is whole, and never less than before."""
    inputs = [str(n) for n in range(20_000) if n != 99]
    most = 0
    for number in range(10):
        with started("live.db", *inputs, command=program(place)) as process:
            until(lambda: os.path.exists("live.db"))
            for _ in range(3):
                done = subprocess.run(
                    [sys.executable, "-m", "abreast", "journal", "export", "live.db"],
                    capture_output=True,
                    env=ENVIRONMENT,
                    check=False,
                )
                reasons = b"is empty", b"another program", b"do that again"  # the last: the run began while it was read
                assert done.returncode == 0 or any(reason in done.stderr for reason in reasons), done.stderr
                count = done.stdout.count(b"\n")
                assert count >= most or done.returncode
                most = max(most, count)
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
        told = abreast("journal", "live.db").stdout
        assert told.count("killed") + told.count("finished") == number + 1
