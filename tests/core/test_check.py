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


def test_a_call_instead_of_a_function():
    with pytest.raises(
        TypeError, match=r"^fn must be callable, not 3 \(int\); give the function itself and its arguments, as fn, 3, not"
    ):
        check.function("fn", 3)
    with pytest.raises(TypeError, match=r"^key must be callable, not 3 \(int\)$"):
        check.function("key", 3)


async def coroutine_function():
    pass


def test_coroutines():
    coroutine = coroutine_function()
    with pytest.raises(TypeError, match="a coroutine, which only an event loop can run$"):
        check.function("fn", coroutine)
    coroutine.close()
    with pytest.raises(TypeError, match=r"coroutine function \(coroutine_function\): a thread cannot .*asyncio\.gather"):
        check.no_coroutine_function("fn", coroutine_function, "a thread")
