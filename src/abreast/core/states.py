"""What a row may be doing, and what may come of an attempt: by number, in recordings."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "CANCELLED",
    "COMPUTING",
    "CPU",
    "CRASHED",
    "FAILED",
    "GIL",
    "IDLE",
    "JOINING",
    "LOCK",
    "OK",
    "OUTCOMES",
    "QUEUED",
    "RETRIED",
    "STATES",
    "TIMEOUT",
    "UNFINISHED",
    "WAITING",
    "State",
]


class State(NamedTuple):
    """What a row may be doing, and how that is shown everywhere."""

    name: str
    glyph: str
    colour: str
    meaning: str


COMPUTING, WAITING, LOCK, GIL, CPU, JOINING, QUEUED, IDLE = range(8)
# Colours by Okabe and Ito, which colour-blind people tell apart; never colour alone.
STATES = (
    State("computing", "█", "#009E73", "on a CPU"),
    State("waiting", "░", "#E69F00", "for anything outside: sleep, network, disk, a subprocess"),
    State("waiting for a lock", "L", "#D55E00", "or Condition, Semaphore, Event"),
    State("held up by the GIL", "▒", "#CC79A7", "wanted to run Python while another thread did"),
    State("waiting for a CPU", "r", "#F0E442", "more threads that can run than cores"),
    State("joining", "j", "#56B4E9", "for a thread, a future, the end of a block"),
    State("queued", "–", "#0072B2", "submitted, and no worker was free"),  # noqa: RUF001  # a thin line is what is meant
    State("idle", "·", "#DDDDDD", "a worker with nothing to do"),
)

OK, FAILED, RETRIED, CANCELLED, TIMEOUT, CRASHED, UNFINISHED = range(7)
OUTCOMES = ("ok", "failed", "retried", "cancelled", "timeout", "crashed", "unfinished")
"""What came of an attempt. *retried*: it failed, and was tried again. *unfinished*: it had begun, and its end is not known: its worker was killed, or the
recording ended before."""
