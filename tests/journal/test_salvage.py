"""Salvage: what is whole is copied, what is not is dropped and told, and never is a value another one than was written."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import tempfile

import abreast
import pytest
from abreast.journal import codec, schema
from abreast.journal.reading import Reading
from abreast.journal.salvage import salvage
from abreast.journal.store import Row, Store
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.whole

PAGE = 4096
COUNT = 200


def value_of(number):
    if number == 17:
        return "large" * 210_000
    if number % 50 == 1:
        return {str(number)}  # pickled
    return {"number": number, "text": f"{number}," * (number * 7 % 1500 if number % 9 == 0 else 3)}


def written(path, numbers=range(COUNT)):
    """A journal as a run writes it, with rows of all kinds, that a run has been killed with or has closed."""
    store = Store(abreast.Journal(path))
    store.begin_run("m:value_of", b"d" * 16, "source")
    rows = []
    for n in numbers:
        if n % 11 == 5:
            rows.append(Row(f"item{n}", 0, n, schema.ERROR, 2, 1.0, 0.5, error_type="ValueError", error_text=f"ValueError: {n}"))
        else:
            kind, payload, _ = codec.encode(value_of(n))
            rows.append(Row(f"item{n}", 0, n, schema.OK, 1, 1.0, 0.5, kind, payload))
        if len(rows) == 50:
            store.write(rows)
            rows = []
    store.write(rows)
    store.end_run("finished", len(numbers))
    return store


def check(path):
    """Whatever is in a journal is right; return how many tasks that is."""
    with Reading(path) as reading:
        count = 0
        for task in reading.tasks():
            count += 1
            n = int(task.key.removeprefix("item"))
            assert task.key == f"item{n}"
            if n % 11 == 5:
                assert task.status == "error"
                continue
            assert task.status == "ok"
            if task.format == "json":
                assert json.loads(reading.json_of(task)) == value_of(n)
            else:
                assert task.format == "pickle"
                assert pickle.loads(task.payload) == value_of(n)
    return count


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a journal that was closed, and its folder of files."""
    path = str(tmp_path_factory.mktemp("whole") / "run.db")
    written(path).close()
    assert check(path) == COUNT
    with open(path, "rb") as file:
        return file.read(), f"{path}.d"


@contextlib.contextmanager
def damaged(data, folder=None):
    """A file with these bytes, and a path for a new one."""
    with tempfile.TemporaryDirectory() as here:
        path = os.path.join(here, "run.db")
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o600)
        if folder is not None:
            os.symlink(folder, f"{path}.d")
        yield path, os.path.join(here, "new.db")


def tried(data, folder):
    """Salvage bytes; return what is told, or None if it cannot be done. Reading them gives what is right, or an error."""
    with damaged(data, folder) as (path, new):
        with contextlib.suppress(abreast.JournalError):
            check(path)
        try:
            told = salvage(path, new, trust=True)
        except abreast.JournalError:
            assert not [name for name in os.listdir(os.path.dirname(path)) if name.startswith(("new", "salvage"))]
            return None
        assert check(new) == told.tasks
        missing = COUNT - told.tasks
        assert told.is_all is False or missing == 0
        with open(path, "rb") as file:
            assert file.read() == data, "was changed"
        return told


def test_all_of_a_whole_journal_is_copied(whole):
    data, folder = whole
    told = tried(data, folder)
    assert (told.tasks, told.runs, told.files, told.is_all) == (COUNT, 1, 1, True)
    assert (told.dropped, told.remarks, told.functions) == ({}, [], ["m.value_of"])


def pages_of(data):
    """Numbers of pages, from 0, and what kind of tree they are of."""
    return [(number, data[number * PAGE]) for number in range(1, len(data) // PAGE)]


def test_a_damaged_page_costs_its_own_rows(whole):
    data, folder = whole
    leaves = [number for number, kind in pages_of(data) if kind == 13]
    assert len(leaves) > 10
    for leaf in (leaves[3], leaves[-2], leaves[-1]):
        told = tried(data[: leaf * PAGE] + bytes(PAGE) + data[(leaf + 1) * PAGE :], folder)
        assert told.tasks == COUNT - int.from_bytes(data[leaf * PAGE + 3 : leaf * PAGE + 5], "big"), leaf
        assert told.dropped == {"in pages that cannot be read": COUNT - told.tasks}
        assert not told.is_all


def test_a_damaged_page_that_leads_to_others_costs_nothing(whole):
    data, folder = whole
    inner = [number for number, kind in pages_of(data) if kind == 5]
    assert inner
    for page in inner:
        for damage in (bytes(PAGE), b"\xff" * PAGE):
            told = tried(data[: page * PAGE] + damage + data[(page + 1) * PAGE :], folder)
            assert (told.tasks, told.dropped) == (COUNT, {})


def test_a_damaged_first_page_costs_nothing(whole):
    data, folder = whole
    for first in (bytes(PAGE), data[:100] + bytes(PAGE - 100), b"x" * PAGE):
        told = tried(first + data[PAGE:], folder)
        assert told.tasks == COUNT
        assert "first page" in told.remarks[0]


def test_a_key_that_was_changed_comes_from_the_index(whole):
    data, folder = whole
    place = data.rindex(b"item187")
    for at in (place, data.index(b"item187")):
        changed = bytearray(data)
        changed[at + 6] ^= 4  # 187, 183
        told = tried(bytes(changed), folder)
        assert told.tasks == COUNT


def test_a_value_that_was_changed_is_dropped(whole):
    data, folder = whole
    at = data.index(b'{"number":187')
    told = tried(data[: at + 12] + b"2" + data[at + 13 :], folder)
    assert told.tasks == COUNT - 1
    assert told.dropped == {"not what was written (checksum)": 1}


def test_a_result_whose_file_is_gone_or_damaged_is_dropped(whole, tmp_path):
    data, folder = whole
    told = tried(data, str(tmp_path))
    assert told.dropped == {"whose files are gone or damaged": 1}
    copy = tmp_path / "copy.d"
    shutil.copytree(folder, copy)
    (file,) = (file for file in copy.rglob("*") if file.is_file())
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert tried(data, str(copy)).dropped == {"whose files are gone or damaged": 1}
    file.unlink()
    os.mkfifo(file)
    assert tried(data, str(copy)).dropped == {"whose files are gone or damaged": 1}


def test_what_is_no_journal_gives_nothing(whole):
    for data in (b"", b"text\n" * 5000, b"SQLite format 3\0" + b"x" * 50_000, os.urandom(200_000)):
        assert tried(data, None) is None


def test_a_log_is_read_too(tmp_path):
    path, new = str(tmp_path / "run.db"), str(tmp_path / "new.db")
    pid = os.fork()
    if not pid:
        written(path)
        os._exit(0)  # nothing is closed, as with kill -9
    assert os.waitpid(pid, 0)[1] == 0
    assert os.path.getsize(f"{path}-wal") > os.path.getsize(path)
    assert salvage(path, new).tasks == COUNT
    assert check(new) == COUNT


def double(text):
    return [text * 2, {text}]


def known_by(text):
    return text


def test_a_run_goes_on_with_what_was_copied(tmp_path):
    path, new = str(tmp_path / "run.db"), str(tmp_path / "new.db")
    texts = [f"{n:04}" for n in range(500)]
    results = abreast.map(double, texts, journal=path, key=known_by)
    with open(path, "r+b") as file:
        data = file.read()
        leaves = [number for number, kind in pages_of(data) if kind == 13]
        file.seek(leaves[5] * PAGE)
        file.write(b"\xff" * PAGE)
    with pytest.raises(abreast.JournalCorrupt):
        abreast.map(double, texts, journal=path, key=known_by)
    told = salvage(path, new)
    run = abreast.imap(double, texts, journal=new, key=known_by)
    assert list(run) == results
    assert 0 < told.tasks == run.summary().resumed < 500


def test_pickles_that_others_may_have_written_are_not_made_yours(tmp_path, whole):
    with damaged(whole[0], whole[1]) as (path, new):
        os.unlink(f"{path}.d")
        os.chmod(path, 0o666)
        told = salvage(path, new)
        pickled = sum(n % 50 == 1 and n % 11 != 5 for n in range(COUNT))
        assert told.dropped == {"pickled, where others may have written": pickled, "whose files are gone or damaged": 1}
        with Reading(new) as reading:
            assert not [task for task in reading.tasks() if task.format == "pickle"]
        assert salvage(path, f"{new}2", trust=True).tasks == COUNT - 1


@pytest.mark.parametrize("end", ["", "-wal", "-lock", ".d"])
def test_nothing_is_overwritten(whole, end):
    with damaged(*whole) as (path, new):
        open(new + end, "w").close()
        with pytest.raises(abreast.JournalError, match="exists"):
            salvage(path, new)
        assert os.path.getsize(new + end) == 0


def test_ctrl_c_leaves_nothing_behind(whole, monkeypatch):
    def struck(*args):
        raise KeyboardInterrupt

    with damaged(*whole) as (path, new):
        monkeypatch.setattr("abreast.journal.salvage.is_unstable", struck)
        with pytest.raises(KeyboardInterrupt):
            salvage(path, new)
        assert not [name for name in os.listdir(os.path.dirname(path)) if name.startswith(("new", "salvage"))]


# ---- any damage

flips = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8)
early = st.lists(st.tuples(st.floats(0, 0.02), st.integers(1, 255)), min_size=1, max_size=8)
cuts = st.floats(0, 1, exclude_max=True)
some = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
many = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))


def flipped(data, changes):
    data = bytearray(data)
    for share, mask in changes:
        data[int(share * len(data))] ^= mask
    return bytes(data)


@some
@given(changes=flips | early)
def test_flipped_bytes_never_give_a_wrong_value(whole, changes):
    tried(flipped(whole[0], changes), whole[1])


@some
@given(cut=cuts)
@example(cut=0.0)
def test_a_file_that_is_cut_never_gives_a_wrong_value(whole, cut):
    tried(whole[0][: int(cut * len(whole[0]))], whole[1])


@pytest.mark.slow
@many
@given(changes=flips | early, cut=st.just(1.0) | cuts, moved=st.lists(st.tuples(cuts, cuts), max_size=2))
def test_any_damage_never_gives_a_wrong_value(whole, changes, cut, moved):
    data = bytearray(flipped(whole[0], changes))
    pages = len(data) // PAGE
    for here, there in moved:  # a page in the place of another one
        here, there = int(here * pages) * PAGE, int(there * pages) * PAGE
        data[here : here + PAGE] = whole[0][there : there + PAGE]
    tried(bytes(data[: int(cut * len(data))]), whole[1])
