"""Any history of runs on one journal, against a dictionary: exactly what has no recorded success runs."""

from __future__ import annotations

import collections
import shutil
import tempfile
import threading
from pathlib import Path

import abreast
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from abreast.journal.codec import decode
from tests.journal.helpers import rows


class World:
    """What the tasks see: which inputs fail now, and what ran."""

    def __init__(self):
        self.lock = threading.Lock()
        self.failing: set[int] = set()
        self.ran: collections.Counter[int] = collections.Counter()
        self.failed: collections.Counter[int] = collections.Counter()

    def __call__(self, x):
        with self.lock:
            self.ran[x] += 1
            if x in self.failing:
                self.failed[x] += 1
                raise ArithmeticError(x)
        return (x, x * x) if x % 2 else [x, {"square": x * x}]

    def result(self, x):
        return (x, x * x) if x % 2 else [x, {"square": x * x}]


inputs = st.integers(0, 7)
options = st.fixed_dictionaries(
    {
        "kind_and_workers": st.sampled_from([("thread", 2), ("thread", 1), ("serial", None)]),
        "chunksize": st.sampled_from(["auto", 1, 3]),
        "ordered": st.booleans(),
    },
)


def unpacked(kind_and_workers, **more):
    return {"kind": kind_and_workers[0], "max_workers": kind_and_workers[1], **more}


options = options.map(lambda drawn: unpacked(**drawn))


class Histories(RuleBasedStateMachine):
    @initialize()
    def begin(self):  # not __init__: hypothesis makes one to look at, too
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "run.db"
        self.world = World()
        self.inputs: list[int] = []
        self.recorded: set[tuple[int, int]] = set()  # input and occurrence of what has a success

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # ---- inputs

    @rule(x=inputs, place=st.integers(0, 30))
    def insert(self, x, place):
        self.inputs.insert(place % (len(self.inputs) + 1), x)

    @rule(more=st.lists(inputs, max_size=4))
    def append(self, more):
        self.inputs += more

    @rule(order=st.randoms(use_true_random=False))
    def shuffle(self, order):
        order.shuffle(self.inputs)

    @rule(place=st.integers(0, 30))
    def leave_out(self, place):
        if self.inputs:
            del self.inputs[place % len(self.inputs)]

    @rule(failing=st.sets(inputs, max_size=2))
    def let_fail(self, failing):
        self.world.failing = failing

    # ---- runs

    def before(self):
        """What is to run, and how much is not."""
        self.world.ran.clear()
        self.world.failed.clear()
        asked = {(x, occurrence) for x, count in collections.Counter(self.inputs).items() for occurrence in range(count)}
        self.asked = asked
        return collections.Counter(x for x, _ in asked - self.recorded), len(asked & self.recorded)

    def learn(self):
        """All that was asked for has run, and is recorded if it did not fail."""
        self.recorded |= {(x, occurrence) for x, occurrence in self.asked if x not in self.world.failing}

    @rule(options=options)
    def outcomes(self, options):
        to_run, known = self.before()
        results = abreast.outcomes(self.world, self.inputs, journal=self.path, **options)
        outcomes = list(results)
        assert self.world.ran == to_run
        assert sorted(outcome.index for outcome in outcomes) == list(range(len(self.inputs)))
        if options["ordered"]:
            assert [outcome.index for outcome in outcomes] == list(range(len(self.inputs)))
        for outcome in outcomes:
            assert outcome.input == self.inputs[outcome.index]
            if outcome.error is None:
                assert outcome.value == self.world.result(outcome.input) and type(outcome.value) is type(
                    self.world.result(outcome.input)
                )
            else:
                assert outcome.input in self.world.failing and not outcome.resumed and type(outcome.error) is ArithmeticError
        summary = results.summary()
        assert (summary.resumed, summary.tasks, summary.failures) == (known, to_run.total(), self.world.failed.total())
        assert sum(outcome.resumed for outcome in outcomes) == known
        self.learn()

    @rule()
    def map(self):
        to_run, known = self.before()
        will_fail = any(x in self.world.failing for x in to_run)
        try:
            results = abreast.map(self.world, self.inputs, journal=self.path, kind="serial")
        except ArithmeticError:
            assert will_fail
            self.join_and_learn(to_run)
        else:
            assert results == [self.world.result(x) for x in self.inputs] and not will_fail
            assert self.world.ran == to_run
            self.learn()

    @rule(options=options)
    def imap(self, options):
        to_run, known = self.before()
        will_fail = any(x in self.world.failing for x in to_run)
        results = abreast.imap(self.world, self.inputs, journal=self.path, **options)
        got = []
        try:
            for result in results:
                got.append(result)
        except ArithmeticError:
            assert will_fail
            self.join_and_learn(to_run)
            if options["ordered"]:
                assert got == [self.world.result(x) for x in self.inputs[: len(got)]]
            return
        expected = [self.world.result(x) for x in self.inputs]
        assert (got == expected) if options["ordered"] else (sorted(map(repr, got)) == sorted(map(repr, expected)))
        assert not will_fail and self.world.ran == to_run and results.summary().resumed == known
        self.learn()

    def join_and_learn(self, to_run):
        """A run of threads has been given up: what came of its last tasks may be lost, so the file is asked."""
        assert self.world.ran <= to_run
        for thread in threading.enumerate():
            if thread.name.startswith("World") and thread is not threading.current_thread():
                thread.join(10)
        self.ask_file()

    @rule(count=st.integers(0, 6), options=options)
    def break_after(self, count, options):
        to_run, _ = self.before()
        results = abreast.imap(self.world, self.inputs, journal=self.path, **options)
        got = 0
        try:
            for _ in range(count):
                next(results)
                got += 1
        except (StopIteration, ArithmeticError):
            pass
        results.close()
        self.join_and_learn(to_run)

    def ask_file(self):
        """Nothing may be lost that was recorded before; what is new was run and did not fail."""
        found = set()
        for payload, codec, occurrence in rows(self.path, "payload, codec, occ") if self.path.exists() else []:
            if payload is not None:
                found.add((decode(codec, payload)[0], occurrence))
        assert found >= self.recorded
        assert collections.Counter(x for x, _ in found - self.recorded) <= self.world.ran - self.world.failed
        self.recorded = found

    @invariant()
    def what_is_recorded_stays(self):
        if hasattr(self, "path") and self.path.exists():
            assert sum(status == 1 for (status,) in rows(self.path, "status")) == len(self.recorded)


Histories.TestCase.settings = settings(max_examples=6, stateful_step_count=10, deadline=None)
TestHistories = Histories.TestCase


class More(Histories):
    pass


More.TestCase.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)
TestMore = pytest.mark.slow(More.TestCase)
