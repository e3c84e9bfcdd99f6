"""The web server of scraper.py: it fails, stalls, resets connections and limits rates; and it keeps account of who is impolite.

    python examples/unreliable_server.py

`/RUN/17` is page 17 (of page_server.py), for the run of that name. What happens to the n-th request for a page follows from page and n alone:
an answer, 503, nothing at all, a reset connection, or 429, whose Retry-After asks to wait a second. Above `LIMIT` requests in a second
the answer is 429 as well. `/RUN/account` tells, as JSON, what has been asked and answered.

It listens on the loopback interface, prints its port, and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import zlib
from collections import Counter, deque
from time import monotonic

from page_server import page

LIMIT = 150
"""Requests of a run in any second, from which on it is told to wait."""
WAIT = 1
"""Seconds that it is asked to wait."""
STALL = 3.0
"""Seconds until a connection that gets no answer is closed."""


def fate(number: int, request: int) -> str:
    """Return what happens to a page's n-th request, from 1; the fifth is always answered."""
    chance = zlib.crc32(b"fate %d %d" % (number, request)) % 100
    if request >= 5 or chance >= 22:
        return "answered"
    return "503" if chance < 9 else "stalled" if chance < 12 else "reset" if chance < 16 else "429"


class Account:
    """What a run has asked for, and was answered."""

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()
        self.answers: Counter[str] = Counter()
        self.too_early = 0
        self.most_in_a_second = 0
        self._not_before: dict[int, float] = {}
        self._last: deque[float] = deque()

    def fate_of_next(self, number: int) -> str:
        now = monotonic()
        self.requests[number] += 1
        self.too_early += now < self._not_before.get(number, 0.0)
        self._last.append(now)
        while self._last[0] <= now - 1:
            self._last.popleft()
        self.most_in_a_second = max(self.most_in_a_second, len(self._last))
        what = "429" if len(self._last) > LIMIT else fate(number, self.requests[number])
        self.answers[what] += 1
        return what

    def told_to_wait(self, number: int) -> None:
        self._not_before[number] = monotonic() + WAIT

    def told(self) -> bytes:
        return json.dumps(
            {
                "requests": self.requests.total(),
                "answers": self.answers,
                "too_early": self.too_early,
                "most_in_a_second": self.most_in_a_second,
            }
        ).encode()


accounts: dict[bytes, Account] = {}


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        _, run, what = request.split()[1].split(b"/")
        account = accounts.setdefault(run, Account())
        if what == b"account":
            writer.write(response("200 OK", account.told()))
        else:
            await treat(int(what), account, writer)
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):  # the client has gone: it was out of patience, or killed
        pass
    except ValueError:
        writer.write(response("404 Not Found"))
    finally:
        writer.close()


async def treat(number: int, account: Account, writer: asyncio.StreamWriter) -> None:
    what = account.fate_of_next(number)
    if what == "stalled":
        await asyncio.sleep(STALL)
    elif what == "reset":
        # Closing sends RST then, and forgets what was to be sent.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    elif what == "503":
        writer.write(response("503 Service Unavailable"))
    elif what == "429":
        account.told_to_wait(number)
        writer.write(response("429 Too Many Requests", b"", f"Retry-After: {WAIT}"))
    else:
        writer.write(response("200 OK", page(number)))


async def main() -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stdin.read()  # until its end
    os._exit(0)  # at once: whoever still waits for an answer has gone


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
