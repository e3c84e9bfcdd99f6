"""Compiling every module of this Python's standard library to bytecode: one after another, on threads, in processes.

    python examples/compile_library.py          some seconds: without the library's own tests
    python examples/compile_library.py --all    every .py file: three times as long

The compiler holds Python's interpreter lock (GIL) all the time. Threads take turns with it, and gain nothing, but on a free-threaded
build; processes have a lock each. compress.py is the other case: work that threads can share too.

Nothing is written: the bytecode comes back as what a .pyc file holds, and must be equal, file by file.
"""

from __future__ import annotations

import argparse
import marshal
import sys
import time
import warnings
from pathlib import Path

from checksums import LIBRARY, find_files

import abreast


def bytecode(path: str) -> bytes | None:
    """The bytecode of a file, without the header of a .pyc; None if it is no Python, as some files of tests, on purpose."""
    warnings.simplefilter("ignore")  # here, since it is to hold in whatever process this runs
    try:
        return marshal.dumps(compile(Path(path).read_bytes(), path, "exec", dont_inherit=True))
    except (SyntaxError, ValueError):
        return None


def find_modules(*, tests: bool) -> list[str]:
    """The .py files of the library, with or without those in folders of tests."""
    folders = set() if tests else {"test", "tests", "idle_test"}
    return [path for path in find_files() if path.endswith(".py") and folders.isdisjoint(Path(path).relative_to(LIBRARY).parts)]


def one_after_another(paths: list[str]) -> list[bytes | None]:
    return [bytecode(path) for path in paths]


def is_same(one: bytes | None, other: bytes | None) -> bool:
    """Whether it is the same bytecode. Equal code objects may be written in several ways, so they are read back if need be."""
    return one == other or (one is not None and other is not None and bool(marshal.loads(one) == marshal.loads(other)))  # noqa: S302  # our own


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the tests of the library too")
    tests = parser.parse_args().all
    if sys.platform != "linux":
        print("compile_library.py needs Linux: processes run there only so far", file=sys.stderr)
        return 2

    paths = find_modules(tests=tests)
    size = sum(len(Path(path).read_bytes()) for path in paths)  # read, so that the first run need not wait for the disk
    print(f"{len(paths):,} files, {size:,} bytes, in {LIBRARY}")

    begun = time.perf_counter()
    expected = one_after_another(paths)
    serial = time.perf_counter() - begun
    print(f"one after another  {serial:6.2f} s")

    begun = time.perf_counter()
    by_threads = abreast.map(bytecode, paths)
    on_threads = time.perf_counter() - begun
    print(f"threads            {on_threads:6.2f} s   speed-up {serial / on_threads:5.2f}")

    begun = time.perf_counter()
    by_processes = abreast.map(bytecode, paths, kind="process")  # started and ended within this time
    in_processes = time.perf_counter() - begun
    print(f"processes          {in_processes:6.2f} s   speed-up {serial / in_processes:5.2f}")

    for how, results in (("by threads", by_threads), ("by processes", by_processes)):
        wrong = [path for path, ours, theirs in zip(paths, results, expected, strict=True) if not is_same(ours, theirs)]
        if wrong:
            print(f"FAILED: {len(wrong):,} of {len(paths):,} files compiled {how} differ, the first is {wrong[0]}")
            return 1
    compiled = [code for code in expected if code is not None]
    print(f"equal: the bytecode of all {len(compiled):,} files that are Python, {sum(map(len, compiled)):,} bytes")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
