"""What memory a process takes, and whether the kernel has killed one for want of it."""

from __future__ import annotations

import contextlib
import os

__all__ = ["oom_kills", "resident_bytes"]


def resident_bytes(pid: int) -> int:
    """Return how much memory a process occupies, what it shares with others included; 0 if that cannot be told."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def oom_kills() -> int | None:
    """Return how many processes of this container the kernel has killed for want of memory; None if that cannot be told.

    As counted by the control group that this process belongs to (cgroup 2), or by the whole machine.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/cgroup") as file:
            group = next(line.rstrip("\n")[3:] for line in file if line.startswith("0::"))
        with open(f"/sys/fs/cgroup{group}/memory.events") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/vmstat") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return None
