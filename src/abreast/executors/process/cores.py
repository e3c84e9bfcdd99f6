"""How many cores this process may use; asked by pools, and by who stays awake for an answer, which helps only where there are two."""

from __future__ import annotations

import contextlib
import os

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, and the limit of its container, if there is one."""
    try:
        cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        cores = os.cpu_count()
    limit = _container_limit()
    return max(1, min(cores or 1, limit or cores or 1))


def _container_limit() -> int | None:
    """Return the CPU limit of the cgroup, rounded up; None if there is none."""
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max") as file:  # cgroup 2
        quota, period = file.read().split()
        return None if quota == "max" else -(-int(quota) // int(period))
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") as file:
            quota_us = int(file.read())
        with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
            return None if quota_us <= 0 else -(-quota_us // int(file.read()))
    return None
