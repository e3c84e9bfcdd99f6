"""With at_most_once, a thread that is about to send a batch waits for the journal. A run that is given up just then must not leave it waiting."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

import abreast
from abreast.core.journal import Journal
from abreast.core.journal_errors import JournalError
from abreast.engine.journaled import Journaling
from tests.helpers import in_threads


def double(i):
    return 2 * i


@pytest.fixture
def journaling(tmp_path):
    journaling = Journaling(Journal(tmp_path / "run.db", at_most_once=True), double, star=False, key=None)
    nothing = lambda *_: False
    journaling.open(SimpleNamespace(name="run", _journal_failed=nothing, _recorded=nothing, _record_done=nothing))
    journaling.admit(0, [5, 6], None)
    yield journaling
    journaling.close("stopped", 2)


BATCH = SimpleNamespace(start=0, items=[5, 6])


def test_it_comes_after_the_end(journaling):
    journaling.close("stopped", 2)

    def begin():
        with pytest.raises(JournalError, match="is over"):
            journaling.begin(BATCH)

    in_threads(begin, timeout=10)


def test_it_comes_between_the_last_group_and_the_end(journaling):
    thread = journaling._thread
    journaling._queue.put(None)
    thread.join()
    put, is_put = journaling._queue.put, threading.Event()

    def begin():
        with pytest.raises(JournalError, match="is over"):
            journaling.begin(BATCH)

    def close():
        assert is_put.wait(10)
        journaling.close("stopped", 2)

    journaling._queue = SimpleNamespace(put=lambda entry: (put(entry), is_put.set()), get_nowait=journaling._queue.get_nowait)
    in_threads(begin, close, timeout=10)


def test_runs_that_are_given_up_leave_no_thread(tmp_path, busy_switching):
    """The guard around every test looks for it."""
    for number in range(8):
        results = abreast.imap(double, range(100), journal=Journal(tmp_path / str(number), at_most_once=True), max_workers=4)
        assert next(results) == 0
        results.close()
