"""What `abreast.compare` has measured: plain data, which tables, pictures and advice are made of."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Contender", "Difference", "Measured", "median"]


class Difference(NamedTuple):
    """A result that is not the one of the serial run.

    Attributes:
        index: the place of the input, from 0.
        input: the input; a tuple where there are several iterables.
        expected: what the serial run gave.
        got: what came instead.
    """

    index: int  # type: ignore[assignment]  # a tuple's own index() finds nothing that anybody looks for here
    input: object
    expected: object
    got: object


class Contender(NamedTuple):
    """One way to run the function over all inputs, and how it did: a row of the table.

    Attributes:
        kind: ``"serial"``, ``"thread"``, ``"process"``.
        max_workers: how many workers there were.
        seconds: how long each round took, in seconds, from the call to the list of results, starting the workers included.
        start_up: seconds that starting so many workers and ending them takes, as a run that has nothing to do; the median of the rounds; None for
            the serial run.
        speed_up: how many times as fast as the serial run, by the medians; None if it failed.
        error: what ended it; its `seconds` are those of the rounds before.
        differences: how many results were not those of the serial run, in the round where they were most.
        first_difference: the first of them.
        incomparable: how many results nobody can tell whether they are the same.
    """

    kind: str
    max_workers: int
    seconds: tuple[float, ...] = ()
    start_up: float | None = None
    speed_up: float | None = None
    error: BaseException | None = None
    differences: int = 0
    first_difference: Difference | None = None
    incomparable: int = 0

    @property
    def median(self) -> float | None:
        """The median of `seconds`; None if it failed."""
        return None if self.error is not None or not self.seconds else median(self.seconds)

    @property
    def efficiency(self) -> float | None:
        """`speed_up` divided by `max_workers`: 1 where each worker is worth as much as the serial run."""
        return None if self.speed_up is None else self.speed_up / self.max_workers

    @property
    def label(self) -> str:
        """How a sentence calls it: ``4 threads``."""
        if self.kind == "serial":
            return "one after another"
        return f"{self.max_workers} {self.kind if self.max_workers == 1 else PLURALS.get(self.kind, self.kind + 's')}"


PLURALS = {"process": "processes"}


class Measured(NamedTuple):
    """All of a comparison.

    Attributes:
        name: what the function is called.
        inputs: how many there were.
        rounds: how often each contender ran.
        rows: the contenders; the serial run is the first.
        python: the version of Python.
        cores: how many cores this program may use.
        gil: whether a lock lets one thread at a time run Python.
        remarks: sentences on what was not measured, and why.
    """

    name: str
    inputs: int
    rounds: int
    rows: tuple[Contender, ...]
    python: str
    cores: int
    gil: bool
    remarks: tuple[str, ...] = ()

    @property
    def serial(self) -> Contender:
        """The run that the others are measured against."""
        return self.rows[0]

    @property
    def is_steady(self) -> bool:
        """Whether the serial run gave the same results each time, as far as can be told."""
        return not self.serial.differences

    def is_right(self, row: Contender) -> bool:
        """Whether a contender came to its end, and its kind gave the results of the serial run, however many workers; any, if that has new ones each time."""
        if row.median is None:
            return False
        return not self.is_steady or not any(other.differences for other in self.rows if other.kind == row.kind)

    @property
    def best(self) -> Contender:
        """The one with the smallest median of those that are right."""
        return min((row for row in self.rows if self.is_right(row)), key=lambda row: row.median or 0.0)


def median(values: tuple[float, ...]) -> float:
    """Return the middle of at least one value; of an even number, the mean of the two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
