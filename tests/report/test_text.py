"""The report as it is printed: the two samples of its page, widths, 20 lines, encodings, names that do something to a terminal."""

from __future__ import annotations

import io
import re
import json
import sys

import pytest
from abreast.core.recording import Recording
from abreast.core.states import CRASHED, FAILED, UNFINISHED
from abreast.report.layout import can_show, columns
from abreast.report.text import Report
from abreast.report.units import about, count, duration, percents, precise
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.builders import (
    Book,
    computing,
    dawdler,
    failing,
    host,
    large,
    many_workers,
    mixed,
    ns,
    processes,
    retried,
    sleeping,
    together,
)
from tests.report.test_summary import RECORDINGS

pytestmark = pytest.mark.whole

SLEEPING = """\
square: 9 tasks on 3 threads in 1.50 s    one after another: ≈ 4.50 s    3.00x faster, 100 % of 3 workers

  time in tasks   4.50 s =  computing 0.00 s (  0 %)  +  waiting 4.50 s (100 %)  +  held up by the GIL ≈ 0.00 s (  0 %)
  queued        0.00 … 1.00 s, mean 0.50 s        errors 0        retries 0

  worker     thread id tasks  busy  compute    wait     GIL   0 s                                       1.50 s
  worker_0       21170     3 100 %   0.00 s  1.50 s  0.00 s   ▏1░░░░░░░░░░░░░░▏4░░░░░░░░░░░░░░▏7░░░░░░░░░░░░░░
  worker_1       21171     3 100 %   0.00 s  1.50 s  0.00 s   ▏2░░░░░░░░░░░░░░▏5░░░░░░░░░░░░░░▏8░░░░░░░░░░░░░░
  worker_2       21172     3 100 %   0.00 s  1.50 s  0.00 s   ▏3░░░░░░░░░░░░░░▏6░░░░░░░░░░░░░░▏9░░░░░░░░░░░░░░
  █ computing   ░ waiting (I/O, sleep)   ▒ held up by the GIL   · idle

  slowest   square(1)  0.500 s on worker_0
  → Almost all waiting (100 %): threads are right here, and more would help: ≈ 0.5 s with 9 workers."""

COMPUTING = """\
crunch: 3 tasks on 3 threads in 0.90 s    one after another: ≈ 0.95 s    1.05x faster, 35 % of 3 workers

  time in tasks   2.67 s =  computing 0.90 s ( 34 %)  +  waiting 0.05 s (  2 %)  +  held up by the GIL ≈ 1.72 s ( 64 %)
  queued        0.00 … 0.00 s, mean 0.00 s        errors 0        retries 0

  worker     thread id tasks  busy  compute    wait     GIL   0 s                                       0.90 s
  worker_0       21198     1  99 %   0.30 s  0.02 s  0.57 s   ▏1▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
  worker_1       21199     1  99 %   0.30 s  0.02 s  0.57 s   ▏2▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
  worker_2       21200     1  98 %   0.30 s  0.01 s  0.57 s   ▏3▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒·
  █ computing   ░ waiting (I/O, sleep)   ▒ held up by the GIL   · idle

  slowest   crunch(1)  0.893 s on worker_0
  → The GIL let one thread compute at a time (≈ 64 %). Try kind="process" (up to 2x on 2 cores) or a free-threaded
    Python."""

SHAPES = [sleeping, computing, mixed, processes, failing, retried, many_workers, dawdler]


def told(book, **more):
    return Report(book.recording(**more)).text(width=120, ascii_only=False)


def test_tasks_that_sleep():
    assert told(sleeping()) == SLEEPING


def test_tasks_that_compute():
    assert told(computing()) == COMPUTING


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_fits_the_width_and_20_lines(shape, width):
    lines = Report(shape().recording()).text(width=width, ascii_only=False).splitlines()
    assert len(lines) <= 20
    assert max(map(columns, lines)) <= width
    assert any(set("░█▒") & set(line[-24:]) for line in lines), "no line of a worker"


@settings(max_examples=80, deadline=None)
@given(recording=RECORDINGS, width=st.sampled_from([60, 80, 111, 120]), ascii_only=st.booleans())
def test_any_recording_can_be_told(recording, width, ascii_only):
    report = Report(recording)
    text = report.text(width=width, ascii_only=ascii_only)
    lines = text.split("\n")
    assert 1 <= len(lines) <= 20
    assert max(map(columns, lines)) <= width
    assert text.isascii() or not ascii_only
    assert all(line.isprintable() for line in lines)
    full = report.text(width=width, ascii_only=ascii_only, full=True).split("\n")
    assert max(map(columns, full)) <= width
    assert all(line.isprintable() for line in full)
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("workers", [12, 13, 64])
def test_above_12_workers_the_busiest_and_the_idlest(workers):
    text = told(many_workers(workers))
    assert len(text.splitlines()) <= 20
    shown = [line.split()[0] for line in text.splitlines() if line.strip().startswith("worker_")]
    if workers == 64:
        assert shown == [f"worker_{n}" for n in (63, 62, 61, 60, 59, 4, 3, 2, 1, 0)]
        assert "… 54 more, 9 % … 92 % busy" in text
        assert told(many_workers(64)) != (full := Report(many_workers(64).recording(), full=True).text(width=120))
        assert sum(line.strip().startswith("worker_") for line in full.splitlines()) == 64
    elif workers == 13:
        assert len(shown) <= 10


def test_workers_stand_in_the_order_of_their_names():
    recording = sleeping(tasks=12, workers=12).recording()
    recording.rows = [row._replace(name=f"worker_{(row.serial + 5) % 12}") for row in recording.rows]
    lines = Report(recording).text(width=120).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  worker_")] == [f"worker_{n}" for n in range(12)]


def test_errors_are_counted_by_type_with_the_first():
    lines = told(failing()).splitlines()
    assert "  ValueError × 3, first: task 3, fetch(3): bad input 3" in lines
    assert lines[-1] == "  → 4 of 20 tasks failed, 3 of them with ValueError; the first is task 3, fetch(3)."
    assert "errors 4    retries 0    time-outs 1" in lines[3]
    assert any("░░✗▏" in line for line in lines)


def test_a_straggler():
    text = told(dawdler())
    assert "last 1.20 s: one worker busy, 7 idle: task 99, parse(99)" in text
    assert "slowest   parse(99)  1.200 s on worker_0\n" in text


def test_what_there_was_of_lock_and_cpu_has_a_column():
    text = told(mixed())
    assert "lock  no CPU     GIL" in text
    assert "+  waiting for a lock 0.40 s ( 10 %)" in text


def test_no_gil_no_column():
    text = told(sleeping(), on=host(has_gil=False), totals={"gil": None})
    assert "GIL" not in text
    assert "GIL" not in told(processes())


def test_a_gil_that_was_not_measured_is_said():
    text = told(sleeping(), totals={"gil": None})
    assert "one after another: at most 4.50 s    at most 3.00x faster" in text
    assert "waiting (or for the GIL, which was not measured) 4.50 s" in text


def test_unknown_cpu_times():
    book = Book().task(0, 0, 1, cpu=None, gil=None).task(1, 0, 1, cpu=None, gil=None)
    text = told(book, on=host(has_gil=False))
    assert "computing or waiting (CPU time not known) 2.00 s (100 %)" in text
    assert "▏0▓▓▓" in text
    assert "▓ at work (CPU time not known)" in text


def test_nothing():
    assert (
        Report(Recording(host(), 0, 0)).text(width=120)
        == "Nothing was recorded: no run, no executor and no group did anything meanwhile."
    )


@pytest.mark.parametrize(
    ("book", "first"),
    [
        (Book(workers=1).task(0, 0, 0.5), "square: 1 task on 1 thread in 0.50 s"),
        (Book().task(0, 0, 0), "square: 1 task on 3 threads in 0.0 µs"),
        (sleeping(kind="serial", workers=1), "square: 9 tasks one after another in 4.50 s"),
        (
            sleeping(kind="ClientExecutor"),
            "square: 9 tasks on 3 threads of ClientExecutor in 1.50 s    one after another: ≈ 4.50 s",
        ),
        (sleeping(seconds=0.00005), "square: 9 tasks on 3 threads in 150 µs    one after another: ≈ 450 µs"),
        (sleeping(seconds=3000), "square: 9 tasks on 3 threads in 2.50 h    one after another: ≈ 7.50 h"),
    ],
    ids=["one", "no time", "serial", "foreign", "short", "long"],
)
def test_first_line(book, first):
    text = told(book)
    assert text.startswith(first)
    assert "nan" not in text


def test_a_run_of_which_all_was_in_the_journal():
    text = told(Book(), totals={"resumed": 120})
    assert (
        text
        == "square: 120 results from the journal, and nothing had to run\n\n  errors 0        retries 0        from the journal 120"
    )
    assert "from the journal 5" in told(sleeping(), totals={"resumed": 5})


def test_what_is_missing_is_said_first():
    text = told(sleeping().task(0, 1.5, 2, outcome=UNFINISHED), complete=False)
    assert text.startswith("The recording is not complete")
    assert "note: started, and its end is not known: task 9, square(9)" in text


def test_attempts_that_were_not_kept_are_said():
    text = told(sleeping(), totals={"attempts": 1000, "tasks": 1000, "wall": ns(500), "end": ns(170)}, dropped=991)
    assert "note: totals are exact; workers, slowest and errors are of the 9 attempts that were kept of 1,000" in text
    assert "·" not in "".join(line[60:] for line in text.splitlines() if "worker_" in line), "not kept is not idle"


def test_failures_of_which_nothing_was_kept_are_counted():
    text = told(failing(), totals={"attempts": 1000, "tasks": 1000, "failed": 40})
    assert "  36 more failed of which the attempts were not kept" in text.splitlines()


def test_the_costs_of_recording_are_said_where_they_matter():
    assert "note" not in told(sleeping(), cost=ns(0.001))
    assert "note: recording took ≈ 0.30 s of it (20 %)" in told(sleeping(), cost=ns(0.3))
    assert "CPU time was measured per batch, of 64 tasks at most" in told(Book().task(0, 0, 1, shares=64).task(0, 1, 2))


def test_overhead_is_said_where_it_matters():
    assert "overhead" not in told(processes())
    assert "overhead  0.31 s for starting workers and pickling (24 % of the time)" in told(processes(boot=0.3))


def test_several_works_have_a_block_each_and_then_a_line():
    books = [sleeping(name=f"run_{n}", serial=n, first_row=3 * n, seconds=0.1 * (n + 1)) for n in range(9)]
    text = Report(together(books)).text(width=120)
    lines = text.splitlines()
    assert len(lines) <= 20
    assert [line.split(":")[0] for line in lines if line.startswith("run_")] == ["run_6", "run_7", "run_8"]
    assert "+ run_0: 9 tasks on 3 threads in 0.30 s, 3.00x" in lines
    assert "3 more works with 27 tasks, 0 failed" in lines[-1]
    full = Report(together(books)).text(width=120, full=True).splitlines()
    assert [line.split(":")[0] for line in full if line.startswith("run_")] == [f"run_{n}" for n in range(9)]


def test_two_works_show_their_workers():
    text = Report(together([sleeping(), computing(serial=1, first_row=3)])).text(width=120)
    assert len(text.splitlines()) <= 20
    assert "▏1░" in text
    assert "▏1▒" in text


EVIL = "\x1b[2J\x1b]0;owned\x07\r\n\u202egnp.exe [red]x[/foo] <script>alert(1)</script> 漢字 \ud800"


def evil():
    book = Book(EVIL, workers=2)
    book.task(0, 0, 1, call=EVIL).task(1, 0, 2, call=EVIL, outcome=FAILED, error=f"Value\x1bError: {EVIL}").waited(
        0, 0.1, 0.9, EVIL, EVIL, EVIL
    )
    recording = book.recording()
    recording.rows = [row._replace(name=EVIL) for row in recording.rows]
    return Report(recording, full=True)


def test_names_do_nothing_to_a_terminal():
    text = evil().text(width=100, ascii_only=False)
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"\x1b[2J\x1b]0;owned\x07\r\n\u202egnp.exe" in text
    assert max(map(columns, text.split("\n"))) <= 100
    assert evil().text(width=100, ascii_only=True).isascii()
    assert all(sentence.isprintable() for sentence in evil().advice)


def test_html_is_escaped():
    bundle = evil()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    page = bundle["text/html"]
    assert page.startswith("<pre") and page.endswith("</pre>")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page == evil()._repr_html_()


def test_rich_shows_it_in_colour_and_takes_no_name_for_markup():
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=120, legacy_windows=False)
    console.print(evil())
    assert "[red]x[/foo]" in console.file.getvalue()
    console = Console(file=io.StringIO(), width=120)
    console.print(Report(sleeping().recording()))
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == SLEEPING.splitlines()
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=120, legacy_windows=False)
    console.print(Report(sleeping().recording()))
    assert "\x1b[38;2;230;159;0m▏1░░" in console.file.getvalue()


def test_an_encoding_without_the_signs_gets_ascii(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for encoding in ("ascii", "latin-1", "cp437"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        print(Report(failing().recording()))
        stream.flush()
        text = stream.buffer.getvalue().decode("ascii")
        assert "|0......" in text
        assert "ValueError x 3" in text
    assert can_show("utf-8") and can_show(None) and not can_show("no such thing")


def test_print_is_as_wide_as_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert 70 < max(map(len, str(Report(sleeping().recording())).splitlines())) <= 80


def test_refuses_what_is_no_width():
    report = Report(sleeping().recording())
    with pytest.raises(ValueError, match="width must be at least 60, not 20"):
        report.text(width=20)
    for width in (True, 80.5, "80"):
        with pytest.raises(TypeError, match="width must be a whole number"):
            report.text(width=width)
    with pytest.raises(TypeError, match="recording must be a Recording, not dict"):
        Report({})


def test_to_dict_has_the_figures_and_the_advice():
    report = Report(together([sleeping(), failing(serial=1, first_row=3)]))
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    first, second = found["works"]
    assert (first["name"], first["elapsed"], first["one_after_another"], first["speed_up"]) == ("square", 1.5, 4.5, 3.0)
    assert first["time_in_tasks"] == {
        "total": 4.5, "computing": 0.0, "waiting": 4.5, "lock": None, "gil": 0.0, "runqueue": None, "unknown": 0.0, "gil_at_most": 0.0,
    }  # fmt: skip
    assert first["advice"]["rule"] == "waiting"
    assert second["errors"][0]["type"] == "ValueError"
    assert len(report.advice) == 2
    assert repr(report) == "<Report of 2 works, 29 tasks>"


def test_the_page_has_the_advice_of_the_longest_work_and_says_which():
    assert Report(sleeping().recording()).main_advice == Report(sleeping().recording()).advice[0]
    both = Report(together([failing(), sleeping(serial=1, first_row=3)]))
    longest = max(both.summary.works, key=lambda work: work.elapsed)
    assert both.main_advice.startswith(f"{longest.work.name}: ")
    assert both.main_advice.removeprefix(f"{longest.work.name}: ") in both.advice
    assert Report(Recording(host(), 0, 0)).main_advice == ""


def test_a_crash_is_told():
    text = told(
        Book(kind="process", workers=2)
        .task(0, 0, 1, gil=None)
        .task(1, 0, 1, cpu=None, gil=None, outcome=CRASHED, error="WorkerCrashed: signal 9")
    )
    assert "crashes 1" in text
    assert "WorkerCrashed × 1, first: task 1, square(1): signal 9" in text


def test_a_report_of_very_many_attempts_has_20_lines_too():
    assert len(Report(large(20_000)).text(width=120).splitlines()) == 13


def test_units():
    assert [duration(n) for n in (0, 900, 123_456, 12_345_678, 2.5e8, 1.5e9, 7e11, 9e12)] == [
        "0.0 µs", "0.9 µs", "123 µs", "12.35 ms", "0.25 s", "1.50 s", "11.67 min", "2.50 h",
    ]  # fmt: skip
    assert [about(n) for n in (0, 5e8, 1.234e10, 3.456e5)] == ["0 µs", "0.5 s", "12 s", "350 µs"]
    assert [precise(n) for n in (5e8, 1.2e11, 5e6)] == ["0.500 s", "120.0 s", "5.00 ms"]
    assert [count(n, "task") for n in (0, 1, 200_000)] == ["0 tasks", "1 task", "200,000 tasks"]


@given(parts=st.lists(st.integers(0, 10**15), max_size=6))
def test_percents_add_up(parts):
    assert sum(percents(parts)) == (100 if sum(parts) else 0)
    assert all(abs(100 * part / sum(parts) - share) <= 1 for part, share in zip(parts, percents(parts), strict=True) if part)


@pytest.mark.parametrize("width", range(60, 130, 5))
def test_a_sum_is_told_whole_or_not_at_all(width):
    """Where several works leave each a few lines, the end of one was cut off: computing 29 %, waiting 0 %, and no word of the rest."""
    makers = [computing, computing, computing, sleeping, sleeping, sleeping, sleeping]
    recording = together([make(name=f"run_{n}", serial=n, first_row=5 * n) for n, make in enumerate(makers)])
    text = Report(recording).text(width=width)
    for block in text.split("\n\n"):
        if "time in tasks" in block:
            shares = map(
                int, re.findall(r"\( *(\d+) %\)", block.partition("time in tasks")[2].partition("queued")[0].partition("→")[0])
            )
            assert sum(shares) == 100, text
