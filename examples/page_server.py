"""The web server of pages.py: answers page n after 5 to 50 ms, with a text; both follow from n alone.

    python examples/page_server.py

It listens on the loopback interface, prints its port, and ends when its standard input is closed: so it never outlives the
process that holds the other end of that pipe, even if that is killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import zlib


def delay(number: int) -> float:
    """Seconds until page `number` is answered."""
    return 0.005 + zlib.crc32(b"delay %d" % number) / 2**32 * 0.045


def page(number: int) -> bytes:
    """Page `number`: a title and 1 to 40 lines."""
    lines = [f"Page {number}"]
    lines += [hashlib.sha256(b"%d %d" % (number, line)).hexdigest() for line in range(zlib.crc32(b"%d" % number) % 40 + 1)]
    return "\n".join(lines).encode()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = await reader.readuntil(b"\r\n\r\n")  # GET /17 HTTP/1.1, and headers
        path = request.split()[1].removeprefix(b"/")
        if path.isdigit():
            await asyncio.sleep(delay(int(path)))
            status, body = b"200 OK", page(int(path))
        else:
            status, body = b"404 Not Found", b"no such page"
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):  # the client has gone
        pass
    finally:
        writer.close()


async def main() -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    # Port 0: any that is free. Backlog: as many clients as come at once may wait to be accepted; the default is 100.
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stdin.read()  # until its end
    os._exit(0)  # at once: whoever still waits for an answer has gone


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (KeyboardInterrupt, BrokenPipeError):  # nobody is left who wants to know the port: Ctrl-C has come to all
        os._exit(130)  # at once: what is left to print would be an error again
