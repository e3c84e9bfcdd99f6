"""Failpoints: places where a test can have a process die, stop or raise, at the nth time that it comes by.

``ABREAST_FP="worker.after_write=kill@3"`` in the environment kills the process with SIGKILL when it comes to this place for the third
time; several are separated by commas. ``exit`` ends it with status 70, ``stop`` stops it, ``raise`` raises RuntimeError. Without ``@n``
it is the first time. Otherwise `hit` is None, and looking at it costs 20 ns::

    if failpoints.hit is not None:
        failpoints.hit("worker.after_write")

Names are checked by the tests that use them, which fail if nothing happens.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hit"]


def _parse(text: str) -> Callable[[str], None]:
    left: dict[str, tuple[str, int]] = {}
    for entry in filter(None, text.split(",")):
        name, _, what = entry.partition("=")
        action, _, nth = what.partition("@")
        if action not in ("kill", "exit", "stop", "raise"):
            raise ValueError(f"ABREAST_FP: {entry!r} is not NAME=kill|exit|stop|raise[@N]")
        left[name.strip()] = action, int(nth or 1)

    def hit(name: str) -> None:
        action, times = left.get(name, ("", 0))
        if not times:
            return
        left[name] = action, times - 1
        if times > 1:
            return
        import signal

        if action == "raise":
            raise RuntimeError(f"failpoint {name}")
        if action == "exit":
            os._exit(70)
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)

    return hit


hit: Callable[[str], None] | None = _parse(os.environ["ABREAST_FP"]) if os.environ.get("ABREAST_FP") else None
