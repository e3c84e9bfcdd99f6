"""`abreast map --journal`, run as a user runs it: ended in every way, and run again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import textwrap
import time
from collections import Counter

import abreast as library
import click
import pytest

from abreast.cli.resuming import journal_of
from abreast.journal import schema
from abreast.journal.identity import key_of
from tests.cli.helpers import (
    PATIENCE,
    abreast,
    end,
    here,  # noqa: F401
    numbers,
    one_line,
    results,
    shell,
    started,
    until,
    wait_for_line,
)

pytestmark = [pytest.mark.usefixtures("here"), pytest.mark.whole]

FUNCTIONS = """
import os, time

def note(text):
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{os.environ.get('RUN', '')} {text}\\n".encode())
    os.close(fd)

def works(text):
    time.sleep(0.004)
    note(text)
    return text * 3

def hangs_at_3(text):
    note(text)
    if text == "3" and not os.path.exists("go"):
        os.write(2, b"started\\n")
        time.sleep(60)
    return text

def fails_at_3(text):
    note(text)
    if text == "3" and not os.path.exists("go"):
        raise LookupError("not yet")
    return text

def returns_a_set(text):
    note(text)
    return {text}

def long(text): return text * 1000
"""


@pytest.fixture(autouse=True)
def functions(here):  # noqa: F811
    here.joinpath("f.py").write_text(FUNCTIONS)


def effects(run=""):
    """How often each line was run, by this run of the command."""
    with contextlib.suppress(FileNotFoundError):
        with open("effects") as file:
            pairs = [line.rstrip("\n").split(" ") for line in file]
        return Counter(text for which, text in pairs if which == run)
    return Counter()


def successes(journal="run.db"):
    """How many there are in a journal that is being written."""
    with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM tasks WHERE status = ?", (schema.OK,)).fetchone()[0]


def recorded(journal="run.db"):
    """The keys that have a recorded success; of a copy, so that the journal is left as the kill has left it."""
    os.makedirs("copy", exist_ok=True)
    for name in (journal, journal + "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join("copy", name))
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(name, os.path.join("copy", name))
    connection = sqlite3.connect(os.path.join("copy", journal))
    try:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tasks'").fetchone():
            return Counter()
        rows = connection.execute("SELECT key FROM tasks WHERE status = ?", (schema.OK,)).fetchall()
        return Counter(key for (key,) in rows)
    finally:
        connection.close()


class TestAgain:
    def test_the_same_again_runs_what_failed_and_what_is_new_and_writes_all(self, here):  # noqa: F811
        done = abreast("map", "--journal", "run.db", "-o", "out", "f:fails_at_3", given=numbers(5), status=1)
        assert done.stderr.splitlines()[-1].endswith(
            "1 of 5 tasks failed; they have no line in the output, --outcomes gives each input one; the same command again tries them again"
        )
        assert results(here.joinpath("out").read_bytes()) == ["0", "1", "2", "4"]
        os.chmod("out", 0o640)
        here.joinpath("go").touch()
        done = abreast("map", "--journal", "run.db", "-o", "out", "f:fails_at_3", given="5\n4\n3\n2\n1\n0\n0\n")
        assert one_line(done.stderr) == "abreast map: 4 of 7 results came from run.db\n"
        assert done.stdout == ""
        assert results(here.joinpath("out").read_bytes()) == ["5", "4", "3", "2", "1", "0", "0"]
        assert os.stat("out").st_mode & 0o777 == 0o640
        assert effects() == Counter({"3": 2, "0": 2, "1": 1, "2": 1, "4": 1, "5": 1})
        assert not os.path.exists("out.part")
        done = abreast("map", "--journal", "run.db", "--kind", "process", "f:fails_at_3", given="3\n7\n")  # to standard output
        assert results(done.stdout) == ["3", "7"]

    def test_a_line_is_known_by_its_value(self):
        first = abreast("map", "--journal", "run.db", "--json", "m:same", given='{"a": 1, "b": [2.0]}\n1\n"1"\n')
        again = abreast("map", "--journal", "run.db", "--json", "m:same", given='"1"\n1.0\n { "b": [2.0],"a":1}\n')
        assert first.stderr == ""
        assert one_line(again.stderr) == "abreast map: 2 of 3 results came from run.db\n"
        assert again.stdout == '"1"\n1.0\n{"a": 1, "b": [2.0]}\n'

    def test_python_goes_on_from_what_the_command_has_recorded_and_the_other_way_round(self):
        abreast("map", "--journal", "run.db", "textwrap:dedent", given=" a\n ü\n")
        outcomes = list(library.outcomes(textwrap.dedent, [" ü", " b", " a"], journal="run.db"))
        assert [(outcome.value, outcome.resumed) for outcome in outcomes] == [("ü", True), ("b", False), ("a", True)]
        done = abreast("map", "--journal", "run.db", "textwrap:dedent", given=" a\n b\n ü\n")
        assert done.stdout == '"a"\n"b"\n"ü"\n'
        assert one_line(done.stderr) == "abreast map: 3 of 3 results came from run.db\n"  # and no word of a changed function

    def test_results_that_python_has_pickled_are_written_as_json(self):
        assert library.map(divmod, [7], [4], journal="pair.db") == [(1, 3)]
        assert library.map(str.split, ["a b"], journal="run.db") == [["a", "b"]]
        assert abreast("map", "--journal", "run.db", "builtins:str.split", given="a b\n").stdout == '["a", "b"]\n'

    def test_a_dry_run_tells_what_would_run_and_makes_no_journal(self, here):  # noqa: F811
        assert abreast("map", "--journal", "run.db", "--dry-run", "m:upper", given="a\nb\n").stdout == "upper('a')\nupper('b')\n"
        assert not list(here.glob("run.db*"))
        library.map(str.upper, ["a"], journal="run.db")
        done = abreast("map", "--journal", "run.db", "--dry-run", "builtins:str.upper", given="a\nb\na\n")
        assert done.stdout == "str.upper('b')\nstr.upper('a')\n"
        assert recorded() == Counter([key_of("a")])


class TestWhatEndsIt:
    @pytest.mark.parametrize(
        ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")], ids=["SIGTERM", "Ctrl-C"]
    )
    def test_after_a_signal_it_goes_on(self, here, number, name):  # noqa: F811
        here.joinpath("in").write_text(numbers(8))
        here.joinpath("out").write_text("old\n")
        command = ["map", "--journal", "run.db", "-j", "2", "--grace", "0.1", "--force", "-o", "out", "f:hangs_at_3", "in"]
        with started(*command) as process:
            wait_for_line(process)
            until(lambda: here.joinpath("out.part").read_text().count("\n") == 3)
            until(lambda: successes() == 6)  # else one that was at work is killed, on a busy machine, and runs again
            said, status = end(process, number)
        assert status == 128 + number
        part = os.path.realpath("out.part")
        wanted = f"ended by {name}: 3 lines written in {part}; out is as it was; the same command again goes on from there"
        assert wanted in said
        assert here.joinpath("out").read_text() == "old\n"
        assert results(here.joinpath("out.part").read_bytes()) == ["0", "1", "2"]
        here.joinpath("go").touch()
        done = abreast(*command)
        assert "6 of 8 results came from run.db" in one_line(done.stderr)
        assert results(here.joinpath("out").read_bytes()) == [str(n) for n in range(8)]
        assert not os.path.exists("out.part")
        assert effects() == Counter({**dict.fromkeys("0124567", 1), "3": 2})

    def test_after_limits_it_goes_on(self, here):  # noqa: F811
        command = ["map", "--journal", "run.db", "-j", "1", "-o", "out"]
        done = abreast(*command, "--max-failures", "0", "f:fails_at_3", given=numbers(8), status=1)
        assert "ended after 1 failed task" in done.stderr
        assert "out is not there yet; the same command again goes on from there" in done.stderr.splitlines()[-1]
        here.joinpath("go").touch()
        abreast(*command, "f:fails_at_3", given=numbers(8))
        assert results(here.joinpath("out").read_bytes()) == [str(n) for n in range(8)]
        assert effects()["0"] == 1

    def test_at_most_once_tells_what_was_at_work_when_it_was_killed(self, here):  # noqa: F811
        command = ["map", "--journal", "run.db", "-j", "1", "--at-most-once", "f:hangs_at_3"]
        with started(*command, stdin=subprocess.PIPE) as process:
            process.stdin.write(numbers(5).encode())
            process.stdin.close()
            wait_for_line(process)
            process.kill()
        here.joinpath("go").touch()
        done = abreast(*command, given=numbers(5), status=1)
        told = next(line for line in done.stderr.splitlines() if "line 4" in line)
        assert told.startswith("abreast map: line 4 ('3'): Interrupted: the task was started ")
        assert told.endswith("what came of it is not known; with --at-most-once it is not started again")
        assert "3" not in results(done.stdout)
        assert max(effects().values()) == 1
        assert results(abreast(*command[:-2], "f:hangs_at_3", given=numbers(5)).stdout) == list("01234")

    def test_at_most_once_a_result_that_is_not_json_is_of_work_that_was_done(self, here):  # noqa: F811
        command = ["map", "--journal", "run.db", "--at-most-once", "f:returns_a_set"]
        assert "the result is not JSON" in abreast(*command, given=numbers(2), status=1).stderr
        assert "Interrupted" in abreast(*command, given=numbers(2), status=1).stderr
        assert effects() == {"0": 1, "1": 1}


class TestFiles:
    def test_an_output_that_is_there_is_refused_if_the_journal_is_new(self, here):  # noqa: F811
        here.joinpath("out").write_text("mine\n")
        done = abreast("map", "--journal", "run.db", "-o", "out", "m:same", given="a\n", status=2)
        assert "'out' exists, and is of no earlier run: the journal 'run.db' is new; --force replaces it" in one_line(done.stderr)
        assert not list(here.glob("run.db*"))
        abreast("map", "--journal", "run.db", "-o", "out", "--force", "m:same", given="a\n")
        assert here.joinpath("out").read_text() == '"a"\n'

    def test_what_stands_in_the_place_of_the_part_is_refused_unless_it_is_ours(self, here):  # noqa: F811
        here.joinpath("other").write_text("mine\n")
        command = ["map", "--journal", "run.db", "-o", "out", "m:same"]
        for make, why in [
            (lambda: os.symlink("other", "out.part"), "it is a link"),
            (lambda: os.link("other", "out.part"), "is not a file of yours alone"),
            (lambda: os.mkfifo("out.part"), "No such device"),
        ]:
            make()
            assert why in one_line(abreast(*command, given="a\n", status=2).stderr)
            os.unlink("out.part")
        assert here.joinpath("other").read_text() == "mine\n"

    def test_two_runs_do_not_write_one_output_nor_one_journal(self, here):  # noqa: F811
        with started("map", "--journal", "run.db", "-o", "out", "f:hangs_at_3", stdin=subprocess.PIPE) as process:
            process.stdin.write(b"1\n3\n")
            process.stdin.close()
            wait_for_line(process)
            done = abreast("map", "--journal", "other.db", "-o", "out", "f:hangs_at_3", given="1\n", status=2)
            assert f"another run writes {os.path.realpath('out.part')!r}" in one_line(done.stderr)
            done = abreast("map", "--journal", "run.db", "f:hangs_at_3", given="1\n", status=2)
            assert f"the journal {os.path.realpath('run.db')!r} is in use by process {process.pid}" in one_line(done.stderr)
            end(process)

    @pytest.mark.parametrize(
        ("journal", "settings", "output", "why"),
        [
            (None, {"trust": True}, None, "--trust is for a run with --journal"),
            (None, {"on_change": "keep"}, None, "--on-change is for a run with --journal"),
            ("", {}, None, "--journal must be a file's path, not ''"),
            ("out", {}, "out", "--output out and --journal out are the same file"),
            ("out.part", {}, "out", "--output out.part and --journal out.part are the same file"),
            ("m.py", {}, None, "FILE m.py and --journal m.py are the same file"),
            ("run.db", {}, "m.py", "FILE and --output are the same file"),
        ],
        ids=["trust", "on-change", "empty", "output", "part", "input", "input as output"],
    )
    def test_wrong_words_are_refused(self, journal, settings, output, why):
        with pytest.raises(click.UsageError) as raised:
            journal_of(journal, settings, file="m.py", output=output, force=False)
        assert why in raised.value.message


class TestErrorsOfTheJournal:
    """In one line, with the file and the cure in the command's words."""

    def refused(self, *words, status=2, function="f:works"):
        return one_line(abreast("map", "--journal", "run.db", *words, function, given="a\n", status=status).stderr)

    def test_of_another_function_and_of_a_changed_one(self, here):  # noqa: F811
        abreast("map", "--journal", "run.db", "f:works", given="a\n")
        path = os.path.realpath("run.db")
        assert f"the journal {path!r} belongs to f.works, not to f.long; give each function" in self.refused(function="f:long")
        here.joinpath("f.py").write_text(FUNCTIONS.replace("text * 3", "text * 4"))
        said = abreast("map", "--journal", "run.db", "f:works", given="a\n").stderr.splitlines()
        assert said[0].startswith(f"abreast map: warning: f.works has changed since results were recorded in {path!r}")
        assert said[0].endswith("; --on-change rerun would run all of it again")
        assert said[1:] == ["abreast map: 1 of 1 result came from run.db"]

    def test_not_a_journal_not_ours_alone_and_damaged(self, here):  # noqa: F811
        here.joinpath("run.db").write_text("something else")
        os.chmod("run.db", 0o600)
        assert "is not a journal, and is left as it is; give the journal another path" in self.refused()
        os.unlink("run.db")
        library.map(str.upper, map(str, range(300)), journal="run.db")
        os.chmod("run.db", 0o660)
        said = self.refused()
        assert f"others may write the journal {os.path.realpath('run.db')!r}; `chmod go-w" in said
        assert said.endswith("give --trust\n")
        os.chmod("run.db", 0o600)
        os.truncate("run.db", 12_000)
        assert f"`abreast journal salvage {os.path.realpath('run.db')} NEW`" in self.refused()

    def test_a_full_disk_ends_the_run_and_with_room_it_goes_on(self, here):  # noqa: F811
        here.joinpath("in").write_text(numbers(600))
        done = shell("ulimit -f 150; abreast map --journal run.db f:long in", status=2)
        assert f"the journal {os.path.realpath('run.db')!r} cannot be written" in one_line(done.stderr)
        delivered = results(done.stdout)
        assert sum(recorded().values()) >= len(delivered)
        done = abreast("map", "--journal", "run.db", "f:long", "in")
        assert results(done.stdout) == [str(n) * 1000 for n in range(600)]
        resumed = re.search(r"([\d,]+) of 600 results came from", done.stderr)  # none, if there was no room for the first of them
        assert (int(resumed[1].replace(",", "")) if resumed else 0) >= len(delivered)


class Killed:
    """The command over some hundred lines, killed again and again until it finishes."""

    def __init__(self, seed, *words, group=False, changes=False):
        self.random = random.Random(seed)
        self.words = words
        self.group = group
        self.changes = changes
        self.lines = [str(number % 290) for number in range(300)]  # ten come twice
        self.old = self.part = None
        self.struck = 0

    def play(self, kills):
        for run in range(kills):
            before = recorded()
            self._change()
            self._kill(str(run))
            self._check(str(run), before)
        before = recorded()
        abreast("map", "--journal", "run.db", "-o", "out", *self.words, "f:works", "in", env={"RUN": "last"})
        self._check("last", before)
        with open("in") as given, open("wanted", "w") as wanted:
            wanted.write(abreast("map", "f:works", stdin=given, input=None, env={"RUN": "whole"}).stdout)
        with open("out", "rb") as file, open("wanted", "rb") as wanted:
            assert file.read() == wanted.read()
        assert not os.path.exists("out.part")
        done = Counter()
        for run in (*map(str, range(kills)), "last"):
            done += effects(run)
        assert set(done) == set(self.lines)
        assert all(done[line] >= count for line, count in Counter(self.lines).items())

    def _change(self):
        if self.changes:
            self.random.shuffle(self.lines)
            self.lines += [str(300 + len(self.lines)), str(self.random.randrange(290))]
        with open("in", "w") as file:
            file.write("".join(line + "\n" for line in self.lines))

    def _kill(self, run):
        # In half of the cases while it starts, or goes through what is recorded; else when it has run some lines.
        moment = self.random.uniform(0.05, 0.4) if self.random.random() < 0.3 else PATIENCE
        wanted = self.random.randrange(25)
        size = os.path.getsize("effects") if os.path.exists("effects") else 0
        words = ["--journal", "run.db", "-j", "4", "-o", "out", *self.words, "f:works", "in"]
        with started("map", *words, env={"RUN": run}, start_new_session=True, stderr=subprocess.DEVNULL) as process:
            begin = time.monotonic()
            while process.poll() is None and time.monotonic() - begin < moment:
                if os.path.exists("effects") and os.path.getsize("effects") > size + wanted * 5:
                    break
                time.sleep(0.001)
            self.struck += process.poll() is None
            if self.group and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()

    def _check(self, run, before):
        """Nothing that was recorded ran again; the output is the old one or a complete new one, the part has whole lines in order."""
        given = Counter(self.lines)
        for line, count in effects(run).items():
            assert count <= given[line] - min(given[line], before[key_of(line)]), (run, line)
        wanted = "".join(json.dumps(line * 3) + "\n" for line in self.lines)
        if os.path.exists("out.part"):
            with open("out.part") as file:
                part = file.read()
            assert wanted.startswith(part) or part == self.part  # which this run has not come to
            assert part == "" or part.endswith("\n")
            self.part = part
        if os.path.exists("out"):
            with open("out") as file:
                text = file.read()
            assert text in (self.old, wanted)
            self.old = text


class TestKilled:
    def test_on_threads(self):
        killed = Killed(1, changes=True)
        killed.play(10)
        assert killed.struck >= 5

    def test_on_processes(self):
        killed = Killed(2, "--kind", "process", group=True)
        killed.play(3)
        assert killed.struck >= 1

    @pytest.mark.slow
    @pytest.mark.parametrize("changes", [False, True], ids=["same", "changing"])
    @pytest.mark.parametrize("kind", ["thread", "process", "group"])
    def test_fifty_times(self, kind, changes):
        words = ["--kind", "thread" if kind == "thread" else "process"]
        killed = Killed(kind, *words, group=kind == "group", changes=changes)
        killed.play(50)
        assert killed.struck >= 5
