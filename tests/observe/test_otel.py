"""Spans of OpenTelemetry, made with its real SDK: one for each attempt, its parent where it was submitted, and a parent for what happens inside."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import sys
import threading
import time
from itertools import pairwise

import pytest

import abreast
from abreast.core import watch
from abreast.observe.finding import find

pytestmark = pytest.mark.whole

trace = pytest.importorskip("opentelemetry.trace")
baggage = pytest.importorskip("opentelemetry.baggage")
sdk = pytest.importorskip("opentelemetry.sdk.trace")

KINDS = ["thread", "process", "serial"]
POOLS = {"thread": abreast.ThreadPoolExecutor, "process": abreast.ProcessPoolExecutor, "serial": abreast.SerialExecutor}
HERE = ["thread", "serial"]

tracer = trace.get_tracer("tests")


@pytest.fixture(scope="session")
def exporter():
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter):
    """Return what returns the spans that have ended, by name, in the order of their starts."""
    exporter.clear()

    def ended(name):
        return sorted((span for span in exporter.get_finished_spans() if span.name == name), key=lambda span: span.start_time)

    return ended


@pytest.fixture
def request_span(exporter):
    """Everything in the test is a part of this span, and watched."""
    with abreast.record(observers=["otel"]), tracer.start_as_current_span("request") as span:
        yield span


def number(span):
    return span.get_span_context().span_id


def is_child(span, parent):
    return span.parent is not None and (span.parent.trace_id, span.parent.span_id) == (
        parent.get_span_context().trace_id,
        number(parent),
    )


def within(x):
    """Makes a span of its own, and returns the number of its parent."""
    parent = trace.get_current_span().get_span_context()
    with tracer.start_as_current_span(f"inner {x}"):
        return parent.trace_id, parent.span_id


def fails(x):
    if x == 1:
        raise ValueError("one is bad")
    return x


def flaky(x):
    within(x)
    if abreast.current_task().attempt < 3:
        raise ConnectionError("again")
    return x


def die(x):
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def tenant(_):
    return baggage.get_baggage("tenant")


class TestParents:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_a_run(self, kind, spans, request_span):
        parents = abreast.map(within, range(40), kind=kind, max_workers={"thread": 2, "process": 1}.get(kind))
        tasks = spans("within")
        assert sorted(span.attributes["abreast.task.index"] for span in tasks) == list(range(40))
        assert all(is_child(span, request_span) for span in tasks)
        if kind == "process":  # the submitter's: the task's span is made afterwards
            expected = {index: number(request_span) for index in range(40)}
        else:
            expected = {span.attributes["abreast.task.index"]: number(span) for span in tasks}
        trace_id = request_span.get_span_context().trace_id
        assert parents == [(trace_id, expected[index]) for index in range(40)]
        if kind != "process":
            for index in range(40):
                (inner,) = spans(f"inner {index}")
                assert inner.parent.span_id == expected[index]

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_submit(self, kind, spans, request_span):
        with POOLS[kind](1) as executor:
            with tracer.start_as_current_span("first") as first:
                one = executor.submit(within, 1)
            with tracer.start_as_current_span("second") as second:
                two = executor.with_options(name="another").submit(within, 2)
            found = [one.result()[1], two.result()[1]]
        tasks = [*spans("within"), *spans("another")]
        assert [is_child(task, parent) for task, parent in zip(tasks, (first, second), strict=True)] == [True, True]
        assert found == [number(span) for span in ((first, second) if kind == "process" else tasks)]

    @pytest.mark.parametrize(("kind", "limit"), [("thread", None), ("thread", 1), ("process", None)])
    def test_of_a_group(self, kind, limit, spans, request_span):
        with abreast.TaskGroup(kind=kind, max_workers=limit) as group:
            with tracer.start_as_current_span("first") as first:
                one = group.submit(within, 1)
            two = group.start(within, args=(2,))
        tasks = {span.attributes["abreast.task.index"]: span for span in spans("within")}
        assert is_child(tasks[0], first)
        assert is_child(tasks[1], request_span)
        expected = [first, request_span] if kind == "process" else [tasks[0], tasks[1]]
        assert [one.result()[1], two.result()[1]] == [number(span) for span in expected]

    def test_of_a_thread_of_a_group(self, spans, request_span):
        found = []
        with abreast.TaskGroup() as group:
            group.start(threading.Thread(target=lambda: found.append(within(0))))
        (task,) = spans("Thread.run")
        assert is_child(task, request_span)
        assert found == [(request_span.get_span_context().trace_id, number(task))]

    def test_of_a_run_in_a_run(self, spans, request_span):
        def outer(x):
            return abreast.map(within, [x, x + 1], max_workers=2)

        found = abreast.map(outer, [0, 10], max_workers=2)
        outers = {
            span.attributes["abreast.task.index"]: span for span in spans("TestParents.test_of_a_run_in_a_run.<locals>.outer")
        }
        tasks = spans("within")
        for index, parents in enumerate(found):
            inside = [span for span in tasks if is_child(span, outers[index])]
            assert {parent[1] for parent in parents} == {number(span) for span in inside}
            assert len(inside) == 2
            assert is_child(outers[index], request_span)

    def test_of_a_run_from_async_code(self, spans, request_span):
        async def main():
            with tracer.start_as_current_span("handler") as handler:
                await abreast.amap(within, range(3), max_workers=2)
            return handler

        handler = asyncio.run(main())
        assert [is_child(span, handler) for span in spans("within")] == [True] * 3

    def test_on_somebody_elses_threads(self, spans, request_span):
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            parents = abreast.map(within, range(3), executor=executor)
        tasks = spans("within")
        assert [is_child(span, request_span) for span in tasks] == [True] * 3
        assert [parent[1] for parent in parents] == [number(span) for span in tasks]

    @pytest.mark.parametrize("kind", HERE)
    def test_there_is_none(self, kind, spans):
        with abreast.record(observers=["otel"]):
            abreast.map(within, range(2), kind=kind, max_workers=1)
        assert [span.parent for span in spans("within")] == [None, None]

    @pytest.mark.parametrize("kind", KINDS)
    def test_baggage_goes_along(self, kind, request_span):
        from opentelemetry import context

        token = context.attach(baggage.set_baggage("tenant", "a b"))
        try:
            with POOLS[kind](1) as executor:
                assert list(executor.imap(tenant, range(3))) == ["a b"] * 3
                assert executor.submit(tenant, 0).result() == "a b"
        finally:
            context.detach(token)

    @pytest.mark.parametrize("kind", KINDS)
    def test_that_is_not_sampled(self, kind, spans):
        parent = trace.SpanContext(12345, 678, is_remote=True, trace_flags=trace.TraceFlags(0))
        with abreast.record(observers=["otel"]), trace.use_span(trace.NonRecordingSpan(parent)):
            found = abreast.map(within, range(2), kind=kind, max_workers=None if kind == "serial" else 1)
        assert spans("within") == []
        assert [trace_id for trace_id, _ in found] == [12345, 12345]

    def test_in_the_caller_nothing_changes(self, request_span):
        abreast.map(within, [1], kind="serial")
        with abreast.SerialExecutor() as executor:
            executor.submit(within, 1)
        assert trace.get_current_span() is request_span


class TestSpans:
    @pytest.mark.parametrize("kind", KINDS)
    def test_attributes(self, kind, spans, request_span):
        before = time.time_ns()
        abreast.map(fails, [0, 2, 3], kind=kind, max_workers=None if kind == "serial" else 1)
        after = time.time_ns()
        tasks = spans("fails")
        assert [span.attributes["abreast.task.index"] for span in tasks] == [0, 1, 2]
        for span in tasks:
            told = span.attributes
            assert (told["abreast.work"], told["abreast.kind"], told["abreast.task.attempt"]) == ("fails", kind, 1)
            assert told["abreast.task.outcome"] == "ok"
            assert 0 <= told["abreast.task.queued"] < (after - before) / 1e9
            assert span.status.status_code is trace.StatusCode.UNSET
            assert (told["process.pid"] == os.getpid()) == (kind != "process")
            assert ("thread.id" in told) == ("thread.name" in told) == (kind != "process")
        if kind == "serial":
            assert tasks[0].attributes["thread.id"] == threading.get_ident()
        slack = 1_000_000  # two clocks
        assert before - slack <= tasks[0].start_time
        assert tasks[-1].end_time <= after + slack
        assert all(span.start_time <= span.end_time for span in tasks)
        assert all(one.end_time <= other.start_time + slack for one, other in pairwise(tasks))

    @pytest.mark.parametrize("kind", KINDS)
    def test_errors(self, kind, spans, request_span):
        with POOLS[kind](1) as executor:
            list(executor.outcomes(fails, range(3)))
            executor.submit(fails, 1).exception()
        failed = [span for span in spans("fails") if span.status.status_code is trace.StatusCode.ERROR]
        assert [span.status.description for span in failed] == ["ValueError: one is bad"] * 2
        assert [span.attributes["error.type"] for span in failed] == ["ValueError"] * 2
        assert [span.attributes["abreast.task.outcome"] for span in failed] == ["failed"] * 2
        assert len(spans("fails")) == 4

    @pytest.mark.parametrize("kind", KINDS)
    def test_retries(self, kind, spans, request_span):
        retry = abreast.Retry(3, wait_initial=0, wait_jitter=0)
        with POOLS[kind](1) as executor:
            list(executor.imap(flaky, [7], retries=retry))
            executor.with_options(retries=retry).submit(flaky, 8).result()
        tasks = spans("flaky")
        assert [span.attributes["abreast.task.attempt"] for span in tasks] == [1, 2, 3] * 2
        assert [span.status.is_ok for span in tasks] == [False, False, True] * 2
        assert all(is_child(span, request_span) for span in tasks)
        if kind != "process":
            assert [span.parent.span_id for span in spans("inner 7") + spans("inner 8")] == [number(span) for span in tasks]

    def test_a_process_that_dies(self, spans, request_span):
        list(abreast.outcomes(die, range(3), kind="process", max_workers=1))
        crashed = [span for span in spans("die") if span.attributes["abreast.task.outcome"] == "crashed"]
        assert [span.attributes["abreast.task.index"] for span in crashed] == [1]
        assert crashed[0].status.status_code is trace.StatusCode.ERROR
        assert crashed[0].attributes["error.type"] == "WorkerCrashed"
        assert is_child(crashed[0], request_span)

    @pytest.mark.parametrize("kind", ["thread", "process"])
    def test_a_task_over_its_limit(self, kind, spans, request_span):
        list(abreast.outcomes(time.sleep, [0.2], kind=kind, max_workers=1, task_timeout=0.05))
        (task,) = spans("sleep")
        assert task.attributes["abreast.task.outcome"] == "timeout"
        assert task.attributes["error.type"] == "TaskTimeout"
        assert (
            task.start_time < task.end_time
        )  # by less than its limit, if its thread had to wait for a core before it could say that it begins

    def test_a_task_that_has_not_ended_yet_is_a_parent_already(self, spans):
        go = threading.Event()
        with abreast.record(observers=["otel"]), abreast.ThreadPoolExecutor(1) as executor:
            future = executor.submit(lambda: (within(0), go.wait(30)))
            while not spans("inner 0"):
                time.sleep(0.001)
            (inner,) = spans("inner 0")
            go.set()
            future.result()
            executor.shutdown()
        (task,) = [span for span in spans(future_name()) if number(span) == inner.parent.span_id]
        assert task.start_time <= inner.start_time <= inner.end_time <= task.end_time


def future_name():
    return "TestSpans.test_a_task_that_has_not_ended_yet_is_a_parent_already.<locals>.<lambda>"


def use_some():
    for pool in POOLS.values():
        with pool(1) as executor:
            assert executor.submit(fails, 2).result() == 2
            assert list(executor.imap(fails, range(2, 9))) == list(range(2, 9))
    with abreast.TaskGroup() as group:
        group.submit(fails, 2)


class TestNobodyFollows:
    def test_nothing_is_built(self, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise AssertionError("nobody follows tasks")

        monkeypatch.setattr(watch, "Along", refuse)
        with abreast.record(), tracer.start_as_current_span("request"):
            use_some()

    def test_processes_do_not_import_it(self, exporter):
        asked = "'opentelemetry.trace' in __import__('sys').modules"
        with tracer.start_as_current_span("request"), abreast.ProcessPoolExecutor(1) as executor:
            assert executor.submit(eval, asked).result() is False
            with abreast.record():
                assert list(executor.imap(eval, [asked])) == [False]
            with abreast.record(observers=["otel"]):
                assert list(executor.imap(eval, [asked])) == [True]

    def test_what_is_kept_for_tasks_on_their_way_goes_with_them(self, exporter):
        with abreast.record(observers=["otel"]) as run:
            use_some()
        chunks = [some for _, some in run._recorder._chunks]
        assert chunks
        assert all(some.along is None and (some.measure is None or some.measure.along is None) for some in chunks)

    def test_the_library_is_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "opentelemetry", None)
        with pytest.raises(ImportError, match=r"pip install 'abreast\[otel\]'"):
            find("otel")
        with pytest.raises(ImportError, match=r"pip install 'abreast\[otel\]'"):
            abreast.record(observers=["otel"])
