"""What the figures were measured on, as far as a reader needs it."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime


def describe() -> dict[str, object]:
    cores = os.cpu_count()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "gil": gil(),
        "cpus": cores,
        "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        "kernel": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,  # by others: we begin now
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def gil() -> bool:
    is_enabled = getattr(sys, "_is_gil_enabled", None)  # from 3.13 on
    return True if is_enabled is None else bool(is_enabled())
