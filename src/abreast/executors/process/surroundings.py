"""What a child of a process inherits: taken in the parent as it is when a worker is started, and put on by the worker that a guardian forks.

::

    parent: take() ── pickle + descriptors ──▶ guardian: become() before the fork ──▶ worker: put_on()
                                               environment, limit of processes        the rest

A guardian was started earlier, perhaps in another directory, with another environment. A worker must find what it would have found as
a child of the parent: working directory (a descriptor, since it may have been removed or moved), environment, umask, usable cores, limits, nice value,
ignored and blocked signals, stdout and stderr. What only a start can give is compared instead (`identity`): when it is not what it was, there is a new guardian.

Nice value and usable cores are those of the main thread: what `nice`, `renice` and `taskset` show of a process. The blocked signals are the
calling thread's: the main thread may have some blocked for a moment.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` makes enums of, for each worker anew; no types
import contextlib
import errno
import fcntl
import io
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.executors.process import contexts

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Changes",
    "Surroundings",
    "become",
    "changes",
    "identity",
    "place",
    "prepare_streams",
    "put_on",
    "put_on_streams",
    "read_status",
    "take",
]

AT_START = (b"PYTHON", b"LC_", b"LANG", b"LD_", b"MALLOC_", b"GLIBC_", b"ABREAST_FP")
"""How variables begin that are read when an interpreter starts, or when a library of it does."""
NAMESPACES = ("mnt", "net", "ipc", "uts", "user", "pid_for_children", "cgroup")
CREDENTIALS = (
    b"Uid:",
    b"Gid:",
    b"Groups:",
    b"CapInh:",
    b"CapPrm:",
    b"CapEff:",
    b"CapBnd:",
    b"CapAmb:",
    b"NoNewPrivs:",
    b"Seccomp:",
)
OWN_SIGNALS = {
    signal.SIGINT,
    signal.SIGKILL,
    signal.SIGSTOP,
    getattr(signal, "SIGPIPE", 0),
    getattr(signal, "SIGXFSZ", 0),
    32,
    33,
}
"""Signals that are not the parent's to say: every interpreter and every worker has them as it wants, two are glibc's, two nobody can ignore."""
LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
LEAST_FD = 200


class Surroundings(NamedTuple):
    """What goes along with a request for a worker.

    Attributes:
        environment: ``NAME=value``, separated by zero bytes; how many threads libraries may have is in it.
        mask: umask; -1 is not known.
        cores: that may be used.
        limits: soft and hard, of `LIMITS`.
        ignored: signals, as bits.
        blocked: signals.
        has_cwd: whether its descriptor comes along.
        has_streams: whether stdout and stderr come along.
        numbers: that the other descriptors are to have; the worker's own come first, and are not counted.
        paths: `sys.path`, for the import of modules.
        modules: that are to be imported.
        parent: the process whose worker it is.
        by_value: whether functions go by value there, as those of a script do: then workers will need cloudpickle.
        seen: modules of ours that tasks have imported in workers: their module has ``from abreast import ProcessPoolExecutor``, say.
        threads: a worker's share of the cores, for libraries that compute with threads; 0 is not told.
    """

    environment: bytes
    mask: int
    cores: list[int]
    nice: int | None
    limits: list[tuple[int, int]]
    ignored: int
    blocked: list[int]
    has_cwd: bool
    has_streams: tuple[bool, bool]
    numbers: list[int]
    paths: list[str]
    modules: list[str]
    parent: int
    by_value: bool = False
    seen: tuple[str, ...] = ()
    threads: int = 0


OURS = ("abreast.functions", "abreast.group", "abreast.pools", "abreast.process_pools", "abreast.recording")
"""What a module with tasks may import, and takes long: 45 ms all together, in each worker."""
seen = 0
"""Which of them workers of this process have imported, as bits: the guardian does so before the next one is forked."""


# ---- in a worker, and in the parent


def loaded() -> int:
    """Return which of `OURS` have been imported here, as bits."""
    return sum(1 << place for place, name in enumerate(OURS) if name in sys.modules)


def note(bits: int) -> None:
    """Workers have imported these of `OURS`."""
    global seen
    seen |= bits


# ---- in the parent


def read_status() -> dict[bytes, bytes]:
    """Return what /proc says of this process; nothing where there is none."""
    try:
        with open("/proc/self/status", "rb") as file:
            return {line[: place + 1]: line[place + 1 :] for line in file.read().split(b"\n") if (place := line.find(b":")) > 0}
    except OSError:
        return {}


def _environment() -> dict[bytes, bytes]:
    known = getattr(os.environ, "_data", None)  # private; one copy of a dict, which no other thread can disturb
    return dict(known) if known is not None else dict(os.environb)


def identity(status: dict[bytes, bytes] | None = None) -> tuple[object, ...]:
    """Return what a guardian must have in common with this process, and cannot be given later; `status` is of `read_status()`, if it is known."""
    status = read_status() if status is None else status
    who = tuple(status.get(name) for name in CREDENTIALS) if status else (os.getresuid(), os.getresgid(), os.getgroups())
    root = os.stat("/")
    spaces: list[str] = []
    for name in NAMESPACES:
        with contextlib.suppress(OSError):
            spaces.append(os.readlink(f"/proc/self/ns/{name}"))
    group = b""
    with contextlib.suppress(OSError), open("/proc/self/cgroup", "rb") as file:
        group = file.read()
    read_at_start = frozenset((name, value) for name, value in _environment().items() if name.startswith(AT_START))
    return who, (root.st_dev, root.st_ino), tuple(spaces), group, os.getsid(0), sys.executable, read_at_start


def take(
    numbers: list[int],
    streams: Sequence[int] = (1, 2),
    *,
    paths: Sequence[str] = (),
    modules: Sequence[str] = (),
    threads: int = 0,
    status: dict[bytes, bytes] | None = None,
    like: Surroundings | None = None,
) -> tuple[Surroundings, list[int], int]:
    """Return what a child would inherit now, the descriptors to be sent, and the first of them, which is to be closed then, or -1.

    Args:
        numbers: of the user's descriptors that it is to have.
        streams: what it has as stdout and stderr.
        paths, modules: what is to be imported.
        threads: that libraries may compute with, where the environment does not say it.
        status: of `read_status()`, if it is known.
        like: what was taken a moment ago, which will do if the descriptors are of the same kinds.
    """
    fds, cwd, has_streams = _descriptors(streams)
    if like is not None and (like.has_cwd, like.has_streams, like.numbers) == (cwd >= 0, has_streams, numbers):
        return like, [*fds, *numbers], cwd
    status = read_status() if status is None else status
    cores: list[int] = []
    nice = None
    with contextlib.suppress(OSError):
        cores = sorted(os.sched_getaffinity(os.getpid()))
        nice = os.getpriority(os.PRIO_PROCESS, os.getpid())
    limits: list[tuple[int, int]] = []
    for number in LIMITS:
        try:
            limits.append(resource.getrlimit(number))
        except (OSError, ValueError):
            limits.append((-2, -2))
    environment = _environment()
    if threads:
        for name in contexts.THREADS:
            environment.setdefault(os.fsencode(name), b"%d" % threads)
    taken = Surroundings(
        environment=b"\0".join([name + b"=" + value for name, value in environment.items()]),
        mask=int(status.get(b"Umask:", b"-1"), 8),
        cores=cores,
        nice=nice,
        limits=limits,
        ignored=int(status.get(b"SigIgn:", b"0"), 16),
        blocked=sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        has_cwd=cwd >= 0,
        has_streams=has_streams,
        numbers=numbers,
        paths=list(paths),
        modules=list(modules),
        parent=os.getpid(),
        by_value="cloudpickle" in sys.modules,
        seen=tuple(name for place, name in enumerate(OURS) if seen & 1 << place),
        threads=threads,
    )
    return taken, [*fds, *numbers], cwd


def _descriptors(streams: Sequence[int]) -> tuple[list[int], int, tuple[bool, bool]]:
    """Return the descriptors of the working directory and of the streams, as far as there are any; the first again, and which streams there are."""
    fds: list[int] = []
    cwd = -1
    try:
        cwd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fds.append(cwd)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        # else it may not be entered any more: then it is /
    has_streams = [False, False]
    for which, fd in enumerate(streams):
        with contextlib.suppress(OSError):  # closed
            # After stdout was closed its number may be anything's, a pipe of ours even; that is not inherited, and a child would not have it.
            if fd not in (1, 2) or os.get_inheritable(fd):
                fds.append(fd)
                has_streams[which] = True
    return fds, cwd, (has_streams[0], has_streams[1])


# ---- in the guardian


def become(wanted: Surroundings, before: bytes) -> bytes:
    """Take on what costs a worker time, and hurts nobody here; return the environment.

    Args:
        wanted: what the parent has.
        before: the environment that was taken on last.
    """
    if wanted.environment != before:
        told = dict(entry.partition(b"=")[::2] for entry in wanted.environment.split(b"\0") if entry)
        now = os.environb
        for name in [name for name in now if name not in told]:
            del now[name]
        for name, value in told.items():
            if now.get(name) != value:
                now[name] = value
    soft = wanted.limits[LIMITS.index(resource.RLIMIT_NPROC)][0]
    have = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != have[0] and soft != -2:  # it is the guardian who forks
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NPROC, (soft, have[1]))
    return wanted.environment


def ignored() -> int:
    """Return the signals that this process ignores, as bits."""
    return int(read_status().get(b"SigIgn:", b"0"), 16)


class Changes(NamedTuple):
    """What a worker has to change of what it has from the guardian: found out there once, for all that are started together.

    Attributes:
        limits: resources, and what is allowed of them.
        signals: numbers, and whether they are ignored.
    """

    limits: list[tuple[int, tuple[int, int]]]
    signals: list[tuple[int, bool]]


def changes(wanted: Surroundings, ignored_here: int) -> Changes:
    """Return them; to be called after `become`."""
    others = wanted.ignored ^ ignored_here
    return Changes(
        [
            (number, limit)
            for number, limit in zip(LIMITS, wanted.limits, strict=True)
            if limit != (-2, -2) and limit != resource.getrlimit(number)
        ],
        [
            (int(number), bool(wanted.ignored >> (number - 1) & 1))
            for number in signal.valid_signals() - OWN_SIGNALS
            if others >> (number - 1) & 1
        ],
    )


def prepare_streams() -> None:
    """Make stdout and stderr such that they will do in most workers: a stream remembers whether its file can be sought in, as pipes and terminals cannot.

    Made here once: that takes 0.2 ms, above all for the memory that is touched.
    """
    if not (_is_own(sys.stdout, sys.__stdout__, 1) and _is_own(sys.stderr, sys.__stderr__, 2)):
        return  # a sitecustomize has its own
    ends = os.pipe()
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in (1, 2)]
    try:
        for fd in (1, 2):
            os.dup2(ends[1], fd)
        _make_streams()
    finally:
        for number, fd in enumerate(kept, 1):
            os.dup2(fd, number)
        for fd in (*kept, *ends):
            os.close(fd)


# ---- in the worker


def put_on(wanted: Surroundings, cwd: int, changes: Changes) -> None:
    """Become what a child of the parent would be; what is not allowed is left."""
    if cwd >= 0:
        try:  # noqa: SIM105  # not `suppress`, as elsewhere: what every worker does at its start touches as little memory as can be
            os.fchdir(cwd)
        except OSError:
            pass
        os.close(cwd)
    if wanted.mask >= 0:
        os.umask(wanted.mask)
    if wanted.cores:
        try:  # noqa: SIM105  # as above
            os.sched_setaffinity(0, wanted.cores)
        except OSError:
            pass
    if wanted.nice is not None and wanted.nice != os.getpriority(os.PRIO_PROCESS, 0):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, wanted.nice)
    for number, is_ignored in changes.signals:
        try:  # noqa: SIM105  # as above
            _signal.signal(number, _signal.SIG_IGN if is_ignored else _signal.SIG_DFL)
        except (OSError, ValueError):
            pass
    if wanted.blocked:  # the guardian has none
        signal.pthread_sigmask(signal.SIG_SETMASK, wanted.blocked)
    for number, limit in changes.limits:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(number, limit)


def place(fds: list[int], numbers: list[int]) -> list[int]:
    """Give the last of these descriptors their numbers, and move the others out of their way; return those others."""
    if not numbers:
        return fds
    least = max([LEAST_FD, *(number + 1 for number in numbers)])
    moved: list[int] = []
    for fd in fds:
        moved.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least))
        os.close(fd)
    count = len(fds) - len(numbers)
    for fd, number in zip(moved[count:], numbers, strict=True):
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
    return moved[:count]


def put_on_streams(out: int, err: int, *, are_ours: bool) -> None:
    """Have stdout and stderr be these descriptors, which are closed; -1 is none: what is written goes nowhere.

    `are_ours`: nobody has touched the interpreter's own streams, so that they will do.
    """
    for number, fd in ((1, out), (2, err)):
        given = fd if fd >= 0 else os.open(os.devnull, os.O_WRONLY)
        os.dup2(given, number)
        os.close(given)
    if are_ours and _will_do(sys.stdout, sys.__stdout__, 1) and _will_do(sys.stderr, sys.__stderr__, 2):
        for stream, by_lines in ((sys.stdout, os.isatty(1)), (sys.stderr, True)):
            if stream.line_buffering != by_lines:
                stream.reconfigure(line_buffering=by_lines)  # type: ignore[union-attr]  # the interpreter's own
        return
    _make_streams()


def _make_streams() -> None:
    sys.stdout = sys.__stdout__ = _fresh(1, "<stdout>", sys.stdout)  # type: ignore[misc]  # final for type checkers, not for who starts an interpreter
    sys.stderr = sys.__stderr__ = _fresh(2, "<stderr>", sys.stderr)  # type: ignore[misc]  # the same


def _is_own(stream: Any, own: Any, fd: int) -> bool:
    """Whether a stream is the interpreter's, which a sitecustomize may have replaced."""
    return stream is own and type(stream) is io.TextIOWrapper and stream.fileno() == fd


def _will_do(stream: Any, own: Any, fd: int) -> bool:
    """Whether it is, and what it remembers of its file is true."""
    if not _is_own(stream, own, fd):
        return False
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return not stream.seekable()
    return bool(stream.seekable())


def _fresh(fd: int, name: str, like: Any) -> io.TextIOWrapper:
    """Return a stream as an interpreter makes it at its start, with the settings of another one."""
    raw: Any = io.FileIO(fd, "wb", closefd=False)
    raw.name = name
    unbuffered = bool(getattr(like, "write_through", False))
    text: Any = io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=like.encoding,
        errors=like.errors,
        newline="\n",
        line_buffering=fd == 2 or raw.isatty(),
        write_through=unbuffered,
    )
    text.mode = "w"
    return text  # type: ignore[no-any-return]  # it is one
