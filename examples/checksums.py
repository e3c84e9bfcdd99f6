"""Checksums of real files: SHA-256 of every file of this Python's standard library, side by side, then one after another.

    python examples/checksums.py

Both runs read the files from the disk: what the system holds of them in memory is dropped before each, where it can be. Files
that are in memory are hashed so fast that there is nothing to wait for, and threads gain nothing.

The function is one for the command line too:

    cd examples && find . -type f | abreast map checksums:sha256
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import sysconfig
import time
from pathlib import Path

import abreast

LIBRARY = sysconfig.get_path("stdlib")


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def find_files() -> list[str]:
    """The files of the library, sorted; not installed packages, and not __pycache__, where Python may write meanwhile."""
    found = []
    for folder, folders, names in os.walk(LIBRARY):
        folders[:] = [name for name in folders if name not in {"site-packages", "dist-packages", "__pycache__"}]
        found += [Path(folder, name) for name in names]
    return sorted(str(path) for path in found if path.is_file())  # a link may lead nowhere


def drop_from_memory(paths: list[str]) -> None:
    if hasattr(os, "posix_fadvise"):
        for path in paths:
            with Path(path).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def one_after_another(paths: list[str]) -> list[str]:
    return [sha256(path) for path in paths]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()

    paths = find_files()
    size = sum(Path(path).stat().st_size for path in paths)
    print(f"{len(paths):,} files, {size:,} bytes, in {LIBRARY}")

    drop_from_memory(paths)
    begun = time.perf_counter()
    checksums = abreast.map(sha256, paths)
    side_by_side = time.perf_counter() - begun
    print(f"abreast.map        {side_by_side:6.2f} s")

    drop_from_memory(paths)
    begun = time.perf_counter()
    expected = one_after_another(paths)
    serial = time.perf_counter() - begun
    print(f"one after another  {serial:6.2f} s")
    print(f"speed-up           {serial / side_by_side:6.2f}")

    if checksums != expected:
        print("FAILED: the checksums, or their order, differ")
        return 1
    print("equal: all checksums, in the same order")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
