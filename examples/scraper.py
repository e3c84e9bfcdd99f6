"""Getting 160 pages from a web server that fails, stalls, resets connections and limits rates: all of them, and politely.

    python examples/scraper.py

First on threads, then in processes, where a task's process dies now and then. Each request that fails is made again: after a while that
grows, or when the server's Retry-After says. The server is a process of its own, on this machine (unreliable_server.py); it counts
who comes too early and how many come in a second. All pages are checked against what they must be.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from page_server import page

import abreast

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = 160
PER_SECOND = 100
POLITELY = abreast.Retry(
    10,
    on=(ConnectionError, abreast.TaskTimeout, abreast.WorkerCrashed),
    wait_initial=0.05,
    wait_max=1,
    wait_jitter=0.1,
)


class Refused(ConnectionError):
    """The server has no page for us now. `retry_after` is when it will: `abreast.Retry` looks for that."""

    def __init__(self, status: int, retry_after: str | None) -> None:
        super().__init__(status, retry_after)
        self.retry_after = retry_after


@contextlib.contextmanager
def running_server() -> Iterator[int]:
    """Run the server, and yield its port."""
    # In a session of its own: Ctrl-C is for us, and we end the server by closing its standard input.
    server = subprocess.Popen(  # noqa: S603  # our own file, run by this Python
        [sys.executable, Path(__file__).with_name("unreliable_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.communicate()


def get(port: int, path: str) -> bytes:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise Refused(response.status, response.headers["Retry-After"])
        return response.read()


def fetch(port: int, number: int) -> bytes:
    return get(port, f"/threads/{number}")


def fetch_or_die(port: int, number: int) -> bytes:
    """The same in a process, which is killed at the first attempt at every 40th page or so, as by the kernel when memory runs out."""
    task = abreast.current_task()
    if task is not None and task.attempt == 1 and zlib.crc32(b"death %d" % number) % 40 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return get(port, f"/processes/{number}")


def scrape(port: int, run: str, **options: Any) -> bool:
    """Get all pages, tell how it went, and return whether every page is what it must be."""
    function = partial(fetch if run == "threads" else fetch_or_die, port)
    begun = time.perf_counter()
    outcomes = abreast.outcomes(
        function,
        range(PAGES),
        retries=POLITELY,
        max_per_second=PER_SECOND,
        task_timeout=0.5,
        ordered=False,  # who waits for its next attempt holds up nobody
        name="pages",
        **options,
    )
    wrong = attempts = 0
    for outcome in outcomes:
        wrong += outcome.value != page(outcome.input)
        attempts += outcome.attempts
    seconds = time.perf_counter() - begun

    account = json.loads(get(port, f"/{run}/account"))
    answers = account["answers"]
    crashes = attempts - account["requests"]
    print(f"{run:<10}{seconds:7.2f} s   {attempts} attempts at {PAGES} pages", end="")
    print(f"; {crashes} died with their process" if run == "processes" else "")
    print(f"          503: {answers.get('503', 0)}, stalled: {answers.get('stalled', 0)}", end="")
    print(f", reset: {answers.get('reset', 0)}, told to wait: {answers.get('429', 0)}")
    print(f"          came too early: {account['too_early']}, at most in a second: {account['most_in_a_second']}")
    if wrong:
        print(f"FAILED: {wrong} of {PAGES} pages are not what they must be")
    if account["too_early"]:
        print("FAILED: the server was asked again before its Retry-After was over")
    return not wrong and not account["too_early"]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    with running_server() as port:
        print(f"{PAGES} pages from http://127.0.0.1:{port}/, at most {PER_SECOND} requests per second")
        done = [scrape(port, "threads", max_workers=32)]
        if sys.platform == "linux":
            done.append(scrape(port, "processes", kind="process", max_workers=8))
    if not all(done):
        return 1
    print(f"equal: all {PAGES} pages are what they must be")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
