"""An observer that logs each task as it ends, by the standard library's `logging`: logger ``abreast.tasks``, INFO, or WARNING for one that failed."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING

from abreast.core import watch
from abreast.core.states import CANCELLED
from abreast.core.text import printable

if TYPE_CHECKING:
    from abreast.core.watch import Attempts, Log

__all__ = ["TaskLog", "open_observer"]

LOGGER = logging.getLogger("abreast.tasks")


def open_observer() -> TaskLog:
    return TaskLog()


class TaskLog:
    """Logs. A record has `task` (the call), `duration` (seconds), `worker`, `attempt` and `error` as attributes, for formatters."""

    def attempts(self, log: Log, some: Attempts) -> None:
        worker = "?" if some.row is None else printable(some.row.name)
        for place, (begin, end) in enumerate(pairwise([some.begin, *map(watch.nanoseconds, some.ends)])):
            failed = some.failed.get(place)
            is_cancelled = failed is not None and failed[0] == CANCELLED
            level = logging.INFO if failed is None or is_cancelled else logging.WARNING
            if not LOGGER.isEnabledFor(level):
                continue
            text = watch.text_of(log.name, some, place)
            took = (end - begin) / 1e9
            more = {
                "task": text,
                "duration": took,
                "worker": worker,
                "attempt": some.number,
                "error": failed and failed[1],
            }
            if failed is None:
                LOGGER.info("%s: %.3g s on %s", text, took, worker, extra=more)
            elif is_cancelled:
                LOGGER.info("%s: cancelled after %.3g s on %s", text, took, worker, extra=more)
            else:
                LOGGER.warning(
                    "%s: attempt %d failed after %.3g s on %s: %s", text, some.number, took, worker, failed[1], extra=more
                )

    def span(self, *_: object) -> None:
        """Who waits for what is not logged."""
