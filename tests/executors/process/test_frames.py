"""Frames: what goes in comes out, however the bytes are cut; what is none of ours is refused, and costs little."""

from __future__ import annotations

import array
import os
import struct
import tracemalloc

import pytest
from abreast.executors.process import frames
from abreast.executors.process.frames import HEADER, LENGTH, MOST, BadFrame, Frame, Kind, Parser, frame
from hypothesis import given, settings
from hypothesis import strategies as st

ALL = Kind.OF_PARENT | Kind.OF_WORKER

some_frames = st.lists(
    st.builds(
        Frame,
        st.sampled_from(sorted(ALL)),
        st.integers(0, 255),
        st.integers(0, (1 << 64) - 1),
        st.binary(max_size=60),
        st.lists(st.binary(max_size=60), max_size=4).map(tuple),
    ),
    max_size=5,
)


def bytes_of(sent):
    return b"".join(b"".join(map(bytes, frame(one.kind, one.number, one.body, one.buffers, one.flags))) for one in sent)


def feed_in_pieces(parser, data, sizes):
    """Give a parser these bytes as a reader does: into its target if it has one, else as they are; in pieces of these sizes."""
    arrived, place, sizes = [], 0, iter(sizes)
    while place < len(data):
        target = parser.target()
        count = min(next(sizes, 1 << 20), len(data) - place, len(target) if target is not None else len(data))
        piece = data[place : place + count]
        place += count
        if target is not None:
            target[:count] = piece
            arrived += parser.filled(count)
        else:
            arrived += parser.feed(piece)
    return arrived


class TestRoundTrip:
    @given(some_frames, st.lists(st.integers(1, 80), max_size=60), st.sampled_from([1, 2, 7, 1 << 26]))
    def test_frames_arrive_as_they_were_sent_however_the_bytes_are_cut(self, sent, sizes, step):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frames, "STEP", step)
            parser = Parser(ALL)
            arrived = feed_in_pieces(parser, bytes_of(sent), sizes)
        assert arrived == sent
        assert all(isinstance(one.body, bytes) and all(isinstance(b, bytearray) for b in one.buffers) for one in arrived)
        assert parser.is_between_frames
        assert parser.target() is None

    @given(some_frames, st.lists(st.integers(1, 200), max_size=60))
    def test_bytes_that_come_without_asking_for_the_target_are_put_in_their_place(self, sent, sizes):
        parser, data, arrived, place = Parser(ALL), bytes_of(sent), [], 0
        for size in [*sizes, len(data)]:
            arrived += parser.feed(memoryview(data)[place : place + size])
            place += size
        assert arrived == sent
        assert parser.is_between_frames

    @given(some_frames.filter(bool), st.data())
    def test_a_cut_loses_the_last_frame_and_no_other(self, sent, data):
        whole = bytes_of(sent[:-1])
        last = bytes_of(sent[-1:])
        cut = data.draw(st.integers(0, len(last) - 1))
        parser = Parser(ALL)
        # A frame that ends with empty buffers may be whole a little earlier, with its last byte.
        assert feed_in_pieces(parser, whole + last[:cut], []) == sent[:-1]
        assert parser.is_between_frames == (cut == 0)

    @given(some_frames.filter(lambda sent: len(sent) > 1), st.integers(1, 4))
    def test_a_reader_that_stops_in_the_middle_gets_the_rest_later(self, sent, taken):
        parser, arrived = Parser(ALL), []
        for one in parser.feed(bytes_of(sent)):
            arrived.append(one)
            if len(arrived) == taken:
                break
        arrived += parser.feed(b"")
        assert arrived == sent

    def test_large_buffers_are_read_straight_into_their_place(self):
        buffers = [os.urandom(3_000_000), b"", os.urandom(200_000)]
        data = bytes_of([Frame(Kind.CALL, 0, 1, b"body", tuple(buffers))])
        parser = Parser(Kind.OF_PARENT)
        head = HEADER.size + 3 * LENGTH.size + 4
        assert list(parser.feed(data[: head + 10])) == []
        assert len(parser.target()) == 3_000_000 - 10
        (arrived,) = feed_in_pieces(parser, data[head + 10 :], [65536] * 200)
        assert [bytes(buffer) for buffer in arrived.buffers] == buffers

    def test_through_a_real_pipe(self):
        read, write = os.pipe()
        try:
            sent = [Frame(Kind.RECORD, 1, seq, b"x" * seq, (bytearray(b"y" * seq),)) for seq in range(1, 100)]
            data, parser, arrived = bytes_of(sent), Parser(Kind.OF_WORKER), []
            for place in range(0, len(data), 1000):
                os.write(write, data[place : place + 1000])
                left = len(data[place : place + 1000])
                while left:
                    target = parser.target()
                    if target is not None:
                        count = os.readv(read, [target[:left]])
                        arrived += parser.filled(count)
                    else:
                        got = os.read(read, left)
                        count = len(got)
                        arrived += parser.feed(got)
                    left -= count
            assert arrived == sent
        finally:
            os.close(read)
            os.close(write)


class TestSending:
    def test_a_frame_without_buffers_is_one_piece_of_bytes(self):
        assert frame(Kind.READY) == [HEADER.pack(0, Kind.READY, 0, 0, 0)]

    def test_buffers_are_not_copied(self):
        buffer = bytearray(1000)
        _, view = frame(Kind.CALL, 1, b"", [buffer])
        buffer[0] = 7
        assert view[0] == 7

    def test_a_view_of_numbers_is_counted_in_bytes(self):
        # Who writes it counts with len(), which is items of the view.
        parts = frame(Kind.CALL, 1, b"", [memoryview(array.array("d", [1.0, 2.0])), memoryview(bytearray(12)).cast("B", (3, 4))])
        assert [len(part) for part in parts[1:]] == [16, 12]
        (arrived,) = Parser(ALL).feed(b"".join(parts))
        assert struct.unpack("dd", arrived.buffers[0]) == (1.0, 2.0)

    def test_too_many_buffers_are_refused(self):
        with pytest.raises(BadFrame, match="65,536 buffers"):
            frame(Kind.CALL, 1, b"", [b"x"] * 65_536)
        (arrived,) = Parser(ALL).feed(b"".join(map(bytes, frame(Kind.CALL, 1, b"", [b"x"] * 65_535))))
        assert len(arrived.buffers) == 65_535

    def test_a_body_that_is_too_large_is_refused(self, monkeypatch):
        monkeypatch.setattr(frames, "MOST", 10)
        frame(Kind.CALL, 1, bytes(10))
        with pytest.raises(BadFrame, match="11 bytes in one pickle"):
            frame(Kind.CALL, 1, bytes(11))


@pytest.mark.whole
class TestStrangers:
    """Bytes that are none of ours: a task has written to the pipe."""

    @given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=30), st.sampled_from([Kind.OF_PARENT, Kind.OF_WORKER]))
    @settings(max_examples=166)
    def test_random_bytes_raise_nothing_but_bad_frame(self, data, sizes, kinds):
        parser = Parser(kinds)
        try:
            arrived = feed_in_pieces(parser, data, sizes)
        except BadFrame:
            return
        assert all(one.kind in kinds for one in arrived)

    # Headers that could be ours, with any lengths.
    headers = st.builds(
        lambda length, kind, flags, count, number, lengths, rest: (
            HEADER.pack(length, kind, flags, count, number) + b"".join(map(LENGTH.pack, lengths)) + rest
        ),
        st.one_of(st.integers(0, 30), st.integers(0, (1 << 32) - 1)),
        st.sampled_from(sorted(Kind.OF_WORKER)),
        st.integers(0, 255),
        st.one_of(st.integers(0, 4), st.integers(0, 65535)),
        st.integers(0, (1 << 64) - 1),
        st.lists(st.one_of(st.integers(0, 30), st.integers(0, (1 << 64) - 1)), max_size=5),
        st.binary(max_size=60),
    )

    @given(st.lists(headers, min_size=1, max_size=3).map(b"".join), st.lists(st.integers(1, 40), max_size=30))
    @settings(max_examples=166)
    def test_headers_with_any_lengths_raise_nothing_but_bad_frame(self, data, sizes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frames, "STEP", 1000)
            tracemalloc.start()
            try:
                feed_in_pieces(Parser(Kind.OF_WORKER), data, sizes)
            except BadFrame:
                pass
            finally:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
        assert peak < 200_000 + 100 * len(data)

    @given(some_frames.filter(bool), st.data())
    def test_a_frame_with_a_flipped_bit_raises_nothing_but_bad_frame(self, sent, data):
        raw = bytearray(bytes_of(sent))
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frames, "STEP", 1000)
            try:
                feed_in_pieces(Parser(ALL), bytes(raw), [])
            except BadFrame:
                pass

    @pytest.mark.parametrize("kind", sorted(set(range(256)) - Kind.OF_WORKER))
    def test_a_kind_that_is_not_a_workers_is_refused_at_once(self, kind):
        with pytest.raises(BadFrame, match=f"of kind {kind} "):
            list(Parser(Kind.OF_WORKER).feed(HEADER.pack(0, kind, 0, 0, 0)))

    def test_a_parent_and_a_worker_have_no_kind_in_common(self):
        assert not Kind.OF_PARENT & Kind.OF_WORKER

    def test_a_length_that_is_too_large_is_refused_at_once(self):
        with pytest.raises(BadFrame, match="with 4,294,967,281 bytes"):
            list(Parser(ALL).feed(HEADER.pack(MOST + 1, Kind.RECORD, 0, 0, 0)))

    def test_a_buffer_that_is_too_large_is_refused_at_once(self):
        data = HEADER.pack(0, Kind.RECORD, 0, 2, 0) + LENGTH.pack(1) + LENGTH.pack((1 << 40) + 1)
        with pytest.raises(BadFrame, match="a buffer of 1,099,511,627,777 bytes"):
            list(Parser(ALL).feed(data))

    def test_after_a_bad_frame_there_is_no_good_one(self):
        parser = Parser(ALL)
        good, bad = frame(Kind.READY)[0], HEADER.pack(0, 99, 0, 0, 0)
        arrived = []
        with pytest.raises(BadFrame):
            arrived.extend(parser.feed(good + bad + good))
        assert arrived == [Frame(Kind.READY, 0, 0, b"", ())]
        with pytest.raises(BadFrame):
            list(parser.feed(good))

    @pytest.mark.parametrize("claimed", [1 << 30, 1 << 40])
    def test_a_buffer_takes_no_memory_before_its_bytes_come(self, claimed):
        parser = Parser(ALL)
        tracemalloc.start()
        try:
            list(parser.feed(HEADER.pack(0, Kind.RECORD, 0, 1, 0) + LENGTH.pack(claimed)))
            assert tracemalloc.get_traced_memory()[1] < 1.1 * frames.STEP
        finally:
            tracemalloc.stop()

    def test_a_buffer_grows_as_its_bytes_come(self, monkeypatch):
        monkeypatch.setattr(frames, "STEP", 1000)
        parser, sizes = Parser(ALL), []
        data = os.urandom(50_000)
        list(parser.feed(HEADER.pack(0, Kind.RECORD, 0, 1, 0) + LENGTH.pack(len(data))))
        place, arrived = 0, []
        while not arrived:
            target = parser.target()  # kept, as by a reader that has not come to its next turn
            sizes.append(len(target))
            target[:] = data[place : place + len(target)]
            place += len(target)
            arrived += parser.filled(len(target))
        assert sizes == [1000, 3000, 12_000, 34_000]
        assert arrived[0].buffers == (data,)
