"""Habits of the house that a linter does not know."""

from __future__ import annotations

import re

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.whole

FILES = sorted((ROOT / "src" / "abreast").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_opens_with_what_it_is(path):
    assert path.read_text().startswith('"""')


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_with_a_lock_or_a_thread_opens_with_a_picture(path):
    text = path.read_text()
    if path.name == "course.py":  # code that is shown to users
        return
    if re.search(r"threading\.(Lock|RLock|Condition|Thread)\(", text):
        opening = text.split('"""')[1]
        assert "::" in opening, "no picture"
        assert re.search(r"guards", opening), "does not say which lock guards what"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_exception_to_a_check_has_a_code_and_a_reason(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for match in re.finditer(r"# (type: ignore|noqa)(.*)", line):
            assert re.match(r"(\[[\w, -]+\]|: [A-Z0-9, ]+)", match[2]), f"{path}:{number}: no code"
            assert "#" in match[2], f"{path}:{number}: no reason"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_sleeps_prints_or_reads_the_wall_clock(path):
    text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
    if path.parent.name == "cli":  # the one that writes for a living
        text = re.sub(r"\bprint\(", "", text)
    if path.name == "life.py":  # a Retry-After may be a date
        text = text.replace("time.time()", "", 1)
    if path.parent.name == "journal" or path.name == "journaled.py":  # what is recorded has a date
        text = text.replace("time.time()", "")
    for word in (r"\bprint\(", r"time\.sleep", r"time\.time\("):
        assert not re.search(word, text), f"{path}: {word}"
