"""Trace files: what is read is what was written, viewers' rules are kept, and what cannot be read is said."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import stat
import sys
import threading
import time
from dataclasses import replace

import pytest
from abreast import RecordingError
from abreast.core.recording import Attempt, Recording, Row, Span, Work
from abreast.report import chrome, events, stored
from abreast.report.chrome import read_trace, write_trace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.report.random_recordings import HOST, large, recordings, squares
from tests.report.trace_rules import broken, events_of, exact, seen

pytestmark = pytest.mark.whole

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.json"


def text_of(recording):
    return "".join(chrome._lines(recording)).replace("\x7f", "\\u007f")


def refused(path, *words):
    with pytest.raises(RecordingError) as caught:
        read_trace(path)
    said = str(caught.value)
    assert said.startswith(repr(os.fspath(path))), said
    assert "\n" not in said
    for word in words:
        assert word in said, said
    assert caught.value.__cause__ is None


# what is read is what was written


@QUICK
@given(recording=recordings(), ending=st.sampled_from(["json", "json.gz"]))
def test_what_is_read_equals_what_was_written_and_keeps_the_rules(tmp_path, recording, ending):
    path = tmp_path / f"run.{ending}"
    write_trace(recording, path)
    assert read_trace(path) == recording
    with (gzip.open if ending == "json.gz" else open)(path, "rt") as file:
        assert broken(file.read()) == []


def test_types_are_the_same_too(file):
    recording = squares()
    write_trace(recording, file)
    back = read_trace(file)
    assert [type(one) for one in (back.attempts[0], back.spans[0], back.rows[0], back.works[0])] == [Attempt, Span, Row, Work]
    assert back.host.switch_interval == 0.005
    assert back.to_dict() == recording.to_dict()


def test_nothing_recorded(file):
    recording = Recording(HOST, 0, 0)
    write_trace(recording, file)
    assert read_trace(file) == recording
    assert broken(file.read_text()) == []


def test_the_example(file):
    """An event a line; what a reader of the file sees."""
    write_trace(squares(), file)
    assert broken(file.read_text()) == []
    found = events_of(file.read_text())
    assert len(found) == sum(line.startswith("{") for line in file.read_text().split('"traceEvents":[\n')[1].splitlines())
    task = next(event for event in found if event.get("args", {}).get("call") == "square(5)" and event["ph"] == "X")
    assert (task["name"], task["cat"], task["pid"], task["tid"]) == ("square", "task", 4242, 2)
    assert task["args"] == {
        "task": 4, "call": "square(5)", "state": "ok", "attempt": 1, "queued_ms": "500.000", "cpu_ms": "5.000", "wait_ms": "495.000",
        "runq_ms": "0.000",
    }  # fmt: skip
    assert exact(task["ts"]) == 500_002_002
    names = {event["name"] for event in found if event["ph"] == "X"}
    assert names == {"square", "time.sleep", "submit", "waiting for results", "waiting for Lock#1 (x.py:3), held by worker_1"}
    assert {event["cat"] for event in found if event["name"] == "time.sleep"} == {"wait.sleep"}
    assert sum(event["ph"] == "s" for event in found) == sum(event["ph"] == "b" for event in found) == 9
    threads = {event["tid"]: event["args"]["name"] for event in found if event["name"] == "thread_name"}
    assert threads[1] == "worker_0 (ident 140000000000100, native 21170)"
    running = [event["args"] for event in found if event["ph"] == "C"]
    assert max(args["running"] for args in running) == 3
    assert max(args["queued"] for args in running) == 6
    assert running[-1] == {"running": 0, "queued": 0}


def test_what_crosses_is_drawn_on_a_line_of_its_own(file):
    rows = [Row(0, "main", "M", 1, 1, 4242, 0, 100), Row(1, "thread", "w", 2, 2, 4242, 0, 100)]
    crossing = [Attempt(0, n, 1, 1, None, 10 * n, 10 * n + 15, 0, f"f({n})") for n in range(4)]
    recording = Recording(HOST, 0, 100, [Work(0, "f", "thread", 1, 0, 100, 4, 4)], rows, crossing)
    found = events_of(text_of(recording))
    assert broken(text_of(recording)) == []
    assert [event["tid"] for event in found if event["ph"] == "X"] == [1, 2, 1, 2]
    assert [event["args"]["name"] for event in found if event["name"] == "thread_name"][-1] == "w, at the same time (1)"


def test_more_at_the_same_time_than_can_be_drawn_is_counted(monkeypatch):
    monkeypatch.setattr(events, "LANES", 3)
    rows = [Row(0, "main", "M", 1, 1, 4242, 0, 100)]
    crossing = [Attempt(0, n, 1, 0, None, n, n + 50, 0, f"f({n})") for n in range(5)]
    recording = Recording(HOST, 0, 100, [Work(0, "f", "thread", 1, 0, 100, 5, 5)], rows, crossing)
    assert broken(text_of(recording)) == []
    assert "2 slices left out" in text_of(recording)
    assert stored.parse("".join(stored.lines(recording))) == recording


def test_arrows_and_queues_are_of_small_recordings(monkeypatch):
    recording = large(300)
    assert '"ph":"s"' in text_of(recording)
    monkeypatch.setattr(events, "ARROWS", 300)
    text = text_of(recording)
    assert broken(text) == []
    assert not any(f'"ph":"{phase}"' in text for phase in "sfbe")
    monkeypatch.setattr(events, "POINTS", 10)
    assert broken(text_of(recording)) == []
    assert text_of(recording).count('"name":"tasks"') == 11


def test_what_was_submitted_before_the_recording_began_has_no_time_below_0(file):
    recording = squares()
    recording.attempts[0] = recording.attempts[0]._replace(queued=-5_000)
    write_trace(recording, file)
    assert broken(file.read_text()) == []
    assert json.loads(file.read_text())["otherData"]["epoch_ns"] == recording.zero - 5_000
    assert read_trace(file) == recording


def test_the_share_that_the_gil_held_up():
    rows = [Row(0, "main", "M", 1, 1, 4242, 0, 100), Row(1, "thread", "w", 2, 2, 4242, 0, 100)]
    attempts = [Attempt(0, 0, 1, 0, None, 0, 100, 0, "f()", gil=50), Attempt(0, 1, 1, 1, None, 50, 100, 0, "f()", gil=0)]
    recording = Recording(HOST, 0, 100, [Work(0, "f", "thread", 2, 0, 100, 2, 2)], rows, attempts)
    found = events_of(text_of(recording))
    assert [event["args"]["percent"] for event in found if event["name"].startswith("held up")] == ["50.0", "25.0", "0.0"]


@given(st.integers(0, 2**50))
def test_viewers_read_the_nanosecond_that_was_written(nanoseconds):
    text = events.microseconds(nanoseconds)
    assert exact(text) == seen(text) == nanoseconds


def test_the_checker_finds_what_is_wrong():
    """A rule that finds nothing proves nothing."""

    def check(change, word):
        whole = json.loads(text_of(squares()))
        change(whole["traceEvents"])
        for event in {id(event): event for event in whole["traceEvents"]}.values():
            for name in ("ts", "dur"):
                if name in event:  # as it is written
                    event[name] = f"<{events.microseconds(round(event[name] * 1000))}>"
        text = json.dumps(whole).replace('"<', "").replace('>"', "")
        assert any(word in found for found in broken(text)), broken(text)

    def first(events, **wanted):
        return next(event for event in events if all(event.get(name) == value for name, value in wanted.items()))

    check(lambda events: first(events, ph="X").update(tid="worker"), "tid of")
    check(lambda events: first(events, ph="M").update(ts=1.0), "M with ts")
    check(lambda events: first(events, cat="wait.sleep").update(dur=900_000), "outlives")
    check(lambda events: first(events, ph="s").update(ts=first(events, cat="submit")["ts"]), "strictly inside a submit")
    check(lambda events: first(events, ph="f").update(ts=99e6), "strictly inside a task")
    check(lambda events: events.remove(first(events, ph="f")), "flow")
    check(lambda events: first(events, cat="submit").update(dur=0.9), "submits overlap")
    check(lambda events: events.remove(first(events, ph="e")), "async")
    check(lambda events: events.append(first(events, ph="b")), "async")
    check(lambda events: first(events, ph="C").update(ts=99e6), "do not grow")


# files that are cut off, damaged, or others


@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_cut_at_any_byte(tmp_path, monkeypatch, ending):
    """What stands before the cut is read, in whole lines; the sums say what is missing."""
    monkeypatch.setattr(stored, "BLOCK", 4)
    recording = squares(count=18)
    path = tmp_path / f"run.{ending}"
    write_trace(recording, path)
    data = path.read_bytes()
    if ending == "json":
        edges = [match.end() for match in re.finditer(rb"\n", data[: data.index(b'"traceEvents"') + 40])]
        cuts = sorted({0, 1, 60, *(edge + i for edge in edges for i in (-2, -1, 0, 1, 5, 50)), len(data) - 1})
    else:
        cuts = range(0, len(data), 15)
    seen_counts = set()
    for cut in cuts:
        path.write_bytes(data[:cut])
        told = []
        try:
            back = read_trace(path, on_cut=told.append)
        except RecordingError as error:
            assert str(error).startswith(repr(str(path)))
            assert not seen_counts, "what a shorter one has, a longer one has too"
            continue
        kept, kept_spans = len(back.attempts), len(back.spans)
        assert (back.attempts, back.spans) == (recording.attempts[:kept], recording.spans[:kept_spans])
        assert (back.dropped, back.dropped_spans) == (18 - kept, len(recording.spans) - kept_spans)
        assert (back.works, back.rows, back.host) == (recording.works, recording.rows, recording.host)
        is_whole = back == recording
        assert back.complete is is_whole is (not told), (told, cut)
        seen_counts.add((kept, kept_spans))
    assert {(0, 0), (4, 0), (16, 0), (18, 0), (18, 4), (18, 20)} <= seen_counts


def test_events_are_not_read(file):
    """They are for others; so what follows the recording may be cut off, or changed."""
    write_trace(squares(), file)
    text = file.read_text()
    file.write_text(text[: text.index('"traceEvents"') + 20] + "rubbish")
    assert read_trace(file) == squares()


@pytest.mark.parametrize("options", [{"indent": 1}, {}, {"separators": (",", ":")}], ids=["indented", "spaced", "compact"])
def test_laid_out_anew_by_another_program(file, options):
    write_trace(squares(), file)
    file.write_text(json.dumps(json.loads(file.read_text()), **options))
    assert read_trace(file) == squares()


def test_compressed_whatever_its_name(tmp_path, file):
    write_trace(squares(), tmp_path / "run.json.gz")
    os.rename(tmp_path / "run.json.gz", file)
    assert read_trace(file) == squares()
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:20000]) + gzip.compress(b"more"))
    assert read_trace(file).works == squares().works


def test_fields_that_are_not_known_are_passed_over_and_missing_ones_have_their_default(file):
    """A file of an abreast with a field more, and of one with a field less."""
    write_trace(squares(), file)
    whole = json.loads(file.read_text())
    ours = whole["abreast"]
    ours["attempts"]["fields"].append("mood")
    for block in ours["attempts"]["blocks"]:
        block.append(["good"] * len(block[0]))
    ours["works"][0]["mood"] = ours["host"]["mood"] = ours["mood"] = "good"
    place = ours["attempts"]["fields"].index("cpu")
    del ours["attempts"]["fields"][place], ours["host"]["switch_interval"], ours["cost"]
    for block in ours["attempts"]["blocks"]:
        del block[place]
    file.write_text(json.dumps(whole))
    expected = squares()
    assert read_trace(file) == replace(expected, attempts=[one._replace(cpu=None) for one in expected.attempts], cost=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"hello\n", ["is no trace file"]),
        (b"\x00\xff" * 50, ["is no trace file"]),
        (b"[" * 100_000, ["is no trace file"]),
        (b"{}", ["is JSON, but no trace file"]),
        (
            b'[{"name":"x","ph":"X","ts":1,"dur":2,"pid":1,"tid":1}]',
            ["trace of another program, with 1 events", "ui.perfetto.dev"],
        ),
        (b'{"traceEvents":[{"ph":"X","ts":1}],"viztracer_metadata":{}}', ["trace of another program, with 1 events"]),
        (b'{"traceEvents":[{"ph":"X","ts', ["trace of another program"]),
        (b'{"otherData":{"producer":"abreast 9.1","format":2,"new":[', ["newer abreast ('9.1', format 2)", "reads format 1"]),
        (b'{"otherData": {"producer": "abreast 0.1.0", "format": 1}}', ["is damaged", "has no recording"]),
        (b'{"otherData":{"producer":"abreast 0.1.0","format":1', ["cut off in its first lines"]),
        (b"\x1f\x8b", ["is empty"]),
        (b"\x1f\x8bnot gzip at all, but it begins so", ["is damaged", "cannot be unpacked"]),
        (gzip.compress(b"hello"), ["is no trace file"]),
    ],
    ids=range(14),
)
def test_other_files(file, content, words):
    file.write_bytes(content)
    refused(file, *words)


def test_no_file_at_all(tmp_path):
    refused(tmp_path, "is a directory")
    refused(tmp_path / "none.json", "does not exist")
    refused(tmp_path / "none" / "run.json", "does not exist")
    refused("run\x1b[31m\n.json", "does not exist")
    (tmp_path / "file").touch()
    refused(tmp_path / "file" / "run.json", "cannot be read")


def test_damage_in_the_middle_of_a_compressed_file(tmp_path):
    """Also in the part that is not needed: only the end of the file says whether the rest is undamaged."""
    path = tmp_path / "run.json.gz"
    write_trace(squares(200), path)
    data = path.read_bytes()
    for place in (20, len(data) // 4, len(data) * 3 // 4, len(data) - 6):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        refused(path, "is damaged")


def test_too_large(file, monkeypatch):
    write_trace(squares(), file)
    monkeypatch.setattr(chrome, "CHUNK", 100)
    monkeypatch.setattr(chrome, "LARGEST", 1000)
    refused(file, "cannot be read", "before its events")
    monkeypatch.setattr(chrome, "LARGEST_FOREIGN", 1000)
    file.write_bytes(b'{"traceEvents":[' + b" " * 10_000)
    refused(file, "trace of another program")


@pytest.mark.skipif(sys.platform != "linux", reason="a device that never ends")
def test_without_end(monkeypatch):
    monkeypatch.setattr(chrome, "LARGEST_FOREIGN", 1 << 20)
    refused("/dev/zero", "is no trace file")


def test_any_damage_is_an_error_or_a_recording(file):
    """No other exception, and never a recording that a view could fall over."""
    write_trace(squares(), file)
    data = file.read_bytes()
    ours = data.index(b'"traceEvents"')
    draw = random.Random(7)
    for _ in range(150):
        changed = bytearray(data[: ours + 200])
        for _ in range(draw.randrange(1, 3)):
            changed[draw.randrange(ours)] = draw.choice(b'0123456789",:[]{}-.ntfe\n \xff\x00')
        file.write_bytes(changed)
        try:
            back = read_trace(file)
        except RecordingError:
            continue
        text_of(back)
        back.to_dict()


def damaged(change):
    whole = json.loads(text_of(squares()))
    change(whole["abreast"])
    return json.dumps(whole)


@pytest.mark.parametrize(
    "change",
    [
        lambda ours: ours.update(zero=1.5),
        lambda ours: ours.update(complete=1),
        lambda ours: ours.pop("end"),
        lambda ours: ours.pop("host"),
        lambda ours: ours.update(host=[]),
        lambda ours: ours["host"].update(cores=True),
        lambda ours: ours["host"].pop("cores"),
        lambda ours: ours["rows"].reverse(),
        lambda ours: ours["rows"].append(3),
        lambda ours: ours.update(works={}),
        lambda ours: ours["works"][0].update(cpu="1"),
        lambda ours: ours.update(attempts=[]),
        lambda ours: ours["attempts"].update(fields=7),
        lambda ours: ours["attempts"]["fields"].pop(),
        lambda ours: ours["attempts"]["fields"].__setitem__(0, "mood"),
        lambda ours: ours["attempts"]["fields"].__setitem__(0, ["mood"]),
        lambda ours: ours["attempts"]["blocks"].append([]),
        lambda ours: ours["attempts"]["blocks"].append(3),
        lambda ours: ours["attempts"]["blocks"][0][0].pop(),
        lambda ours: ours["attempts"]["blocks"][0][0].__setitem__(0, 1),
        lambda ours: ours["attempts"]["blocks"][0][0].__setitem__(0, -1),
        lambda ours: ours["attempts"]["blocks"][0][0].__setitem__(0, None),
        lambda ours: ours["attempts"]["blocks"][0][3].__setitem__(0, 4),
        lambda ours: ours["attempts"]["blocks"][0][5].__setitem__(0, 10**10),
        lambda ours: ours["attempts"]["blocks"][0][7].__setitem__(0, 7),
        lambda ours: ours["spans"]["blocks"][0][3].__setitem__(0, 8),
        lambda ours: ours.pop("spans"),
        lambda ours: ours.update(kept=[9, 10]),
        lambda ours: ours.update(kept=[9]),
        lambda ours: ours.update(kept="all"),
        lambda ours: ours.update(end=10**400),
        lambda ours: ours.update(cost=-(10**19)),
        lambda ours: ours["works"][0].update(workers=10**400),
        lambda ours: ours["attempts"]["blocks"][0][6].__setitem__(0, 10**25),
    ],
    ids=range(34),
)
def test_what_cannot_be_is_refused(file, change):
    file.write_text(damaged(change))
    refused(file, "is damaged: ")


def test_long_numbers_in_texts_are_texts(file):
    recording = squares()
    recording.attempts[0] = recording.attempts[0]._replace(call=f"square({10**60})")
    write_trace(recording, file)
    assert read_trace(file) == recording


# writing


def test_permissions_and_nothing_left(tmp_path, file):
    before = os.umask(0o027)
    try:
        write_trace(squares(), file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    file.chmod(0o600)
    write_trace(squares(10), file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_trace(file) == squares(10)
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_link_is_replaced_not_followed(tmp_path, file):
    """S5: planted where a report will be written."""
    other = tmp_path / "other"
    other.write_text("precious")
    for target in (other, tmp_path / "nowhere"):
        file.unlink(missing_ok=True)
        file.symlink_to(target)
        write_trace(squares(), file)
        assert not file.is_symlink()
        assert read_trace(file) == squares()
    assert other.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_what_fails_leaves_what_was_there(tmp_path, file):
    file.write_text("before")
    broken_one = squares()
    broken_one.attempts.append(Attempt(0, 9, 1, 77, None, 0, 1, 0, "f()"))
    with pytest.raises(IndexError):
        write_trace(broken_one, file)
    assert file.read_text() == "before"
    assert os.listdir(tmp_path) == ["run.json"]
    with pytest.raises(IsADirectoryError) as caught:
        write_trace(squares(), tmp_path)
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        write_trace(squares(), tmp_path / "none" / "run.json")
    assert caught.value.filename == str(tmp_path / "none" / "run.json")


@pytest.mark.skipif(sys.platform != "linux", reason="a device that is full")
def test_a_full_disk():
    with pytest.raises(OSError, match="No space left") as caught:
        write_trace(squares(), "/dev/full")
    assert caught.value.filename == "/dev/full"
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_is_written_to(tmp_path, file):
    os.mkfifo(file)
    found = []
    reader = threading.Thread(target=lambda: found.append(read_trace(file)))
    reader.start()
    write_trace(squares(), file)
    reader.join(20)
    assert found == [squares()]
    assert stat.S_ISFIFO(file.stat().st_mode)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_200_000_attempts(tmp_path, ending):
    """In processor time, since others may be at work here: 3 s are for reading and telling."""
    recording = large(200_000)
    path = tmp_path / f"run.{ending}"
    begin = time.process_time()
    write_trace(recording, path)
    written = time.process_time()
    back = read_trace(path)
    read = time.process_time()
    assert back == recording
    assert written - begin < 6, "twice what is promised: slow machines test too"
    assert read - written < 3
