"""One sentence of advice that follows from what was measured: a pure function, the first row that fits.

==================================================  ==============================================================
if                                                  say
==================================================  ==============================================================
nothing but the serial run came to its end          that, and to look at the errors
the fastest other way and the serial run overlap,   that, and how to get less noise
or nearly so, and it may be 10 % faster all the
same
they do, or the fastest is not 5 % faster      to leave it so, and why nothing is gained
else                                                the least kind and number within 5 % of the fastest, by how
                                                    much it is faster, and why not more, or not the other kind
==================================================  ==============================================================

Threads are less than processes: nothing is copied, nothing has to be pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abreast.core.text import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abreast.core.comparison import Contender, Measured

__all__ = ["verdict"]

ENOUGH = 0.05
"""A share of the time that nobody would change a program for."""

PROMISE = 0.1
"""A share by which the fastest round of a way must be faster than the slowest serial one, for it to be worth finding out."""

GAIN = 1.2
"""A speed-up below it is none."""

START_UP = 0.3
"""A share of the time that is much for starting workers."""

STEEP = 0.75
"""The efficiency of the most workers from which on still more are worth a try."""

_ORDER = ("serial", "thread", "process")


def verdict(measured: Measured) -> str:
    """Return one sentence: which kind and how many workers to use, by how much it is faster, and why."""
    serial = measured.serial
    right = [row for row in measured.rows if measured.is_right(row)]
    if right == [serial]:
        if len(measured.rows) == 1:
            return "Only one after another was measured: give kinds= and max_workers= to compare it with."
        return "Use what is said of the errors and differences first: only one after another gave its results."
    best = measured.best
    chosen = _least(right, best, serial)
    rival = min((row for row in right if row is not serial), key=_time)
    overlap = _overlap(serial, rival)
    if overlap and max(serial.seconds) > min(rival.seconds) * (1 + PROMISE):
        return _noise(measured, serial, rival)
    if overlap or chosen is serial:
        return f"Run it one after another: {_no_gain(measured, right)}."
    parts = [f'Use kind="{chosen.kind}", max_workers={chosen.max_workers}: {_times(chosen)} as fast as one after another']
    parts += [why for why in (_more(measured, right, chosen), _other_kind(measured, right, chosen)) if why]
    if measured.rounds == 1:
        parts.append("it ran once only, so the noise is not known")
    return "; ".join(parts) + "."


def _least(right: Sequence[Contender], best: Contender, serial: Contender) -> Contender:
    """The least kind, and of that the fewest workers, that is nearly as fast as the best, and surely not as the serial run."""
    near = [row for row in right if _time(row) <= _time(best) * (1 + ENOUGH)]
    near = [row for row in near if row is best or row is serial or not _overlap(serial, row)]
    return min(near, key=lambda row: (_rank(row.kind), row.max_workers))


def _rank(kind: str) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _overlap(one: Contender, other: Contender) -> bool:
    """Whether the ranges of two contenders overlap, or lie no farther apart than chance may bring them.

    Of few rounds ranges are narrow: of the fastest of four ways that are all as fast as the serial run, three rounds lie apart from it once in ten
    times, two once in three. With 2 / (rounds - 1)² of the wider range between them, that is at most once in twenty.
    """
    rounds = min(len(one.seconds), len(other.seconds))
    if rounds < 2:
        return False
    gap = max(min(one.seconds) - max(other.seconds), min(other.seconds) - max(one.seconds))
    return gap <= 2 / (rounds - 1) ** 2 * max(max(row.seconds) - min(row.seconds) for row in (one, other))


def _spread(row: Contender) -> float:
    """How much longer the slowest round took than the fastest, as a share."""
    return max(row.seconds) / max(min(row.seconds), 1e-9) - 1


def _noise(measured: Measured, serial: Contender, rival: Contender) -> str:
    widest = max(_spread(serial), _spread(rival))
    return (
        f"Nothing can be said: {rival.label} came to {_times(rival)} the speed of one after another, but rounds of the same work differ by "
        f"{widest:.0%}; try more inputs, rounds={2 * measured.rounds + 1}, or a machine that does nothing else."
    )


def _no_gain(measured: Measured, right: Sequence[Contender]) -> str:
    others = [row for row in right if row.kind != "serial"]
    best = min(others, key=_time)
    told = f"nothing was clearly faster ({best.label}: {_times(best)})"
    processes = [row for row in others if row.kind == "process"]
    if processes and _starts(process := min(processes, key=_time)):
        return f"{told}; {process.label} {'reaches' if process.max_workers == 1 else 'reach'} {_times(process)}, {_start_up(process)}, which pays with more work only"
    if processes and measured.cores == 1:
        return f"{told}; this program may use one core only"
    if processes:
        return f"{told}; what limits it is shared (a lock, a disk, a server), or sending inputs and results costs what is gained"
    if any(row.kind == "process" for row in measured.rows):
        return f"{told}; processes failed, or gave other results"
    if _starts(best):
        return f"{told}; it is too little work for starting threads"
    if measured.gil and measured.cores > 1:
        return f'{told}; if it computes, the GIL lets one thread at a time do so: compare with kinds="process"'
    return f"{told}; what limits it is shared: a lock, a disk, a server"


def _more(measured: Measured, right: Sequence[Contender], chosen: Contender) -> str:
    """What is known of more workers of that kind."""
    more = [row for row in right if row.kind == chosen.kind and row.max_workers > chosen.max_workers]
    if more:
        most = max(more, key=lambda row: row.max_workers)
        gained = _time(chosen) / max(_time(most), 1e-9) - 1
        if gained < -ENOUGH:
            return f"{most.max_workers} are slower ({_times(most)})"
        return f"{most.max_workers} bring less than {max(ENOUGH, gained):.0%} more"
    if any(row.kind == chosen.kind and row.max_workers > chosen.max_workers for row in measured.rows):
        return ""  # they failed
    steep = (chosen.efficiency or 0.0) >= STEEP
    allowed = chosen.kind == "thread" or chosen.max_workers < measured.cores
    if steep and allowed and chosen.max_workers < measured.inputs:
        try_more = min(2 * chosen.max_workers, measured.inputs)
        return f"more may be faster still: compare with max_workers={try_more}"
    return ""


def _other_kind(measured: Measured, right: Sequence[Contender], chosen: Contender) -> str:
    """Why not the other kind."""
    others = [row for row in right if row.kind not in ("serial", chosen.kind)]
    if not others:
        return ""
    other = min(others, key=_time)
    if _time(other) <= _time(chosen) * (1 + ENOUGH):
        return "processes gain nothing over threads, and have to be sent inputs and results" if other.kind == "process" else ""
    if chosen.kind == "process":
        if (other.speed_up or 0.0) >= GAIN:
            return f"threads reach {_times(other)}"
        why = "it computes, and the GIL lets one thread at a time do so" if measured.gil else "they hinder each other"
        return f"threads gain nothing ({_times(other)}): {why}"
    if _starts(other):
        return f"processes reach {_times(other)}, {_start_up(other)}"
    return f"processes reach {_times(other)}"


def _time(row: Contender) -> float:
    return row.median or 0.0


def _starts(row: Contender) -> bool:
    """Whether starting its workers is much of its time."""
    return row.start_up is not None and row.start_up >= START_UP * _time(row)


def _start_up(row: Contender) -> str:
    """An estimate, from runs of their own: it may come out longer than the whole."""
    start, whole = row.start_up or 0.0, _time(row)
    return (
        f"since starting takes about {duration(start)} of {duration(whole)}"
        if start < whole
        else f"since starting takes nearly all of {duration(whole)}"
    )


def _times(row: Contender) -> str:
    """``3.62x``, as in the table."""
    return f"{row.speed_up or 0.0:.2f}x"
