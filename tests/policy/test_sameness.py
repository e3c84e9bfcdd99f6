"""Whether two results are the same."""

from __future__ import annotations

import pickle
import threading

import pytest
from abreast.policy.sameness import same
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.whole

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers())
    ),
    max_leaves=12,
)


class Plain:
    """Without an ==."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Slots:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Raises:
    def __eq__(self, other):
        raise ValueError

    __hash__ = None

    def __reduce__(self):
        raise ValueError


class Odd:
    """Its == says neither."""

    def __eq__(self, other):
        class Neither:
            def __bool__(self):
                raise TypeError

        return Neither()

    __hash__ = None

    def __reduce__(self):
        raise TypeError


def circle():
    inner = []
    inner.append(inner)
    return inner


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_what_went_through_a_pickle_is_the_same(value):
    assert same(value, pickle.loads(pickle.dumps(value))) is True


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (1, 2, False),
        ([1, 2], [1, 2, 3], False),
        ((1,), [1], False),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({1, 2}, {2, 1}, True),
        (float("nan"), float("nan"), True),
        ([float("nan"), 1], [float("nan"), 2], False),
        (Plain(a=float("nan"), b=[1]), Plain(a=float("nan"), b=[1]), True),
        (Plain(a=1), Plain(a=2), False),
        (Plain(a=1), Plain(b=1), False),
        (ValueError("a"), ValueError("a"), True),
        (ValueError("a"), ValueError("b"), None),
        (Slots(1), Slots(1), True),
        (Slots(1), Slots(2), None),
        (threading.Lock(), threading.Lock(), None),
        ((n for n in ()), (n for n in ()), None),
        (lambda: 1, lambda: 1, None),
        ([1, lambda: 1], [2, lambda: 1], False),
        (Raises(), Raises(), None),
        (Odd(), Odd(), None),
        (circle(), circle(), None),
        (Plain(a=1), 3, False),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bool) else str(value),
)
def test_by_type(one, other, told):
    assert same(one, other) is told
    assert same(other, one) is told


def test_a_function_with_attributes_is_not_known_by_them():
    one, other = (lambda: 1), (lambda: 2)
    one.name = other.name = "same"
    assert same(one, other) is None


def test_arrays():
    numpy = pytest.importorskip("numpy")
    a = numpy.array([1.0, numpy.nan, 3.0])
    assert same(a, a.copy()) is True
    assert same([a], [a.copy()]) is True
    assert same(a, a + 1) is False
    assert same(a, a[:2]) is False
    assert same(a, a.astype("f4")) is False
    assert same(numpy.float64("nan"), numpy.float64("nan")) is True
    words = numpy.array(["a", "b"])
    assert same(words, words.copy()) is True
    objects = numpy.array([[1], None], dtype=object)
    assert same(objects, numpy.array([[1], None], dtype=object)) is True
    assert same(objects, numpy.array([[2], None], dtype=object)) is False


def test_tables_say_it_themselves():
    class Table:
        def __init__(self, rows):
            self.rows = rows

        def equals(self, other):
            return self.rows == other.rows

        def __eq__(self, other):
            return [True, False]  # as pandas: item by item

        __hash__ = None

    assert same(Table([1]), Table([1])) is True
    assert same(Table([1]), Table([2])) is False
