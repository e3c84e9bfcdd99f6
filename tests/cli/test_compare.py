"""`abreast compare`, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal

import pytest
from abreast.cli.main import status_of

from tests.cli.helpers import abreast, end, here, numbers, one_line, started, wait_for_line  # noqa: F401

pytestmark = [pytest.mark.usefixtures("here"), pytest.mark.whole]
QUICK = ("--rounds", "1", "--kinds", "thread", "-j", "1,2")


def test_the_whole_report_and_a_page(here):
    done = abreast("compare", "--rounds", "2", "-j", "2", "-o", "a.html", "m:nap", given=numbers(4))
    lines = done.stdout.splitlines()
    assert lines[0].startswith("nap on 4 inputs, 2 rounds, interleaved; Python 3.")
    assert [line.split()[:2] for line in lines[2:6]] == [["kind", "workers"], ["serial", "1"], ["thread", "2"], ["process", "2"]]
    assert "→ " in done.stdout
    assert done.stderr == ""
    page = here.joinpath("a.html").read_text()
    assert "<svg" in page
    assert not list(here.glob("*.part"))


def test_other_results_are_loud_and_the_status_says_so(here):
    here.joinpath("p.py").write_text("import os\ndef pid(text): return os.getpid()\n")
    done = abreast("compare", "--rounds", "1", "--kinds", "process", "-j", "1", "p:pid", given=numbers(2), status=1)
    assert "DIFFERS" in done.stdout
    assert "OTHER RESULTS than one after another" in " ".join(done.stdout.split())


def test_figures_as_json_and_what_is_printed_does_not_mix(here):
    done = abreast("compare", *QUICK, "-o", "a.json", "m:printing", given=numbers(2))
    assert "printed" not in done.stdout
    assert "written" in done.stderr
    assert "echoed" in done.stderr
    figures = json.loads(here.joinpath("a.json").read_text())
    assert [(row["kind"], row["max_workers"]) for row in figures["rows"]] == [("serial", 1), ("thread", 1), ("thread", 2)]


def run(capfd, *words):
    """Run the command in this process: quick. Return its exit status, and what it has written."""
    status = status_of(["compare", *QUICK, *words])
    out, err = capfd.readouterr()
    return status, out, err


@pytest.mark.parametrize(
    ("options", "given", "inputs", "told"),
    [
        ((), numbers(101), 100, "abreast compare: took the first 100 lines; --limit takes more\n"),
        (("--limit", "3"), numbers(3), 3, ""),
        (("--limit", "3", "-0"), "a\0b\nc\0", 2, ""),
        (("--limit", "1", "--json"), "[1]\n2\n", 1, "abreast compare: took the first 1 line; --limit takes more\n"),
    ],
    ids=["limit", "just", "null", "json"],
)
def test_lines(here, capfd, options, given, inputs, told):
    here.joinpath("lines").write_text(given)
    status, out, err = run(capfd, *options, "builtins:repr", "lines")
    assert (status, err) == (0, told)
    assert out.startswith(f"repr on {inputs} input")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("os.path:getsize", "lines"), 1, "abreast compare: one by one, FileNotFoundError: "),
        (("os:nothing", "lines"), 2, "os has no 'nothing'"),
        (
            ("--kinds", "threads", "os:stat"),
            2,
            "'threads' is not a kind: serial, thread, process, or several with commas between",
        ),
        (("-j", "1,0", "os:stat"), 2, "'1,0' is not a number of workers from 1, or several with commas between, as 1,2,4,8"),
        (("--json", "builtins:repr", "bad.json"), 2, "bad.json, line 1, is not JSON"),
        (("builtins:repr", "empty"), 2, "there is no input: not one line"),
        (
            ("-o", "a.txt", "builtins:repr", "lines"),
            2,
            "'a.txt': its name must end in .html, for a page, or .json, for the figures",
        ),
        (("-o", "there.html", "builtins:repr", "lines"), 2, "'there.html' exists; --force replaces it"),
        (("-o", "no/a.html", "builtins:repr", "lines"), 2, "cannot write 'no/a.html': no file can be made in "),
        (("-o", "folder.html", "builtins:repr", "lines"), 2, "cannot write 'folder.html': it is no regular file"),
    ],
    ids=range(10),
)
def test_what_is_wrong_is_one_line(here, capfd, words, status, told):
    for name, text in (("bad.json", "[\n"), ("empty", ""), ("there.html", "old"), ("lines", numbers(2))):
        here.joinpath(name).write_text(text)
    here.joinpath("folder.html").mkdir()
    got, out, err = run(capfd, *words)
    assert (got, out) == (status, "")
    assert told in one_line(err)
    assert here.joinpath("there.html").read_text() == "old"


def test_force_replaces(here, capfd):
    for name in ("a.html", "lines"):
        here.joinpath(name).write_text("old\n")
    assert run(capfd, "-o", "a.html", "--force", "builtins:repr", "lines")[0] == 0
    assert here.joinpath("a.html").read_text().startswith("<!DOCTYPE html>")
    assert run(capfd, "--help")[1].startswith("Usage: ")


def test_a_function_that_changes_the_directory(here):
    here.joinpath("c.py").write_text("import os\ndef away(text): os.chdir('/'); return text\n")
    abreast("compare", *QUICK, "-o", "a.html", "c:away", given=numbers(2))
    assert here.joinpath("a.html").exists()


@pytest.mark.skipif(not hasattr(os, "kill"), reason="signals")
def test_ctrl_c_ends_it_and_leaves_no_page(here):
    with started("compare", "--kinds", "thread", "-o", "a.html", "m:hang", "m.py") as process:
        wait_for_line(process)
        said, status = end(process, signal.SIGINT)
    assert (said, status) == ("abreast compare: ended by Ctrl-C: nothing was measured to its end\n", 130)
    assert not here.joinpath("a.html").exists()
