"""The progress page: what one process writes, another one sees, whole and in order."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile

import pytest
from abreast.executors.process import page as module
from abreast.executors.process.core import Phase
from abreast.executors.process.page import MAGIC, SIZE, Page, nameless_file


@pytest.fixture
def page():
    made = Page.make(7)
    yield made
    made.close()


def in_another_process(page, code):
    """Run this in a process that has the page as `page`, as a worker has it."""
    head = "import sys; from abreast.executors.process.page import Page; page = Page(int(sys.argv[1]))\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, str(page.fd)], pass_fds=[page.fd], stdout=subprocess.PIPE, text=True
    )


class Words:
    """Words that change while they are read: before each read of one, what is due is stored."""

    def __init__(self, words, stores):
        self.words, self.stores = list(words), list(stores)

    def __getitem__(self, i):
        if self.stores:
            for word, value in self.stores.pop(0):
                self.words[word] = value
        return self.words[i]


class TestWords:
    def test_a_new_page_has_its_number_and_no_task(self, page):
        assert page.words[0] == MAGIC
        assert page.words[1] == 7
        assert page.read() == (0, 0.0, Phase.BOOT)

    def test_what_is_stored_is_read(self, page):
        page.words[Page.PHASE] = Phase.RUN
        page.words[Page.START] = 2_500_000_000
        page.words[Page.SEQ] = 3
        assert page.read() == (3, 2.5, Phase.RUN)

    def test_there_is_a_text_for_every_phase_that_can_be_read(self, page):
        for phase in (*range(20), (1 << 64) - 1):
            page.words[Page.PHASE] = phase
            assert page.read()[2] == (phase if phase < len(Phase.TEXTS) else 0)

    def test_any_words_can_be_read(self, page):
        for word in (Page.PHASE, Page.SEQ, Page.START):
            page.words[word] = (1 << 64) - 1
        assert page.read() == ((1 << 64) - 1, pytest.approx(1.8446744e10), 0)

    def test_another_process_is_seen(self, page):
        code = "page.words[2] = 3; page.words[4] = 12_000_000_000; page.words[3] = 41; print(list(page.words[:2]))"
        process = in_another_process(page, code)
        assert process.communicate(timeout=30)[0] == f"{[MAGIC, 7]}\n"
        assert page.read() == (41, 12.0, Phase.RUN)

    def test_what_another_process_stored_outlives_it(self, page):
        process = in_another_process(page, "import os, signal; page.words[3] = 41; os.kill(os.getpid(), signal.SIGKILL)")
        process.communicate(timeout=30)
        assert process.returncode == -9
        assert page.read()[0] == 41


class TestTornReads:
    """A worker stores phase, start, seq, in this order; it may do so between any two words that the parent reads."""

    OLD, NEW = (1, 10.0), (2, 20.0)

    @pytest.mark.parametrize("where", range(6))
    @pytest.mark.parametrize("apart", range(4))
    def test_a_task_is_never_read_with_a_start_that_is_too_early(self, where, apart):
        stores = [[] for _ in range(12)]
        stores[where].append((Page.START, 20_000_000_000))
        stores[where + apart].append((Page.SEQ, 2))
        torn = Page.__new__(Page)
        torn.words = Words([MAGIC, 7, Phase.RUN, 1, 10_000_000_000, 0, 0, 0], stores)
        seq, start, _ = torn.read()
        assert (seq, start) in (self.OLD, self.NEW, (1, 20.0))

    def test_a_page_that_never_stands_still_is_read_all_the_same(self):
        torn = Page.__new__(Page)
        torn.words = Words([MAGIC, 7, Phase.RUN, 0, 0, 0, 0, 0], [[(Page.SEQ, seq)] for seq in range(1000)])
        assert torn.read()[0] > 0

    def test_beside_a_process_that_never_stops_storing(self, page):
        # The start is a function of seq, so a start that is too early is seen.
        code = (
            "words, seq = page.words, 0\n"
            "while words[5] == 0:\n"
            "    seq += 1\n"
            "    words[2] = 2; words[4] = seq * 1000; words[3] = seq; words[2] = 3\n"
        )
        process = in_another_process(page, code)
        try:
            while page.read()[0] == 0:
                assert process.poll() is None
            last, seen = 0, set()
            while len(seen) < 20:  # on one core that takes 20 turns of the other process
                seq, start, phase = page.read()
                began = round(start * 1e6)
                assert seq >= last
                assert began in (seq, seq + 1)
                assert phase in (Phase.DECODE, Phase.RUN)
                last = seq
                seen.add(seq)
        finally:
            page.words[5] = 1
            assert process.wait(30) == 0
            process.stdout.close()


class TestDescriptors:
    def test_a_closed_descriptor_does_not_take_the_page_away(self, page):
        process = in_another_process(page, "import os; os.closerange(3, 4096); page.words[3] = 9")
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert page.read()[0] == 9

    def test_closing_twice_is_closing(self):
        page = Page.make(1)
        page.close()
        page.close()
        assert page.fd == -1
        with pytest.raises(ValueError):
            page.read()

    def test_nothing_stays_open(self):
        before = os.listdir("/proc/self/fd")
        for number in range(50):
            Page.make(number).close()
        assert os.listdir("/proc/self/fd") == before

    def test_a_page_that_cannot_be_mapped_leaves_nothing_open(self, monkeypatch):
        before = os.listdir("/proc/self/fd")

        def refuse(*_, **__):
            raise OSError("no memory")

        monkeypatch.setattr(module.mmap, "mmap", refuse)
        with pytest.raises(OSError, match="no memory"):
            Page.make(1)
        assert os.listdir("/proc/self/fd") == before

    def test_it_has_no_name_and_is_not_inherited(self, page):
        assert not os.get_inheritable(page.fd)
        assert os.fstat(page.fd).st_nlink == 0

    def test_a_task_cannot_take_the_memory_away_from_under_the_parent(self, page):
        # Reading a page that has been cut off is SIGBUS.
        process = in_another_process(page, "import os\ntry: os.ftruncate(page.fd, 0)\nexcept PermissionError: print('refused')")
        assert process.communicate(timeout=30)[0] == "refused\n"
        assert os.fstat(page.fd).st_size == SIZE
        assert page.read() == (0, 0.0, Phase.BOOT)


class TestWithoutMemfd:
    """As in some sandboxes."""

    @pytest.fixture(params=["refused", "missing"])
    def no_memfd(self, request, monkeypatch, tmp_path):
        def refuse(*_):
            raise PermissionError

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        if request.param == "refused":
            monkeypatch.setattr(os, "memfd_create", refuse)
        else:
            monkeypatch.delattr(os, "memfd_create")
            monkeypatch.delattr(fcntl, "F_ADD_SEALS")
        return tmp_path

    def test_a_file_without_a_name_serves(self, no_memfd):
        page = Page.make(7)
        try:
            in_another_process(page, "page.words[3] = 5").communicate(timeout=30)
            assert page.read()[0] == 5
            assert not os.get_inheritable(page.fd)
            assert list(no_memfd.iterdir()) == []
        finally:
            page.close()

    def test_its_contents_can_be_read_back(self, no_memfd):
        fd = nameless_file("stack")
        try:
            os.write(fd, b"text")
            assert os.pread(fd, 10, 0) == b"text"
        finally:
            os.close(fd)
