"""A figure from a fresh interpreter, for what a process can do only once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]  # where the package `benchmarks` is found


def figure(*arguments: str, seconds: float) -> float:
    """Run this Python with the arguments and return the number that it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0 or done.stderr:  # a process that does not end cleanly says so there
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2]}")
    return float(done.stdout)
