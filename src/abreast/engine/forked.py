"""Runs in a forked child: they are the parent's, whose threads and processes go on with them there.

::

    parent   Run.start: enrol ──▶ [_runs]
    child    after the fork, before any other code: each run there is told, `Run.leave`; it then delivers what is known, and an error

Else the child would wait for threads that it has not, or for a lock that one of them held.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from abreast.engine.run import Run

__all__ = ["enrol"]

_runs: WeakSet[Run] = WeakSet()


def enrol(run: Run) -> None:
    """Have `run` told in forked children."""
    _runs.add(run)


def _after_fork() -> None:
    for run in list(_runs):
        run.leave()
    _runs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
