"""Writing whole lines: pieces for pipes, signals that come meanwhile, files that appear only when they are done."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading

import pytest
from abreast.cli import output, signals
from abreast.cli.errors import Refused
from abreast.cli.output import PIECE, NobodyReads, Output, OutputError, _pieces, open_output
from abreast.cli.signals import Terminated, held, raise_on_signals
from hypothesis import given, settings
from hypothesis import strategies as st

LINES = st.lists(st.integers(0, 2 * PIECE).map(lambda size: b"x" * size + b"\n") | st.just(b"\n"), max_size=20)


@pytest.fixture
def signalled():
    """Signals as the command has them; afterwards as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with raise_on_signals():
        yield
        for number, handler in before.items():  # before they are given to the system, as at a program's end
            signal.signal(number, handler)
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def read_by(thread_reads=lambda fd: os.read(fd, 1000)):
    """A pipe that a thread reads; gives the end for writing, and what has been read when it is closed."""
    reads, writes = os.pipe()
    taken = bytearray()

    def read():
        while block := thread_reads(reads):
            taken.extend(block)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield writes, taken
    finally:
        os.close(writes)
        thread.join(10)
        os.close(reads)


class TestPieces:
    @settings(max_examples=200, deadline=None)
    @given(lines=LINES)
    def test_are_whole_lines_and_fit_a_write_that_a_pipe_takes_whole(self, lines):
        pieces = list(_pieces(lines))
        assert b"".join(pieces) == b"".join(lines)
        assert all(piece.endswith(b"\n") for piece in pieces)
        assert all(len(piece) <= PIECE or piece.count(b"\n") == 1 for piece in pieces)
        assert all(len(one) + len(other) > PIECE for one, other in zip(pieces, pieces[1:], strict=False) if other[0:1] == b"\n")

    @settings(max_examples=30, deadline=None)
    @given(portions=st.lists(LINES, max_size=3))
    def test_come_out_of_a_pipe_as_they_went_in(self, portions):
        with read_by() as (fd, taken):
            out = Output(fd, "pipe")
            for lines in portions:
                out.write(lines)
        assert bytes(taken) == b"".join(b"".join(lines) for lines in portions)
        assert out.lines == sum(map(len, portions))


class TestWrite:
    def test_counts_what_a_partial_write_has_left_whole(self, tmp_path, monkeypatch):
        fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
        try:
            out = Output(fd, "out")
            out.write([b"before\n"])
            room, write = [16], os.write

            def full(fd, data):
                if not room[0]:
                    raise OSError(28, "No space left on device")
                taken, room[0] = data[: room[0]], room[0] - min(room[0], len(data))
                return write(fd, taken)

            with monkeypatch.context() as patch:
                patch.setattr(output.os, "write", full)
                with pytest.raises(OutputError, match="^cannot write to out: No space left on device$"):
                    out.write([b"12345\n", b"1234567\n", b"12345\n"])
            out.write([b"after\n"])
            assert out.lines == 4
        finally:
            os.close(fd)
        assert tmp_path.joinpath("out").read_bytes() == b"before\n12345\n1234567\nafter\n"

    def test_to_a_closed_pipe_says_that_nobody_reads(self):
        reads, writes = os.pipe()
        os.close(reads)
        try:
            with pytest.raises(NobodyReads):
                Output(writes, "pipe").write([b"a\n"])
        finally:
            os.close(writes)


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated), (signal.SIGHUP, Terminated)]
    )
    def test_the_first_is_raised_and_no_other(self, signalled, number, error):
        with pytest.raises(error) as raised:
            signal.raise_signal(number)
        assert signals.number_of(raised.value) == number
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(number)

    def test_one_that_is_held_is_raised_at_the_end(self, signalled):
        done = []
        with pytest.raises(Terminated), held() as mine:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done.append(mine.number)
        assert done == [signal.SIGTERM]

    def test_a_later_one_ends_the_program_at_once(self, signalled, monkeypatch):
        ends = []
        monkeypatch.setattr(signals.os, "_exit", ends.append)
        monkeypatch.setattr(signals, "PATIENCE", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert ends == [143]

    def test_a_line_that_is_being_written_is_finished(self, signalled, tmp_path, monkeypatch):
        fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
        try:
            out, write = Output(fd, "out"), os.write

            def interrupted(fd, data):
                signal.raise_signal(signal.SIGINT)
                return write(fd, data[:3])

            monkeypatch.setattr(output.os, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                out.write([b"1234\n", b"567\n"])
        finally:
            os.close(fd)
        assert tmp_path.joinpath("out").read_bytes() == b"1234\n567\n"
        assert out.lines == 2

    @pytest.mark.parametrize("size", [10, 10_000, 100_000])
    def test_a_line_to_a_slow_pipe_is_finished_and_no_other_begun(self, signalled, size, no_gc):  # as in TestCtrlCAtEveryStep
        begun = threading.Event()

        def slowly(fd):
            block = os.read(fd, 1000)
            if not begun.is_set():
                begun.set()
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return block

        with read_by(slowly) as (fd, taken):
            out = Output(fd, "pipe")
            line = b"x" * (size - 1) + b"\n"
            with pytest.raises(KeyboardInterrupt):
                while True:
                    out.write([line] * 3)
        assert bytes(taken) == line * out.lines


class TestFiles:
    def written(self, path, *, force=False, complete=True, lines=(b"new\n",)):
        with open_output(str(path), force=force) as out:
            out.write(list(lines))
            out.complete = complete

    def test_a_new_file_has_the_mode_that_the_user_wants(self, tmp_path):
        before = os.umask(0o027)
        try:
            self.written(tmp_path / "out")
        finally:
            os.umask(before)
        assert stat.S_IMODE(tmp_path.joinpath("out").stat().st_mode) == 0o640

    @pytest.mark.parametrize("complete", [True, False])
    @pytest.mark.parametrize("force", [True, False])
    @pytest.mark.parametrize("lines", [[], [b"new\n"]])
    @pytest.mark.parametrize("old", [None, b"old"])
    def test_what_is_there_afterwards(self, tmp_path, old, lines, force, complete):
        path = tmp_path / "out"
        if old is not None:
            path.write_bytes(old)
        if old is not None and not force:
            with pytest.raises(Refused, match="exists"):
                self.written(path)
            assert path.read_bytes() == old
            return
        self.written(path, force=force, complete=complete, lines=lines)
        new = b"".join(lines)
        if old is None:
            assert (path.read_bytes() if path.exists() else None) == (new if complete or lines else None)
        else:
            assert path.read_bytes() == (new if complete else old)
        parts = [part.read_bytes() for part in tmp_path.glob("out.*.part")]
        assert parts == ([new] if old is not None and lines and not complete else [])

    def test_it_is_not_replaced_while_lines_are_written(self, tmp_path):
        path = tmp_path / "out"
        path.write_bytes(b"old")
        with open_output(str(path), force=True) as out:
            out.write([b"new\n"])
            assert path.read_bytes() == b"old"
            assert out.part != out.name == str(path)
        assert path.read_bytes() == b"old"
        tmp_path.joinpath(out.part).unlink()

    def test_a_signal_while_it_is_made_leaves_nothing(self, signalled, tmp_path, monkeypatch):
        opens = os.open

        def interrupted(*args):
            fd = opens(*args)
            signal.raise_signal(signal.SIGINT)
            return fd

        monkeypatch.setattr(output.os, "open", interrupted)
        with pytest.raises(KeyboardInterrupt):
            self.written(tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
