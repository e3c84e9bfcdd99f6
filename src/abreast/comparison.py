"""Which kind, and how many workers, for this function: `compare` runs it each way, and `Comparison` says what came of it.

::

    inputs, read once ─▶ warm-up: the first input, once for each kind
                      ─▶ round 1:  serial   2 threads   4 threads   2 processes      each a run of its own, timed from the call
                      ─▶ round 2:  serial   2 threads   …                            to the list of results
                                     └── the first results: all others are compared with them, outside of the time

Rounds are interleaved, so that what else the machine does meanwhile strikes all alike.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from platform import python_version
from secrets import token_hex
from typing import TYPE_CHECKING, Any, get_args

from abreast.core.check import callable_or_none, count, function, no_coroutine_function
from abreast.core.comparison import Contender, Difference, Measured, median
from abreast.core.current import name_of
from abreast.core.options import Kind, check_run_options
from abreast.core.text import shown
from abreast.engine.workers import default_workers
from abreast.executors.process.cores import usable_cores
from abreast.functions import map as run_all
from abreast.policy.sameness import same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

    from rich.console import Console, ConsoleOptions, RenderResult

    from abreast.observe.progress import Progress

__all__ = ["Comparison", "compare"]


def compare(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    kinds: Kind | Sequence[Kind] | None = None,
    max_workers: int | Sequence[int] | None = None,
    rounds: int = 3,
    chunksize: int | Literal["auto"] = "auto",
    timeout: float | None = None,
    equal: Callable[[Any, Any], bool] | None = None,
    progress: Any = False,
) -> Comparison:
    """Run `fn` on every input one after another, on threads and in processes, and tell which is fastest, and by how much.

    Each way is a run of its own, as `abreast.map` makes it: what is timed is all of it, from the call to the list of results, starting the workers
    included. The ways take turns, round by round. Before, each kind runs the first input once, untimed: what is imported, opened or started
    for the first time (the process that forks the workers, for one) is no part of the figures.

    So `fn` is called on every input once for each way and round: what it does besides returning a result, it does as often. A function that
    remembers its results (``lru_cache``) is fast from the second time on, on threads and serially; nothing true comes of comparing that.

    Results are compared with those of the serial run, outside of the time: by ``==``, item by item in lists, tuples and dicts, with NaN the same as
    NaN, arrays of numpy and tables by their content, objects without an ``==`` by their attributes or pickles. What differs is told with kind and
    input, and such a way is never called the best.

    Args:
        fn: called with one input, or with one item of each iterable if there are several.
        iterables: the inputs, read once, before anything runs; at least one input.
        kinds: ``"thread"``, ``"process"``, or several of them; ``"serial"`` always runs, too. None: all that this platform has.
        max_workers: how many workers, or several numbers, each at least 1; never more than inputs. None: 2, 4, 8 … up to what `abreast.map` takes if
            nobody says.
        rounds: how often each way runs, at least 1; 3 by default. With one, nothing is known of the noise.
        chunksize: as for `abreast.map`.
        timeout: seconds that one run may take, above 0; a way that takes longer has failed. None: no limit.
        equal: a function that gets a serial result and another one, and returns whether they are the same, instead of what is said above:
            ``math.isclose``, ``numpy.allclose``.
        progress: as for `abreast.map`, counting runs; drawn between them only.

    Returns:
        `Comparison`, which prints as a table, a plot and a sentence of advice. A way that fails (what it is sent or returns cannot be
        pickled) is in it with its error.

    Raises:
        TypeError, ValueError: a wrong argument, before `fn` is called; no input.
        NotImplementedError: a kind was asked for that this platform cannot.
        BaseException: what `fn` raised in the serial run; what `equal` raised.
        TimeoutError: the serial run took longer than `timeout`.

    >>> import abreast, time
    >>> def square_number(number):
    ...     time.sleep(0.02)
    ...     return number * number
    >>> comparison = abreast.compare(square_number, range(9), kinds="thread", max_workers=3, rounds=1)
    >>> print(comparison.best.label)
    3 threads
    >>> print(comparison)
    square_number on 9 inputs, once each; Python ...
    """
    function("fn", fn)
    no_coroutine_function("fn", fn, "a comparison")
    if not iterables:
        raise TypeError("compare() needs at least one iterable of inputs")
    count("rounds", rounds)
    callable_or_none("equal", equal)
    if progress is not False:
        from abreast.observe.progress import check_progress

        check_progress(progress)
    remarks: list[str] = []
    chosen = _kinds(kinds, {"chunksize": chunksize, "timeout": timeout}, remarks)
    numbers = _numbers(max_workers)
    rows = list(zip(*iterables, strict=False))  # the shortest ends it, as in map
    if not rows:
        raise ValueError("compare() needs at least one input: there is none")
    ways = [_Way("serial", 1)]
    for kind in chosen:
        ways += [_Way(kind, number) for number in _workers(kind, numbers, len(rows), remarks)]
    measuring = _Measuring(
        fn, rows, ways, rounds=count("rounds", rounds), chunksize=chunksize, timeout=timeout, equal=equal, progress=progress
    )
    return Comparison(measuring.measure(remarks))


def _kinds(kinds: object, options: dict[str, Any], remarks: list[str]) -> list[Kind]:
    """Return the kinds to compare with the serial one; check the other options of a run on the way."""
    check_run_options(options | {"kind": "serial"}, refused={})
    asked: Any = kinds
    if kinds is None:
        asked = [kind for kind in get_args(Kind) if kind != "serial"]
    elif isinstance(kinds, str):
        asked = [kinds]
    elif not hasattr(kinds, "__iter__"):
        raise TypeError(f"kinds must be a kind, several of them, or None, not {shown(kinds)} ({type(kinds).__name__})")
    chosen: list[Kind] = []
    for kind in asked:
        if not isinstance(kind, str) or kind not in get_args(Kind):
            raise ValueError(f"kinds must be of {', '.join(map(repr, get_args(Kind)))}, not {shown(kind)}")
        try:
            check_run_options(options | {"kind": kind}, refused={})
        except NotImplementedError as error:
            if kinds is not None:
                raise
            remarks.append(f"Left out: {error}.")
            continue
        if kind != "serial" and kind not in chosen:
            chosen.append(kind)  # type: ignore[arg-type]  # it is among the words of Kind
    return chosen


def _numbers(max_workers: Any) -> list[int] | None:
    if max_workers is None:
        return None
    if isinstance(max_workers, (str, bytes)) or not hasattr(max_workers, "__iter__"):
        return [count("max_workers", max_workers, default=", several of them, or None")]
    numbers = [count("max_workers", number, default=", several of them, or None") for number in max_workers]
    if not numbers:
        raise ValueError("max_workers must have at least one number")
    return sorted(set(numbers))


def _workers(kind: Kind, numbers: list[int] | None, inputs: int, remarks: list[str]) -> list[int]:
    """How many workers of a kind are tried: never more than inputs, as in a run."""
    if numbers is None:
        most = default_workers(kind)
        numbers = [2**power for power in range(1, most.bit_length()) if 2**power < most] + [most]
    kept = sorted({min(number, inputs) for number in numbers})
    left_out = [number for number in numbers if number > inputs]
    remark = f"Never more workers than inputs: {', '.join(map(str, left_out))} would be {inputs}."
    if left_out and remark not in remarks:
        remarks.append(remark)
    return kept


class _Way:
    """One contender while it is measured."""

    def __init__(self, kind: Kind, max_workers: int) -> None:
        self.kind = kind
        self.max_workers = max_workers
        self.seconds: list[float] = []
        self.start_ups: list[float] = []
        self.error: BaseException | None = None
        self.differences = 0
        self.first_difference: Difference | None = None
        self.incomparable = 0

    def contender(self, serial: float) -> Contender:
        mine = median(tuple(self.seconds)) if self.seconds and self.error is None else None
        return Contender(
            self.kind,
            self.max_workers,
            tuple(self.seconds),
            median(tuple(self.start_ups)) if self.start_ups else None,
            None if mine is None else max(serial, RESOLUTION) / max(mine, RESOLUTION),
            self.error,
            self.differences,
            self.first_difference,
            self.incomparable,
        )


RESOLUTION = 1e-7
"""Seconds: no run takes less, whatever a clock says."""


class _Measuring:
    """Runs the ways in turn, and keeps what came of each."""

    def __init__(
        self,
        fn: Callable[..., Any],
        rows: list[tuple[Any, ...]],
        ways: list[_Way],
        *,
        rounds: int,
        chunksize: int | Literal["auto"],
        timeout: float | None,
        equal: Callable[[Any, Any], bool] | None,
        progress: object,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.fn = fn
        self.name = name_of(fn)
        self.rows = rows
        self.columns = list(zip(*rows, strict=True))
        self.ways = ways
        self.rounds = rounds
        self.options: dict[str, Any] = {"chunksize": chunksize, "timeout": timeout, "name": self.name}
        self.same: Callable[[Any, Any], bool | None] = same if equal is None else equal
        self.clock = clock
        self.expected: list[Any] | None = None
        self.bar = self._open_progress(progress)
        self.done = 0

    def measure(self, remarks: list[str]) -> Measured:
        try:
            self._warm_up()
            for _ in range(self.rounds):
                for way in self.ways:
                    if way.error is None:
                        self._play(way)
                    self._tell()
        finally:
            if self.bar is not None:
                self.bar.close()
        serial = median(tuple(self.ways[0].seconds))
        told = ["Times are of whole runs, starting the workers included; each kind ran the first input once before, untimed."]
        return Measured(
            self.name,
            len(self.rows),
            self.rounds,
            tuple(way.contender(serial) for way in self.ways),
            python_version(),
            usable_cores(),
            bool(getattr(sys, "_is_gil_enabled", lambda: True)()),
            (*told, *remarks),
        )

    def _warm_up(self) -> None:
        for kind in dict.fromkeys(way.kind for way in self.ways):
            first = [column[:1] for column in self.columns]
            try:
                run_all(self.fn, *first, kind=kind, max_workers=1, **self.options)
            except Exception as error:
                self._give_up([way for way in self.ways if way.kind == kind], error)

    def _play(self, way: _Way) -> None:
        gc.collect()  # what the way before has left is not to be cleared away in the time of this one
        try:
            if way.kind != "serial":
                begun = self.clock()
                # abs: what is to be imported for a function of ours is no part of anybody's start
                run_all(abs, range(way.max_workers), kind=way.kind, max_workers=way.max_workers, chunksize=1)
                way.start_ups.append(self.clock() - begun)
            begun = self.clock()
            results = run_all(self.fn, *self.columns, kind=way.kind, max_workers=way.max_workers, **self.options)
            way.seconds.append(self.clock() - begun)
        except Exception as error:
            self._give_up([way], error)
            return
        if self.expected is None:
            self.expected = results
        else:
            self._compare(way, self.expected, results)

    def _give_up(self, ways: list[_Way], error: Exception) -> None:
        """Note what ended a way; raise what ends all: an error of the serial run, and that the program or group around is to end."""
        if ways[0].kind == "serial" or isinstance(error, CancelledError):
            raise error
        for way in ways:
            way.error = error.with_traceback(None)  # it holds the frames, and with them the results of others

    def _compare(self, way: _Way, expected: list[Any], results: list[Any]) -> None:
        differences = incomparable = 0
        first = None
        for index, (wanted, got) in enumerate(zip(expected, results, strict=True)):
            told = self.same(wanted, got)
            if told is None:
                incomparable += 1
            elif not told:
                differences += 1
                if first is None:
                    given = self.rows[index]
                    first = Difference(index, given[0] if len(given) == 1 else given, wanted, got)
        if differences > way.differences:
            way.differences, way.first_difference = differences, first
        way.incomparable = max(way.incomparable, incomparable)

    def _open_progress(self, progress: object) -> Progress | None:
        if progress is False:
            return None
        from abreast.observe.progress import open_progress

        return open_progress(progress, total=len(self.ways) * self.rounds, name=f"compare {self.name}")

    def _tell(self) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.done, failed=sum(way.error is not None for way in self.ways), running=0)


class Comparison:
    """What `abreast.compare` has measured. ``str()`` is a table, a plot and a sentence of advice.

    Attributes:
        rows: one for each way, the serial run first. Each has ``kind``, ``max_workers``, ``seconds`` (of each round), ``median``, ``start_up``,
            ``speed_up`` (against the serial run), ``efficiency`` (speed-up by workers), ``error``, ``differences`` (how many results were not the
            serial ones), ``first_difference`` and ``incomparable``.
        best: the row with the smallest median; of a kind of which a result has differed, none.
        advice: one sentence that follows from the figures.
        agrees: whether every way came to its end, and no result differed from the serial one, as far as they can be compared.

    >>> import abreast
    >>> comparison = abreast.compare(abs, range(-100, 0), kinds="thread", max_workers=[2, 4], rounds=2)
    >>> [(row.kind, row.max_workers, len(row.seconds)) for row in comparison.rows]
    [('serial', 1, 2), ('thread', 2, 2), ('thread', 4, 2)]
    >>> comparison.agrees
    True
    """

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    @property
    def rows(self) -> tuple[Contender, ...]:
        return self._measured.rows

    @property
    def best(self) -> Contender:
        return self._measured.best

    @property
    def agrees(self) -> bool:
        return all(row.error is None and not row.differences for row in self.rows)

    @property
    def advice(self) -> str:
        from abreast.report.verdict import verdict

        return verdict(self._measured)

    def to_text(self, *, width: int = 80, ascii_only: bool = False) -> str:
        """Return what ``str()`` returns, for another width.

        Args:
            width: characters that a line may have, at least 60.
            ascii_only: whether to do without all other characters.

        Raises:
            TypeError, ValueError: a width that is none, or below 60.

        >>> import abreast
        >>> comparison = abreast.compare(abs, range(9), kinds="thread", max_workers=2, rounds=1)
        >>> comparison.to_text(ascii_only=True).isascii()
        True
        """
        from abreast.report.scaling import lines

        if count("width", width) < 60:
            raise ValueError(f"width must be at least 60, not {width}")
        return "\n".join(lines(self._measured, width=width, ascii_only=ascii_only))

    def __str__(self) -> str:
        return self.to_text()

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(self.to_text(width=max(60, min(120, options.max_width)), ascii_only=options.ascii_only), no_wrap=True)

    def __repr__(self) -> str:
        best = self.best
        return f"<Comparison of {self._measured.name}: {len(self.rows)} ways, best {best.label}, {best.speed_up or 0.0:.2f}x>"

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain dicts, lists, numbers and texts, which JSON can hold; inputs and results as their `repr`."""
        measured = self._measured
        return {
            "function": measured.name,
            "inputs": measured.inputs,
            "rounds": measured.rounds,
            "python": measured.python,
            "cores": measured.cores,
            "gil": measured.gil,
            "rows": [_row(row) for row in measured.rows],
            "best": {"kind": self.best.kind, "max_workers": self.best.max_workers},
            "agrees": self.agrees,
            "advice": self.advice,
            "remarks": list(measured.remarks),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a page (``.html``) with the plot as a picture, the table and the advice, or what `to_dict` returns (``.json``).

        The page needs no network and runs no script. A file that is there is replaced when the new one is whole.

        Raises:
            TypeError, ValueError: `path` is no path, or ends in neither.
            OSError: it cannot be written.

        >>> import abreast, os, tempfile
        >>> comparison = abreast.compare(abs, range(9), kinds="thread", max_workers=2, rounds=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     comparison.save(os.path.join(folder, "abs.html"))
        """
        name: object = os.fspath(path)
        if not isinstance(name, str):
            raise TypeError(f"path must be a text or a path, not {shown(path)} ({type(path).__name__})")
        if name.lower().endswith((".html", ".htm")):
            from abreast.report.scaling_page import page

            text = page(self._measured)
        elif name.lower().endswith(".json"):
            text = json.dumps(self.to_dict(), indent=2) + "\n"
        else:
            raise ValueError(f"path must end in .html, for a page, or .json, for the figures, not {name!r}")
        _replace(name, text.encode())


def _row(row: Contender) -> dict[str, Any]:
    from abreast.report.scaling import error_text

    told: dict[str, Any] = {
        "kind": row.kind,
        "max_workers": row.max_workers,
        "seconds": list(row.seconds),
        "median": row.median,
        "start_up": row.start_up,
        "speed_up": row.speed_up,
        "efficiency": row.efficiency,
        "error": None if row.error is None else error_text(row.error),
        "differences": row.differences,
        "first_difference": None,
        "incomparable": row.incomparable,
    }
    if row.first_difference is not None:
        index, given, expected, got = row.first_difference
        told["first_difference"] = {"index": index, "input": shown(given), "expected": shown(expected), "got": shown(got)}
    return told


def _replace(name: str, data: bytes) -> None:
    """Write a file beside its place, and move it there when it is whole."""
    target = os.path.realpath(name)
    part = f"{target}.{token_hex(4)}.part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)  # not tempfile's: 0o600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        Path(part).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(part).unlink()
        raise
