"""`Retry`: a value that is checked when it is made, and cannot be changed."""

from __future__ import annotations

import pickle

import abreast
import pytest
from abreast import Retry

pytestmark = pytest.mark.whole


def test_has_the_defaults_of_the_contract():
    retry = Retry(3)
    assert (retry.retries, retry.on, retry.wait_initial, retry.wait_max, retry.wait_exp_base) == (3, Exception, 0.1, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"retries": -1}, ValueError, "retries must be at least 0, not -1"),
        ({"retries": True}, TypeError, "retries must be an integer, not True"),
        ({"retries": 2.0}, TypeError, r"retries must be an integer, not 2\.0"),
        ({"retries": "3"}, TypeError, "retries must be an integer, not '3'"),
        ({"retries": None}, TypeError, "retries must be an integer, not None"),
        ({"on": 5}, TypeError, "on must be an exception class, a tuple of classes or a function of the error, not 5"),
        ({"on": int}, TypeError, "<class 'int'> is no exception class"),
        ({"on": (OSError, "x")}, TypeError, "'x' is no exception class"),
        ({"on": ()}, ValueError, r"on=\(\) would retry nothing"),
        ({"on": [OSError]}, TypeError, "not \\[.*\\(list\\)"),
        *(
            ({name: value}, error, name)
            for name in ("wait_initial", "wait_max", "wait_jitter", "wait_exp_base")
            for value, error in [
                (-1, ValueError),
                (float("nan"), ValueError),
                (float("inf"), ValueError),
                (True, TypeError),
                ("1", TypeError),
                (None, TypeError),
            ]
        ),
        ({"wait_exp_base": 0.5}, ValueError, r"wait_exp_base must be finite and at least 1, not 0\.5"),
        ({"wait_initial": 10}, ValueError, r"wait_initial=10 is above wait_max=5\.0: give both"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_their_value(arguments, error, text):
    with pytest.raises(error, match=text):
        Retry(**{"retries": 1, **arguments})


def test_cannot_be_changed():
    retry = Retry(1)
    with pytest.raises(AttributeError, match=r"cannot be changed \(retries=5\)"):
        retry.retries = 5
    with pytest.raises(AttributeError):
        del retry.on
    with pytest.raises(AttributeError):
        retry.more = 1


def test_is_a_value():
    assert Retry(2, on=(OSError,)) == Retry(2, on=(OSError,), wait_jitter=1.0)
    assert Retry(2) != Retry(3)
    assert Retry(2) != 2
    assert len({Retry(2), Retry(2), Retry(3)}) == 2
    assert pickle.loads(pickle.dumps(Retry(2, on=OSError))) == Retry(2, on=OSError)


@pytest.mark.parametrize(
    ("retry", "text"),
    [
        (Retry(3), "Retry(3, on=Exception, wait_initial=0.1, wait_max=5, wait_jitter=1, wait_exp_base=2)"),
        (
            Retry(0, on=(OSError,), wait_jitter=0),
            "Retry(0, on=(OSError,), wait_initial=0.1, wait_max=5, wait_jitter=0, wait_exp_base=2)",
        ),
    ],
    ids=str,
)
def test_shows_itself(retry, text):
    assert repr(retry) == text


def test_none_is_none():
    """With no attempts left, a run is what it is without."""
    results = abreast.imap(abs, [1], retries=Retry(0))
    assert results._run._lives is None
    assert list(results) == [1]
