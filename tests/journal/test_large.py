"""Results of over 1 MiB: files beside the journal, whole or not there, and never more of them than rows that name them."""

from __future__ import annotations

import os

import abreast
import pytest
from abreast import JournalCorrupt, JournalError
from abreast.journal.large import LARGE, Files

from tests.journal.helpers import rows

pytestmark = pytest.mark.whole


def text(x):
    return str(x) * (LARGE + 10) if x < 10 else str(x)


def files(path):
    return sorted(file for file in path.parent.glob(f"{path.name}.d/*/*"))


def test_they_come_back(tmp_path):
    path = tmp_path / "run.db"
    expected = [text(x) for x in (1, 20, 2, 30)]
    assert abreast.map(text, [1, 20, 2, 30], journal=path) == expected
    assert len(files(path)) == 2 and [codec & 4 for (codec,) in rows(path, "codec")] == [4, 0, 4, 0]
    assert path.stat().st_size < LARGE
    results = abreast.imap(text, [1, 20, 2, 30], journal=path)
    assert list(results) == expected and results.summary().resumed == 4


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_limit(tmp_path, more):
    path = tmp_path / "run.db"

    def data(x):
        return "x" * (LARGE + x - 2)  # and its quotes

    assert abreast.map(data, [more], journal=path) == [data(more)]
    assert len(files(path)) == (more > 0)
    assert abreast.map(data, [more], journal=path) == [data(more)]


def test_equal_ones_are_one_file(tmp_path):
    path = tmp_path / "run.db"

    def same(x):
        return b"x" * (LARGE * 2)

    assert abreast.map(same, range(5), journal=path, max_workers=3) == [same(0)] * 5
    assert len(files(path)) == 1
    assert abreast.map(same, range(5), journal=path) == [same(0)] * 5


def test_what_no_row_names_is_swept_and_nothing_else(tmp_path):
    path = tmp_path / "run.db"
    abreast.map(text, [1], journal=path)
    (kept,) = files(path)
    folder = kept.parent
    (folder / ("0" * 64)).write_bytes(b"of a run that was killed")
    (folder / f"{kept.name}.0123.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"of the user's")
    (tmp_path / "run.db.d" / "mine").mkdir()
    (tmp_path / "run.db.d" / "mine" / ("0" * 64)).write_bytes(b"of the user's")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ("1" * 64)).write_bytes(b"precious")
    (tmp_path / "run.db.d" / "zz").symlink_to(outside)
    assert abreast.map(text, [1], journal=path) == [text(1)]
    assert sorted(os.listdir(folder)) == sorted([kept.name, "notes.txt"])
    assert os.listdir(outside) == ["1" * 64] and os.listdir(tmp_path / "run.db.d" / "mine") == ["0" * 64]


def test_a_damaged_one_is_written_again_when_its_task_runs_again(tmp_path):
    store = Files(str(tmp_path / "run.db"))
    data = b"x" * LARGE
    name = store.write(data)
    path = tmp_path / "run.db.d" / name[:2].decode() / name.decode()
    path.write_bytes(b"y" * LARGE)
    with pytest.raises(JournalCorrupt, match="is not what was written"):
        store.read(name)
    assert store.write(data) == name and store.read(name) == data
    path.unlink()
    with pytest.raises(JournalCorrupt, match="is gone; move or copy a journal together with"):
        store.read(name)
    assert sorted(os.listdir(path.parent)) == []


@pytest.mark.parametrize("name", [b"", b"../../../etc/passwd", b"0" * 63, b"Z" * 64, b"\xff" * 64, b"0" * 62 + b"/x"])
def test_a_row_names_no_other_file(tmp_path, name):
    with pytest.raises(JournalCorrupt, match="names a file"):
        Files(str(tmp_path / "run.db")).read(name)


def test_it_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "run.db"
    abreast.map(text, [20], journal=path)

    def no_room(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("abreast.journal.large.os.fsync", lambda fd: no_room(fd, b""))
    with pytest.raises(JournalError, match=r"a result of over 1 MiB: No space left on device; make room"):
        abreast.map(text, [20, 1], journal=path)
    monkeypatch.undo()
    assert not files(path)
    results = abreast.imap(text, [20, 1], journal=path)
    assert list(results) == [text(20), text(1)] and results.summary().resumed == 1
