"""abreast report: every form of its output, from files of every kind.

The report and the page are made elsewhere, and tested there. Here stand-ins take their place, in this process; tests of the whole command, in a process of its
own, are skipped as long as `abreast.report.text` or `abreast.report.timeline` is not there.
"""

from __future__ import annotations

import gc
import json
import os
import pty
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from abreast.cli import main
from abreast.report.chrome import read_trace, write_trace

from rich.text import Text

from tests.cli.helpers import abreast, here, one_line, shell  # noqa: F401  # here: a fixture
from tests.report.random_recordings import squares

pytestmark = pytest.mark.whole

whole = pytest.mark.skipif(
    find_spec("abreast.report.text") is None or find_spec("abreast.report.timeline") is None,
    reason="needs the report and the page",
)


@pytest.fixture
def file(here):  # noqa: F811
    """run.json, in the current directory."""
    write_trace(squares(), "run.json")
    return "run.json"


class Report:
    """A stand-in for the report: says what it was made of."""

    def __init__(self, recording, *, full=False):
        self.recording = recording
        self.full = full
        self.main_advice = "More workers."

    def __str__(self):
        return f"{len(self.recording.attempts)} attempts, {'full' if self.full else 'short'}"

    def text(self, *, width, ascii_only):
        return f"{self}, {width} columns"

    def to_dict(self):
        return {"attempts": len(self.recording.attempts), "full": self.full}

    def __rich__(self):
        return Text(str(self), style="bold")


@pytest.fixture
def stand_ins(monkeypatch):
    def write_timeline(recording, path, *, text="", advice=""):
        with open(path, "w") as page:
            page.write(f"<p>{len(recording.attempts)}|{text}|{advice}")

    for name, members in {"text": {"Report": Report}, "timeline": {"write_timeline": write_timeline}}.items():
        module = types.ModuleType(f"abreast.report.{name}")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def run(stand_ins, capsys):
    """Run the command here; return its exit status, and what it said."""

    def run(*args):
        status = main.status_of(["report", *map(str, args)])
        said = capsys.readouterr()
        assert gc.isenabled()
        return status, said.out, said.err

    return run


def test_prints_the_report(run, file):
    assert run(file) == (0, "9 attempts, short\n", "")
    assert run(file, "--full") == (0, "9 attempts, full\n", "")
    assert run(file, "--format", "text") == (0, "9 attempts, short\n", "")


def test_prints_its_figures(run, file):
    status, out, err = run(file, "--format", "json", "--full")
    assert (status, json.loads(out), err) == (0, {"attempts": 9, "full": True}, "")


def test_in_colour_on_a_terminal(run, file, monkeypatch):
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, out, err = run(file)
    assert (status, err) == (0, "")
    assert out == "\x1b[1m9 attempts, short\x1b[0m\n"


def test_writes_a_page(run, file):
    assert run(file, "-o", "run.html") == (0, "", "")
    assert Path("run.html").read_text() == "<p>9|9 attempts, short, 120 columns|More workers."
    assert run(file, "-o", "run.html", "--full", "--force") == (0, "", "")
    assert Path("run.html").read_text() == "<p>9|9 attempts, full, 120 columns|More workers."


def test_writes_a_trace_and_a_table(run, file):
    for name in ("copy.json", "copy.json.gz"):
        assert run(file, "-o", name) == (0, "", "")
        assert read_trace(name) == squares()
    assert Path("copy.json.gz").read_bytes().startswith(b"\x1f\x8b")
    assert run("copy.json.gz", "-o", "run.csv") == (0, "", "")
    assert len(Path("run.csv").read_text().splitlines()) == 10


def test_nothing_is_overwritten(run, file):
    Path("run.html").write_text("precious")
    status, out, err = run(file, "-o", "run.html")
    assert (status, out) == (2, "")
    assert one_line(err) == "abreast report: 'run.html' exists; --force replaces it\n"
    assert Path("run.html").read_text() == "precious"
    os.symlink("nowhere", "link.csv")
    assert "exists" in run(file, "-o", "link.csv")[2]
    assert run(file, "-o", file)[2] == "abreast report: 'run.json' is the file to be read\n"
    assert run(file, "-o", file, "--force") == (0, "", "")
    assert read_trace(file) == squares()


def test_what_is_asked_is_looked_at_before_the_file(run):
    for args, words in {
        ("none", "-o", "run.txt"): "'run.txt' must end in one of .json, .json.gz, .html, .csv",
        ("none", "-o", "run.html", "--format", "json"): "--format is for what is printed",
        ("none", "-o", "run.csv", "--full"): "--full is for a report",
        ("none", "--force"): "--force is for a file that -o names",
        ("none", "--format", "xml"): "'xml' is not one of 'text', 'json'",
        (): "Missing argument 'FILE'",
    }.items():
        status, out, err = run(*args)
        assert (status, out) == (2, "")
        assert words in one_line(err), err


def test_what_cannot_be_read_is_said_in_a_line(run, file):
    Path("foreign.json").write_text('[{"ph":"X","ts":1,"dur":1,"pid":1,"tid":1,"name":"x"}]')
    for name, words in {
        "none.json": "'none.json' does not exist",
        ".": "'.' is a directory",
        "foreign.json": "'foreign.json' is a trace of another program, with 1 events; ui.perfetto.dev shows it",
    }.items():
        status, out, err = run(name)
        assert (status, out) == (2, "")
        assert one_line(err).startswith(f"abreast report: {words}")


def test_what_cannot_be_written_is_said_in_a_line(run, file):
    status, out, err = run(file, "-o", "none/run.csv")
    assert (status, out, err) == (2, "", "abreast report: cannot write 'none/run.csv': No such file or directory\n")
    os.mkdir("run.csv")
    assert run(file, "-o", "run.csv", "--force")[2] == "abreast report: cannot write 'run.csv': is a directory\n"


@pytest.mark.skipif(sys.platform != "linux", reason="a device that is full")
def test_a_full_disk(run, file):
    os.symlink("/dev/full", "full.csv")
    assert run(file, "-o", "full.csv") == (2, "", "abreast report: cannot write 'full.csv': No space left on device\n")
    assert os.readlink("full.csv") == "/dev/full"


def test_what_is_left_of_a_file_that_was_cut_off(run, file):
    data = Path(file).read_text()
    Path("cut.json").write_text(data[: data.index('"spans"')])
    status, out, err = run("cut.json")
    assert (status, out) == (0, "9 attempts, short\n")
    assert (
        one_line(err)
        == "abreast report: 'cut.json' was cut off: 11 attempts and waits at its end are missing; sums are those of all\n"
    )


def test_standard_output_is_closed(run, file, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(click.ClickException, match="standard output is closed; give an output with -o"):
        main.run(["report", file])
    assert main.run(["report", file, "-o", "run.csv"]) == 0


def test_a_process_of_its_own(file):
    """What needs neither the report nor the page, with imports as they are for users; from a pipe, and into one."""
    abreast("report", file, "-o", "run.csv")
    assert len(Path("run.csv").read_text().splitlines()) == 10
    assert (
        shell(
            f"abreast report {file} -o b.json.gz; gzip -dc b.json.gz | abreast report /dev/stdin -o c.csv; cmp run.csv c.csv"
        ).stderr
        == ""
    )


@whole
def test_the_whole_command(file):
    done = abreast("report", file)
    assert "square" in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(abreast("report", file, "--format", "json").stdout)["works"]
    abreast("report", file, "-o", "run.html")
    assert Path("run.html").read_text().startswith("<!")


@whole
def test_from_the_file_all_is_as_from_memory(file):
    from abreast.report.text import Report
    from abreast.report.timeline import write_timeline

    pages = []
    for recording in (squares(), read_trace(file)):
        report = Report(recording, full=True)
        write_timeline(recording, "page.html", text=report.text(width=120), advice=next(iter(report.advice), ""))
        pages.append((report.text(width=120), report.to_dict(), Path("page.html").read_bytes()))
    assert pages[0] == pages[1]


@whole
def test_nobody_reads_the_report(file):
    """The pipe is closed before anything is written."""
    shell(f"abreast report {file} --full | true; test ${{PIPESTATUS[0]}} -eq 0 -o ${{PIPESTATUS[0]}} -eq 141")


@whole
def test_a_terminal_shows_colours(file):
    master, slave = pty.openpty()
    try:
        abreast("report", file, stdout=slave, env={"TERM": "xterm-256color", "COLUMNS": "100"})
        assert "\x1b[" in os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(slave)
