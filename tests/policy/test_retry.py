"""Whether a failed task is tried again, and when: for any numbers and any headers."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime, timedelta
from email.message import Message
from io import BytesIO
from email.utils import format_datetime
from types import SimpleNamespace
from urllib.error import HTTPError

import pytest
from abreast import (
    DeadlockDetected,
    MemoryLimitExceeded,
    ResultDecodeError,
    Retry,
    TaskDecodeError,
    TaskError,
    TaskPickleError,
    TaskTimeout,
    WorkerCrashed,
)
from abreast.policy.retry import next_attempt, retry_after

from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.whole

seconds = st.floats(0, 1e6)
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC).timestamp()


def ask(error, retry=None, attempts=1, random=0.0):
    return next_attempt(retry or Retry(1), error, attempts, random, NOW)


@given(st.integers(0, 50), seconds, seconds, seconds, st.floats(1, 1e9), st.integers(1, 2000), st.floats(0, 1))
def test_waits_longer_each_time_up_to_the_most(retries, one, two, jitter, base, attempts, random):
    initial, most = sorted((one, two))
    retry = Retry(retries, wait_initial=initial, wait_max=most, wait_jitter=jitter, wait_exp_base=base)
    wait = ask(ValueError(), retry, attempts, random)
    if attempts > retries:
        assert wait is None
    else:
        assert initial <= wait <= most or wait == pytest.approx(most)
        assert wait >= (ask(ValueError(), retry, attempts - 1, random) if attempts > 1 else 0)


def test_the_formula():
    retry = Retry(9, wait_jitter=0.5)
    assert [ask(OSError(), retry, n, 0) for n in range(1, 9)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    assert ask(OSError(), retry, 2, 0.5) == pytest.approx(0.45)


class Quota(Exception):
    pass


@pytest.mark.parametrize(
    ("on", "yes", "no"),
    [
        (Exception, [ValueError(), Quota(), TaskTimeout()], [KeyboardInterrupt(), SystemExit(3)]),
        (OSError, [ConnectionResetError(), TaskTimeout()], [ValueError()]),  # a TimeoutError is an OSError
        ((ValueError, Quota), [Quota(), UnicodeError()], [OSError()]),
        (lambda error: "busy" in str(error), [ValueError("busy")], [ValueError("no")]),
        (BaseException, [SystemExit(3)], []),
    ],
    ids=["default", "class", "tuple", "function", "all"],
)
def test_on_tells_which_errors(on, yes, no):
    assert all(ask(error, Retry(1, on)) is not None for error in yes)
    assert all(ask(error, Retry(1, on)) is None for error in no)


@pytest.mark.parametrize("error", [TaskTimeout(), WorkerCrashed(), MemoryLimitExceeded(), TaskError(), ValueError()], ids=repr)
def test_what_may_go_better_next_time(error):
    assert ask(error) is not None


@pytest.mark.parametrize(
    "error",
    [
        CancelledError(),
        BrokenExecutor(),
        BrokenProcessPool(),
        TaskPickleError(),
        TaskDecodeError(),
        ResultDecodeError(),
        DeadlockDetected(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_end_the_same_way_whatever_the_user_says(error):
    assert ask(error, Retry(9, on=lambda _: True)) is None


def test_what_on_raises_is_raised():
    def broken(_):
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        ask(ValueError(), Retry(1, broken))


# ---- Retry-After


def http_error(value):
    headers = Message()
    headers["retry-AFTER"] = value
    error = HTTPError("http://x", 429, "slow down", headers, BytesIO())
    error.close()
    return error


def with_response(value):
    error = Quota()
    error.response = SimpleNamespace(headers={"Retry-After": value})
    return error


def with_attribute(value):
    error = Quota()
    error.retry_after = value
    return error


def with_lower_case(value):
    error = Quota()
    error.headers = {"retry-after": value}
    return error


WAYS = [http_error, with_response, with_attribute, with_lower_case]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@ways
@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("1.5", 1.5),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90),
        ("Tuesday, 06-May-31 07:09:39 GMT", 90),
        ("Tue May  6 07:09:39 2031", 90),
        ("1000000000", 1e9),
        *((value, None) for value in ("", "0", "-3", "nan", "inf", "soon", "Tue, 06 May 1980 07:09:39 GMT", "9" * 400, "\0")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_may_ask_for_a_wait(way, value, wait):
    assert retry_after(way(value), NOW) == wait


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (3, 3),
        (2.5, 2.5),
        (timedelta(minutes=1), 60),
        (b"4", 4),
        (True, None),
        (None, None),
        (object(), None),
        (float("nan"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_attribute_may_be_of_any_type(value, wait):
    assert retry_after(with_attribute(value), NOW) == wait


def test_it_is_obeyed_beyond_the_most_and_never_waits_less_than_usual():
    assert ask(with_attribute(600)) == 600
    assert ask(with_attribute(0.01), Retry(1, wait_initial=2)) == 2


class Hostile(Exception):
    """Its attributes raise, whatever is asked for."""

    def __getattr__(self, name):
        raise SystemExit(name)


class Mapping:
    def get(self, name):
        raise LookupError(name)


@pytest.mark.parametrize(
    "headers", [5, "text", [], Mapping(), SimpleNamespace(get=7), lambda: 1], ids=lambda value: type(value).__name__
)
def test_nothing_that_an_exception_brings_does_harm(headers):
    error = Quota()
    error.headers = headers
    error.response = headers
    assert retry_after(error, NOW) is None
    assert retry_after(Hostile(), NOW) is None
    assert ask(Hostile()) == 0.1


@given(st.text() | st.binary() | st.floats() | st.integers() | st.dates() | st.lists(st.integers()))
def test_any_value_is_seconds_or_nothing(value):
    for way in (with_attribute, with_response):
        wait = retry_after(way(value), NOW)
        assert wait is None or 0 < wait < float("inf")
