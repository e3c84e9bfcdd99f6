"""A program that runs tasks with a journal, for tests that kill it. It says in a file what it does: one line, one write, so that kill -9 leaves whole lines.

::

    start I PID     a task begins             got I HASH      the consumer has been given the result of input I
    end I           it ends                   got I !NAME     … its error
    run             a run begins              over            everything has been delivered

``python program.py`` reads jobs from standard input, one JSON object a line, and runs each in a forked child, of which it says the pid, and later the status, as
``os.waitpid`` gives it, also when it has stopped. The children lead sessions of their own. It ends with its input, and kills the child.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import sys
import tempfile
import time

import abreast
import abreast.executors.process.pool
from abreast.core import failpoints
from abreast.journal import schema


def value_of(i: int, kind: str):
    """The result of a task: of all ways in which one is kept, if it is to be mixed."""
    if kind == "tiny":
        return i * i
    if kind == "marked":
        return f"result-{i:06d}-"
    if kind == "large" or (kind == "mixed" and i % 20 == 13):
        return f"{i}," * ((1 << 20) // len(f"{i},") + 1)  # over 1 MiB: in a file
    return [i * i, {"i": i, "text": "ä" * (i % 50)}, (i, "a tuple"), bytes([i % 256]) * (i % 3000)][i % 4]


def hash_of(value: object) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()


_effects: dict[tuple[int, str], int] = {}  # by process: this goes to workers by value, with what is in it


def say(log: str, line: str) -> None:
    fd = _effects.get((os.getpid(), log))
    if fd is None:
        fd = _effects[os.getpid(), log] = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{line}\n".encode())


def work(log: str, kind: str, seconds: float, fate: dict[int, str], i: int):
    say(log, f"start {i} {os.getpid()}")
    if seconds:
        time.sleep(seconds * (i * 7919 % 13) / 6)
    if i in fate:
        if fate[i] == "raise":
            raise ValueError(i)
        os.kill(os.getpid(), signal.Signals[fate[i]])
    value = value_of(i, kind)
    say(log, f"end {i}")
    return value


def execute(job: dict) -> None:
    log, way = job["log"], job.get("way", "imap")
    if job.get("failpoint"):
        failpoints.hit = failpoints._parse(job["failpoint"])
    if job.get("migrates"):
        schema.MIGRATIONS[schema.VERSION - 1] = lambda writer: writer.execute("CREATE TABLE more (x)")
    fate = {int(i): what for i, what in job.get("fate", {}).items()}
    fn = functools.partial(work, log, job.get("kind_of_result", "tiny"), job.get("seconds", 0), fate)
    options = {
        "kind": job.get("kind", "thread"),
        "max_workers": None if job.get("kind") == "serial" else job.get("max_workers", 2),
        "journal": abreast.Journal(
            job["journal"], durability=job.get("durability", "process"), at_most_once=job.get("at_most_once", False)
        ),
        "name": "killed",
        **job.get("options", {}),
    }
    say(log, "run")
    inputs = range(job["count"])
    if way == "map":
        for i, value in enumerate(abreast.map(fn, inputs, **options)):
            say(log, f"got {i} {hash_of(value)}")
    elif way == "imap":
        for i, value in enumerate(abreast.imap(fn, inputs, **options)):
            say(log, f"got {i} {hash_of(value)}")
    else:
        for outcome in abreast.outcomes(fn, inputs, ordered=way == "ordered outcomes", **options):
            said = hash_of(outcome.value) if outcome.error is None else f"!{type(outcome.error).__name__}"
            say(log, f"got {outcome.index} {said}")
    say(log, "over")


def serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:  # what each child would have to import
        abreast.map(abs, range(2), kind="serial", journal=os.path.join(folder, "journal"))
        abreast.map(abs, range(2))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            status = 1
            try:
                execute(json.loads(line))
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            # As a program ends, but for what the server has registered.
            sys.exit(status)
        print(pid, flush=True)
        while True:
            _, status = os.waitpid(pid, os.WUNTRACED)
            print(status, flush=True)
            if not os.WIFSTOPPED(status):
                break


if __name__ == "__main__":
    if len(sys.argv) > 1:
        execute(json.loads(sys.argv[1]))
    else:
        serve()
