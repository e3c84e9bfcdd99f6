"""What runs in a worker process: one thread that reads calls, runs their tasks, and writes their outcomes.

::

    task pipe ─▶ DEFINE: keep a function    ─▶ CALL: for each task ─▶ result pipe
                                                page: seq, start, phase
                                                decode arguments ─ run ─ encode the result ─ write RECORD

`writing` guards the result pipe. Each outcome is written before the next task begins: so whatever kills the worker, it is known which tasks had ended, and the
page tells which one was running. The page's phase is stored before the step it stands for; `start` before `seq` (page.py).

This file is imported in every worker at its start: what is not needed to run a task is imported where it is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import signal
import struct
import sys
import threading
from collections import OrderedDict
from contextvars import Context
from functools import partial
from time import perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any, NoReturn

from abreast.core import failpoints
from abreast.core.current import Scope, Task, here, locked
from abreast.executors.process import contexts
from abreast.executors.process import here as role
from abreast.executors.process.frames import Kind, Parser, Phase, frame
from abreast.executors.process.imports import after_import
from abreast.executors.process.memory import resident_bytes
from abreast.executors.process.page import Page
from abreast.executors.process.sending import (
    ERROR,
    OK,
    NotSent,
    Payload,
    decode_args,
    decode_context,
    decode_function,
    encode_error,
    encode_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from abreast.executors.process.frames import Frame

__all__ = ["CALL", "FAILS_FAST", "FUNCTIONS", "ITEM", "MOST", "RECORD", "main"]

CALL = struct.Struct("<QIqdIII")
"""The opening of a CALL's body: function, tasks, index of the first (-1: none), time box in seconds (0: none), bytes of name, of context,
and how many of the tasks may run, 0 for all (`MOST`)."""
MOST = struct.Struct("<I"), CALL.size - 4
"""How the last of these is packed, and where."""
ITEM = struct.Struct("<IH")
"""Before each item: bytes of its pickle, number of its buffers."""
RECORD = struct.Struct("<d")
"""The opening of a RECORD's body: seconds that the task took."""
FAILS_FAST = 1
"""A CALL's flag: a task's error ends it, the rest is handed back."""
FUNCTIONS = 64
"""Functions that a worker keeps, the last ones used; the parent counts along, so it knows what to send again."""

LEAST_FD = 200
"""Our descriptors are from here on, out of the way of tasks that close or replace the low ones."""
LOOK_AT_MEMORY = 100_000_000  # nanoseconds
LOOK_AT_PAGE = 0.05  # seconds

IDLE, DECODE, RUN, ENCODE, WRITE = Phase.IDLE, Phase.DECODE, Phase.RUN, Phase.ENCODE, Phase.WRITE


def main(
    task_fd: int, result_fd: int, page_fd: int, stack_fd: int, parent: int, lifeline: int = -1, *, inherited: Any = None
) -> NoReturn:
    """Serve until the parent says so, or is gone; never returns. A copy of the parent has `inherited` the initializer and its arguments.

    `parent` is the process that has started this one; `lifeline` a pipe that only it can write to, and never does.
    """
    if failpoints.hit is not None:
        failpoints.hit("worker.before_pdeathsig")
    _die_with_parent(parent, lifeline)
    _be_the_first_to_go()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us if need be
    role.become_worker()
    task_fd, result_fd, page_fd, stack_fd = (_out_of_the_way(fd) for fd in (task_fd, result_fd, page_fd, stack_fd))
    worker = _Worker(task_fd, result_fd, page_fd, stack_fd, inherited)
    try:
        worker.serve()
    except _ParentGone:
        os._exit(1)
    sys.exit(0)


def _die_with_parent(parent: int, lifeline: int) -> None:
    """Have the kernel kill this process when the thread that started it ends: that is the supervisor, which ends last, or a guardian's only one."""
    try:
        import ctypes

        is_armed = ctypes.CDLL(None).prctl(1, signal.SIGKILL) == 0  # PR_SET_PDEATHSIG
    except (ImportError, OSError, AttributeError):
        is_armed = False
    if lifeline >= 0:
        if not is_armed:
            _die_with(lifeline)
        os.close(lifeline)
    if os.getppid() != parent:  # gone before that: it does not look back
        os._exit(1)


def _die_with(lifeline: int) -> None:
    """Where prctl is refused: have the kernel kill this process when nobody is left who could write to this pipe."""
    with contextlib.suppress(OSError):  # no /proc: then the end of the task pipe has to do
        fd = _out_of_the_way(
            os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY)
        )  # anew: who gets the signal belongs to the open file
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, getattr(fcntl, "F_SETSIG", 10), signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)


def _be_the_first_to_go() -> None:
    """Have the kernel, when memory runs out, take a worker and not the parent."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        score = min(1000, int(file.read()) + 300)
        file.seek(0)
        file.write(str(score))


def _out_of_the_way(fd: int) -> int:
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LEAST_FD)
    except OSError:  # fewer are allowed
        os.set_inheritable(fd, False)
        return fd
    os.close(fd)
    return moved


class _ParentGone(Exception):
    """Nobody is left to work for."""


class _Running:
    """What `current_task` is told about the task that runs."""

    __slots__ = ("first", "index", "name", "scope", "words")

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self.scope = _HaltScope(self)
        self.name = ""
        self.index: int | None = None
        self.first = 0
        """The number of its call's first task."""

    def current_task(self) -> Task:
        return Task(self.name, self.index, 1, (self.scope,))


class _HaltScope(Scope):
    """Cancelled when the parent says so, on the page. While somebody watches, a thread looks at the page, and wakes them."""

    __slots__ = ("looks", "running")

    def __init__(self, running: _Running) -> None:
        self.running = running
        self.looks = False
        super().__init__()

    @locked
    def _enter(self, watcher: Callable[[], object]) -> bool:
        if not super()._enter(watcher):
            return False
        if not self.looks:
            self.looks = True
            threading.Thread(target=self._look, name="abreast-halt", daemon=True).start()
        return True

    def _look(self) -> None:
        while self._is_watched():
            if self.cancelled:
                self.cancel()  # calls the watchers
            sleep(LOOK_AT_PAGE)

    @locked
    def _is_watched(self) -> bool:
        self.looks = bool(self._watchers)
        return self.looks

    @property
    def cancelled(self) -> bool:
        running = self.running
        return running.first != 0 and running.words[Page.HALT] == running.first

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        """Nobody here may say so."""


class _Worker:
    def __init__(self, task_fd: int, result_fd: int, page_fd: int, stack_fd: int, inherited: Any) -> None:
        self.inherited = inherited
        self.task_fd = task_fd
        self.result_fd = result_fd
        self.stack_fd = stack_fd
        self.page = Page(page_fd)
        self.words = self.page.words
        self.parser = Parser(Kind.OF_PARENT)
        self.functions: OrderedDict[int, Callable[..., Any] | bytes] = OrderedDict()  # bytes until its first task
        self.running = _Running(self.words)
        self.pid = os.getpid()
        self.writing = threading.Lock()  # guards the result pipe: a thread of a task may log while an outcome is being written
        self.most_memory: int | None = None
        self.looked_at_memory = 0

    def serve(self) -> None:
        frames = self._frames()
        boot = next(frames)
        if not self._begin(boot):
            sys.exit(1)
        self.words[Page.PHASE] = IDLE
        self._write(frame(Kind.READY))
        if failpoints.hit is not None:
            failpoints.hit("worker.after_ready")
        for arrived in frames:
            if arrived.kind == Kind.CALL:
                self._call(arrived)
            elif arrived.kind == Kind.DEFINE:
                self._define(arrived)
            else:
                self.words[Page.PHASE] = Phase.EXIT
                if failpoints.hit is not None:
                    failpoints.hit("worker.before_exit")
                return

    def _begin(self, boot: Frame) -> bool:
        """Make this process what the parent is, and run the initializer; False if it raised."""
        told = pickle.loads(boot.body)  # noqa: S301  # of our own parent
        sys.path[:] = told["path"]
        sys.argv[:] = told["argv"]
        self.most_memory = told["max_memory"]
        if told["faulthandler"]:
            import faulthandler

            faulthandler.enable(file=self.stack_fd, all_threads=True)
            faulthandler.register(told["dump_signal"], file=self.stack_fd, all_threads=True)
        elif "faulthandler" in sys.modules:  # any value of PYTHONFAULTHANDLER switches it on, 0 as well
            sys.modules["faulthandler"].disable()
        for fd in told["fds"]:
            os.set_inheritable(fd, False)
        tracker = None if told["tracker"] is None else _out_of_the_way(told["tracker"])
        contexts.tell_multiprocessing(told["name"], told["authkey"], tracker)
        if told["threads"] is not None:
            contexts.limit_threads(told["threads"])
        if told["capture"]:
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # the interpreter's own
        after_import("logging", partial(self._install_logs, told["logging"]))
        return self._initialize(told)

    def _initialize(self, told: dict[str, Any]) -> bool:
        if told["initializer"] is None and (self.inherited is None or self.inherited[0] is None):
            return True
        try:
            if self.inherited is not None:
                initializer, args = self.inherited
                self.inherited = None
            else:
                initializer = decode_function(told["initializer"])
                args, _ = decode_args(Payload(told["initargs"], ()))
            initializer(*args)
        except BaseException:  # SystemExit too
            import logging
            import traceback

            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            util = sys.modules.get("multiprocessing.util")
            if (
                util is not None
            ):  # queues that a log handler of the initializer's has written to; when the parent is told, it ends us
                with contextlib.suppress(Exception):
                    util._exit_function()
            self._write(frame(Kind.FAILED, body=traceback.format_exc().encode(errors="replace")))
            return False
        return True

    def _define(self, arrived: Frame) -> None:
        self.functions[arrived.number] = arrived.body  # unpickled in its first task: that may raise, hang, or kill the process
        if len(self.functions) > FUNCTIONS:
            self.functions.popitem(last=False)

    def _call(self, arrived: Frame) -> None:
        words, running, body = self.words, self.running, memoryview(arrived.body)
        number, count, index, box, name_size, context_size, most = CALL.unpack_from(body)
        place = CALL.size
        running.name = str(body[place : place + name_size], "utf-8")
        place += name_size
        context: Context | Payload = Context()
        if context_size:
            context = Payload(bytes(body[place : place + context_size]), ())
            place += context_size
        buffers = iter(arrived.buffers)
        self.functions.move_to_end(number)
        last = arrived.number + (most or count)
        fails_fast = arrived.flags & FAILS_FAST
        running.first = arrived.number
        seq = arrived.number
        until = perf_counter_ns() + int(box * 1e9) if box else 0
        hit = failpoints.hit
        here.running = running
        try:
            while seq < last and words[Page.HALT] != arrived.number:
                size, with_buffers = ITEM.unpack_from(body, place)
                place += ITEM.size
                payload = Payload(body[place : place + size], tuple(next(buffers) for _ in range(with_buffers)))  # type: ignore[arg-type]  # pickle reads it as bytes
                place += size
                running.index = index + seq - arrived.number if index >= 0 else None
                begin = perf_counter_ns()
                words[Page.PHASE] = DECODE if type(self.functions[number]) is not bytes else Phase.LOAD
                words[Page.START] = begin
                words[Page.SEQ] = seq
                status, sent, context = self._run(number, payload, context)
                del payload
                now = perf_counter_ns()
                words[Page.PHASE] = WRITE
                self._write(frame(Kind.RECORD, seq, RECORD.pack((now - begin) / 1e9) + sent.data, sent.buffers, status))
                if hit is not None:
                    hit("worker.after_write")
                del sent
                seq += 1
                if (until and now >= until) or (fails_fast and status == ERROR):
                    break
            if seq < arrived.number + count:
                if hit is not None:
                    hit("worker.before_over")
                self._write(frame(Kind.OVER, seq))
        finally:
            here.running = None
            running.first = 0
            words[Page.PHASE] = IDLE
        _flush()
        if self.most_memory is not None:
            self._look_at_memory(self.most_memory)

    def _run(self, number: int, payload: Payload, context: Context | Payload) -> tuple[int, Payload, Context | Payload]:
        """Run one task; return the status, what it came to as bytes, and the context for the next one.

        Function and context are unpickled within the first task that needs them: what dies, hangs or raises there is that task's.
        """
        words, hit = self.words, failpoints.hit
        try:
            try:
                fn = self.functions[number]
                if type(fn) is bytes:
                    fn = self.functions[number] = decode_function(fn)
                    words[Page.START] = (
                        perf_counter_ns()
                    )  # of the task's own time; before the phase, so that it is never too early
                    words[Page.PHASE] = DECODE
                if type(context) is Payload:
                    context = decode_context(context)
                args, kwargs = decode_args(payload)
            except NotSent:
                raise
            except BaseException as error:
                from abreast.core.process_errors import TaskDecodeError

                raise TaskDecodeError(f"{type(error).__name__}: {error}") from error
            if hit is not None:
                hit("worker.after_decode")
            words[Page.PHASE] = RUN
            value = context.copy().run(fn, *args, **(kwargs or {}))  # type: ignore[union-attr,arg-type]  # both unpickled by now
            del args, kwargs
            if role.after_task is not None:
                role.after_task()
            if os.getpid() != self.pid:  # a fork that the task has made, and that came back: the other one goes on here
                os._exit(0)
            if hit is not None:
                hit("worker.after_run")
            words[Page.PHASE] = ENCODE
            return OK, encode_result(value), context
        except NotSent as not_sent:  # the parent could not pickle the arguments, and has sent that instead
            return ERROR, not_sent.payload, context
        except BaseException as error:  # whatever it is, SystemExit too: the task's outcome
            if os.getpid() != self.pid:
                os._exit(1)
            words[Page.PHASE] = ENCODE
            return ERROR, encode_error(error), context

    def _install_logs(self, configuration: dict[str, Any]) -> None:
        from abreast.executors.process import logs

        logs.install(configuration, self._send_log)

    def _send_log(self, body: bytes) -> None:
        if os.getpid() == self.pid:  # not of a fork that a task has made
            self._write(frame(Kind.LOG, body=body))

    def _look_at_memory(self, most: int) -> None:
        now = perf_counter_ns()
        if now - self.looked_at_memory > LOOK_AT_MEMORY:
            self.looked_at_memory = now
            if resident_bytes(self.pid) > most:
                self._write(frame(Kind.LEAVE))

    def _frames(self) -> Iterator[Frame]:
        """Yield frames as they come, until the parent closes the pipe."""
        parser = self.parser
        while True:
            target = parser.target()
            if target is not None:
                count = os.readv(self.task_fd, [target])
                if not count:
                    raise _ParentGone
                yield from parser.filled(count)
                continue
            data = os.read(self.task_fd, 1 << 18)
            if not data:
                raise _ParentGone
            yield from parser.feed(data)

    def _write(self, parts: list[Any]) -> None:
        with self.writing:
            if failpoints.hit is not None:
                self._write_halves(parts, failpoints.hit)
            else:
                self._write_all(parts)

    def _write_halves(self, parts: list[Any], hit: Callable[[str], None]) -> None:
        whole = b"".join(map(bytes, parts))
        self._write_all([whole[: len(whole) // 2]])
        hit("worker.mid_write")
        self._write_all([whole[len(whole) // 2 :]])

    def _write_all(self, parts: list[Any]) -> None:
        try:
            if len(parts) == 1 and (written := os.write(self.result_fd, parts[0])) == len(parts[0]):
                return
            views = [memoryview(part) for part in parts]
            if len(parts) == 1:
                views[0] = views[0][written:]
            while views:
                count = os.writev(self.result_fd, views[:512])
                while views and count >= len(views[0]):
                    count -= len(views.pop(0))
                if count:
                    views[0] = views[0][count:]
        except BrokenPipeError:
            raise _ParentGone from None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None, or a task's stand-in: the worker serves on
            stream.flush()
