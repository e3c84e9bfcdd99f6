"""Results in the order of their inputs, whatever the order they come in."""

from __future__ import annotations

import pytest
from abreast.policy.order import InOrder

from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.whole  # hardly depends on the version of Python; there the fast set has enough to do

settings.register_profile("busy", deadline=None)  # the computer may have other things to do
settings.load_profile("busy")


@st.composite
def shuffled_pieces(draw):
    """Some results, cut into pieces somehow (empty ones too), and the pieces in any order."""
    total = draw(st.integers(0, 60))
    cuts = sorted(draw(st.lists(st.integers(0, total), max_size=30)))
    edges = [0, *cuts, total]
    pieces = [(start, list(range(start, stop))) for start, stop in zip(edges, edges[1:], strict=False)]
    return total, draw(st.permutations(pieces))


@given(shuffled_pieces(), st.data())
def test_any_pieces_in_any_order_come_out_once_and_in_order(shuffled, data):
    total, pieces = shuffled
    order: InOrder[list[int]] = InOrder()
    out = []
    for start, piece in pieces:
        order.put(start, piece)
        if data.draw(st.booleans()):
            while (taken := order.take()) is not None:
                out += taken
            assert order.next == len(out)
            assert out == list(range(len(out)))
    while (taken := order.take()) is not None:
        out += taken
    assert out == list(range(total))
    assert (order.next, len(order), order.take()) == (total, 0, None)


@given(shuffled_pieces())
def test_nothing_comes_out_before_its_turn(shuffled):
    total, pieces = shuffled
    order: InOrder[list[int]] = InOrder()
    first = [pair for pair in pieces if pair[0] == 0 and pair[1]]
    for start, piece in pieces:
        if start:
            order.put(start, piece)
    if total and first:
        assert order.take() is None
        assert len(order) == sum(1 for start, piece in pieces if start and piece)
        order.put(*first[0])
        assert order.take() == first[0][1]


def test_it_goes_on_behind_what_was_taken_another_way():
    """A run takes results of a batch that still runs by itself, and moves `next` on."""
    order: InOrder[list[str]] = InOrder()
    order.next += 2
    order.put(2, ["c"])
    assert order.take() == ["c"]
    assert order.next == 3
