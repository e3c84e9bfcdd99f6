"""How far a run may read ahead of its consumer, and when to wake who reads."""

from __future__ import annotations

__all__ = ["batch_limit", "items_to_read", "wakes_reader"]


_DEEP = 0.001
"""Seconds of work to keep with each worker where memory does not count: a few times what waking a thread takes."""


def batch_limit(workers: int, per_worker: int, batch_seconds: float | None) -> int:
    """Return how many batches may be with the workers: `per_worker` each, so that nobody waits for the next one.

    Args:
        workers: how many there are.
        per_worker: how many batches each should have.
        batch_seconds: what a batch takes, if more of them may be sent when that is little: small batches that somebody asked for.
            None: never more than `per_worker`.
    """
    if per_worker > 1 and batch_seconds is not None and batch_seconds * per_worker < _DEEP:
        per_worker = min(64, int(_DEEP / batch_seconds))
    return workers * per_worker


def items_to_read(*, size: int, ahead: int, limit: int, buffersize: int | None, keeps_all: bool, whole: bool = False) -> int:
    """Return how many inputs may be read for the next batch; 0 is none now.

    Args:
        size: how many a batch should have.
        ahead: how many have been read and not been taken by the consumer.
        limit: how many batches may be with the workers.
        buffersize: how many may be ahead; None is as many as `limit` batches hold.
        keeps_all: whether the consumer keeps every result anyway, so that only what is with the workers counts, which the caller
            of this limits by itself.
        whole: whether somebody asked for this very size.
    """
    if buffersize is not None:
        # One batch must not take what is to be shared by all workers.
        size = min(size, buffersize) if whole else min(size, -(-buffersize // limit), buffersize - ahead)
        return size if 0 < size <= buffersize - ahead else 0
    if keeps_all:
        return size
    return size if size <= limit * size - ahead else 0


def wakes_reader(outstanding: int, limit: int, workers: int) -> bool:
    """Whether so few batches are left with the workers that who reads should be woken, not for every single one."""
    return outstanding <= limit - max(1, workers // 2)
