"""Results that share a pickle: the same as if each had its own, whoever holds them, and no code of theirs runs in the pool's own threads."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from abreast import ProcessPoolExecutor
from abreast.core.process_errors import ResultDecodeError, TaskPickleError
from abreast.executors.process import outbox
from abreast.executors.process.frames import BadFrame, Kind, Parser, frame
from abreast.executors.process.outbox import OBJECTS, RECORD, RECORDS, ROWS, TIMED, TOGETHER, Outbox
from abreast.executors.process.sending import ERROR, decode_rows, encode_rows, is_simple
from abreast.executors.process.supervisor import Record, Records, Supervisor
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.executors.process import shared_results as tasks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far")

every_flush = pytest.mark.parametrize("flush", ["auto", "each"])


class Frames:
    """An outbox, and what it has written."""

    def __init__(self):
        self.sent = []
        self.outbox = Outbox(memoryview(bytearray(64)).cast("Q"), self.sent.extend, time.perf_counter_ns)
        self.outbox.open(1, 0, timed=False)

    def take(self):
        self.outbox.flush()
        frames = list(Parser(Kind.OF_WORKER).feed(b"".join(self.sent)))
        self.sent.clear()
        return frames


def rows_of(values):
    """Send them as rows, if they can be; return what arrives, or None."""
    data = encode_rows(values)
    return None if data is None else decode_rows(data)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
NAMES = st.text() | st.sampled_from(["x", "default", "__class__", "__dict__", "__doc__", "__weakref__", "__init__", "__slots__"])
ASKED = {"__getnewargs__", "__getnewargs_ex__", "__getstate__", "__reduce__", "__reduce_ex__", "__setstate__"}
"""What pickle asks an object for: with an attribute of such a name that is no function it cannot be pickled. (hypothesis finds them among a program's texts.)"""


class TestRows:
    """Objects of one class with the same attributes: the same as pickle would make of them."""

    @given(st.lists(NAMES.filter(lambda name: name not in ASKED), unique=True, max_size=12), st.data())
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_any_names_and_values(self, names, data):
        values = [tasks.Bag({name: data.draw(PLAIN) for name in names}) for _ in range(3)]
        made = rows_of(values)
        assert [type(value) for value in made] == [tasks.Bag] * 3
        assert [list(object.__getattribute__(value, "__dict__").items()) for value in made] == [
            list(object.__getattribute__(value, "__dict__").items()) for value in values
        ]
        again = pickle.loads(pickle.dumps(made[0]))
        assert object.__getattribute__(again, "__dict__") == object.__getattribute__(values[0], "__dict__")

    @pytest.mark.parametrize("kind", [tasks.Simple, tasks.Frozen, tasks.Child.Inner])
    def test_dataclasses(self, kind):
        values = [kind(number) for number in range(5)]
        assert rows_of(values) == values

    def test_a_property_is_neither_asked_nor_told(self):
        tasks.Asks.asked.clear()
        made = rows_of([tasks.Asks(1), tasks.Asks(2)])
        assert [vars(value) for value in made] == [{"x": 1}, {"x": 2}]
        assert tasks.Asks.asked == []

    def test_others_do_not_go_so(self):
        assert rows_of([tasks.Simple(1), tasks.Frozen(2)]) is None
        assert rows_of([tasks.Bag({"a": 1}), tasks.Bag({"b": 1})]) is None
        assert rows_of([tasks.Bag({"a": 1, "b": 2}), tasks.Bag({"b": 2, "a": 1})]) is None

    def test_of_a_class_that_is_not_known_here_each_is_a_pickle(self, monkeypatch):
        data = encode_rows([tasks.Simple(1), tasks.Simple(2)])
        with monkeypatch.context() as patched:
            patched.delattr(tasks, "Simple")
            made = decode_rows(data)
        assert [one.decode() for one in made] == [tasks.Simple(1), tasks.Simple(2)]

    @pytest.mark.parametrize(
        "told",
        [
            [1], ("m", "n", ("a",)), ("m", 3, ("a",), [(1,)]), ("m", "n", ("a", 1), [(1, 2)]), ("m", "n", ("a",), [[1]]), ("m", "n", ("a",), [(1, 2)]),
            ("m", "n", ["a"], [(1,)]),
        ],
    )  # fmt: skip
    def test_what_is_none_is_not_believed(self, told):
        with pytest.raises(pickle.UnpicklingError):
            decode_rows(pickle.dumps(told))
        with pytest.raises(BadFrame):
            Records.arrive(RECORDS.pack(1.0, 1) + pickle.dumps(told), TOGETHER | ROWS)


class TestOutbox:
    @pytest.mark.parametrize(
        "make",
        [lambda: [1], lambda: {"a": 1}, lambda: tasks.Simple(1), lambda: tasks.Frozen(1), lambda: tasks.Child.Inner(1)],
        ids=["list", "dict", "dataclass", "frozen", "inner class"],
    )
    def test_only_what_nobody_else_holds_shares_a_pickle(self, make):
        frames = Frames()
        for _ in range(3):
            value = make()
            frames.outbox.add(value)
        del value
        assert [one.flags & TOGETHER for one in frames.take()] == [TOGETHER]
        holders = []
        for _ in range(3):
            value = make()
            holders.append(value)
            frames.outbox.add(value)
        del value
        assert [one.flags & TOGETHER for one in frames.take()] == [0]

    def test_what_shares_is_known_by_its_parts(self):
        frames = Frames()
        for value in ((1, "x"), (1, 1j)):
            frames.outbox.add(value)
        first, second = frames.take()
        assert (first.kind, second.kind) == (Kind.RECORD, Kind.RECORD)
        big = [(0,) * (outbox.PARTS + 1), ("x" * (outbox.SMALL + 1),)]
        for value in (*big, *big):
            frames.outbox.add(value)
        assert sum(RECORDS.unpack_from(one.body)[1] for one in frames.take() if one.kind == Kind.RECORDS) in (0, 2, 4)

    def test_large_ones_are_written_at_once(self):
        frames = Frames()
        count = 0
        while not frames.outbox.urgent:
            value = ["x" * 4000]
            frames.outbox.add(value)
            count += 1
        assert count < 20

    def test_classes_without_end_are_not_remembered(self):
        frames = Frames()
        for number in range(3 * outbox.KINDS):
            value = type(f"C{number}", (), {})()
            with pytest.raises(TaskPickleError) if number % 2 else pytest.raises(BaseException):  # noqa: B017, PT011  # no class of this module
                frames.outbox.add(value)
                raise TaskPickleError("by value", "", "")
        assert len(frames.outbox._sizes) <= outbox.KINDS + 1


class TestSimpleClasses:
    @pytest.mark.parametrize("kind", [tasks.Simple, tasks.Frozen, tasks.Plain, tasks.Child, tasks.Child.Inner])
    def test_simple(self, kind):
        assert is_simple(kind)

    @pytest.mark.parametrize(
        "kind",
        [
            tasks.Slotted, tasks.Pair, tasks.SetsState, tasks.Reduces, tasks.HasNew, tasks.Dies, tasks.GetsAttributes, tasks.OfMeta, tasks.OfList,
            tasks.Raises, SimpleNamespace, int, object, type,
        ],
    )  # fmt: skip
    def test_not_simple(self, kind):
        assert not is_simple(kind)

    def test_one_that_is_not_found_by_its_name(self):
        class Local:
            pass

        assert not is_simple(Local)
        assert not is_simple(type("Simple", (), {"__module__": tasks.__name__}))


class TestResults:
    @every_flush
    def test_a_list_that_is_held_and_appended_to(self, flush):
        with ProcessPoolExecutor(1, flush=flush) as pool:
            results = list(pool.map(tasks.the_same_list, range(200), chunksize=200))
        assert results == [list(range(n + 1)) for n in range(200)]

    @every_flush
    @pytest.mark.parametrize(
        "fn",
        [
            tasks.the_same_object, tasks.changes_the_last, tasks.changes_the_last_by_a_weak_reference, tasks.changes_the_last_by_its_dict,
        ],
    )  # fmt: skip
    def test_an_object_that_a_later_task_changes(self, fn, flush):
        with ProcessPoolExecutor(1, flush=flush) as pool:
            results = list(pool.map(fn, range(500), chunksize=500))
        assert [result.number for result in results] == list(range(500))

    def test_a_dict_that_a_later_task_changes(self):
        with ProcessPoolExecutor(1) as pool:
            results = list(pool.map(tasks.the_same_dict, range(500), chunksize=500))
        assert results == [{"number": n} for n in range(500)]
        assert len(set(map(id, results))) == 500

    @every_flush
    @pytest.mark.parametrize("items", [list, lambda numbers: [[n] for n in numbers]], ids=["plain", "pickled"])
    def test_every_kind_by_turns(self, flush, items):
        numbers = list(range(400))
        fn = tasks.every_kind if items is list else tasks.every_kind_of
        with ProcessPoolExecutor(2, flush=flush) as pool:
            expected = [tasks.every_kind(n) for n in numbers]
            assert list(pool.map(fn, items(numbers))) == expected
            assert [future.result() for future in [pool.submit(fn, n) for n in items(numbers)]] == expected
            outcomes = list(pool.outcomes(fn, items(numbers)))
        assert sorted(outcome.index for outcome in outcomes) == numbers
        assert all(outcome.value == expected[outcome.index] for outcome in outcomes)

    def test_they_have_nothing_in_common(self):
        with ProcessPoolExecutor(1) as pool:
            for fn in (tasks.Simple, tasks.Plain):
                results = list(pool.map(fn, [7] * 300, chunksize=300))
                assert len(set(map(id, results))) == 300
                assert len({id(vars(result)) for result in results}) == 300

    @pytest.mark.parametrize("kind", [tasks.SetsState, tasks.Reduces, tasks.HasNew])
    def test_code_of_a_class_runs_in_the_thread_that_asks(self, kind):
        with ProcessPoolExecutor(1) as pool:
            results = list(pool.map(kind, range(100), chunksize=100))
            futures = [pool.submit(kind, n) for n in range(100)]
            results += [future.result() for future in futures]
        here = threading.current_thread().name
        assert [(result.number, result.thread) for result in results] == [(n, here) for n in [*range(100)] * 2]

    def test_destructors_run_in_no_thread_of_the_pool(self):
        tasks.Dies.dead.clear()
        with ProcessPoolExecutor(1) as pool:
            results = pool.imap(tasks.Dies, range(1000))
            next(results)
            results.close()
        gc.collect()
        assert not [name for name in tasks.Dies.dead if "supervisor" in name]

    def test_a_class_that_only_the_worker_has_imported(self, tmp_path, monkeypatch):
        (tmp_path / "only_there.py").write_text("class Thing:\n    def __init__(self, n): self.n = n\n")
        code = "def make(n):\n    import only_there\n    return only_there.Thing(n)\n"
        (tmp_path / "makes_it.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        import makes_it  # type: ignore[import-not-found]

        with ProcessPoolExecutor(1) as pool:
            list(pool.map(abs, range(2)))
            futures = [pool.submit(makes_it.make, n) for n in range(50)]
            results = list(pool.map(makes_it.make, range(300), chunksize=300))
            assert [result.n for result in results] == list(range(300))
            assert [future.result().n for future in futures] == list(range(50))
            assert "only_there" in sys.modules
            (tmp_path / "only_there.py").unlink()
            del sys.modules["only_there"]
            monkeypatch.undo()
            outcomes = list(pool.outcomes(makes_it.make, range(300), chunksize=300))
            assert {type(outcome.error) for outcome in outcomes} == {ResultDecodeError}
            with pytest.raises(ResultDecodeError, match="only_there"):
                pool.submit(makes_it.make, 1).result()

    def test_a_class_that_vanishes(self):
        with ProcessPoolExecutor(1) as pool:
            outcomes = list(pool.outcomes(tasks.vanishes, range(40), ordered=True, chunksize=40))
        assert [outcome.index for outcome in outcomes] == list(range(40))
        assert [outcome.value.number for outcome in outcomes] == list(range(40))  # by value

    def test_names_of_attributes_that_are_no_plain_texts(self):
        with ProcessPoolExecutor(1) as pool:
            results = list(pool.map(tasks.with_an_odd_name, range(100), chunksize=100))
        assert [result.number for result in results] == list(range(100))
        assert all(len(vars(result)) == 1 + (n % 7 == 3) for n, result in enumerate(results))


class TestTakenTogether:
    """The supervisor takes outcomes that follow each other as one."""

    def take(self, frames, end=1000):
        taken = []
        supervisor = Supervisor.__new__(Supervisor)
        supervisor._record = lambda _, first, some: taken.append((first, some.results, some.durations))
        supervisor._take = lambda _, arrived: taken.append(arrived)
        channel = SimpleNamespace(worker=SimpleNamespace(end_of_call=lambda number: end if number < end else 2 * end))
        try:
            supervisor._take_all(channel, Parser(Kind.OF_WORKER).feed(b"".join(map(bytes, sum(frames, [])))))
        except BadFrame:
            taken.append("bad")
        return taken

    def one(self, number, value=0, status=0):
        from pickle import dumps

        return frame(Kind.RECORD, number, RECORD.pack(0.5) + dumps(value), (), status)

    def some(self, number, values, *, timed=False, objects=False):
        import struct
        from pickle import dumps

        told = struct.pack(f"<{len(values)}d", *[0.25] * len(values)) if timed else b""
        body = RECORDS.pack(1.0, len(values)) + told + dumps(values)
        return frame(Kind.RECORDS, number, body, (), TOGETHER | TIMED * timed | OBJECTS * objects)

    def results(self, taken):
        return [(first, [one.decode() if type(one) is not int else one for one in results]) for first, results, _ in taken]

    def test_what_follows_in_one_call(self):
        taken = self.take([self.one(1, 7), self.some(2, [8, 9]), self.one(4, 10)])
        assert self.results(taken) == [(1, [7, 8, 9, 10])]

    def test_the_time_of_each_is_kept(self):
        taken = self.take([self.one(1, 7), self.some(2, [8, 9], timed=True), self.one(4, 10)])
        assert [durations for _, _, durations in taken] == [[0.5, 0.25, 0.25, 0.5]]
        taken = self.take([self.one(1, 7), self.some(2, [8, 9])])
        assert [durations for _, _, durations in taken] == [None]

    def test_another_call_begins_anew(self):
        taken = self.take([self.one(1, 7), self.one(2, 8), self.one(3, 9)], end=3)
        assert self.results(taken) == [(1, [7, 8]), (3, [9])]

    def test_one_that_is_not_due_begins_anew(self):
        taken = self.take([self.one(1, 7), self.one(3, 9)])
        assert self.results(taken) == [(1, [7]), (3, [9])]

    def test_errors_and_other_frames_keep_their_place(self):
        taken = self.take([self.one(1, 7), self.one(2, 8, ERROR), self.one(3, 9), frame(Kind.OVER, 4)])
        assert [one if type(one) is tuple and type(one[0]) is int and len(one) == 3 else one.kind for one in taken][1::2] == [
            Kind.RECORD,
            Kind.OVER,
        ]
        assert self.results(taken[::2]) == [(1, [7]), (3, [9])]

    def test_what_comes_before_a_bad_frame_counts(self):
        bad = frame(Kind.RECORDS, 3, RECORDS.pack(1.0, 2) + b"no pickle", (), TOGETHER)
        taken = self.take([self.one(1, 7), self.one(2, 8), bad, self.one(5, 1)])
        assert taken[-1] == "bad"
        assert self.results(taken[:-1]) == [(1, [7, 8])]

    def test_wrong_counts(self):
        for count in (0, 1, 3, 1 << 31):
            body = RECORDS.pack(1.0, count) + b"\x80\x05]\x94(K\x01K\x02e."
            with pytest.raises(BadFrame):
                Records.arrive(body, TOGETHER)

    def test_a_result_with_buffers_stays_alone(self):
        taken = self.take([self.one(1, 7), frame(Kind.RECORD, 2, RECORD.pack(0.1) + b"x", [bytearray(10)], 0)])
        assert len(taken) == 2
        assert type(taken[1]) is not Record
