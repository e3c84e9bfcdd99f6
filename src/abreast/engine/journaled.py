"""The journal of a run: what is recorded comes from it, and what is settled goes into it before anybody gets it.

::

    the thread that asks                         the journal's thread                       any thread, with the run's lock
    ────────────────────                         ────────────────────                       ───────────────────────────────
    admit(inputs): key, occurrence, looked up    take what is there ◀── SimpleQueue ◀────── record(start, outcomes)
       recorded ─▶ an outcome at once            decode, encode: code of the user's
       else     ─▶ pending                       one transaction: COMMIT
                                                 run: they go on, to order and consumer

    at_most_once: begin(batch), before it is sent: waits for the commit of "started"

One thread writes, and there is no timer: while one commit runs, the next group gathers (group commit). So a delivered outcome is always a recorded one.
While batches of several tasks are at work it looks every `LOOK` seconds for what they have done, and records that: a batch may take long.

No lock guards anything here: the queue is the one thing that two threads share while they write; `record` puts, the writer takes. `_places` belongs to the thread that asks but for
`dict.get` and `pop`, which are one step. `failure` is set once, by the writer, before the run is told.

Invariants
    What is in the queue is counted by the run (`_recording`) until the writer says that it is recorded, or that the journal has failed.
    After `close` has returned, everything that was put has been written, or `failure` says why not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
import traceback
import warnings
from concurrent.futures import BrokenExecutor, CancelledError
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core import failpoints
from abreast.core.errors import TaskTimeout
from abreast.core.future import STEP, acquire_patiently
from abreast.core.journal_errors import InputChanged, Interrupted, JournalError, JournalWarning
from abreast.core.outcome import Outcome
from abreast.engine.decoding import decode_outcome
from abreast.engine.pieces import Stretch
from abreast.journal import codec, schema
from abreast.journal.identity import Unidentified, identity_of, is_unstable, key_of, users_key
from abreast.journal.store import Recorded, Row, Store, forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextvars import Context
    from types import FrameType

    from abreast.core.journal import Journal
    from abreast.engine.run import Run
    from abreast.executors.batch import Batch
    from abreast.journal.identity import Identity

__all__ = ["Admitted", "Journaling", "unrecorded"]

LOOK = 0.05
"""Seconds between two looks at what batches of several tasks have done."""
GROUP, GROUP_BYTES = 1024, 8 << 20
"""The most rows of a transaction, and bytes of results after which no further ones are added."""
READ_AHEAD = 1024
RESUMED_BYTES = 8 << 20
"""Bytes of recorded results that are read at once, about: a consumer that takes them one by one has little memory, maybe."""
_UNKNOWN = (schema.STARTED, schema.TIMEOUT, schema.CRASHED)
"""Statuses of tasks that may have done their work, or not."""
_CHANGED = 0.05
_TEXT = 10_000
"""Characters of an error's text that are kept."""

_log = logging.getLogger("abreast")


class Admitted(NamedTuple):
    """What is to be done with inputs that have been read.

    Attributes:
        taken: how many of them have been looked at; the rest is to be admitted later.
        stretches: those to run.
        pieces: index of the first, and outcomes, of those that were recorded.
        error: of the next input, which has no key.
    """

    taken: int
    stretches: list[Stretch]
    pieces: list[tuple[int, list[Outcome[Any]]]]
    error: Exception | None


class _Entry(NamedTuple):
    """What is put into the queue: outcomes to record, and to deliver then; or rows that somebody waits for."""

    start: int
    outcomes: list[Outcome[Any]]
    is_wanted: bool
    waiter: threading.Lock | None = None


class Journaling:
    """Of one run.

    Attributes:
        failure: why the journal cannot be written any more.
        read_ahead: how many inputs it is good to read at once: many while all of them are recorded.
    """

    def __init__(self, journal: Journal, fn: Callable[..., Any], *, star: bool, key: Callable[..., Any] | None) -> None:
        self.journal = journal
        self.failure: JournalError | None = None
        self.read_ahead = 0
        self._fn = fn
        self._star = star
        self._key = key
        self._store: Store | None = None
        self._thread: threading.Thread | None = None
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._seen: dict[bytes | str, int] = {}  # how often each key has come
        self._places: dict[int, tuple[bytes | str, int]] = {}  # of what has been admitted and not been recorded
        self._begun: set[int] = set()
        self._stale: set[int] = set()  # runs of another version of the function, whose results are not wanted
        self._unstable: set[int] = set()
        self._changed = 0
        self._recalled = 0  # bytes of the last result
        self._unkept = False
        self._is_over = False  # set before the queue is emptied for the last time: who puts later looks at it, and empties it too
        self._looks = threading.Event()
        self._has_ended = threading.Event()
        self._encodes: frozenset[type[Any]] = frozenset()
        self._importing: frozenset[str] = frozenset()
        self._ends: tuple[str, int] | None = None  # how the run ended, if the writer is to close the file

    # ---- the beginning

    def open(self, run: Run) -> None:
        """Open the file, see that it is of this function, and start the thread that writes.

        Raises:
            JournalError: one of them.
        """
        self._store = store = Store(self.journal)
        try:
            identity = self._compare(store)
            store.begin_run(identity.name, identity.digest, identity.scheme)
            self._unstable = store.unstable_indexes()
            for text in store.warnings:
                _warn(text)
        except BaseException:
            self.close("failed", 0)
            raise
        self._importing = _imported_here()
        self._thread = threading.Thread(target=self._write_all, args=(run,), name=f"{run.name}-journal", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Open the file for `admit` alone: no run is recorded to have been.

        Raises:
            JournalError: one of them.
        """
        self._store = store = Store(self.journal)
        try:
            self._compare(store)
        except BaseException:
            self.close("failed", 0)
            raise

    def _compare(self, store: Store) -> Identity:
        """See whether the journal belongs to this function, and whether that has changed; return which function it is."""
        identity = identity_of(self._fn)
        last = store.last_run()
        if last is not None:
            name, digest, scheme = last
            if name.rpartition(":")[2] != identity.qualname:
                raise JournalError(
                    f"the journal {store.path!r} belongs to {name.replace(':', '.')}, not to {identity.name.replace(':', '.')}; "
                    "give each function a journal of its own"
                )
            changed = [run for run, other, how in store.runs() if identity.has_changed(other, how)]
            what = f"{identity.name.replace(':', '.')} has changed since results were recorded in {store.path!r}"
            if self.journal.on_change == "rerun":
                self._stale.update(changed)
            elif self.journal.on_change == "error" and changed and store.has_results_of(changed):
                raise JournalError(
                    f"{what}; on_change='rerun' runs all of it again, 'keep' keeps what is recorded, or use a new journal"
                )
            elif identity.has_changed(digest, scheme) and store.has_results_of(changed):
                _warn(
                    f"{what} (its digest was {digest.hex()[:12]}, and is {identity.digest.hex()[:12]}): they are kept, and what is not recorded runs with the new code; "
                    "on_change='rerun' would run all of it again"
                )
        return identity

    def has_encoded(self, encodes: frozenset[type[Any]]) -> None:
        """Results may come as objects of these classes, which are still bytes.

        Raises:
            JournalError: this thread is importing a module.
        """
        self._encodes = encodes
        if encodes and self._importing:
            raise JournalError(
                f"results of processes cannot be recorded in {self.journal.path!r} while {', '.join(sorted(self._importing))} is being imported: unpickling them would "
                "wait for the end of the import, which waits for this run; call it from a function, after the import"
            )

    # ---- inputs come in: in the thread that asks

    def admit(self, start: int, items: list[Any], context: Context | None) -> Admitted:
        """Look up what is recorded of inputs that have been read; `start` is the index of the first. Runs code of the user's: `key`.

        Raises:
            JournalError: the file cannot be read.
        """
        store = self._store
        assert store is not None
        identities, error = self._identify(start, items)
        recorded = {} if store.is_empty else store.look_up(identities)
        stretches: list[Stretch] = []
        pieces: list[tuple[int, list[Outcome[Any]]]] = []
        fresh = -1  # place of the first of those to run
        size = 0
        for place, identity in enumerate(identities):
            if size > RESUMED_BYTES:
                self._forget(identities[place:])
                del identities[place:]
                error = None
                break
            found = recorded.get(identity)
            outcome = None
            if found is not None:
                outcome = self._recall(start + place, items[place], found)
                size += self._recalled
            if outcome is None:
                self._places[start + place] = identity
                if fresh < 0:
                    fresh = place
                if self._unstable and found is None:
                    self._note_changed(start + place, identity[0])
                continue
            if fresh >= 0:
                stretches.append(Stretch(start + fresh, items[fresh:place], 0, context))
                fresh = -1
            if pieces and pieces[-1][0] + len(pieces[-1][1]) == start + place:
                pieces[-1][1].append(outcome)
            else:
                pieces.append((start + place, [outcome]))
        count = len(identities)
        if fresh >= 0:
            stretches.append(Stretch(start + fresh, items[fresh:count] if fresh or count < len(items) else items, 0, context))
        most = READ_AHEAD if size <= RESUMED_BYTES else count  # as much again will be enough
        self.read_ahead = 0 if stretches or error is not None else min(most, max(8, 2 * self.read_ahead))
        return Admitted(count, stretches, pieces, error)

    def _identify(self, start: int, items: list[Any]) -> tuple[list[tuple[bytes | str, int]], Exception | None]:
        identities: list[tuple[bytes | str, int]] = []
        seen, key = self._seen, self._key
        if self.journal.content is not None:
            items = list(map(self.journal.content, items))
        for place, item in enumerate(items):
            identity: bytes | str
            try:
                identity = key_of(item) if key is None else users_key(key(*item) if self._star else key(item))
            except Unidentified as why:
                return identities, JournalError(
                    f"input {start + place} ({short(item)}) cannot be recognised in a later run: {why}; give key=, a function that returns what it is known by"
                )
            except Exception as error:
                error.add_note(f"abreast: raised by key= for input {start + place}: {short(item)}")
                return identities, error
            occurrence = seen.get(identity, 0)
            seen[identity] = occurrence + 1
            identities.append((identity, occurrence))
        return identities, None

    def _forget(self, identities: list[tuple[bytes | str, int]]) -> None:
        """These inputs will come again."""
        for key, _ in identities:
            self._seen[key] -= 1

    def _recall(self, index: int, item: Any, recorded: Recorded) -> Outcome[Any] | None:
        """Return the outcome of a task that is not to run; None if it is to."""
        self._recalled = 0
        once = self.journal.at_most_once
        if recorded.run in self._stale:
            return None
        if recorded.status in _UNKNOWN:
            return _outcome_of(index, item, recorded, error=Interrupted(recorded.started)) if once else None
        if recorded.status != schema.OK:
            return None
        if recorded.codec == codec.NOTHING:
            return _outcome_of(index, item, recorded, error=Interrupted(recorded.started, True)) if once else None
        store = self._store
        assert store is not None
        data = store.payload_of(recorded)
        self._recalled = len(data)
        try:
            value = codec.decode(recorded.codec & ~codec.IN_FILE, data, as_json_text=self.journal.keeps_json_text)
        except Exception as why:
            error = JournalError(
                f"the result of input {index} ({short(item)}), recorded in {store.path!r}, cannot be read in this program: {type(why).__name__}: {why}; "
                "is its class where it was?"
            )
            error.__cause__ = why
            return _outcome_of(index, item, recorded, error=error)
        return _outcome_of(index, item, recorded, value=value)

    def _note_changed(self, index: int, key: bytes | str) -> None:
        if index in self._unstable and is_unstable(key):
            self._changed += 1
            if self._changed > _CHANGED * len(self._unstable):
                self._unstable = set()  # once
                warnings.warn(
                    f"inputs recorded in {self.journal.path!r} have come back with other contents, and run again. They are of classes that abreast knows by their pickle, "
                    "which may differ from run to run: give key=, a function that returns what an input is known by",
                    InputChanged,
                    stacklevel=2,
                )

    # ---- outcomes come out: with the run's lock held

    def record(self, start: int, outcomes: list[Outcome[Any]], *, is_wanted: bool = True) -> None:
        """Have outcomes of consecutive tasks recorded, and given to the run then if they are wanted."""
        self._queue.put(_Entry(start, outcomes, is_wanted))

    def leave(self) -> None:
        """In a forked child: it is the parent's, whose thread writes it."""
        self.failure = self.failure or forked(self.journal.path)

    def look_soon(self) -> None:
        """A batch of several tasks is at work: look what it has done, from time to time."""
        if not self._looks.is_set():
            self._looks.set()
            self._queue.put(_Entry(0, [], False))  # wakes it

    def begin(self, batch: Batch) -> None:
        """With at_most_once: record that the tasks of a batch are about to start, and wait until that is committed.

        Raises:
            JournalError: it cannot be recorded, or the run is over.
        """
        if not self.journal.at_most_once:
            return
        now = time.time()
        indexes = [index for index in range(batch.start, batch.start + len(batch.items)) if index not in self._begun]
        self._begun.update(indexes)
        if not indexes:
            return
        waiter = threading.Lock()
        waiter.acquire()
        outcomes: list[Outcome[Any]] = [Outcome(index, None, attempts=0, duration=now) for index in indexes]
        entry = _Entry(batch.start, outcomes, False, waiter)
        if threading.current_thread() is self._thread:  # it cancels batches of executors, which may make room for this one
            self._write([entry])
            return
        if failpoints.hit is not None:
            failpoints.hit("journal.before_started")
        self._queue.put(entry)
        if self._is_over:
            self._let_go()
        acquire_patiently(waiter, None)
        if failpoints.hit is not None:
            failpoints.hit("journal.after_started")
        if self.failure is not None:
            raise self.failure
        if not outcomes:
            raise JournalError(f"the run that writes the journal {self.journal.path!r} is over")

    def flush(self) -> None:
        """Wait until everything that was put has been recorded."""
        thread = self._thread  # another thread may end the run
        if thread is not None and thread.is_alive():
            waiter = threading.Lock()
            waiter.acquire()
            self._queue.put(_Entry(0, [], False, waiter))
            if self._is_over:
                self._let_go()
            acquire_patiently(waiter, None)

    def close(self, status: str, seen: int, *, waits: bool = True) -> None:
        """Record what is left, end the thread, and close the file. Does not raise; `failure` tells.

        Args:
            waits: False: this thread has the run's lock, for which the writer may wait. That closes the file, when it is done.
        """
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():  # in a forked child it is not
            # A finalizer may close a run anywhere, amid the code of the user's that the writer runs too.
            leave = not waits or thread is threading.current_thread()
            self._ends = (status, seen)  # the writer closes the file: also when Ctrl-C strikes while it is waited for
            self._queue.put(None)
            if not leave:
                while not self._has_ended.wait(STEP):  # not join() yet: Ctrl-C amid that takes a thread for ended that is not
                    pass
                thread.join()
            return
        self._close_store(status, seen)

    def _close_store(self, status: str, seen: int) -> None:
        self._is_over = True
        self._let_go()
        store, self._store = self._store, None
        if store is not None:
            try:
                store.end_run(status, seen)
            except JournalError as error:  # what was recorded is there: the run only seems to have been killed
                _log.debug("%s", error)
            try:
                store.close()
            except JournalError as error:
                _log.warning("%s", error)

    def _let_go(self) -> None:
        """Nobody writes any more: wake whoever waits for that, a thread that was about to send a batch when the run was given up."""
        with contextlib.suppress(queue.Empty):
            while True:
                entry = self._queue.get_nowait()
                if entry is not None and entry.waiter is not None:
                    entry.outcomes.clear()
                    entry.waiter.release()

    # ---- the journal's thread

    def _write_all(self, run: Run) -> None:
        is_over = False
        while not is_over:
            entries: list[_Entry] = []
            entry: _Entry | None
            try:
                is_over = self._take_group(run, entries)
                if self.failure is None and entries:
                    self._write(entries)
                wanted = [(entry.start, entry.outcomes) for entry in entries if entry.is_wanted]
                if wanted and self.failure is None:
                    if failpoints.hit is not None:
                        failpoints.hit("journal.before_deliver")
                    run._recorded(wanted)
                    del wanted
            except BaseException as error:  # anything: who waits for this thread is to be told
                failure = (
                    error
                    if isinstance(error, JournalError)
                    else JournalError(f"the journal {self.journal.path!r} cannot be written: {error!r}")
                )
                if failure is not error:
                    failure.__cause__ = error
                if self.failure is None:
                    self.failure = failure
                    run._journal_failed(failure)
            for entry in entries:
                if entry.waiter is not None:
                    entry.waiter.release()  # behind the delivery: who has waited finds what was put before
            entry = None  # while nothing comes, no result is to be kept alive here
        try:
            if self._ends is not None:
                self._close_store(*self._ends)
        finally:
            self._has_ended.set()

    def _take_group(self, run: Run, entries: list[_Entry]) -> bool:
        """Wait for something to record, and add what there is; whether nothing more will come."""
        entry = self._next(run)
        rows = size = 0
        while entry is not None:
            entries.append(entry)
            rows += len(entry.outcomes)
            size += sum(_size_of(outcome.value) for outcome in entry.outcomes)
            if rows >= GROUP or size >= GROUP_BYTES:
                return False
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return False
        return True

    def _next(self, run: Run) -> _Entry | None:
        while True:
            try:
                return self._queue.get(timeout=LOOK if self._looks.is_set() else None)
            except queue.Empty:
                self._looks.clear()
                if run._record_done():
                    self._looks.set()

    def _write(self, entries: list[_Entry]) -> None:
        rows: list[Row] = []
        for entry in entries:
            if entry.waiter is not None:
                rows += [
                    Row(*self._places[each.index], each.index, schema.STARTED, 0, each.duration, 0.0) for each in entry.outcomes
                ]
            else:
                for outcome in entry.outcomes:
                    if self._encodes:
                        decode_outcome(outcome, self._encodes)
                    row = self._row_of(outcome)
                    if row is not None:
                        rows.append(row)
        if not rows:
            return
        store = self._store
        assert store is not None
        if any(is_unstable(row.key) for row in rows):
            store.note_unstable()
        store.write(rows)
        for row in rows:
            if row.status != schema.STARTED:
                self._places.pop(row.place, None)
                self._begun.discard(row.place)

    def _row_of(self, outcome: Outcome[Any]) -> Row | None:
        """Return what is to be written for an outcome; None if that is nothing: it was cancelled, and runs again."""
        error = outcome.error
        identity = self._places.get(outcome.index)
        if identity is None or isinstance(error, CancelledError):
            return None
        started = time.time() - outcome.duration
        if error is None:
            kind, payload, why = codec.encode(outcome.value, is_json_text=self.journal.keeps_json_text, importing=self._importing)
            if why and not self._unkept:
                self._unkept = True
                _warn(
                    f"the result of input {outcome.index} ({short(outcome.input)}) cannot be kept in {self.journal.path!r}: {why}; it is delivered, and its task "
                    f"{'is reported as Interrupted' if self.journal.at_most_once else 'runs again'} next time. Further ones are not told"
                )
            return Row(*identity, outcome.index, schema.OK, outcome.attempts, started, outcome.duration, kind, payload)
        status = schema.TIMEOUT if isinstance(error, TaskTimeout) else schema.CRASHED if _is_crash(error) else schema.ERROR
        if self.journal.at_most_once and _is_of_result(error):
            status = schema.STARTED  # it may have done its work, and is not to be started again
        kind_name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        return Row(
            *identity,
            outcome.index,
            status,
            outcome.attempts,
            started,
            outcome.duration,
            error_type=kind_name,
            error_text=_text_of(error),
        )


def unrecorded(journal: Journal, fn: Callable[..., Any], inputs: Iterable[Any]) -> Iterator[Any]:
    """Yield the inputs that a run would run. Nothing is run, nothing is recorded, and a journal that is not there is not made.

    Raises:
        JournalError: one of them.
    """
    if not os.path.lexists(journal.path):
        yield from inputs
        return
    journaling = Journaling(journal, fn, star=False, key=None)
    journaling.look()
    try:
        for index, item in enumerate(inputs):
            admitted = journaling.admit(index, [item], None)
            if admitted.error is not None:
                raise admitted.error
            if admitted.stretches:
                yield item
    finally:
        journaling.close("stopped", 0)


def _imported_here() -> frozenset[str]:
    """Return the modules that this thread is importing just now: a call at a module's top level."""
    frame: FrameType | None = sys._getframe()
    names = set()
    while frame is not None:
        spec: Any = frame.f_globals.get("__spec__") if frame.f_code.co_name == "<module>" else None
        if getattr(spec, "_initializing", False):
            names.add(str(spec.name))
        frame = frame.f_back
    return frozenset(names)


def _is_crash(error: BaseException) -> bool:
    """Whether a task was lost with its process; what cannot be unpickled is a `BrokenExecutor` too, as in the standard library."""
    if not isinstance(error, (BrokenExecutor, MemoryError)):
        return False
    from abreast.core.process_errors import MemoryLimitExceeded, ResultDecodeError, TaskDecodeError

    if isinstance(error, MemoryError):
        return isinstance(error, MemoryLimitExceeded)
    return not isinstance(error, (ResultDecodeError, TaskDecodeError))


def _is_of_result(error: BaseException) -> bool:
    """Whether a task has returned, and its result did not come here, or was not what the command can write (cli/task.py)."""
    from abreast.core.process_errors import ResultDecodeError, TaskPickleError

    if isinstance(error, TaskPickleError):
        return error.what == "the result"
    return isinstance(error, ResultDecodeError) or getattr(error, "is_of_result", False) is True


def _outcome_of(
    index: int, item: Any, recorded: Recorded, *, value: Any = None, error: BaseException | None = None
) -> Outcome[Any]:
    return Outcome(index, item, value, error, attempts=recorded.attempts, duration=recorded.duration, resumed=True)


def _size_of(value: Any) -> int:
    """Return about how many bytes a result will be, where that could be many."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    try:
        size = getattr(value, "nbytes", 0)
    except Exception:  # a property of the user's
        return 0
    return size if isinstance(size, int) else 0


def _text_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as why:  # a __str__ of the user's
        text = f"{type(error).__name__}, whose text raised {type(why).__name__}"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _TEXT else f"{text[: _TEXT // 2]}\n…\n{text[-_TEXT // 2 :]}"


def _warn(text: str) -> None:
    warnings.warn(text, JournalWarning, stacklevel=2)
