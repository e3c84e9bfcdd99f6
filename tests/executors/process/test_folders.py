"""What the guardian lists for its workers: modules are found that were written at any moment before a worker began."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
import zipfile

import pytest

from abreast import ProcessPoolExecutor
from abreast.executors.process import folders

PATIENCE = 30
HOUR = 3600


@pytest.fixture
def cache(monkeypatch):
    """Nothing is known of any directory."""
    monkeypatch.setattr(folders, "_sure", {})
    monkeypatch.setattr(sys, "path_importer_cache", {})
    return sys.path_importer_cache


def settled(folder, ago=HOUR):
    when = time.time() - ago
    os.utime(folder, (when, when))
    return str(folder)


def test_a_directory_that_has_not_been_changed_lately_is_listed(tmp_path, cache, monkeypatch):
    tmp_path.joinpath("one.py").write_text("")
    folder = settled(tmp_path)
    folders.look_into([folder])
    assert list(cache) == [folder]
    listed = []
    monkeypatch.setattr(os, "listdir", lambda path=".": listed.append(path) or [])
    assert cache[folder].find_spec("one").origin == str(tmp_path / "one.py")
    assert listed == []
    first = cache[folder]
    folders.look_into([folder])
    assert cache[folder] is first


def test_one_that_has_been_is_left_to_the_worker(tmp_path, cache):
    """A file may come within the same tick of its clock."""
    folder = settled(
        tmp_path, -folders.SETTLED / 2
    )  # a file server's clock may go before ours; and that this test may take its time
    folders.look_into([folder])
    assert not cache


def test_what_comes_later_is_found(tmp_path, cache):
    folder = settled(tmp_path)
    folders.look_into([folder])
    assert cache[folder].find_spec("later") is None
    tmp_path.joinpath("later.py").write_text("")
    assert cache[folder].find_spec("later") is not None  # the directory has another time now
    settled(tmp_path, HOUR / 2)
    folders.look_into([folder])
    assert cache[folder].find_spec("later") is not None


def test_a_link_that_leads_to_another_directory_of_the_same_time(tmp_path, cache):
    when = time.time() - HOUR
    for name in ("one", "two"):
        tmp_path.joinpath(name).mkdir()
        tmp_path.joinpath(name, f"of_{name}.py").write_text("")
        os.utime(tmp_path / name, (when, when))
    link = tmp_path / "current"
    link.symlink_to("one")
    folders.look_into([str(link)])
    assert cache[str(link)].find_spec("of_one") is not None
    link.unlink()
    link.symlink_to("two")
    folders.look_into([str(link)])
    assert cache[str(link)].find_spec("of_two") is not None


def test_a_listing_from_elsewhere_does_not_count(tmp_path, cache):
    """Of an import of the guardian's own, say: it may have been made in the very tick of a change."""
    folder = settled(tmp_path)
    sys.path.insert(0, folder)
    try:
        importlib.import_module("json.tool")
        with pytest.raises(ImportError):
            importlib.import_module("comes_in_the_same_tick")
    finally:
        sys.path.remove(folder)
    tmp_path.joinpath("comes_in_the_same_tick.py").write_text("")
    when = cache[folder]._path_mtime
    os.utime(folder, (when, when))
    assert cache[folder].find_spec("comes_in_the_same_tick") is None
    folders.look_into([folder])
    assert cache[folder].find_spec("comes_in_the_same_tick") is not None


def test_what_is_no_directory_is_not_remembered(tmp_path, cache, monkeypatch):
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("packed.py", "")
    tmp_path.joinpath("file").write_text("")
    for name in ("archive.zip", "file"):
        settled(tmp_path / name)
    tmp_path.joinpath("sub").mkdir()
    settled(tmp_path / "sub")
    monkeypatch.chdir(tmp_path)
    folders.look_into([str(tmp_path / "not there yet"), str(archive), str(tmp_path / "file"), "", ".", "sub"])
    assert not cache


def test_one_that_may_not_be_read_is_no_error(tmp_path, cache):
    folder = tmp_path / "closed"
    folder.mkdir()
    settled(folder)
    folder.chmod(0)
    try:
        folders.look_into([str(folder), str(folder / "within")])
    finally:
        folder.chmod(0o700)


def test_of_a_directory_that_is_not_asked_for_any_more_nothing_is_known(tmp_path, cache):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        settled(folder)
    folders.look_into([str(one)])
    folders.look_into([str(two)])
    assert list(cache) == [str(two)]
    assert list(folders._sure) == [str(two)]


PROGRAM = """
import os, sys, time
from abreast import ProcessPoolExecutor
from shop import price, later

if __name__ == "__main__":
    when = time.time() - 3600
    folder = os.path.dirname(os.path.abspath(__file__))
    os.utime(folder, (when, when))
    with ProcessPoolExecutor(1) as pool:
        print(pool.submit(price, 2).result())
    with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
        for n in range(3):
            with open(os.path.join(folder, f"new_{n}.py"), "w") as file:
                file.write(f"VALUE = {n}")
            print(pool.submit(later, f"new_{n}").result())
    with ProcessPoolExecutor(1) as pool:
        print(pool.submit(later, "new_2").result())
"""


def test_modules_that_a_program_writes_while_it_runs(tmp_path):
    tmp_path.joinpath("shop.py").write_text(
        "import importlib\n\ndef price(n):\n    return 3 * n\n\ndef later(name):\n    return importlib.import_module(name).VALUE\n"
    )
    tmp_path.joinpath("program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-B", "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["6", "0", "1", "2", "2"], done.stderr


def test_a_worker_finds_the_listing_that_the_guardian_has_made(tmp_path, monkeypatch):
    tmp_path.joinpath("listed_before.py").write_text("")
    monkeypatch.syspath_prepend(settled(tmp_path))
    importlib.import_module("listed_before")
    settled(tmp_path)
    known = f"{str(tmp_path)!r} in __import__('sys').path_importer_cache"  # no function of this file: its import would list it
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(eval, known).result(PATIENCE)


def test_one_that_this_process_has_not_looked_into_is_left_alone(tmp_path, monkeypatch):
    """It may be on a file server that does not answer."""
    monkeypatch.setattr(sys, "path", [*sys.path, settled(tmp_path)])
    with ProcessPoolExecutor(1) as pool:
        assert not pool.submit(eval, f"{str(tmp_path)!r} in __import__('sys').path_importer_cache").result(PATIENCE)
        assert pool.submit(eval, f"{str(tmp_path)!r} in __import__('sys').path").result(PATIENCE)
