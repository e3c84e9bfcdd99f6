"""Whom a journal belongs to: nothing of somebody else's is read."""

from __future__ import annotations

import contextlib
import os
import pickle
import stat
import sys
from pathlib import Path

import abreast
import pytest
from abreast import Journal, JournalError, JournalTrustError
from abreast.journal import trust

from tests.journal.helpers import child, open_folder, statuses  # noqa: F401  # a fixture

pytestmark = [pytest.mark.whole, pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")]

BOMBS: list[int] = []


class Bomb:
    """Goes off when it is unpickled."""

    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        return go_off, (self.x,)


def go_off(x):
    BOMBS.append(x)
    return Bomb(x)


def work(x):
    return Bomb(x)


@pytest.fixture
def journal(tmp_path):
    """A journal that is complete, and whose results go off."""
    path = tmp_path / "folder" / "run.db"
    path.parent.mkdir(mode=0o700)
    abreast.map(work, range(3), journal=path)
    BOMBS.clear()
    return path


def refused(path, match, error=JournalTrustError, **options):
    with pytest.raises(error, match=match) as caught:
        abreast.map(work, range(3), journal=Journal(path, **options))
    assert str(path) in str(caught.value) and not BOMBS


def is_read(path, **options):
    results = abreast.imap(work, range(3), journal=Journal(path, **options))
    assert [bomb.x for bomb in results] == [0, 1, 2] and results.summary().resumed == 3
    assert BOMBS == [0, 1, 2]


class TestLinks:
    @pytest.mark.parametrize("end", ["", "-lock", "-wal", "-shm", "-journal", ".d"])
    @pytest.mark.parametrize("leads, trusted", [("to something", False), ("nowhere", True)])
    def test_a_link_is_refused(self, journal, end, leads, trusted):
        path = journal.with_name(journal.name + end)
        if path.exists():
            path.unlink()
        target = journal.parent.parent / "target"
        if leads == "to something":
            target.mkdir() if end == ".d" else target.write_bytes(b"precious")
        path.symlink_to(target)
        refused(journal, "is a link|is not a folder", trust=trusted)
        assert path.is_symlink() and target.exists() == (leads == "to something")
        if leads == "to something" and end != ".d":
            assert target.read_bytes() == b"precious"

    def test_a_new_journal_follows_no_link(self, tmp_path):
        (tmp_path / "run.db").symlink_to(tmp_path / "elsewhere.db")
        refused(tmp_path / "run.db", "is a link; give the path that it leads to")
        assert sorted(os.listdir(tmp_path)) == ["run.db"]

    def test_a_link_in_the_folder_of_large_results(self, tmp_path):
        path = tmp_path / "run.db"
        assert abreast.map(large, [1], journal=path) == [large(1)]
        (file,) = (tmp_path / "run.db.d").glob("*/*")
        (tmp_path / "other").write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(tmp_path / "other")
        with pytest.raises(JournalError, match="cannot be read"):
            abreast.map(large, [1], journal=path)

    def test_a_pipe_in_the_folder_of_large_results(self, tmp_path):
        path = tmp_path / "run.db"
        abreast.map(large, [1], journal=path)
        (file,) = (tmp_path / "run.db.d").glob("*/*")
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(JournalError):  # and does not wait for who writes it
            abreast.map(large, [1], journal=path)

    @pytest.mark.parametrize("end", ["", "-lock", "-wal"])
    def test_hard_links(self, journal, end):
        path = journal.with_name(journal.name + end)
        path.touch(0o600)
        os.link(path, journal.parent.parent / "second")
        refused(journal, "has 2 names")
        is_read(journal, trust=True)


def large(x):
    return "x" * (2 << 20)


class TestModes:
    @pytest.mark.parametrize("end, mode", [("", 0o620), ("", 0o602), ("-lock", 0o660)])
    def test_others_may_write(self, journal, mode, end):
        path = journal.with_name(journal.name + end)
        path.chmod(mode)
        refused(journal, "others may write .*chmod go-w")
        is_read(journal, trust=True)

    def test_others_may_read(self, journal):
        journal.chmod(0o644)
        is_read(journal)

    def test_the_folder_of_large_results(self, journal):
        folder = journal.with_name("run.db.d")
        folder.mkdir()
        folder.chmod(0o777)
        refused(journal, "others may write")

    def test_everybody_may_write_the_folder(self, journal):
        journal.parent.chmod(0o777)
        refused(journal, "everybody may write in .*chmod o-w")
        refused(journal.parent / "new.db", "everybody may write in")
        journal.parent.chmod(0o1777)  # sticky, as /tmp is
        is_read(journal)
        BOMBS.clear()
        journal.parent.chmod(0o777)
        is_read(journal, trust=True)
        journal.parent.chmod(0o700)

    def test_what_is_made_is_its_owners_alone(self, tmp_path):
        before = os.umask(0)
        try:
            results = abreast.imap(large, [1, 2], journal=tmp_path / "run.db", buffersize=1)
            next(results)
            modes = {
                path.relative_to(tmp_path).parts[0][6:]: stat.S_IMODE(path.stat().st_mode)
                for path in tmp_path.rglob("*")
                if path.is_file()
            }
            assert set(modes) >= {"", "-lock", "-wal", "-shm", ".d"} and set(modes.values()) == {0o600}, modes
            assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}
            results.close()
        finally:
            os.umask(before)


class TestOwners:
    def test_of_somebody_else(self, journal, monkeypatch):
        mine = os.geteuid()
        monkeypatch.setattr(trust.os, "geteuid", lambda: mine + 1)
        refused(journal, "belongs to .*, not to you; .*trust=True")
        is_read(journal, trust=True)

    @pytest.mark.parametrize("end", ["-lock", "-wal", "-shm", "-journal", ".d"])
    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files to another user")
    def test_a_part_of_it_is_somebody_elses(self, journal, end):
        path = journal.with_name(journal.name + end)
        path.mkdir() if end == ".d" else path.touch(0o600)
        os.chown(path, 54321, 54321)
        refused(journal, "belongs to user 54321, not to you")

    @pytest.mark.skipif(sys.platform != "linux" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")
    def test_for_another_user(self, open_folder):
        journal = open_folder / "run.db"
        abreast.map(work, range(3), journal=journal)
        script = """
            import abreast, os, sys, tempfile
            with tempfile.TemporaryDirectory() as other:  # has everything imported
                abreast.map(abs, [-2], journal=os.path.join(other, "run.db"))
            os.setegid(54321)
            os.seteuid(54321)
            for trusted in (False, True):
                try:
                    abreast.map(abs, [1], journal=abreast.Journal(sys.argv[1], trust=trusted))
                except abreast.JournalTrustError as error:
                    print("told", error)
        """
        with child(script, journal, stderr=-1) as process:
            out, error = process.communicate(timeout=30)
        assert not error and out.count("told") == 2 and "copy it, and give the copy's path" in out, (out, error)

    def test_a_log_that_is_planted_while_it_is_opened(self, journal, monkeypatch):
        """In a folder that everybody may write: after the first look, and before SQLite opens it."""
        from abreast.journal import store

        real, looks = store.check_others, []

        def check(paths, *, trust):
            looks.append(1)
            if len(looks) == 2:
                os.chmod(f"{journal}-wal", 0o666)
            real(paths, trust=trust)

        monkeypatch.setattr(store, "check_others", check)
        refused(journal, "others may write the part of the journal")


def test_a_pickle_that_somebody_planted_goes_off_only_with_trust(journal):
    """The reason for all this."""
    import sqlite3

    from abreast.journal import codec, schema

    connection = sqlite3.connect(journal)
    payload = pickle.dumps(Bomb(7))
    for key, occurrence in connection.execute("SELECT key, occ FROM tasks").fetchall():
        crc = schema.checksum(key, occurrence, schema.OK, codec.PICKLE, payload)
        connection.execute("UPDATE tasks SET payload = ?, codec = ?, crc = ? WHERE key = ?", (payload, codec.PICKLE, crc, key))
    connection.commit()
    connection.close()
    journal.chmod(0o622)
    refused(journal, "others may write")
    assert [bomb.x for bomb in abreast.map(work, range(3), journal=Journal(journal, trust=True))] == [7, 7, 7]
    assert BOMBS == [7, 7, 7] and len(statuses(journal)) == 3


def test_file_systems_are_told(tmp_path, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    assert trust.file_system_of("/proc/self") == "proc"
    if any(
        line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ):  # not where only a part of the tree is this process's root
        assert trust.file_system_of(str(tmp_path)) not in ("", "proc")


def test_on_a_networks_file_system_it_is_slower_and_warns(tmp_path, monkeypatch):
    from abreast.journal import store

    monkeypatch.setattr(store, "file_system_of", lambda path: "nfs4")
    path = tmp_path / "run.db"
    with pytest.warns(abreast.JournalWarning, match=r"file system of a network \(nfs4\)") as caught:
        assert abreast.map(abs, [-1], journal=path) == [1]
    assert str(path) in str(caught[0].message)
    with contextlib.suppress(FileNotFoundError):
        assert not (tmp_path / "run.db-wal").exists()
    with pytest.warns(abreast.JournalWarning):
        results = abreast.imap(abs, [-1, -2], journal=path)
        assert list(results) == [1, 2]
    assert results.summary().resumed == 1
