"""When a run has failed too often to go on (`max_failures`)."""

from __future__ import annotations

__all__ = ["LEAST", "are_too_many"]

LEAST = 20
"""Tasks that must have ended before a share of them means anything."""


def are_too_many(failures: int, ended: int, most: float) -> bool:
    """Whether so many failures end the run.

    Args:
        failures: how many tasks have failed for good.
        ended: how many tasks have ended, the failed ones included.
        most: how many may fail, as an int; or their share of what has ended, as a float.
    """
    if isinstance(most, int):
        return failures > most
    return ended >= LEAST and failures > most * ended
