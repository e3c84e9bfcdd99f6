"""A row whose key, status or result is not what was written is damage, and never another task's result."""

from __future__ import annotations

import sqlite3

import abreast
import pytest

pytestmark = pytest.mark.whole


def double(text):
    return text * 2


def known_by(text):
    return text


def changed(path, statement):
    connection = sqlite3.connect(path)
    assert connection.execute(statement).rowcount == 1
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "what",
    ["key = 'item3'", "occ = 1", "status = 1", "codec = 2", "payload = x'3133'", "payload = NULL", "crc = NULL", "codec = 'x'"],
)
def test_a_row_that_was_changed_is_damage(tmp_path, what):
    path = str(tmp_path / "run.db")
    abreast.map(double, ["item1"], journal=path, key=known_by)
    if what == "status = 1":
        changed(path, "UPDATE tasks SET status = 2")
    changed(path, f"UPDATE tasks SET {what if what != 'status = 1' else 'status = 3'}")
    with pytest.raises(abreast.JournalCorrupt, match="salvage"):
        abreast.map(double, ["item1", "item3", "item1"], journal=path, key=known_by)


def test_keys_of_16_and_17_bytes_are_told_apart(tmp_path, recwarn):
    path = str(tmp_path / "run.db")
    sixteen = b"k" * 16
    keys = [sixteen, b"b" + sixteen, b"b" * 15, b"b" * 16, b"B" + b"b" * 15 + b"\0\0", "\ud800" + "x" * 12, "\ud800" + "x" * 13]
    for inputs in (keys, keys[::-1]):
        assert abreast.map(repr, inputs, journal=path, key=known_by) == [repr(key) for key in inputs]
    assert not [warning for warning in recwarn if issubclass(warning.category, abreast.JournalWarning)]
