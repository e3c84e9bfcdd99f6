"""Checks of arguments."""

from __future__ import annotations

import pytest
from abreast.core import check


class Number:
    def __index__(self):
        return 3


@pytest.mark.parametrize(("value", "result"), [(1, 1), (Number(), 3), (10**30, 10**30)])
def test_count(value, result):
    assert check.count("n", value) == result


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, b"1", [1], 1j])
def test_count_refuses_what_is_no_integer(value):
    with pytest.raises(TypeError, match="^n must be an integer"):
        check.count("n", value)


@pytest.mark.parametrize("value", [0, -1, -(10**30)])
def test_count_refuses_less_than_one(value):
    with pytest.raises(ValueError, match=f"^n must be greater than 0, not {value}$"):
        check.count("n", value)


@pytest.mark.parametrize(("value", "result"), [(None, None), (1, 1.0), (0.5, 0.5), (float("inf"), float("inf"))])
def test_seconds(value, result):
    assert check.seconds_or_none("s", value) == result


def test_a_long_value_is_shortened():
    with pytest.raises(TypeError) as raised:
        check.count("n", "x" * 1000)
    assert len(str(raised.value)) < 100
