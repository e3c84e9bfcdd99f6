"""How a result is kept: what comes back is equal, and of the same classes, or it is not kept."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abreast.journal import codec

pytestmark = pytest.mark.whole

numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.integers(-(2**3000), 2**3000))
texts = st.text(st.characters(codec=None), max_size=8)
values = st.recursive(
    st.one_of(st.none(), numbers, texts, st.binary(max_size=8), st.datetimes(), st.decimals(allow_nan=False), st.complex_numbers(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.one_of(texts, st.integers()), inner, max_size=4), st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=10,
)  # fmt: skip


def same(one, other) -> bool:
    """Equal, and of the same classes all the way down; a NaN is a NaN, and -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return (
            list(map(repr, one)) == list(map(repr, other))
            and all(map(same, one.values(), other.values()))
            and all(map(same, one, other))
        )
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one == other and math.copysign(1, one) == math.copysign(1, other))
    return one == other


@settings(max_examples=80, deadline=None)
@given(values)
def test_what_comes_back_is_the_same(value):
    kind, payload, why = codec.encode(value)
    assert kind in (codec.JSON, codec.PICKLE) and not why
    assert same(codec.decode(kind, payload), value)
    if kind == codec.JSON:
        assert same(json.loads(payload), value)  # for anything that can read JSON


class Text(str):
    __slots__ = ()


class Number(int):
    pass


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: 2}, float("nan"), float("inf"), [float("-inf")], Text("a"), Number(1), {Text("a"): 1}, [(1,)], b"a", {1}, dt.date(2020, 1, 1), "\ud800", "\ud83d\ude00", ["\udfff"], 10**700],
    ids=ascii,
)  # fmt: skip
def test_what_json_would_change_is_a_pickle(value):
    kind, payload, _ = codec.encode(value)
    assert kind == codec.PICKLE and same(codec.decode(kind, payload), value)


def test_nested_deep_or_into_itself():
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    kind, payload, _ = codec.encode(deep)
    assert kind == codec.PICKLE and codec.decode(kind, payload) == deep
    loop: list[object] = []
    loop += [loop, loop]
    kind, payload, _ = codec.encode(loop)
    back = codec.decode(kind, payload)
    assert kind == codec.PICKLE and back[0] is back and back[1] is back


def test_few_digits_may_be_allowed():
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        for value in (2**1999, 2**2000, 2**9000):
            assert codec.decode(*codec.encode(value)[:2]) == value
    finally:
        sys.set_int_max_str_digits(before)


class Stubborn:
    def __reduce__(self):
        raise ValueError("I stay")


@pytest.mark.parametrize(
    "make",
    [threading.Lock, lambda: (x for x in "ab"), lambda: lambda: 0, Stubborn],
    ids=["lock", "generator", "lambda", "stubborn"],
)
def test_what_cannot_be_kept_says_why(make):
    kind, payload, why = codec.encode([make()])
    assert (kind, payload) == (codec.NOTHING, None) and ":" in why


class Changes(dict):
    """Of exactly no class that JSON knows; stands for a dict that another thread changes."""


def test_a_result_that_somebody_changes_meanwhile(monkeypatch):
    def strike(value, depth):
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(codec, "_is_exact", strike)
    kind, payload, why = codec.encode({"a": [1]})
    assert kind == codec.PICKLE and codec.decode(kind, payload) == {"a": [1]} and not why


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
def test_a_text_of_json_is_kept_as_the_value_that_it_is(value):
    text = json.dumps(value, ensure_ascii=False)
    kind, payload, _ = codec.encode(text, is_json_text=True)
    assert kind == codec.JSON_TEXT
    assert codec.decode(kind, payload, as_json_text=True) == text
    assert codec.decode(kind, payload) == value
    kind, payload, _ = codec.encode(value)
    assert json.loads(codec.decode(kind, payload, as_json_text=True)) == value
