"""When a run has failed too often."""

from __future__ import annotations

import pytest
from abreast.policy.failures import LEAST, are_too_many

from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.whole

counts = st.integers(0, 10**6)


@given(counts, counts, counts)
def test_a_number_is_the_most_that_may_fail(failures, more, most):
    assert are_too_many(failures, failures + more, most) == (failures > most)


@given(counts, counts, st.floats(0.001, 0.999))
def test_a_share_is_of_what_has_ended(failures, more, share):
    ended = failures + more
    assert are_too_many(failures, ended, share) == (ended >= LEAST and failures > share * ended)


def test_a_share_says_nothing_at_first():
    assert not are_too_many(19, 19, 0.1)
    assert are_too_many(19, 20, 0.1)
    assert not are_too_many(2, 20, 0.1)
    assert are_too_many(3, 20, 0.1)


def test_none_may_fail():
    assert are_too_many(1, 1, 0)
    assert not are_too_many(0, 1, 0)
