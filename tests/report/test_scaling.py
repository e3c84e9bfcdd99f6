"""A comparison as text, as a page, and the advice: pure, of figures that are made up."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from random import Random
from xml.etree import ElementTree

import pytest
from abreast.core.comparison import Contender, Difference, Measured, median
from abreast.core.text import duration
from abreast.report.scaling import lines, plot
from abreast.report.scaling_page import page
from abreast.report.verdict import verdict
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.whole


def measured(*ways, cores=4, gil=True, name="fetch", inputs=100, noise=0.0, serial=10.0, rounds=3, start=None):
    """Figures of (kind, workers, seconds) and of the serial run."""
    start = {"thread": 0.001, "process": 0.05} if start is None else start

    def row(kind, workers, seconds):
        times = tuple(seconds * (1 + noise * (turn - rounds // 2)) for turn in range(rounds))
        return Contender(kind, workers, times, start.get(kind), serial / seconds)

    return Measured(
        name, inputs, rounds, (row("serial", 1, serial), *(row(*way) for way in ways)), "3.13.0", cores, gil, ("A remark.",)
    )


WAITS = [("thread", 2, 5.0), ("thread", 4, 2.5), ("process", 2, 5.2), ("process", 4, 2.8)]
COMPUTES = [("thread", 2, 10.1), ("thread", 4, 10.4), ("process", 2, 5.2), ("process", 4, 2.6), ("process", 8, 2.55)]


def failing(what, index, **changes):
    rows = list(what.rows)
    rows[index] = rows[index]._replace(**changes)
    return what._replace(rows=tuple(rows))


FAILED = {"error": ValueError("no"), "speed_up": None, "seconds": ()}


class TestAdvice:
    @pytest.mark.parametrize(
        ("what", "told"),
        [
            (
                measured(*WAITS),
                'Use kind="thread", max_workers=4: 4.00x as fast as one after another; more may be faster still: compare with '
                "max_workers=8; processes reach 3.57x.",
            ),
            (
                measured(*COMPUTES),
                'Use kind="process", max_workers=4: 3.85x as fast as one after another; 8 bring less than 5% more; threads gain nothing '
                "(0.99x): it computes, and the GIL lets one thread at a time do so.",
            ),
            (
                measured(*COMPUTES, gil=False),
                'Use kind="process", max_workers=4: 3.85x as fast as one after another; 8 bring less than 5% more; threads gain nothing '
                "(0.99x): they hinder each other.",
            ),
            (
                measured(("thread", 2, 5.0), ("thread", 4, 6.0)),
                'Use kind="thread", max_workers=2: 2.00x as fast as one after another; 4 are slower (1.67x).',
            ),
            (
                measured(("thread", 2, 5.0), ("thread", 4, 4.9), ("process", 2, 4.9)),
                'Use kind="thread", max_workers=2: 2.00x as fast as one after another; 4 bring less than 5% more; processes gain nothing '
                "over threads, and have to be sent inputs and results.",
            ),
            (
                measured(("thread", 2, 6.0), ("process", 4, 2.6)),
                'Use kind="process", max_workers=4: 3.85x as fast as one after another; threads reach 1.67x.',
            ),
            (
                measured(("thread", 3, 0.04), ("process", 3, 0.09), serial=0.1),
                'Use kind="thread", max_workers=3: 2.50x as fast as one after another; more may be faster still: compare with '
                "max_workers=6; processes reach 1.11x, since starting takes about 50.0 ms of 90.0 ms.",
            ),
            (
                measured(("thread", 3, 4.0), rounds=1, inputs=3),
                'Use kind="thread", max_workers=3: 2.50x as fast as one after another; it ran once only, so the noise is not known.',
            ),
            (
                measured(("thread", 2, 0.011), ("process", 2, 0.06), serial=0.01),
                "Run it one after another: nothing was clearly faster (2 threads: 0.91x); 2 processes reach 0.17x, since starting takes about "
                "50.0 ms of 60.0 ms, which pays with more work only.",
            ),
            (
                measured(("process", 1, 0.04), serial=0.01),
                "Run it one after another: nothing was clearly faster (1 process: 0.25x); 1 process reaches 0.25x, since starting takes nearly all of "
                "40.0 ms, which pays with more work only.",
            ),
            (
                measured(("thread", 2, 0.0012), serial=0.001),
                "Run it one after another: nothing was clearly faster (2 threads: 0.83x); it is too little work for starting threads.",
            ),
            (
                measured(("thread", 2, 10.0)),
                "Run it one after another: nothing was clearly faster (2 threads: 1.00x); if it computes, the GIL lets one thread at a time do so: "
                'compare with kinds="process".',
            ),
            (
                measured(("thread", 2, 10.0), gil=False),
                "Run it one after another: nothing was clearly faster (2 threads: 1.00x); what limits it is shared: a lock, a disk, a server.",
            ),
            (
                measured(*[(kind, workers, 10.0) for kind, workers, _ in WAITS]),
                "Run it one after another: nothing was clearly faster (2 threads: 1.00x); what limits it is shared (a lock, a disk, a server), or "
                "sending inputs and results costs what is gained.",
            ),
            (
                measured(("process", 2, 10.0), cores=1),
                "Run it one after another: nothing was clearly faster (2 processes: 1.00x); this program may use one core only.",
            ),
            (
                measured(("thread", 2, 9.0), noise=0.2),
                "Nothing can be said: 2 threads came to 1.11x the speed of one after another, but rounds of the same work differ by 50%; try "
                "more inputs, rounds=7, or a machine that does nothing else.",
            ),
            (measured(), "Only one after another was measured: give kinds= and max_workers= to compare it with."),
            (
                failing(measured(("thread", 2, 5.0)), 1, **FAILED),
                "Use what is said of the errors and differences first: only one after another gave its results.",
            ),
        ],
        ids=range(18),
    )
    def test_follows_from_the_figures(self, what, told):
        assert verdict(what) == told

    def test_small_noise_is_not_worth_finding_out(self):
        told = verdict(measured(("thread", 2, 9.9), ("process", 2, 9.8), noise=0.03))
        assert told.startswith(
            "Run it one after another: nothing was clearly faster (2 processes: 1.02x); what limits it is shared"
        )

    def test_the_serial_run_is_not_called_the_best_by_noise(self):
        told = verdict(measured(("thread", 2, 10.5), ("process", 2, 20), noise=0.3))
        assert told.startswith("Nothing can be said: 2 threads came to 0.95x the speed of one after another, but rounds")

    def test_large_noise_does_not_hide_a_large_difference(self):
        assert verdict(measured(*WAITS, noise=0.2)).startswith('Use kind="thread", max_workers=4')

    @pytest.mark.parametrize("rounds", [2, 3, 5])
    @pytest.mark.parametrize("noise", [0.03, 0.1])
    def test_of_ways_that_are_all_as_fast_one_is_praised_once_in_twenty_times_at_most(self, rounds, noise):
        random = Random(rounds)

        def times():
            return tuple(random.lognormvariate(0, noise) for _ in range(rounds))

        def told():
            one = times()
            rows = [Contender("serial", 1, one, None, 1.0)]
            for workers in (2, 4, 8, 16):
                other = times()
                rows.append(Contender("thread", workers, other, 0.001, median(one) / median(other)))
            return verdict(Measured("f", 100, rounds, tuple(rows), "3.13.0", 4, True))

        assert sum(told().startswith("Use") for _ in range(600)) <= 30

    def test_who_is_advised_is_not_one_that_overlaps_with_the_serial_run(self):
        what = measured(("thread", 2, 7.8), ("thread", 4, 7.7))
        what = failing(what, 1, seconds=(7.4, 7.8, 20.9))
        assert verdict(what).startswith('Use kind="thread", max_workers=4')

    def test_a_kind_that_gave_other_results_is_not_recommended_with_any_number(self):
        what = failing(measured(*COMPUTES), 4, differences=1)
        assert what.best.kind == "serial"
        assert verdict(what) == (
            "Run it one after another: nothing was clearly faster (2 threads: 0.99x); processes failed, or gave other results."
        )

    def test_more_workers_that_failed_are_not_proposed(self):
        what = failing(measured(*WAITS), 2, **FAILED)
        assert verdict(what).startswith('Use kind="process", max_workers=4')
        assert verdict(failing(failing(what, 4, **FAILED), 3, **FAILED)) == (
            'Use kind="thread", max_workers=2: 2.00x as fast as one after another.'
        )

    def test_a_function_with_new_results_each_time_gets_advice_all_the_same(self):
        difference = Difference(0, "a", 1, 2)
        what = failing(measured(*WAITS), 0, differences=3, first_difference=difference)
        what = failing(what, 2, differences=3, first_difference=difference)
        assert verdict(what).startswith('Use kind="thread", max_workers=4')
        text = " ".join(lines(what))
        assert "does not give the same results twice" in text
        assert "OTHER RESULTS" not in text


class TestText:
    def test_the_whole_of_it(self):
        assert lines(measured(*WAITS, noise=0.01)) == [
            "fetch on 100 inputs, 3 rounds, interleaved; Python 3.13.0 with the GIL, 4 cores",
            "",
            "kind     workers  median  range          speed-up  of ideal  start-up",
            "serial         1  10.0 s  9.90 - 10.1 s     1.00x",
            "thread         2  5.00 s  4.95 - 5.05 s     2.00x      100%   1.00 ms",
            "thread         4  2.50 s  2.48 - 2.52 s     4.00x      100%   1.00 ms  best",
            "process        2  5.20 s  5.15 - 5.25 s     1.92x       96%   50.0 ms",
            "process        4  2.80 s  2.77 - 2.83 s     3.57x       89%   50.0 ms",
            "",
            "speed-up   S serial   T thread   P process   . ideal   * several",
            "      4x |                                                             . .T",
            "         |                                                       . . .    P",
            "         |                                                 . . .",
            "         |                                           . . .",
            "         |                                     . . .",
            "      2x |                               . * .",
            "         |                         . . .",
            "         |                 . . . .",
            "         |           . . .",
            "         |     . . .",
            "      1x | S .",
            "         +-----------------------------------------------------------------",
            " workers   1                               2                              4",
            "",
            "A remark.",
            '→ Use kind="thread", max_workers=4: 4.00x as fast as one after another; more may',
            "be faster still: compare with max_workers=8; processes reach 3.57x.",
        ]

    def test_errors_and_differences_are_loud(self):
        what = failing(measured(*WAITS), 3, differences=7, first_difference=Difference(3, "x\n", 1, float("nan")), incomparable=2)
        what = failing(what, 4, error=ValueError("cannot\x1b[31m"), speed_up=None)
        text = lines(what)
        assert next(line for line in text if line.startswith("process        2")).endswith("DIFFERS")
        assert next(line for line in text if line.startswith("process        4")).split()[2:] == ["failed", "ValueError"]
        told = re.sub(r"\s+", " ", " ".join(text))
        assert (
            "! 2 processes: OTHER RESULTS than one after another, 7 of 100 differ, the first for input 3 ('x\\n'): nan instead of 1."
            in told
        )
        assert "! 4 processes: ValueError: cannot\\x1b[31m" in told
        assert "! 2 of 100 results cannot be compared" in told

    def test_a_repr_or_text_that_raises_is_told(self):
        class Mute(Exception):
            def __repr__(self):
                raise RuntimeError

            __str__ = __repr__

        what = failing(measured(*WAITS), 3, differences=1, first_difference=Difference(0, Mute(), 1, 2))
        what = failing(what, 4, error=Mute(), speed_up=None)
        text = " ".join(lines(what))
        assert "<Mute instance at" in text
        assert f"! 4 processes: {Mute.__qualname__}".split(".<")[0] in text
        parsed(page(what))

    def test_nothing_to_plot(self):
        assert plot(measured()) == []

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.0, "0.00 us"), (35.14e-6, "35.1 us"), (9.996e-4, "1.00 ms"), (0.1, "100 ms"), (0.9999, "1.00 s"), (1800, "1800 s")],
    )
    def test_times(self, seconds, text):
        assert duration(seconds) == text

    def test_median(self):
        assert median((3.0,)) == 3.0
        assert median((3.0, 1.0)) == 2.0
        assert median((9.0, 1.0, 2.0)) == 2.0


SECONDS = st.lists(st.floats(1e-7, 1e5), min_size=1, max_size=4).map(tuple)


@st.composite
def comparisons(draw):
    serial = draw(SECONDS)
    rows = [Contender("serial", 1, serial, None, 1.0, differences=draw(st.integers(0, 1)))]
    for kind, workers in draw(
        st.lists(st.tuples(st.sampled_from(["thread", "process", "interpreter"]), st.integers(1, 10**6)), unique=True, max_size=6)
    ):
        seconds = draw(SECONDS)
        failed = draw(st.booleans())
        wrong = draw(st.booleans())
        rows.append(
            Contender(
                kind,
                workers,
                seconds,
                draw(st.none() | st.floats(0, 10)),
                None if failed else median(serial) / median(seconds),
                ValueError(draw(st.text())) if failed else None,
                int(wrong),
                Difference(0, draw(st.text()), draw(st.floats()), None) if wrong else None,
                draw(st.integers(0, 2)),
            )
        )
    name = draw(st.text(max_size=200))
    return Measured(
        name, draw(st.integers(1, 10**6)), len(serial), tuple(rows), "3.13.0", draw(st.integers(1, 64)), draw(st.booleans())
    )


@settings(max_examples=30, deadline=None)
@given(comparisons(), st.integers(60, 120))
def test_never_crashes_and_keeps_the_width(what, width):
    told = lines(what, width=width)
    assert max(map(len, told)) <= width
    assert all(line.isprintable() for line in told)
    assert all(line.isascii() for line in lines(what, width=width, ascii_only=True))
    assert verdict(what).endswith(".")
    parsed(page(what))


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []
        self.text = []
        self.attributes = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "p", "div", "table", "tr", "th", "td"),
    *("svg", "g", "line", "polyline", "polygon", "circle", "text"),
}


def parsed(text):
    """The page, in which there is nothing but what we wrote; and its picture, which is well-formed."""
    text.encode()
    seen = Page()
    seen.feed(text)
    assert set(seen.tags) <= TAGS
    names = {name for name, _ in seen.attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "href", "style")]
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        for element in ElementTree.fromstring(picture).iter():
            for name in ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy"):
                assert -10 <= float(element.get(name, 0)) <= 730
    return seen


class TestPage:
    def test_hostile_names_stay_text(self):
        hostile = '</title></style></svg><script>alert(1)</script><img src=x onerror="alert(1)">&amp;\udc80\x00\u202e'
        what = failing(measured(*WAITS)._replace(name=hostile, remarks=(hostile,)), 3, differences=1)
        what = failing(what, 3, first_difference=Difference(0, hostile, "<b>", hostile))
        what = failing(
            what, 4, error=type(hostile.replace("\x00", "").replace("\udc80", ""), (Exception,), {})(hostile), speed_up=None
        )
        text = page(what)
        seen = parsed(text)
        assert "script" not in seen.tags
        assert "img" not in seen.tags
        assert "<script" not in text
        assert any("<script>alert(1)</script>" in data for data in seen.text)

    def test_forbids_itself_everything_but_its_style(self):
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page(measured(*WAITS)))[1]
        assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

    def test_has_light_and_dark_markers_and_figures(self):
        text = page(measured(*WAITS))
        assert "prefers-color-scheme: dark" in text
        picture = re.search(r"<svg.*?</svg>", text, re.DOTALL)[0]
        assert picture.count("<circle") == 2 + 1  # and one that says what it is
        assert picture.count("<polygon") == 2 + 1 + 1 + 1
        assert "<title>4 threads: 2.50 s, 4.00x</title>" in picture
        assert "http" not in text.replace("http-equiv", "")

    def test_points_stand_where_the_figures_say(self):
        """On scales of powers of two, 2 workers are half way to 4, a speed-up of 2 to one of 4."""
        picture = ElementTree.fromstring(re.search(r"<svg.*?</svg>", page(measured(*WAITS)), re.DOTALL)[0])
        ideal = next(element for element in picture.iter("polyline") if element.get("class") == "ideal")
        (x1, y1), (x2, y2) = (map(float, pair.split(",")) for pair in ideal.get("points").split())
        circles = [(float(circle.get("cx")), float(circle.get("cy"))) for circle in picture.iter("circle")]
        assert circles[0] == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=0.2)
        assert circles[1] == pytest.approx((x2, y2), abs=0.2)
