"""The table: a line per attempt, exact, readable by any reader of CSV."""

from __future__ import annotations

import csv
from decimal import Decimal

import pytest
from abreast.core.recording import Attempt
from abreast.core.states import OUTCOMES
from abreast.report.table import COLUMNS, write_table
from hypothesis import HealthCheck, given, settings

from tests.report.random_recordings import recordings, squares

pytestmark = pytest.mark.whole


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_line_per_attempt_in_the_order_that_they_began(tmp_path):
    path = tmp_path / "run.csv"
    recording = squares()
    recording.attempts.reverse()
    write_table(recording, path)
    lines = read(path)
    assert tuple(lines[0]) == COLUMNS
    assert [line["call"] for line in lines] == [f"square({n})" for n in range(1, 10)]
    assert lines[4] == {
        "function": "square", "task": "4", "attempt": "1", "worker": "worker_1", "host": "box", "pid": "4242", "native_id": "21171",
        "start": "1700000000.500002002", "queued": "0.500000385", "wall": "0.500000000", "cpu": "0.005000001", "gil": "",
        "runqueue": "0.000000009", "lock": "", "outcome": "ok", "call": "square(5)", "error": "",
    }  # fmt: skip
    assert path.read_text().splitlines()[1].startswith("square,0,1,worker_0,box,4242,21170,1700000000.000001001,")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(recordings())
def test_nothing_is_lost(tmp_path, recording):
    path = tmp_path / "run.csv"
    write_table(recording, path)
    found = read(path)
    expected = sorted(recording.attempts, key=lambda one: (one.begin, one.end))
    assert len(found) == len(expected)
    assert len(path.read_bytes().split(b"\n")) == len(expected) + 2, "a line per attempt, whatever they are called"
    for line, one in zip(found, expected, strict=True):
        assert int(Decimal(line["start"]) * 10**9) == recording.zero + one.begin
        assert int(Decimal(line["wall"]) * 10**9) == one.end - one.begin
        for name in ("cpu", "gil", "runqueue", "lock"):
            value = getattr(one, name)
            assert line[name] == "" if value is None else int(Decimal(line[name]) * 10**9) == value
        assert OUTCOMES.index(line["outcome"]) == one.outcome
        for name, text in (("call", one.call), ("error", one.error or "")):
            assert line[name] == text if text.isprintable() else line[name].isprintable()


def test_what_was_submitted_after_it_began_and_names_that_are_no_text(tmp_path):
    path = tmp_path / "run.csv"
    recording = squares()
    recording.attempts[:] = [Attempt(0, 0, 1, 1, 15, 10, 20, 1, "f('\udc80')", error='ValueError: "a",\nb')]
    write_table(recording, path)
    assert [(line["queued"], line["call"], line["error"]) for line in read(path)] == [
        ("-0.000000005", "f('\\udc80')", 'ValueError: "a",\\nb')
    ]


def test_a_link_is_replaced_and_errors_name_the_file(tmp_path):
    path = tmp_path / "run.csv"
    path.symlink_to(tmp_path / "other")
    write_table(squares(), path)
    assert not path.is_symlink()
    with pytest.raises(IsADirectoryError) as caught:
        write_table(squares(), tmp_path)
    assert caught.value.filename == str(tmp_path)
