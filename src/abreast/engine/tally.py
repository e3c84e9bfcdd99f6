"""What has come of a run so far, in numbers: tasks, failures, times, workers. The run's lock guards it."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from abreast.core.outcome import RunSummary

if TYPE_CHECKING:
    from collections.abc import Collection

    from abreast.executors.batch import Batch

__all__ = ["Tally"]


class Tally:
    """Of one run.

    Attributes:
        begun, ended: when it began and ended, by `perf_counter`; 0 before that.
        tasks, failures: how many tasks are over, and how many of them have failed; those of batches that are over.
        given_up: how many inputs have been read and will not be run.
        resumed: how many outcomes came from the journal.
        task_time: seconds that the tasks took, together.
        workers: the names of those that ran any.
    """

    __slots__ = ("begun", "ended", "failures", "given_up", "resumed", "task_time", "tasks", "workers")

    def __init__(self) -> None:
        self.begun = self.ended = 0.0
        self.tasks = self.failures = self.given_up = self.resumed = 0
        self.task_time = 0.0
        self.workers: set[str] = set()

    def count(self, batch: Batch, done: int) -> None:
        """A batch is over; the first `done` of its tasks have been run."""
        if done:
            self.workers.add(batch.worker)
        self.tasks += done
        self.failures += sum(place < done for place in batch.errors)  # one may be known a moment before its result is
        self.task_time += batch.seconds

    def finished(self, running: Collection[Batch], *, retries: bool) -> int:
        """Return how many tasks have ended, in batches that still run too; `retries`: whether what has failed there is not over."""
        finished = self.tasks + sum(len(batch.results) for batch in running)
        if retries:  # what has failed is not to be taken back later
            finished -= sum(place < len(batch.results) for batch in running for place in list(batch.errors))
        return finished

    def summary(self, finished: int, failed: int, retries: int) -> RunSummary:
        """Return what a consumer is told: with `finished` tasks ended, `failed` of them, and `retries` attempts that were not the last."""
        wall_time = (self.ended or perf_counter()) - self.begun
        return RunSummary(finished, len(self.workers), wall_time, self.task_time, failed, self.given_up, retries, self.resumed)
