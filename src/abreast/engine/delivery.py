"""The way of results from the batches to the consumer: through the journal, if there is one, and into the order of the inputs.

::

    a batch is over ─▶ extract ─▶ settled ───────────────────────────▶ [finished] ─▶ [order] ─▶ collect: the consumer's
    a batch runs ────▶ record_running ─▶ │                                 ▲                       ▲
                                         └─▶ the journal's thread: written ┘ pass_on               │
    a batch runs, without a journal, and the consumer waits for it ─────────────── take_from ──────┘

The run's lock guards all of it, and is held by who calls. It only decides: what is still bytes is unpickled later, by who asks (decoding.py).

Invariants
    With a journal every piece is a list of `Outcome`, counted by `recording` until it is recorded, and comes into `finished` then; what is not
    wanted is recorded too.
    No result is taken twice: `batch.taken` counts those that have been taken, of a batch that runs too.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from abreast.core.outcome import Outcome
from abreast.engine.pieces import Failure, Piece
from abreast.executors.batch import Batch
from abreast.policy.order import InOrder

if TYPE_CHECKING:
    from abreast.engine.decoding import Decoder
    from abreast.engine.journaled import Journaling
    from abreast.engine.pieces import Stretch
    from abreast.engine.tally import Tally
    from abreast.executors.batch import Work

__all__ = ["Delivery"]


class Delivery:
    """Of one run.

    Attributes:
        finished: index of the first, and results, of what can be delivered; in order: when it is its turn.
        order: what waits for its turn.
        head: a batch that runs, some of whose results have been taken already.
        recording: how many outcomes the journal has, and has not recorded.
        unrecorded: whether the journal has failed: what it has not recorded is not delivered.
    """

    def __init__(
        self,
        work: Work,
        decoder: Decoder,
        tally: Tally,
        journal: Journaling | None,
        *,
        ordered: bool,
        outcomes: bool,
        live: bool,
    ) -> None:
        self.finished: deque[tuple[int, list[Any]]] = deque()
        self.order: InOrder[list[Any]] = InOrder()
        self.head: Batch | None = None
        self.recording = 0
        self.unrecorded = False
        self._work = work
        self._decoder = decoder
        self._tally = tally
        self._journal = journal
        self._ordered = ordered
        self._outcomes = outcomes
        self._makes_outcomes = outcomes or journal is not None
        self._live = live  # whether the consumer gets results of batches that still run

    # ---- in: a batch is over, or has been stopped

    def extract(self, batch: Batch, last: int) -> list[Any]:
        """Return the results of a batch that have not been taken, up to place `last`."""
        first, batch.taken = batch.taken, max(batch.taken, last)
        if self._makes_outcomes:
            return [self.outcome(batch, place) for place in range(first, last)]
        results = batch.results[first:last] if first or last < len(batch.results) else batch.results
        return Piece(results, batch, first) if self._decoder.encodes else results

    def outcome(self, batch: Batch, place: int) -> Outcome[Any]:
        """Return what came of a task of a batch."""
        error = batch.errors.get(place)
        ended = batch.ends[place]
        begun = batch.ends[place - 1] if place else batch.began
        return Outcome(
            batch.start + place,
            batch.items[place],
            batch.results[place],
            error,
            attempts=batch.attempts_at(batch.start + place) - (isinstance(error, CancelledError) and not ended),
            worker=batch.worker,
            duration=ended - begun if ended else 0.0,
        )

    def cancelled(self, stretch: Stretch, why: BaseException) -> list[Any]:
        """Return outcomes of tasks that will not be run, and count them as given up."""
        items = stretch.items[stretch.place :]
        self._tally.given_up += len(items)
        tried, again = self._work.tried.get, self._work.again.get  # these have run, and what came of them was lost with a process
        return [
            Outcome(index, item, error=why, attempts=tried(index, 0) + again(index, 0))
            for index, item in enumerate(items, stretch.start)
        ]

    def settled(self, start: int, piece: list[Any]) -> None:
        """Results are final: they go to the consumer, by way of the journal if there is one."""
        if self._journal is None:
            self.finished.append((start, piece))
        elif piece and not self.unrecorded:
            self.recording += len(piece)
            self._journal.record(start, piece)

    # ---- by way of the journal: journaled.py

    def record_running(self, batch: Batch) -> None:
        """Have recorded what a batch that still runs has done so far."""
        start = batch.start + batch.taken
        self.settled(start, self.take_from(batch))

    def record_unwanted(self, batch: Batch, done: int, *, first: int | None = None) -> None:
        """What has been done and is not delivered, since the run ends before, need not be done again."""
        if self._journal is not None:
            first = batch.taken if first is None else first
            outcomes = [self.outcome(batch, place) for place in range(first, done)]
            if outcomes:
                self._journal.record(batch.start + first, outcomes, is_wanted=False)

    def pass_on(self, pieces: list[tuple[int, list[Outcome[Any]]]]) -> list[Failure]:
        """Outcomes that are recorded go to the consumer; return the errors that end the run."""
        if self._outcomes:
            self.finished.extend(pieces)
            return []
        failures = []
        for start, outcomes in pieces:
            # Recorded by an earlier run, or found when the journal unpickled it: other errors are failures already.
            place = next((place for place, outcome in enumerate(outcomes) if outcome.error is not None), len(outcomes))
            self.finished.append((start, [outcome.value for outcome in outcomes[:place]]))
            if place < len(outcomes):
                failed = outcomes[place]
                assert failed.error is not None
                batch = Batch(self._work, start + place, [failed.input], None, 1, None)
                batch.worker = failed.worker
                failures.append(Failure(start + place, failed.error, batch, 0))
        return failures

    # ---- out: the consumer asks

    def collect(self, running: dict[int, Batch]) -> list[Any]:
        """Return what can be yielded now; `running`: the batches that are with the workers, by start."""
        results: list[Any] = []
        finished, order = self.finished, self.order
        pieces = self._decoder.origins
        while finished:
            start, piece = finished.popleft()
            if self._ordered:
                order.put(start, piece)
            else:
                results += piece
                if type(piece) is Piece:
                    pieces.append(piece)
        if self._ordered:
            while (piece_in_turn := order.take()) is not None:
                results += piece_in_turn
                if type(piece_in_turn) is Piece:
                    pieces.append(piece_in_turn)
        if not results and self._live:
            for batch in self._awaited(running):
                if self._journal is not None:
                    self.record_running(batch)
                    continue
                taken = self.take_from(batch)
                results += taken
                if type(taken) is Piece:
                    pieces.append(taken)
        return results

    def is_at_hand(self, running: dict[int, Batch]) -> bool:
        """Ask the workers for what they have done of the batches that hold the next result; whether there is something already."""
        if not self._live:
            return False
        if self.finished:
            return True
        awaited = self._awaited(running)
        for batch in awaited:
            if len(batch.items) - len(batch.results) > 1:  # else it will be settled as soon
                batch.signal.append(None)
        # Looked at after the signal was set: what is done later finds it.
        return any(len(batch.results) > batch.taken and not (self._work.fails_fast and batch.errors) for batch in awaited)

    def _awaited(self, running: dict[int, Batch]) -> list[Batch]:
        """Return the batches that may have the next result."""
        if not self._ordered:
            return list(running.values())
        following = self.order.next
        head = running.get(following, self.head)
        if self._journal is not None and head is not None and following < head.start:  # its thread takes from all of them
            head = next((each for each in running.values() if each.start <= following < each.start + len(each.items)), None)
        if head is None or running.get(head.start) is not head or following >= head.start + len(head.items):
            return []
        return [head]

    def take_from(self, batch: Batch) -> list[Any]:
        """Take what a batch that still runs has done so far."""
        done = len(batch.results)
        last = min(batch.errors, default=done) if self._work.fails_fast else done
        first = batch.taken
        if last <= first:
            return []
        batch.taken = last
        if self._makes_outcomes:
            results: list[Any] = [self.outcome(batch, place) for place in range(first, last)]
        else:
            results = batch.results[first:last]
            if self._decoder.encodes:
                results = Piece(results, batch, first)
        batch.results[first:last] = [None] * (last - first)  # the consumer may drop them: so do we
        if self._ordered:
            if self._journal is None:  # else they come in their turn when they are recorded
                self.order.next += len(results)
            self.head = batch
        return results

    # ---- the end

    def drop(self) -> None:
        """Nobody wants any more: neither what can be delivered nor what the journal has, which is recorded all the same."""
        self.finished.clear()
        self.recording = 0

    def close(self) -> None:
        """The run is over: keep no results alive."""
        self.order = InOrder()
