"""The model of how long threads wait for the GIL."""

from __future__ import annotations

import pytest
from abreast.core.gil import Prober, waiting
from hypothesis import given
from hypothesis import strategies as st

MS = 1_000_000


@given(st.floats(0, 1), st.floats(0, 200))
def test_nobody_waits_for_more_than_all_others(busy, threads):
    assert 0 <= waiting(busy, threads) <= max(0, threads - 1) + 1e-9


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 50))
def test_the_more_it_is_held_the_longer_it_is_waited_for(one, other, threads):
    less, more = sorted((one, other))
    assert waiting(less, threads) <= waiting(more, threads) + 1e-6


def test_where_nobody_else_wants_it_nobody_waits():
    assert waiting(1.0, 1) == waiting(0.9, 0.4) == 0
    assert waiting(0.0, 8) < 1e-6


@pytest.mark.parametrize(("threads", "pause"), [(2, 1.0), (3, 1.0), (8, 5.0), (4, 30.0)])
def test_against_the_queue_itself(threads, pause):
    """Each holds it for a time, and pauses for one, both exponential: one event after another."""
    import heapq
    import random

    chance = random.Random(1)
    ready, waits, free, held, now = [(chance.expovariate(1 / pause), n) for n in range(threads)], [], 0.0, 0.0, 0.0
    heapq.heapify(ready)
    for _ in range(60_000):
        came, n = heapq.heappop(ready)
        begin = max(came, free)
        waits.append(begin - came)
        service = chance.expovariate(1)
        held += service
        now = free = begin + service
        heapq.heappush(ready, (free + chance.expovariate(1 / pause), n))
    assert waiting(held / now, threads) == pytest.approx(sum(waits) / len(waits), rel=0.2, abs=0.02)


class TestRatio:
    def looked(self, busy, elapsed=600 * MS):
        prober = Prober()
        prober.times = list(range(0, elapsed, 10 * MS))
        prober.cpus = [int(busy * time) for time in prober.times]
        return prober

    def test_threads_that_only_compute_were_held_up_for_all_their_waiting(self):
        assert self.looked(1.0).ratio(0, 600 * MS, 1800 * MS, 590 * MS, 0, 1200 * MS) == 1

    def test_threads_that_wait_as_well_for_a_part_of_it(self):
        assert 0.3 < self.looked(0.94).ratio(0, 600 * MS, 1700 * MS, 560 * MS, 0, 1000 * MS) < 0.7

    def test_what_else_computes_counts_as_a_thread(self):
        alone = self.looked(0.5).ratio(0, 600 * MS, 600 * MS, 300 * MS, 0, 300 * MS)
        assert alone == 0
        assert self.looked(0.95).ratio(0, 600 * MS, 600 * MS, 300 * MS, 0, 300 * MS) > 0.2

    def test_nothing_is_nothing(self):
        assert self.looked(1.0).ratio(0, 600 * MS, 0, 0, 0, 0) == 0
        assert self.looked(1.0).ratio(5, 5, 10, 10, 0, 10) == 0

    def test_on_a_busy_machine_the_model_says_nothing(self):
        assert self.looked(0.5).ratio(0, 600 * MS, 1800 * MS, 300 * MS, 290 * MS, 1000 * MS) is None

    def test_without_a_look_the_works_own_time_counts(self):
        assert Prober().ratio(0, 600 * MS, 1800 * MS, 599 * MS, 0, 1200 * MS) == 1
