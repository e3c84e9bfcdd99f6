"""What runs in a worker process: one thread that reads calls, runs their tasks, and writes their outcomes.

::

    task pipe ─▶ DEFINE: keep a function    ─▶ CALL: for each task ─▶ outbox ─▶ result pipe
                                                page: seq, start, phase
                                                decode arguments ─ run ─ encode the result

The parent asks for what is kept back by SIGCONT, when a task takes long; its handler writes it amid the task. It also gives back the tasks behind
that one, if the page says so: what runs the tasks takes them from `turn`, which the handler empties, so none of them can begin any more.
`writing` guards the result pipe. What has ended is written by the rule of outbox.py: so whatever kills the worker, it is known which tasks had ended, but for tiny
ones of the last 200 us, and the page tells which one was running. The page's phase is stored before the step it stands for; `start` before `seq` (page.py).

Tasks whose inputs are plain values come as one list, and are accounted for every 20 us, or after a longer one; all others are unpickled
one by one, each within its own task.

This file is imported in every worker at its start: what is not needed to run a task is imported where it is used.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as in surroundings.py
import contextlib
import fcntl
import os
import pickle
import select
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
from abreast.executors.process.cores import usable_cores
from abreast.executors.process.frames import Kind, Parser, Phase, frame
from abreast.executors.process.imports import after_import
from abreast.executors.process.memory import resident_bytes
from abreast.executors.process.outbox import FIXED, LONG, RECORD, Outbox
from abreast.executors.process.outbox import MOST as MOST_WORK
from abreast.executors.process.page import Page, move_copy
from abreast.executors.process.sending import (
    NotSent,
    Payload,
    decode_args,
    decode_context,
    decode_function,
    decode_item,
    decode_plain,
)
from abreast.executors.process.surroundings import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from abreast.executors.process.frames import Frame

__all__ = [
    "AWAKE",
    "CALL",
    "EACH",
    "FAILS_FAST",
    "FUNCTIONS",
    "ITEM",
    "LIMITED",
    "MOST",
    "PAIR",
    "PLAIN",
    "QUICK",
    "RECORD",
    "SINGLE",
    "STAR",
    "TIMED",
    "find_prctl",
    "main",
]

CALL = struct.Struct("<QIqdIIII")
"""The opening of a CALL's body: function, tasks, index of the first (-1: none), time box in seconds (0: none), bytes of name, of context,
which attempt at them it is, and how many of the tasks may run, 0 for all (`MOST`)."""
MOST = struct.Struct("<I"), CALL.size - 4
"""How the last of these is packed, and where."""
ITEM = struct.Struct("<IH")
"""Before each item: bytes of its pickle, number of its buffers."""
FAILS_FAST, TIMED, LIMITED, EACH = 1, 2, 4, 8
"""Flags of a CALL: a task's error ends it, the rest is handed back; the time of each task is told; each has a limit; each outcome is
written before the next task begins."""
PLAIN, SINGLE, STAR, PAIR = 16, 32, 64, 128
"""How its items come. PLAIN: one pickle of a list of plain values. SINGLE: the length of each pickle (u32), then the pickles. Neither: each
with an `ITEM` before it. An item of PLAIN or SINGLE is an argument; with STAR a tuple of arguments; with PAIR, and of neither, (args, kwargs)."""
FUNCTIONS = 64
"""Functions that a worker keeps, the last ones used; the parent counts along, so it knows what to send again."""

KILL = int(signal.SIGKILL)  # for ctypes
LEAST_FD = 200
"""Our descriptors are from here on, out of the way of tasks that close or replace the low ones."""
LOOK_AT_MEMORY = 100_000_000  # nanoseconds
LOOK_AT_PAGE = 0.05  # seconds

IDLE, DECODE, RUN = Phase.IDLE, Phase.DECODE, Phase.RUN

AWAKE, QUICK = 100_000, 400_000
"""Nanoseconds that a worker, or a caller that waits for it, stays awake for what comes next, and up to which it has come at once."""
STRIDE = 20_000
"""Nanoseconds of work after which tasks are accounted for, and the rules applied, where no task has a limit; a long one ends it at once."""
MOST_STRIDE = 4096


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
    _signal.signal(signal.SIGINT, _signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us if need be
    role.become_worker()
    task_fd, result_fd, page_fd, stack_fd = (_out_of_the_way(fd) for fd in (task_fd, result_fd, page_fd, stack_fd))
    worker = _Worker(task_fd, result_fd, page_fd, stack_fd, inherited)
    if _signal.getsignal(signal.SIGCONT) == _signal.SIG_DFL:
        _signal.signal(signal.SIGCONT, worker.asked)
        signal.siginterrupt(signal.SIGCONT, False)
    try:
        worker.serve()
    except _ParentGone:
        os._exit(1)
    sys.exit(0)


_prctl: Any = None


def find_prctl() -> Any:
    """Return the C function prctl, or None; the first call takes 0.2 ms, which a guardian saves its workers."""
    global _prctl
    if _prctl is None:
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            _prctl = ctypes.CDLL(None).prctl
    return _prctl


def _die_with_parent(parent: int, lifeline: int) -> None:
    """Have the kernel kill this process when the thread that started it ends: that is the supervisor, which ends last, or a guardian's only one."""
    prctl = find_prctl()
    is_armed = prctl is not None and prctl(1, KILL) == 0  # PR_SET_PDEATHSIG
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


def _hold(numbers: tuple[int, ...]) -> None:
    """Outlive signals that the parent takes as the order to let running tasks finish, and nothing else (`abreast.drain_on`).

    They may be sent to all processes of a service at once. Not ignored, which programs that a task starts would inherit.
    """
    for number in numbers:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _go_on)
            signal.siginterrupt(number, False)


def _go_on(_number: int, _frame: Any) -> None:
    pass


def _be_the_first_to_go() -> None:
    """Have the kernel, when memory runs out, take a worker and not the parent."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, b"%d" % min(1000, int(os.read(fd, 20)) + 300), 0)
        finally:
            os.close(fd)
    except (OSError, ValueError):
        pass


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

    __slots__ = ("attempt", "base", "first", "name", "scope", "words")

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self.scope = _HaltScope(self)
        self.name = ""
        self.attempt = 1
        self.base = -1
        """The index of its call's first task; -1 has none."""
        self.first = 0
        """The number of its call's first task."""

    def current_task(self) -> Task:
        index = None if self.base < 0 else self.base + self.words[Page.SEQ] - self.first
        return Task(self.name, index, self.attempt, (self.scope,))


class _Call:
    """A call that the worker is at.

    Attributes:
        function: its number.
        first: the number of the first task.
        last: the number behind the last task that is to run.
        flags: as it came.
        context: what each task gets a copy of; bytes until the first task.
        until: when the rest is handed back; 0 is never.
        body, place: where its items begin.
        buffers: that were kept out of its pickles.
    """

    __slots__ = ("body", "buffers", "context", "count", "first", "flags", "function", "last", "place", "until")

    def __init__(self, arrived: Frame, running: _Running) -> None:
        body = memoryview(arrived.body)
        self.function, self.count, running.base, box, name_size, context_size, running.attempt, most = CALL.unpack_from(body)
        place = CALL.size
        running.name = str(body[place : place + name_size], "utf-8")
        place += name_size
        self.context: Context | Payload = Context()
        if context_size:
            self.context = Payload(bytes(body[place : place + context_size]), ())
            place += context_size
        self.body, self.place, self.buffers = body, place, iter(arrived.buffers)
        self.first = running.first = arrived.number
        self.last = arrived.number + (most or self.count)
        self.flags = arrived.flags
        self.until = perf_counter_ns() + int(box * 1e9) if box else 0


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
        words = running.words
        return running.first != 0 and words[Page.HALT] == running.first and not words[Page.QUIET]

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
        if page_fd >= LEAST_FD:
            move_copy(page_fd, LEAST_FD)
        self.words = self.page.words
        self.parser = Parser(Kind.OF_PARENT)
        self.functions: OrderedDict[int, Callable[..., Any] | bytes] = OrderedDict()  # bytes until its first task
        self.running = _Running(self.words)
        self.pid = os.getpid()
        self.strides: dict[int, int] = {}  # by function: how many tasks take about 20 us
        self.has_run = False
        self.spins: bool | None = None  # not known yet: files have to be read for that
        self.is_quick = False
        """Whether the last call came at once."""
        self.readable = select.poll()
        self.readable.register(task_fd, select.POLLIN)
        self.copies: list[None] = []
        """Not empty in a fork that a task has made."""
        self.is_asked = False
        """Whether `asked` is at it."""
        self.call: _Call | None = None
        self.turn: tuple[Any, int] | None = None
        """What the tasks are taken from that begin without a further look at `call.last`, and the number behind the last of them. None while
        it is not known which ones may."""
        self.returned = 0
        """The number of the last task that has been given back: what is below, and has not begun, does not."""
        os.register_at_fork(after_in_child=partial(self.copies.append, None))
        self.writing = threading.Lock()  # guards the result pipe: a thread of a task may log while an outcome is being written
        self.most_memory: int | None = None
        self.looked_at_memory = 0
        self.outbox = Outbox(self.words, self._write, perf_counter_ns)

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
            if arrived.kind == Kind.WATCH:
                self.outbox.watch(wanted=arrived.number == 1)
            elif arrived.kind == Kind.CALL:
                if arrived.number > self.returned:
                    self.has_run = True
                    self._call(arrived)
                else:
                    self._note_use(arrived)
            elif arrived.kind == Kind.DEFINE:
                self._define(arrived)
            else:
                self._rest()
                self.words[Page.OURS] = loaded()
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
        _hold(told["held"])
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
            number, _ = self.functions.popitem(last=False)
            self.strides.pop(number, None)

    def _note_use(self, arrived: Frame) -> None:
        """A call that has been given back has come: the parent has counted it as a use of its function."""
        function, *_ = CALL.unpack_from(arrived.body)
        self.functions.move_to_end(function)

    def _call(self, arrived: Frame) -> None:
        running = self.running
        self.turn = None
        call = self.call = _Call(arrived, running)
        self.functions.move_to_end(call.function)
        try:
            here.running = running
            run = self._run_plain if call.flags & PLAIN and failpoints.hit is None else self._run_each
            seq = call.first if self.words[Page.DRAINED] else run(call)
        finally:
            here.running = self.call = None
            running.first = 0
        if seq < call.first + call.count:
            if failpoints.hit is not None:
                self._flush_outbox()
                failpoints.hit("worker.before_over")
            self.outbox.over(seq)
        elif self.outbox.urgent:
            self._flush_outbox()
        if self.most_memory is not None:
            self._look_at_memory(self.most_memory)

    def _rest(self) -> None:
        """All that has been read is done: before the worker waits for more, everything is written."""
        self._flush_outbox()
        self.words[Page.PHASE] = IDLE
        if self.has_run:
            self.has_run = False
            _flush()

    # ---- the tasks of a call; both ways return the number of the first that has not begun

    def _run_plain(self, call: _Call) -> int:
        """Run tasks whose inputs are plain values: nothing can happen in unpickling those, so it is done before any has begun."""
        words, outbox, copies, flags, clock = self.words, self.outbox, self.copies, call.flags, perf_counter_ns
        items = decode_plain(call.body[call.place :])
        append = outbox.values.append
        most_stride = 1 if flags & (TIMED | LIMITED | EACH) else MOST_STRIDE
        stride = min(most_stride, self.strides.get(call.function, 1))
        seq = call.first
        begin = clock()
        kinds = outbox.open(seq, begin, timed=flags & TIMED != 0)
        fn: Any = None
        value: Any = None
        while seq < call.last and words[Page.HALT] != call.first:
            place = seq - call.first
            count = min(stride, call.last - seq)
            words[Page.START] = begin
            try:
                if fn is None:
                    fn, fresh = self._load(call, seq)
                    if flags & STAR:
                        fn = _Star(fn)
                    begin = words[Page.START]
                    outbox.loaded(begin)
                words[Page.PHASE] = RUN
                after_task = role.after_task
                latest = begin + LONG
                rest = iter(items[place : place + count])
                self.turn = rest, seq + count
                for item in rest:
                    words[Page.SEQ] = seq
                    value = fresh().run(fn, item)
                    if copies:  # in a fork that the task has made, and that came back: the other one goes on here
                        os._exit(0)
                    if after_task is not None:
                        after_task()
                    if type(value) in kinds:
                        append(value)
                    else:
                        kinds = outbox.add(value)
                        words[Page.PHASE] = RUN
                    seq += 1
                    if clock() > latest:  # not as short as those before: what came of it is not to wait for the next one
                        break
                value = None
            except BaseException as error:  # whatever it is, SystemExit too: the task's outcome
                self._fail(seq, error)
                seq += 1
                if flags & FAILS_FAST:
                    break
            self.turn = None
            now = clock()
            elapsed = outbox.account(now)
            if elapsed > LONG or outbox.gathered > MOST_WORK or flags & EACH or outbox.urgent:
                self._flush_outbox()
                kinds = FIXED
                now = outbox.begin = clock()
            if call.until and now >= call.until:
                break
            if elapsed > LONG:
                stride = most_stride = 1
            elif most_stride > 1:
                done = seq - call.first - place
                stride = max(1, min(STRIDE * done // (elapsed + 1), 4 * stride, most_stride))
            begin = now
        self.strides[call.function] = stride
        return seq

    def _run_each(self, call: _Call) -> int:
        """Run tasks whose inputs are unpickled one by one, each within its own task: that may raise, hang, or kill the process."""
        words, outbox, flags, hit = self.words, self.outbox, call.flags, failpoints.hit
        seq = call.first
        begin = perf_counter_ns()
        outbox.open(seq, begin, timed=flags & TIMED != 0)
        loaded: Any = None
        failed = False
        for payload in _items_of(call):
            if words[Page.HALT] == call.first:
                break
            words[Page.PHASE] = DECODE
            words[Page.START] = begin
            try:
                if loaded is None:
                    loaded = self._load(call, seq)
                    begin = words[Page.START]
                    outbox.loaded(begin)
                words[Page.SEQ] = seq
                self.turn = _ALL_TAKEN, seq + 1
                value = self._run(loaded, payload, flags)
                outbox.add(value)
                del value
                failed = False
            except NotSent as not_sent:  # the parent could not pickle the arguments, and has sent that instead
                outbox.fail_encoded(not_sent.payload)
                failed = True
            except BaseException as error:  # whatever it is, SystemExit too: the task's outcome
                self._fail(seq, error)
                failed = True
            seq += 1
            self.turn = None
            now = perf_counter_ns()
            if outbox.account(now) > LONG or outbox.gathered > MOST_WORK or flags & EACH or outbox.urgent:
                self._flush_outbox()
                if hit is not None:
                    hit("worker.after_write")
                now = outbox.begin = perf_counter_ns()
            if seq >= call.last or (call.until and now >= call.until) or (failed and flags & FAILS_FAST):
                break
            begin = now
        return seq

    def _load(self, call: _Call, seq: int) -> tuple[Callable[..., Any], Callable[[], Context]]:
        """Return the function, and what gives each task its context.

        Both are unpickled within the first task that needs them: what dies, hangs or raises there is that task's.
        """
        words = self.words
        fn = self.functions[call.function]
        words[Page.PHASE] = DECODE if type(fn) is not bytes else Phase.LOAD
        words[Page.SEQ] = seq
        try:
            if type(fn) is bytes:
                fn = self.functions[call.function] = decode_function(fn)
                words[Page.START] = perf_counter_ns()  # of the task's own time; before the phase, so that it is never too early
                words[Page.PHASE] = DECODE
            context = call.context
            if type(context) is Payload:
                context = call.context = decode_context(context)
        except BaseException as error:
            raise _decode_error(error) from error
        return fn, context.copy  # type: ignore[return-value,union-attr]  # both unpickled by now

    def _run(self, loaded: tuple[Callable[..., Any], Callable[[], Context]], payload: Payload, flags: int) -> Any:
        """Run one task."""
        fn, fresh = loaded
        words, hit = self.words, failpoints.hit
        args: Any
        kwargs: Any = None
        try:
            if flags & PAIR or not flags & (SINGLE | PLAIN):
                args, kwargs = decode_args(payload)
            else:
                args = decode_item(payload)
                if not flags & STAR:
                    args = (args,)
        except NotSent:
            raise
        except BaseException as error:
            raise _decode_error(error) from error
        if hit is not None:
            hit("worker.after_decode")
        words[Page.PHASE] = RUN
        value = fresh().run(fn, *args, **kwargs) if kwargs else fresh().run(fn, *args)
        if self.copies:  # in a fork that the task has made, and that came back: the other one goes on here
            os._exit(0)
        if role.after_task is not None:
            role.after_task()
        if hit is not None:
            hit("worker.after_run")
        return value

    def _fail(self, seq: int, error: BaseException) -> None:
        """Task number `seq` has raised that."""
        if os.getpid() != self.pid:
            os._exit(1)
        if self.outbox.next != seq or self.words[Page.SEQ] != seq:
            # Thrown by a signal handler of a task's, after the task, which has its outcome: the next one has not begun, and is not to blame.
            self._flush_outbox()
            raise error
        self.outbox.fail(error)

    def _flush_outbox(self) -> None:
        if os.getpid() != self.pid:  # a fork that Python was not told of
            os._exit(0)
        self.outbox.flush()

    def asked(self, _number: int, frame: Any) -> None:
        """SIGCONT: the parent waits for what is kept back. Not if it has struck amid what keeps and writes: then it asks again."""
        while frame is not None and frame.f_code not in _LOOPS:
            if frame.f_globals is _OUTBOX:
                return
            frame = frame.f_back
        if frame is None or self.is_asked or self.writing.locked() or os.getpid() != self.pid:
            return
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.is_asked = True  # it may strike again, here
        try:
            # A handler of the task's that raises, for a time limit say, must not strike amid this: the task may catch it, and what was half done
            # would be lost. What has struck before is handled within this call, and nothing is done then.
            signal.pthread_sigmask(signal.SIG_BLOCK, [number for number in _SIGNALS if callable(signal.getsignal(number))])
            self._do_as_asked()
        finally:
            self.is_asked = False
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _do_as_asked(self) -> None:
        try:
            phase, last = self.words[Page.PHASE], self.words[Page.LAST]
            if last > self.returned and self.turn is not None and self.call is not None and self.call.first <= last:
                self._give_back(self.call, *self.turn, last)
            self.outbox.flush()
            self.words[Page.PHASE] = phase
        except _ParentGone:
            os._exit(1)
        except BaseException:
            # Thrown in by another thread, or there is no memory. It is not known what has been done, and the task may catch this.
            import traceback

            traceback.print_exc()
            os._exit(1)

    def _give_back(self, call: _Call, rest: Any, end: int, last: int) -> None:
        """Begin none of the tasks up to number `last` but the one that is running, and say so. This is called amid it, or just behind it."""
        behind = end - rest.__length_hint__()
        for _ in rest:  # none of these can begin any more
            pass
        self.turn = rest, behind
        call.last, call.count = behind, behind - call.first
        first = max(behind, self.returned + 1)  # what it gives back for the second time is not the parent's any more
        self.returned = last
        self.outbox.give_back(first, last)

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
            if self.has_run:
                self._rest()
                self._wait()
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

    def _wait(self) -> None:
        """Wait for the next call, awake for a moment if the last ones came at once: to be woken costs 20 to 60 us on many machines."""
        if self.spins is None:
            self.spins = usable_cores() > 1
        if self.spins:
            begin = now = perf_counter_ns()
            until = begin + (AWAKE if self.is_quick else 0)
            while not self.readable.poll(0):
                now = perf_counter_ns()
                if now >= until:
                    self.readable.poll()
                    now = perf_counter_ns()
                    break
            self.is_quick = now - begin < QUICK

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


_LOOPS = frozenset((_Worker._run_plain.__code__, _Worker._run_each.__code__))
"""Where tasks are run."""
_SIGNALS = sorted(map(int, signal.valid_signals()))
_OUTBOX = Outbox.flush.__globals__
_ALL_TAKEN: Any = iter(())
"""What nothing is left of."""


class _Star:
    """Calls a function with the items of a tuple as its arguments."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, args: tuple[Any, ...]) -> Any:
        return self.fn(*args)


def _decode_error(error: BaseException) -> BaseException:
    from abreast.core.process_errors import TaskDecodeError

    return TaskDecodeError(f"{type(error).__name__}: {error}")


def _items_of(call: _Call) -> Iterator[Payload]:
    """Yield the items of a call, each still as bytes."""
    body, place, flags = call.body, call.place, call.flags
    if flags & PLAIN:  # with failpoints
        for item in decode_plain(body[place:]):
            yield Payload(pickle.dumps(item))
    elif flags & SINGLE:
        sizes = struct.unpack_from(f"<{call.count}I", body, place)
        place += 4 * call.count
        for size in sizes:
            yield Payload(body[place : place + size])  # type: ignore[arg-type]  # pickle reads it as bytes
            place += size
    else:
        for _ in range(call.count):
            size, with_buffers = ITEM.unpack_from(body, place)
            place += ITEM.size
            yield Payload(body[place : place + size], tuple(next(call.buffers) for _ in range(with_buffers)))  # type: ignore[arg-type]  # as above
            place += size


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None, or a task's stand-in: the worker serves on
            stream.flush()
