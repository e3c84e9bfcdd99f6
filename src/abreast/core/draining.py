"""What ends in good order when the program is asked to end: the executors, runs and groups of this process, and how they are told.

::

    executor, run, group ── enrol ──▶ _members (weak)  ◀── drain_all, drop_all ── a thread of drain_on's (draining.py)
    signal handler ── begin ──▶ _reason                     who enrols from now on is drained at once

It needs no lock: each step on a dict is atomic, also free-threaded, and a signal handler may begin a drain at any step. `begin` sets the
reason *before* `drain_all` copies the members, and `enrol` enters the member *before* it looks at the reason: so nobody is missed, and
some are told twice, which does no harm.

What a task makes while it runs (a pool, a run, a group of its own) is a part of that task, which is to finish: it is not enrolled.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import TYPE_CHECKING

from abreast.core.current import here
from abreast.core.errors import Drained

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Member(Protocol):
        """What is drained. All may be called from any thread, more than once."""

        def drain(self) -> object:
            """Start nothing more; what has not started ends with `Drained`. Does not wait for what runs."""

        def drop(self) -> object:
            """End now: kill what runs in processes, abandon what runs in threads."""

        def is_working(self) -> bool:
            """Whether tasks of it still run."""

        def is_consumed(self) -> bool:
            """Whether somebody has still to take what came of it, and has not come to wait for anything else."""


__all__ = [
    "EXECUTOR",
    "GROUP",
    "RUN",
    "begin",
    "drain_all",
    "drained",
    "drop_all",
    "end",
    "enrol",
    "held_signals",
    "hold",
    "is_any",
    "reason",
]

LOGGER = logging.getLogger("abreast")

RUN, GROUP, EXECUTOR = range(3)
"""In which order they are drained: a run takes back what it has sent, before its executor refuses it."""

_members: dict[int, tuple[int, weakref.ref[Member]]] = {}
_reason: str | None = None
_held: tuple[int, ...] = ()


def enrol(member: Member, order: int) -> None:
    """Have `member` drained when the program is asked to end: at once, if it has been. Not if a running task makes it."""
    if here.running is not None or here.worker is not None:
        return
    key = id(member)
    _members[key] = order, weakref.ref(member, lambda _: _members.pop(key, None))
    if _reason is not None:
        member.drain()


def begin(reason: str) -> None:
    """The program has been asked to end. For signal handlers: it does nothing but say so."""
    global _reason
    _reason = reason


def end() -> None:
    """The block that was to be drained has been left."""
    global _reason
    _reason = None


def reason() -> str | None:
    """Return what has asked the program to end, as ``"SIGTERM"``; None if nothing has."""
    return _reason


def drained(what: str) -> Drained:
    """Return the error for `what`, which is not started; a new one each time, since tracebacks grow."""
    return Drained(f"{what} was not started: the program has been asked to end, by {_reason or 'a signal'}")


def drain_all() -> None:
    """Drain all members; what one raises (out of a user's callback) is logged."""
    for member in _all():
        try:
            member.drain()
        except BaseException:
            LOGGER.exception("an exception while %r was drained", member)


def drop_all() -> None:
    """End all members now."""
    for member in reversed(_all()):  # executors first: a kill is to come soon
        try:
            member.drop()
        except BaseException:
            LOGGER.exception("an exception while %r was ended", member)


def is_any(question: str) -> bool:
    """Whether any member answers a question, the name of its method, with yes."""
    return any(getattr(member, question)() for member in _all())


def _all() -> list[Member]:
    pairs = sorted(_members.copy().values(), key=lambda pair: pair[0])
    return [member for _, ref in pairs if (member := ref()) is not None]


def _forget() -> None:
    # A forked child has not been asked to end; executors and so on know by themselves that they belong to the parent.
    global _reason, _held
    _reason, _held = None, ()
    _members.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# ---- signals that worker processes leave to their parent


def hold(signals: Iterable[int]) -> tuple[int, ...]:
    """Let worker processes that are started from now on outlive these signals; return those that were held before."""
    global _held
    before, _held = _held, tuple(signals)
    return before


def held_signals() -> tuple[int, ...]:
    return _held
