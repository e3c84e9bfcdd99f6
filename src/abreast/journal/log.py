"""What SQLite's log (``-wal``) says to hold: to see whether what was committed is still there.

SQLite reads its log up to the first frame whose checksum is wrong, and takes what follows for the rest of an older one, without a word: it cannot know
better, since a program may be killed while it writes. Here only the headers are read (https://sqlite.org/fileformat2.html#walformat)::

    header: magic, version, size of a page, sequence, salts (8 bytes), checksum of these      frame: page, size at a commit, salts, checksum; the page
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["committed_of"]

_HEADER, _FRAME = 32, 24
_UNREADABLE = [1 << 62] * 2


def committed_of(path: str) -> list[int]:
    """Return the numbers, from 1 on, of the frames that end a commit by what their headers say; numbers that cannot be if the log's header is damaged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return _committed(file)
    except FileNotFoundError:
        return []


def _committed(file: BinaryIO) -> list[int]:
    header = file.read(_HEADER)
    if not header:
        return []
    if len(header) < _HEADER or not _is_whole(header):
        return list(_UNREADABLE)
    page, salts = int.from_bytes(header[8:12], "big"), header[16:24]
    committed = []
    number = 1
    while len(frame := file.read(_FRAME)) == _FRAME:
        if frame[8:16] == salts and frame[4:8] != b"\0\0\0\0":
            committed.append(number)
        file.seek(page, 1)
        number += 1
    return committed


def _is_whole(header: bytes) -> bool:
    magic = int.from_bytes(header[:4], "big")
    if magic & ~1 != 0x377F0682:
        return False
    words = struct.unpack(">6I" if magic & 1 else "<6I", header[:24])
    first = second = 0
    for place in range(0, 6, 2):
        first = first + words[place] + second & 0xFFFFFFFF
        second = second + words[place + 1] + first & 0xFFFFFFFF
    return header[24:] == struct.pack(">2I", first, second)
