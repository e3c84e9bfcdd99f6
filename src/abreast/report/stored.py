"""A recording as JSON, and back: the part of a trace file that is ours, and exact.

::

    "abreast":{"zero":…,"end":…,"host":{…},"works":[…],"rows":[…],"kept":[attempts, spans],      one line: sums, and who was there
    "attempts":{"fields":["work","number",…],"blocks":[
    [[0,0,…],[0,1,…],…],                                                                   50 attempts: for each field its 50 values
    ]},
    "spans":{"fields":[…],"blocks":[
    …
    ]}},

Fields have their names, so that a file outlives a field more or less: one that is not known here is passed over, one that is missing has its default. Those
that have their default everywhere are not written. The events for other programs, behind it, are made of the same: they are rounded, thinned and moved to suit
these, and nothing is read from them. Rejected: exact values in each event. Reading 200,000 of them takes 1.8 s instead of 0.2 s, and half a picture would be
half a recording.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from functools import cache
from itertools import chain, islice
from operator import itemgetter, le
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from abreast.core.recording import Attempt, Host, Recording, Row, Span, Work
from abreast.core.states import OUTCOMES, STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BEGIN", "Damaged", "lines", "parse", "parse_cut"]

BEGIN = '"abreast":{'
BLOCK = 50
"""Attempts in a line: what a cut at any byte loses, at most, of those before it."""

DIGITS = 19
"""Of the largest number: the nanoseconds since 1970 have so many."""
LONG = re.compile(rf"\d{{{DIGITS + 1}}}")

SCALARS = tuple(field.name for field in fields(Recording) if field.name not in ("host", "works", "rows", "attempts", "spans"))

encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Damaged(Exception):
    """This is no recording; the text says what is wrong."""


def lines(recording: Recording) -> Iterator[str]:
    """Return the lines of a recording, each with its end."""
    head = {name: getattr(recording, name) for name in SCALARS}
    head |= {"host": recording.host._asdict(), "works": [work._asdict() for work in recording.works]}
    head |= {"rows": [row._asdict() for row in recording.rows], "kept": [len(recording.attempts), len(recording.spans)]}
    yield BEGIN + encode(head)[1:-1] + ",\n"
    yield from _table_lines("attempts", Attempt, recording.attempts)
    yield "]},\n"
    yield from _table_lines("spans", Span, recording.spans)
    yield "]}},\n"


def _table_lines(name: str, cls: type[Attempt] | type[Span], values: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    defaults = cls._field_defaults
    used = [
        i for i, field in enumerate(cls._fields) if field not in defaults or any(value[i] != defaults[field] for value in values)
    ]
    yield f'"{name}":{{"fields":{encode([cls._fields[i] for i in used])},"blocks":[\n'
    rest = iter(values)
    left = len(values)
    while block := list(islice(rest, BLOCK)):
        left -= len(block)
        columns = list(zip(*block, strict=True))
        yield encode([columns[i] for i in used]) + (",\n" if left else "\n")


def parse(text: str) -> Recording:
    """Return the recording whose lines these are.

    Raises:
        Damaged: they are not those of a recording.
    """
    try:
        return read("{" + text.rstrip().removesuffix(",") + "}")
    except (ValueError, RecursionError) as error:
        raise Damaged(f"what should be its JSON is none: {error}") from None


def parse_cut(text: str) -> tuple[Recording, int]:
    """Return what is in the lines of a recording that end somewhere, and how much has been lost; ``dropped`` counts that too.

    Raises:
        Damaged: too little is left, or it is not of a recording.
    """
    whole = text[: text.rfind("\n") + 1].rstrip("\n").removesuffix(",")
    if '\n"attempts":{' not in whole:
        raise Damaged("it is cut off in its first lines, and nothing can be read")
    if whole.endswith("\n]}}"):
        closing = ""
    elif whole.endswith("\n]}"):
        closing = "}"
    else:
        closing = "]}}"
    try:
        return _from_dict(_loaded("{" + whole + closing + "}").get("abreast"), cut=True)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"it is cut off, and what is left of it is no JSON: {error}") from None


def read(text: str) -> Recording:
    """Return the recording of a JSON object that has it as ``abreast``.

    Raises:
        Damaged: something in it cannot be.
        ValueError, RecursionError: it is no JSON.
    """
    data = _loaded(text)
    return _from_dict(data.get("abreast") if type(data) is dict else None, cut=False)[0]


def _loaded(text: str) -> Any:
    """Return what JSON says. No number in it is so large that views could not calculate with it: floats end at 10^308."""
    # Only then: 200,000 attempts take twice as long so. Calls and errors may hold such digits as well.
    return json.loads(text, parse_int=_number) if LONG.search(text) else json.loads(text)


def _number(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise Damaged(f"one of its numbers has {len(digits)} digits")
    return int(digits)


def _from_dict(data: object, *, cut: bool) -> tuple[Recording, int]:
    """Return the recording that this is, looked through once so that no view has to, and how many attempts and spans are missing."""
    if type(data) is not dict:
        raise Damaged("it has no recording")
    empty: dict[str, list[Any]] = {"fields": [], "blocks": []}
    recording = Recording(
        **_scalars(data),
        host=_from_dicts(Host, [data.get("host")], "host")[0],
        works=_from_dicts(Work, data.get("works"), "works"),
        rows=_from_dicts(Row, data.get("rows"), "rows"),
        attempts=_from_table(Attempt, data.get("attempts"), "attempts"),
        spans=_from_table(Span, data.get("spans", empty if cut else None), "spans"),
    )
    _check_references(recording)
    kept = data.get("kept")
    if type(kept) is not list or len(kept) != 2 or {*map(type, kept)} != {int}:
        raise Damaged("it does not say how many attempts and spans it has")
    lost, lost_spans = kept[0] - len(recording.attempts), kept[1] - len(recording.spans)
    if lost < 0 or lost_spans < 0 or ((lost or lost_spans) and not cut):
        raise Damaged(f"it has {len(recording.attempts)} attempts and {len(recording.spans)} spans, not {kept[0]} and {kept[1]}")
    if lost or lost_spans:
        recording.complete = False
        recording.dropped += lost
        recording.dropped_spans += lost_spans
    return recording, lost + lost_spans


@cache
def _kinds(cls: type[Any]) -> dict[str, frozenset[type]]:
    """The types that each field of a class may have. A bool is no number here, an integer may stand for a float."""
    found = {}
    for name, hint in get_type_hints(cls).items():
        types = frozenset(get_args(hint) or (hint,))
        found[name] = types | {int} if float in types else types
    return found


def _scalars(data: dict[str, Any]) -> dict[str, Any]:
    kinds = _kinds(Recording)
    found = {name: data[name] for name in SCALARS if name in data}
    for name in SCALARS:
        if name in found and type(found[name]) not in kinds[name]:
            raise Damaged(f"its {name!r} is {found[name]!r}")
        if name not in found and name in ("zero", "end"):  # the others have defaults
            raise Damaged(f"it has no {name!r}")
    return found


def _from_dicts(cls: Any, values: object, where: str) -> list[Any]:
    if type(values) is not list or not {*map(type, values)} <= {dict}:
        raise Damaged(f"its {where!r} are not what they should be")
    defaults = cls._field_defaults
    try:
        columns = [
            [value.get(name, defaults[name]) if name in defaults else value[name] for value in values] for name in cls._fields
        ]
    except KeyError as error:
        raise Damaged(f"one of its {where!r} has no {error}") from None
    return _made(cls, columns, len(values), where)


def _from_table(cls: Any, table: object, where: str) -> list[Any]:
    names = table.get("fields") if type(table) is dict else None
    blocks = table.get("blocks") if type(table) is dict else None
    if type(names) is not list or type(blocks) is not list or not {*map(type, blocks)} <= {list}:
        raise Damaged(f"its {where!r} are not what they should be")
    count = 0
    for block in blocks:
        if len(block) != len(names) or {*map(type, block)} != {list} or len({*map(len, block)}) != 1:
            raise Damaged(f"its {where!r} have not a value for each of their fields")
        count += len(block[0])
    columns = []
    for name in cls._fields:
        if name in names:
            columns.append(list(chain.from_iterable(map(itemgetter(names.index(name)), blocks))))
        elif name in cls._field_defaults:
            columns.append([cls._field_defaults[name]] * count)
        elif count:
            raise Damaged(f"its {where!r} have no {name!r}")
    return _made(cls, columns, count, where)


def _made(cls: Any, columns: list[Any], count: int, where: str) -> list[Any]:
    """Make tuples of columns. Column by column, since a loop over 200,000 tuples would take longer than all of the rest."""
    if not count:
        return []
    kinds = _kinds(cls)
    for name, column in zip(cls._fields, columns, strict=True):
        if not {*map(type, column)} <= kinds[name]:
            wrong = next(value for value in column if type(value) not in kinds[name])
            raise Damaged(f"a {name!r} in its {where!r} is {wrong!r}")
    return list(map(cls._make, zip(*columns, strict=True)))


def _check_references(recording: Recording) -> None:
    """Every number that stands for something must be that of something."""
    works, rows = len(recording.works), len(recording.rows)
    values: Sequence[Any]
    for things, where in ((recording.works, "works"), (recording.rows, "rows")):
        if [thing.serial for thing in things] != list(range(len(things))):
            raise Damaged(f"its {where!r} are not numbered from 0")
    for values, where, name, count in (
        (recording.attempts, "attempts", "work", works),
        (recording.attempts, "attempts", "row", rows),
        (recording.attempts, "attempts", "submitter", rows),
        (recording.attempts, "attempts", "outcome", len(OUTCOMES)),
        (recording.spans, "spans", "row", rows),
        (recording.spans, "spans", "state", len(STATES)),
    ):
        if values:
            used = {*map(itemgetter(values[0]._fields.index(name)), values)} - {None}
            if used and not 0 <= min(used) <= max(used) < count:
                raise Damaged(f"a {name!r} in its {where!r} is none of {count}")
    for values in (recording.attempts, recording.spans):
        if values:
            begin, end = (itemgetter(values[0]._fields.index(name)) for name in ("begin", "end"))
            if not all(map(le, map(begin, values), map(end, values))):
                raise Damaged("something in it ends before it begins")
