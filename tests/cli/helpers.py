"""Running the command as a user does: a fresh process, a directory of its own, a small module of functions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

PATIENCE = 20
"""Seconds after which something that should have happened has not."""

SOON = 3.0
"""Seconds within which a command that was asked to end has ended: one, and room for a busy machine."""

MODULE = '''
import json, math, os, random, subprocess, sys, threading, time

def same(x): return x
def upper(text): return text.upper()
def number(text): return int(text)
def nap(text): time.sleep(random.random() * 0.003); return text
def hang(text): os.write(2, b"started\\n"); time.sleep(60)
def boom(text): raise ValueError(f"bad\\n{text}")
def odd_fails(text): return 10 // (int(text) % 2 == 0)
def long(text): return text * 30_000
def times_100(text): return text * 100

def first_hangs(text):
    if text == "0":
        os.write(2, b"started\\n")
        time.sleep(60)
    return text

def late(text):
    """Tells when the 20th is at work, and hangs at the 60th."""
    if text == "20": os.write(2, b"started\\n")
    if text == "60": time.sleep(60)
    return text

def printing(text):
    print("printed", flush=True)
    os.write(1, b"written\\n")
    subprocess.run(["echo", "echoed"], check=True)
    return text

def greedy(text): return [sys.stdin.read(), os.read(0, 100).decode()]

class Mute(Exception):
    def __str__(self): raise RuntimeError("says nothing")

def mute(text): raise Mute

async def coroutine(text): return text

a_value = 3
class Namespace:
    @staticmethod
    def same(x): return x
'''

ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONIOENCODING", "PYTHONUTF8", "TMUX")
}
COMMAND = [sys.executable, "-m", "abreast"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with the module ``m``, which is the current one."""
    tmp_path.joinpath("m.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(count):
    return "".join(f"{number}\n" for number in range(count))


def abreast(*args, given="", env=None, status=0, **more):
    """Run a command to its end; it must have the exit status, and show no traceback. Text in, text out."""
    data = given.encode() if isinstance(given, str) else given
    done = subprocess.run(
        [*COMMAND, *map(str, args)], env={**ENVIRONMENT, **(env or {})}, timeout=PATIENCE,
        **{"input": data, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )  # fmt: skip
    done.stdout, done.stderr = ((stream or b"").decode(errors="surrogateescape") for stream in (done.stdout, done.stderr))
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, (done.returncode, done.stdout[-2000:], done.stderr)
    return done


def shell(line, *, status=0, env=None):
    """Run a line of bash, with ``abreast`` in it; statuses of a pipe can be read from PIPESTATUS."""
    done = subprocess.run(
        ["bash", "-c", f'abreast() {{ {sys.executable} -m abreast "$@"; }}\n{line}'],
        capture_output=True, text=True, timeout=PATIENCE, env={**ENVIRONMENT, **(env or {})}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


@contextlib.contextmanager
def started(*args, env=None, command=COMMAND, **more):
    """A command that runs; whatever comes, it is ended, and its pipes are closed."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    process = subprocess.Popen([*command, *map(str, args)], env={**ENVIRONMENT, **(env or {})}, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def wait_for_line(process, wanted="started"):
    """Wait until a function of the command says on standard error where it is."""
    seen = []
    while (line := process.stderr.readline().decode()) != wanted + "\n":
        seen.append(line)
        assert line, f"ended without {wanted!r}: {seen}"


def end(process, number=signal.SIGINT):
    """Send a signal; return what is said, and the exit status as a shell shows it. It must end soon, and without a traceback."""
    begin = time.monotonic()
    process.send_signal(number)
    return ended(process, begin)


def ended(process, begin):
    said = process.stderr.read().decode()
    status = process.wait(PATIENCE)
    assert time.monotonic() - begin < SOON, said
    assert "Traceback" not in said, said
    assert "Exception ignored" not in said, said
    return said, status if status >= 0 else 128 - status


def results(data):
    """The values of JSON lines, all of them whole."""
    data = data.encode() if isinstance(data, str) else data
    assert not data or data.endswith(b"\n"), f"cut: {data[-100:]!r}"
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def one_line(text):
    """The text is one line, and a sentence of the command's."""
    assert text.count("\n") == 1, text
    assert text.startswith("abreast"), text
    return text


def until(found, why="has not come"):
    """Ask until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline, why() if callable(why) else why
        time.sleep(0.01)
    return value
