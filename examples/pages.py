"""Fetching 2,000 pages from a real web server, which answers each after 5 to 50 ms: side by side, then one after another.

    python examples/pages.py          some seconds: one after another only every 20th page
    python examples/pages.py --all    all of them: about a minute

The server is a process of its own, on this machine (page_server.py). All pages are checked against what they must be, and those
that are fetched one after another against what was fetched side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from page_server import page

import abreast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGES = 2_000
AT_ONCE = 64


@contextlib.contextmanager
def running_server() -> Iterator[int]:
    """Run the server, and yield its port."""
    # In a session of its own: Ctrl-C is for us, and we end the server by closing its standard input.
    server = subprocess.Popen(  # noqa: S603  # our own file, run by this Python
        [sys.executable, Path(__file__).with_name("page_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.communicate()


def fetch(port: int, number: int) -> bytes:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", f"/{number}")
        return connection.getresponse().read()


def one_after_another(port: int, numbers: Sequence[int]) -> list[bytes]:
    return [fetch(port, number) for number in numbers]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="fetch all pages one after another too, not every 20th")
    every = 1 if parser.parse_args().all else 20
    numbers = range(PAGES)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where there is no ≈

    with running_server() as port:
        print(f"{PAGES:,} pages from http://127.0.0.1:{port}/")

        begun = time.perf_counter()
        pages = abreast.map(partial(fetch, port), numbers, max_workers=AT_ONCE, name="pages", progress=None)
        side_by_side = time.perf_counter() - begun
        print(f"abreast.map, {AT_ONCE} at once  {side_by_side:7.2f} s")

        begun = time.perf_counter()
        sample = one_after_another(port, numbers[::every])
        serial = (time.perf_counter() - begun) * PAGES / len(sample)
        about = "≈" if every > 1 else " "
        print(f"one after another       {about}{serial:7.2f} s" + f", from {len(sample)} pages" * (every > 1))
        print(f"speed-up                {about}{serial / side_by_side:7.2f}")

    wrong = [number for number, text in zip(numbers, pages, strict=True) if text != page(number)]
    if wrong:
        print(f"FAILED: {len(wrong):,} of {len(pages):,} pages not what they must be, the first is page {wrong[0]}")
        return 1
    if sample != pages[::every]:
        print("FAILED: pages differ from those fetched one after another")
        return 1
    print(f"equal: all {len(pages):,} pages are what they must be, and {len(sample):,} fetched again are the same")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
