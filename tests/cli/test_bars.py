"""The small timeline: how wide it is, which rows it has, and where a span stands."""

from __future__ import annotations

import pytest
from abreast.report.bars import Span, bars
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.whole

TIMES = st.floats(0, 900, allow_nan=False)
SPANS = st.lists(
    st.builds(
        lambda row, begin, length, label: Span(row, begin, begin + length, label),
        st.text("abcäβ-_0123456789", min_size=1, max_size=40), TIMES, st.floats(0, 99), st.sampled_from(["", "1", "12", "a task"]),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


def test_two_tasks_look_like_this():
    assert bars([Span("T1", 0.0, 3.0), Span("T2", 0.0, 1.0)], width=44) == [
        "T1  ▏░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   3.00 s",
        "T2  ▏░░░░░░░░░                       1.00 s",
        "    0 s                     3.00 s",
    ]


def test_nothing_is_no_line():
    assert bars([]) == []


def test_tasks_of_a_worker_stand_in_its_row_with_their_labels():
    spans = [Span("b", 2, 3, "3"), Span("a", 0, 1, "1"), Span("a", 1, 2, "2")]
    assert bars(spans, width=43, ascii_only=True) == [
        "a  |1........|2........             2.00 s",
        "b                      |3........   1.00 s",
        "   0 s                     3.00 s",
    ]


def test_a_moment_has_a_mark_too():
    assert bars([Span("a", 5.0, 5.0)], width=30)[0].startswith("a  ▏ ")


def test_names_that_are_too_long_keep_their_ends():
    lines = bars([Span(f"ThreadPoolExecutor-0_{n}", 0, 1) for n in range(2)], width=36, ascii_only=True)
    assert [line[:16] for line in lines[:2]] == ["~lExecutor-0_0  ", "~lExecutor-0_1  "]


@settings(max_examples=300, deadline=None)
@given(spans=SPANS, width=st.integers(30, 120), ascii_only=st.booleans())
def test_a_line_is_never_wider_and_every_worker_has_one(spans, width, ascii_only):
    lines = bars(spans, width=width, ascii_only=ascii_only)
    assert max(map(len, lines)) <= width + 2 * any(sum(s.end - s.begin for s in spans if s.row == r.row) >= 999.99 for r in spans)
    assert len(lines) == len({span.row for span in spans}) + 1
    if ascii_only:
        assert not set("▏░…") & set("".join(lines))
    mark = "|" if ascii_only else "▏"
    assert all(mark in line for line in lines[:-1])


@settings(max_examples=100, deadline=None)
@given(spans=SPANS, later=st.sampled_from([0.0, 1024.0]))
def test_only_differences_of_times_count(spans, later):
    moved = [span._replace(begin=span.begin + later, end=span.end + later) for span in spans]
    assert len(bars(moved)) == len(bars(spans))
    assert bars(list(reversed(spans))) == bars(spans)
