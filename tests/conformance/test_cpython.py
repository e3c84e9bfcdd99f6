"""CPython's own tests with our classes in place; where this Python is installed with them. See run_cpython.py."""

from __future__ import annotations

import faulthandler
import subprocess
import sys

import pytest

from tests.conformance import run_cpython
from tests.helpers import ROOT

pytestmark = [pytest.mark.whole]


@pytest.mark.parametrize("part", run_cpython.PARTS)
def test_cpythons_own_suites(part):
    faulthandler.dump_traceback_later(300, exit=True)  # a minute is not enough for them: the fixture's limit
    runner = [sys.executable, str(ROOT / "tests/conformance/run_cpython.py"), "--part", part]
    done = subprocess.run(runner, capture_output=True, text=True, timeout=250, check=False)
    if done.returncode == 3:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_at_most_three_are_left_out_of_threads():
    assert len(run_cpython.EXCEPTIONS) <= 3


def test_each_of_processes_is_left_out_for_one_reason():
    tables = (run_cpython.DIFFERENT, run_cpython.PRIVATE, run_cpython.DEFECTS)
    assert sum(map(len, tables)) == len(run_cpython.PROCESS_EXCEPTIONS)
    assert all(reason.strip() for table in tables for reason in table.values())
