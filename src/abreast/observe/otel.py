"""An observer that makes an OpenTelemetry span of each attempt at a task, and has what happens in a task find its parent.

::

    where it is submitted          the task's thread                                    the thread that tells what came of it
    origin(): the current    ───▶  begin(): starts the span, and makes it the    ───▶  attempts(): ends it, at the task's own time
    OpenTelemetry context          current one of the task's context
         └── another process ───▶  arrive(): the submitter's context there        ───▶  attempts(): makes the span afterwards

So on threads the parent of what happens in a task is the task's span; in a process it is the submitter's, since the task's has no number
before it is made, and that is done here, where the user's provider is (docs/design/otel.md). What travels are the texts of W3C's
``traceparent`` and ``baggage``, or whatever propagators the user has set.

`opentelemetry-api` is imported when the observer is opened. It makes nothing of spans unless the user has set up a provider of an SDK.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from abreast.core import watch
from abreast.core.states import CANCELLED, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from abreast.core.watch import Attempts, Log

__all__ = ["TaskSpans", "arrive", "open_observer"]


def open_observer() -> TaskSpans:
    """Return a new observer.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """
    try:
        return TaskSpans()
    except ImportError as error:
        raise ImportError("the observer 'otel' needs OpenTelemetry: pip install 'abreast[otel]'") from error


def arrive(carrier: dict[str, str]) -> None:
    """In another process: make what was sent there the current OpenTelemetry context."""
    from opentelemetry import context, propagate

    context.attach(propagate.extract(carrier))


class TaskSpans:
    """Makes a span of each attempt, by the tracer ``abreast`` of the provider that is set (`opentelemetry.trace.set_tracer_provider`).

    A span is named as the function, and has as attributes:
        abreast.work, abreast.kind: the run, executor or group, and its kind of workers.
        abreast.task.index, abreast.task.attempt: from 0; a call of ``submit`` has the number of the call; and which attempt it is, from 1.
        abreast.task.queued: seconds from when it was submitted to when it began.
        abreast.task.outcome: ``ok``, ``failed``, ``cancelled``, ``timeout`` or ``crashed``.
        thread.id, thread.name, process.pid: where it ran; of another process only the last.
        error.type: of one that failed, whose status is ERROR with the error's text.

    In processes, spans that the function makes need a provider there, which the user sets up: ``initializer``.
    """

    def __init__(self) -> None:
        from opentelemetry import context, propagate, trace

        self._context = context
        self._inject = propagate.inject
        self._trace = trace
        self._tracer = trace.get_tracer("abreast")

    def origin(self) -> Any:
        return self._context.get_current()

    def begin(self, origin: Any, log: Log, name: str, index: int, number: int) -> tuple[Any, int]:
        epoch = _epoch()
        attributes = _attributes(log, index, number)
        span = self._tracer.start_span(name, origin, attributes=attributes, start_time=epoch + perf_counter_ns())
        self._context.attach(self._trace.set_span_in_context(span, origin))  # for good: the context is the task's own
        return span, epoch

    def carry(self, origin: Any) -> Callable[[], None] | None:
        carrier: dict[str, str] = {}
        self._inject(carrier, origin)
        return partial(arrive, carrier) if carrier else None

    def attempts(self, log: Log, some: Attempts) -> None:
        if some.along is None:
            return
        name, origin, begun = some.along.of(self)
        row: dict[str, Any] = {}
        if some.row is not None:
            row = {"process.pid": some.row.pid}
            if some.row.ident:
                row |= {"thread.id": some.row.ident, "thread.name": some.row.name}
        here = _epoch()
        for place, (begin, end) in enumerate(pairwise([some.begin, *map(watch.nanoseconds, some.ends)])):
            index = some.first + place
            span, epoch = begun.pop(index, None) or (None, here)
            if span is None:
                attributes = _attributes(log, index, some.number)
                span = self._tracer.start_span(name, origin, attributes=attributes, start_time=epoch + begin)
            if span.is_recording():
                span.set_attributes(row)
                if some.queued:
                    span.set_attribute("abreast.task.queued", max(0, begin - some.queued) / 1e9)
                outcome, error = some.failed.get(place, (0, ""))
                span.set_attribute("abreast.task.outcome", OUTCOMES[outcome])
                if error and outcome != CANCELLED:
                    span.set_attribute("error.type", error.partition(":")[0])
                    span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, error))
            span.end(epoch + end)

    def span(self, *_: object) -> None:
        """Who waits for what is no span."""


def _attributes(log: Log, index: int, number: int) -> dict[str, Any]:
    """Return what is known of a task when it begins: what samplers see."""
    return {
        "abreast.work": log.name,
        "abreast.kind": log.kind,
        "abreast.task.index": index,
        "abreast.task.attempt": number,
    }


def _epoch() -> int:
    """Return what makes nanoseconds since 1970 of those of `perf_counter_ns`.

    Asked anew each time, since somebody may set the clock; of a few readings the quickest counts: a thread that is held up between
    the two clocks would be milliseconds off.
    """
    readings = []
    for _ in range(3):
        before, now, after = perf_counter_ns(), time_ns(), perf_counter_ns()
        readings.append((after - before, now - (before + after) // 2))
    return min(readings)[1]
