"""Observers are found by name; each is told of every task, and none changes the work."""

from __future__ import annotations

import logging
from contextvars import ContextVar

import pytest

import abreast
from abreast.core import watch
from abreast.observe.finding import find, names


def half(x):
    if x == 3:
        raise ValueError("three")
    return x / 2


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("kind", ["thread", "process", "serial"])
def test_the_work_is_as_ever(name, kind):
    pytest.importorskip("opentelemetry.sdk") if name == "otel" else None
    with abreast.record(observers=[name]):
        outcomes = list(abreast.outcomes(half, range(6), kind=kind))
    assert [outcome.value for outcome in outcomes] == [0, 0.5, 1, None, 2, 2.5]
    assert repr(outcomes[3].error) == "ValueError('three')"


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(ValueError, match="there is no observer 'logs'; did you mean 'log'"):
        find("logs")


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_log(kind, caplog):
    with caplog.at_level(logging.INFO, "abreast.tasks"), abreast.record(observers=["log"]):
        list(abreast.outcomes(half, [2, 3], kind=kind, max_workers=1))
    records = {record.task: record for record in caplog.records if record.name == "abreast.tasks"}
    assert set(records) == {"half(2)", "half(3)"}
    assert records["half(2)"].levelno == logging.INFO
    assert records["half(2)"].duration >= 0
    assert records["half(3)"].levelno == logging.WARNING
    assert records["half(3)"].error == "ValueError: three"
    assert "half(3): attempt 1 failed after" in records["half(3)"].getMessage()


def test_an_observer_that_raises_is_logged_once_and_dropped(caplog):
    class Bad:
        calls = 0

        def attempts(self, _log, _some):
            self.calls += 1
            raise LookupError("no")

        def span(self, *_):
            pass

    bad = Bad()
    with abreast.record(observers=[bad]) as run:
        assert abreast.map(half, [1, 2], max_workers=1) == [0.5, 1]
        assert abreast.map(half, [1, 2], max_workers=1) == [0.5, 1]
    assert bad.calls == 1
    assert [record.getMessage() for record in caplog.records] == ["an observer (Bad) raised, and is told nothing more"]
    assert len(run.tasks) == 4


@pytest.mark.parametrize("kind", ["thread", "process", "serial"])
@pytest.mark.parametrize("where", ["origin", "begin", "carry"])
def test_a_follower_that_raises_is_dropped_too(where, kind, caplog):
    class Bad:
        def attempts(self, *_):
            pass

        def origin(self):
            return self.may("origin")

        def begin(self, *_):
            return self.may("begin")

        def carry(self, *_):
            return self.may("carry")

        def may(self, what):
            if what == where:
                raise LookupError(what)

    with abreast.record(observers=[Bad()]) as run:
        assert abreast.map(half, [1, 2], kind=kind, max_workers=None if kind == "serial" else 1) == [0.5, 1]
    asked = where in ("origin", "carry" if kind == "process" else "begin")
    assert len(caplog.records) == asked
    assert len(run.tasks) == 2


def test_a_follower_sees_what_it_has_kept():
    told = []

    class Mine:
        def origin(self):
            return where.get()

        def begin(self, origin, log, name, index, number):
            where.set("task")
            return origin, log.name, name, index, number

        def attempts(self, _log, some):
            told.append(some.along.of(self))

    where = ContextVar("where", default="nowhere")
    where.set("here")
    with abreast.record(observers=[Mine()]), abreast.ThreadPoolExecutor(1) as executor:
        seen = executor.submit(where.get).result()
        inputs = abreast.map(lambda _: where.get(), "ab", max_workers=1, name="get")
    assert (seen, inputs, where.get()) == ("task", ["task", "task"], "here")
    one, *others = told
    name = one[0]
    assert one == (name, "here", {0: ("here", executor._crew.name, name, 0, 1)})
    kept = {index: kept for name, origin, begun in others for index, kept in begun.items()}
    assert kept == {index: ("here", "get", "get", index, 1) for index in (0, 1)}


def test_an_observer_need_not_be_told_of_spans(caplog):
    class Mine:
        seen = 0

        def attempts(self, _log, some):
            self.seen += len(some.ends)

    mine = Mine()
    with abreast.record(observers=[mine]):
        for _ in range(2):
            with abreast.ThreadPoolExecutor(1) as executor:
                executor.submit(half, 2)
    assert mine.seen == 2
    assert not caplog.records


def test_an_observer_of_ones_own_is_closed():
    class Mine:
        closed = 0
        seen = 0

        def attempts(self, _log, some):
            self.seen += len(some.ends)

        def span(self, *_):
            pass

        def close(self):
            self.closed += 1

    mine = Mine()
    with abreast.record(observers=[mine]):
        abreast.map(half, [1, 2])
    assert (mine.seen, mine.closed) == (2, 1)


def test_what_an_observer_raises_at_its_end_is_logged_and_the_rest_ends(caplog, tmp_path):
    class Bad:
        def attempts(self, _log, _some):
            pass

        def close(self):
            raise LookupError("no")

    with abreast.record(tmp_path / "run.csv", observers=[Bad(), "log"]):
        abreast.map(half, [1, 2])
    assert watch.active == ()
    assert (tmp_path / "run.csv").exists()
    assert [record.getMessage() for record in caplog.records] == ["an observer (Bad) raised at its end"]
