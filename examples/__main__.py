"""The examples with real input and output, one after another. Exit status 0 only if every result was right.

    python examples

Each also runs by itself:

    python examples/checksums.py          SHA-256 of every file of this Python's standard library
    python examples/pages.py              2,000 pages from a web server on this machine
    python examples/pictures.py           small versions of 48 pictures; needs Pillow
    python examples/compress.py           every .py file of the library with zlib, on threads and in processes
    python examples/compile_library.py    every module of the library to bytecode, on threads and in processes
    python examples/scraper.py            160 pages from a web server that fails, stalls and limits rates
    python examples/resumed.py            400 tasks, killed ten times with kill -9, and run again

And examples/course.ipynb is a short course on concurrency, for Jupyter.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import traceback
from pathlib import Path

NAMES = ("checksums", "pages", "pictures", "compress", "compile_library", "scraper", "resumed")


def run(name: str) -> int:
    """Run an example as it would run by itself, but in this process, and return its exit status."""
    try:
        runpy.run_path(str(Path(__file__).with_name(f"{name}.py")), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main() -> int:
    argparse.ArgumentParser(
        prog="python examples", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    failed = []
    for name in NAMES:
        print(f"--- {name}", flush=True)
        status = run(name)
        if status == 130:  # Ctrl-C
            return status
        if status == 2:  # it has said what it needs
            print(f"{name} was left out")
        elif status:
            failed.append(name)
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
