"""Compressing every .py file of this Python's standard library with zlib, level 9: one after another, on threads, in processes.

    python examples/compress.py

zlib is C code that lets other threads run while it compresses, so threads gain about as much as processes here, and need not send
each result to another process. compile_library.py is the other case: work that only processes can share.

Nothing is written: results stay in memory, and each is decompressed and compared with its file.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from pathlib import Path

from checksums import LIBRARY, find_files

import abreast


def compress(path: str) -> bytes:
    return zlib.compress(Path(path).read_bytes(), 9)


def one_after_another(paths: list[str]) -> list[bytes]:
    return [compress(path) for path in paths]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if sys.platform != "linux":
        print("compress.py needs Linux: processes run there only so far", file=sys.stderr)
        return 2

    paths = [path for path in find_files() if path.endswith(".py")]
    files = [Path(path).read_bytes() for path in paths]  # also so that the first run need not wait for the disk
    print(f"{len(files):,} files, {sum(map(len, files)):,} bytes, in {LIBRARY}")

    begun = time.perf_counter()
    expected = one_after_another(paths)
    serial = time.perf_counter() - begun
    print(f"one after another  {serial:6.2f} s")

    begun = time.perf_counter()
    by_threads = abreast.map(compress, paths)
    on_threads = time.perf_counter() - begun
    print(f"threads            {on_threads:6.2f} s   speed-up {serial / on_threads:5.2f}")

    begun = time.perf_counter()
    by_processes = abreast.map(compress, paths, kind="process")  # started and ended within this time
    in_processes = time.perf_counter() - begun
    print(f"processes          {in_processes:6.2f} s   speed-up {serial / in_processes:5.2f}")

    wrong = [path for path, data, file in zip(paths, by_processes, files, strict=True) if zlib.decompress(data) != file]
    if wrong:
        print(f"FAILED: {len(wrong):,} of {len(paths):,} files do not come back, the first is {wrong[0]}")
        return 1
    if not by_threads == by_processes == expected:
        print("FAILED: the compressed files, or their order, differ")
        return 1
    print(f"equal: all {len(paths):,} files come back, and take {sum(map(len, by_processes)):,} bytes each way of running")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
