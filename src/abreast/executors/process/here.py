"""What this process is: a worker, or not; and what is to be done there after each task. Read by files that know nothing of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["after_task", "become_worker", "is_worker"]

_is_worker = False

after_task: Callable[[], None] | None = None
"""Called in a worker after each task; set by namespace.py, when there is something to look at."""


def is_worker() -> bool:
    """Whether this process is a worker of a pool."""
    return _is_worker


def become_worker() -> None:
    """From now on this process is one."""
    global _is_worker
    _is_worker = True
