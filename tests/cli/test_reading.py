"""Reading inputs: lines however the blocks cut them, their numbers, their ends, and waiting for them."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import threading
import time

import pytest
from abreast.cli import reading
from abreast.cli.errors import Refused
from abreast.cli.reading import InputError, Inputs, TimeIsUp, open_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.whole

BYTES = st.lists(st.sampled_from([b"\n", b"\r\n", b"\0", b"\r", b"a", "ü\u2028".encode(), b" "]), max_size=30).map(b"".join)


@contextlib.contextmanager
def a_file_of(data):
    fd = os.memfd_create("inputs")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def a_pipe():
    reads, writes = os.pipe()
    try:
        with open(writes, "wb", buffering=0) as writer:
            yield reads, writer
    finally:
        os.close(reads)


def inputs(fd, *, as_json=False, separator=b"\n"):
    return Inputs(fd, "file", as_json=as_json, separator=separator)


def lines_of(data, separator=b"\n"):
    *lines, last = data.split(separator)
    lines = [*lines, last] if last else lines
    return [line.removesuffix(b"\r").decode() if separator == b"\n" else line.decode() for line in lines]


class TestLines:
    @settings(max_examples=300, deadline=None)
    @given(data=BYTES, block=st.integers(1, 8), separator=st.sampled_from([b"\n", b"\0"]))
    def test_are_the_same_wherever_blocks_cut_them(self, data, block, separator):
        with pytest.MonkeyPatch.context() as patch, a_file_of(data) as fd:
            patch.setattr(reading, "BLOCK", block)
            source = inputs(fd, separator=separator)
            hint = operator.length_hint(source)
            lines = list(source)
        assert [line.value for line in lines] == lines_of(data, separator)
        assert [line.number for line in lines] == list(range(1, len(lines) + 1))
        assert hint == len(lines)

    @settings(max_examples=100, deadline=None)
    @given(pieces=st.lists(BYTES.filter(bool), max_size=5))
    def test_are_the_same_in_whatever_pieces_a_pipe_brings_them(self, pieces):
        with a_pipe() as (fd, writer):
            source = inputs(fd)
            assert operator.length_hint(source, -1) == -1
            for piece in pieces:
                writer.write(piece)
            writer.close()
            assert [line.value for line in source] == lines_of(b"".join(pieces))

    @settings(max_examples=60, deadline=None)
    @given(values=st.lists(st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=6), block=st.integers(1, 8))
    def test_of_json_are_its_values_and_keep_their_source(self, values, block):
        texts = [json.dumps(value, ensure_ascii=False) for value in values]
        with pytest.MonkeyPatch.context() as patch, a_file_of("\r\n".join(texts).encode()) as fd:
            patch.setattr(reading, "BLOCK", block)
            lines = list(inputs(fd, as_json=True))
        assert [line.value for line in lines] == values
        assert [line.source for line in lines] == texts

    def test_the_hint_counts_from_where_the_file_is(self):
        with a_file_of(b"a\nb\nc") as fd:
            os.lseek(fd, 2, os.SEEK_SET)
            source = inputs(fd)
            assert operator.length_hint(source) == 2
            assert [line.value for line in source] == ["b", "c"]

    def test_a_mark_of_byte_order_is_removed_once(self):
        bom = b"\xef\xbb\xbf"
        with a_file_of(bom + bom + b"a\n" + bom + b"b\n") as fd:
            assert [line.value for line in inputs(fd)] == ["\ufeffa", "\ufeffb"]
        with a_file_of(bom + b"{}\n") as fd:
            assert [line.value for line in inputs(fd, as_json=True)] == [{}]


class TestErrors:
    @settings(max_examples=100, deadline=None)
    @given(
        before=st.integers(0, 5), block=st.integers(1, 8), bad=st.sampled_from([b"\xff", b"\xc3", b"a\xe2\x80", b"\xed\xa0\x80"])
    )
    def test_a_line_that_is_not_utf_8_has_its_number(self, before, block, bad):
        with pytest.MonkeyPatch.context() as patch, a_file_of(b"fine\n" * before + bad + b"\nfine\n") as fd:
            patch.setattr(reading, "BLOCK", block)
            source = inputs(fd)
            for _ in range(before):
                next(source)
            with pytest.raises(InputError, match=rf"^file, line {before + 1}, is not UTF-8: byte 0x"):
                next(source)

    def test_a_descriptor_that_cannot_be_read_says_behind_which_line(self, tmp_path):
        with a_pipe() as (fd, writer):
            writer.write(b"a\nb")
            source = inputs(fd)
            next(source)
            source._fd = os.open(tmp_path, os.O_RDONLY)
            try:
                with pytest.raises(InputError, match="file cannot be read behind line 1: Is a directory"):
                    next(source)
            finally:
                os.close(source._fd)

    def test_a_file_is_refused_by_its_name(self, tmp_path):
        with pytest.raises(Refused, match="is a directory"), open_inputs(str(tmp_path), as_json=False):
            raise AssertionError
        with pytest.raises(Refused, match="No such file"), open_inputs(str(tmp_path / "x"), as_json=False):
            raise AssertionError


class TestWaiting:
    def test_for_a_line_ends_at_the_deadline(self):
        with a_pipe() as (fd, writer):
            writer.write(b"a\nb")
            source = inputs(fd)
            source.deadline = time.monotonic() + 0.05
            assert next(source).value == "a"
            with pytest.raises(TimeIsUp):
                next(source)

    def test_a_line_that_comes_is_read_before_the_deadline(self):
        with a_pipe() as (fd, writer):
            source = inputs(fd)
            source.deadline = time.monotonic() + 1e18
            waits = threading.Event()
            patience = source._patience
            source._patience = lambda: (waits.set(), patience())[1]
            thread = threading.Thread(target=lambda: waits.wait(10) and writer.write(b"a\n"))
            thread.start()
            assert next(source).value == "a"
            thread.join(10)
