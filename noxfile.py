"""One command checks everything: ``nox``. ``nox -l`` lists the parts, ``nox -s tests`` runs one.

The whole suite runs on the Python that runs nox; the fast set, and CPython's own tests where they are installed, on every newer
one that is found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False  # what is not here is skipped, and said so
nox.options.reuse_existing_virtualenvs = True

if shutil.which("pyenv"):  # its python3.x commands answer only for versions that are switched on
    versions = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=False).stdout.split()
    here = ".".join(map(str, sys.version_info[:3]))
    os.environ.setdefault(
        "PYENV_VERSION", ":".join([here, *(v for v in reversed(versions) if v != here and v.startswith("3.1"))])
    )

WORKERS = str(min(8, (os.cpu_count() or 1) + 2))
"""Of pytest: one more than there are cores, since many tests wait for something."""
NEWER = [v for v in ("3.12", "3.13", "3.13t", "3.14", "3.14t", "3.15") if v != f"{sys.version_info[0]}.{sys.version_info[1]}"]


@nox.session
def lint(session: nox.Session) -> None:
    """Format and lint."""
    session.install("ruff>=0.8")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite, mypy and the examples in the documents included, on this Python."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", "-n", WORKERS, *session.posargs)


@nox.session(python=NEWER)
def newer(session: nox.Session) -> None:
    """The fast set, and CPython's own tests of concurrent.futures with our classes, on newer Pythons: side by side, since these mostly wait."""
    session.install("-e", ".[fast]")
    with tempfile.TemporaryFile() as output:
        python = Path(session.bin) / "python"
        with subprocess.Popen([python, "tests/conformance/run_cpython.py"], stdout=output, stderr=subprocess.STDOUT) as cpython:
            session.run("pytest", "-q", "-n", WORKERS, "-m", "not whole and not clients", *session.posargs)
        output.seek(0)
        session.log(output.read().decode(errors="replace"))
    if cpython.returncode not in (0, 3):  # 3: installed without its tests
        session.error(f"CPython's own tests failed: status {cpython.returncode}")


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Hammers and soaks, minutes long."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", "--slow", "-m", "slow", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The benchmarks, next to their peers."""
    session.install("-e", ".[bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)
