"""The inputs of a run: read when they are asked for, and not before."""

from __future__ import annotations

import itertools

import pytest
from abreast.engine.source import Source


def source(*iterables, strict=False):
    return Source(iterables, strict=strict)


class TestTake:
    def test_reads_as_many_as_are_asked_for_and_no_more(self):
        read = []
        inputs = source(read.append(i) or i for i in range(10))
        assert read == []
        assert inputs.take(3) == [0, 1, 2]
        assert (read, inputs.read, inputs.exhausted) == ([0, 1, 2], 3, False)

    def test_fewer_are_the_end(self):
        inputs = source("abc")
        assert inputs.take(2) == ["a", "b"]
        assert inputs.take(2) == ["c"]
        assert (inputs.exhausted, inputs.read, inputs.take(2), inputs.error) == (True, 3, [], None)

    def test_none_is_all(self):
        inputs = source(iter(range(5)))
        inputs.take(2)
        assert inputs.take(None) == [2, 3, 4]
        assert inputs.exhausted

    def test_iter_is_not_called_before_the_first_read(self):
        class Inputs:
            def __iter__(self):
                raise LookupError

        inputs = source(Inputs())
        assert inputs.take(1) == []
        assert isinstance(inputs.error, LookupError)

    def test_a_sequence_of_the_old_protocol_will_do(self):
        class Old:
            def __getitem__(self, place):
                return [1, 2, 3][place]

        assert source(Old()).take(None) == [1, 2, 3]

    def test_none_of_no_iterables(self):
        assert source().exhausted

    @pytest.mark.parametrize("wrong", [5, None, len])
    def test_what_cannot_be_iterated_is_refused_at_once(self, wrong):
        with pytest.raises(TypeError, match="the inputs must be iterables, not"):
            source("ab", wrong)


class TestSeveral:
    def test_inputs_are_tuples_and_the_shortest_ends(self):
        inputs = source("abc", itertools.count())
        assert inputs.star
        assert inputs.take(None) == [("a", 0), ("b", 1), ("c", 2)]
        assert inputs.error is None

    @pytest.mark.parametrize(("first", "second"), [("abc", "ab"), ("ab", "abc")])
    def test_strict_demands_equal_lengths(self, first, second):
        inputs = source(iter(first), iter(second), strict=True)
        assert inputs.take(None) == [("a", "a"), ("b", "b")]
        assert isinstance(inputs.error, ValueError)

    def test_strict_and_equal_is_no_error(self):
        inputs = source("ab", "ab", strict=True)
        assert len(inputs.take(None)) == 2
        assert inputs.error is None

    def test_one_is_not_a_tuple(self):
        assert not source("a").star


class TestErrors:
    def raising(self, error):
        yield 1
        yield 2
        raise error

    @pytest.mark.parametrize("count", [3, 100, None])
    def test_what_was_read_before_an_error_is_not_lost(self, count):
        error = LookupError()
        inputs = source(self.raising(error))
        assert inputs.take(count) == [1, 2]
        assert inputs.error is error
        assert inputs.exhausted
        assert inputs.read == 2

    def test_an_error_is_met_only_when_it_is_reached(self):
        inputs = source(self.raising(LookupError()))
        assert inputs.take(2) == [1, 2]
        assert (inputs.error, inputs.exhausted) == (None, False)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_what_is_meant_for_the_program_goes_up_at_once(self, error):
        with pytest.raises(error):
            source(self.raising(error())).take(3)


class TestLeft:
    def test_of_a_list_it_is_exact(self):
        inputs = source([1, 2, 3])
        left = [inputs.left()]
        while inputs.take(1):
            left.append(inputs.left())
        assert left == [3, 2, 1, 0]

    def test_of_a_generator_it_is_not_known(self):
        inputs = source(i for i in range(3))
        assert (inputs.total, inputs.left()) == (None, None)
        inputs.take(None)
        assert inputs.left() == 0

    def test_the_shortest_counts(self):
        assert source([1, 2, 3], itertools.count(), [1]).total == 1

    def test_a_hint_that_is_wrong_is_only_a_hint(self):
        class Hinted:
            def __init__(self, hint):
                self.hint = hint

            def __iter__(self):
                return iter(range(4))

            def __length_hint__(self):
                return self.hint

        for hint in (0, 2, 9):
            inputs = source(Hinted(hint))
            assert inputs.total == hint
            assert inputs.take(3) == [0, 1, 2]
            assert inputs.left() == (6 if hint == 9 else None)
            assert inputs.take(3) == [3]
            assert inputs.left() == 0

    def test_a_len_that_raises_is_no_hint(self):
        class Broken(list):
            def __len__(self):
                raise OSError

        assert source(Broken("ab")).total is None

    def test_nothing_is_kept_after_the_end(self):
        inputs = source(iter("ab"))
        inputs.take(1)
        inputs.close()
        assert (inputs.exhausted, inputs.take(1), inputs.left()) == (True, [], 0)

    def test_asynchronous_inputs_are_refused_with_the_cure(self):
        async def pages():
            yield 1

        with pytest.raises(TypeError, match=r"not <async_gen.*collect it first, \[item async for item in …\]$"):
            source(pages())
