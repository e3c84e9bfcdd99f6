"""How far a run reads ahead, for any numbers."""

from __future__ import annotations

import pytest
from abreast.policy.window import batch_limit, items_to_read, wakes_reader

from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.whole  # hardly depends on the version of Python; there the fast set has enough to do

settings.register_profile("busy", deadline=None)  # the computer may have other things to do
settings.load_profile("busy")

sizes = st.integers(1, 10**9)
buffers = st.integers(1, 10**6)
states = st.fixed_dictionaries(
    {
        "size": sizes,
        "ahead": st.integers(0, 10**9),
        "limit": st.integers(1, 2048),
        "buffersize": st.none() | buffers,
        "keeps_all": st.booleans(),
        "whole": st.booleans(),
    }
)


@given(states)
def test_never_negative_and_never_more_than_a_batch(state):
    assert 0 <= items_to_read(**state) <= state["size"]


@given(states)
def test_never_more_than_buffersize_ahead(state):
    count = items_to_read(**state)
    if state["buffersize"] is not None and count:
        assert state["ahead"] + count <= state["buffersize"]


@given(states)
def test_a_size_that_somebody_asked_for_is_read_whole_or_not_at_all(state):
    count = items_to_read(**{**state, "whole": True})
    whole = state["size"] if state["buffersize"] is None else min(state["size"], state["buffersize"])
    assert count in (0, whole)


@given(states)
def test_without_a_buffersize_never_more_ahead_than_the_workers_batches_hold(state):
    count = items_to_read(**{**state, "buffersize": None, "keeps_all": False})
    if count:
        assert state["ahead"] + count <= state["limit"] * state["size"]


@given(states)
def test_something_can_be_read_when_nothing_is_ahead_so_that_no_run_starves(state):
    assert items_to_read(**{**state, "ahead": 0}) >= 1


@given(states)
def test_more_ahead_never_lets_more_be_read(state):
    assert items_to_read(**{**state, "ahead": state["ahead"] + 1}) <= items_to_read(**state)


@given(sizes, st.integers(1, 64), st.integers(1, 300))
def test_read_until_no_more_may_be_it_is_exactly_buffersize(size, limit, buffersize):
    ahead, reads = 0, []
    while count := items_to_read(size=size, ahead=ahead, limit=limit, buffersize=buffersize, keeps_all=False, whole=False):
        ahead += count
        reads.append(count)
    assert ahead == buffersize
    # one batch does not take what is to be shared by all workers
    assert len(reads) >= min(buffersize, limit) / 2


seconds = st.none() | st.floats(1e-9, 1e4)


@given(st.integers(1, 512), st.integers(1, 2), seconds)
def test_nobody_waits_for_the_next_batch_and_their_number_is_bounded(workers, per_worker, batch_seconds):
    limit = batch_limit(workers, per_worker, batch_seconds)
    assert workers * per_worker <= limit <= 64 * workers
    assert batch_limit(workers, per_worker, None) == workers * per_worker
    if batch_seconds is not None and limit > workers * per_worker:
        assert limit / workers * batch_seconds <= 0.001 * (1 + 1e-9)


@given(st.integers(1, 512), seconds)
def test_an_executor_that_runs_a_call_in_submit_has_one_batch_a_worker(workers, batch_seconds):
    assert batch_limit(workers, 1, batch_seconds) == workers


@given(st.integers(1, 512), st.integers(1, 2), seconds)
def test_who_reads_is_woken_when_nothing_is_left_with_the_workers_and_not_when_all_is(workers, per_worker, batch_seconds):
    limit = batch_limit(workers, per_worker, batch_seconds)
    assert wakes_reader(0, limit, workers)
    assert not wakes_reader(limit, limit, workers)


@given(st.integers(1, 512), seconds, st.data())
def test_who_reads_is_woken_while_every_worker_still_has_something(workers, batch_seconds, data):
    outstanding = data.draw(st.integers(0, workers))
    assert wakes_reader(outstanding, batch_limit(workers, 2, batch_seconds), workers)
