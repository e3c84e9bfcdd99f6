"""`amap` and `aimap`: the event loop goes on while threads work."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import threading

import abreast
import pytest

from tests.engine.stand_ins import PATIENCE, Gate, Inputs, first_then, join_threads
from tests.helpers import FREE_THREADED, in_threads

var = contextvars.ContextVar("var")


def square(x):
    return x * x


def run_async(main):
    """Run a coroutine function to its end, with a limit."""

    async def limited():
        async with asyncio.timeout(PATIENCE):
            return await main()

    return asyncio.run(limited())


class TestTheLoopGoesOn:
    def test_while_amap_waits(self):
        """Its tasks are let through by another coroutine."""
        gate = Gate()

        async def let():
            while len(gate.started) < 3:
                await asyncio.sleep(0)
            gate.open()

        async def main():
            return (await asyncio.gather(abreast.amap(gate, range(3), max_workers=3), let()))[0]

        assert run_async(main) == [0, 1, 2]

    @pytest.mark.parametrize("options", [{}, {"buffersize": 2}, {"ordered": False}, {"chunksize": 3}], ids=str)
    def test_while_aimap_waits_for_each(self, options):
        gate = Gate()

        async def let():
            for i in range(6):
                while i not in gate.started:
                    await asyncio.sleep(0)
                gate.let(i)

        async def main():
            letting = asyncio.create_task(let())
            got = [i async for i in abreast.aimap(gate, range(6), max_workers=1, **options)]
            await letting
            return got

        assert run_async(main) == list(range(6))

    @pytest.mark.parametrize("kind", ["thread", "serial"])
    def test_while_tasks_are_quick(self, kind):
        turns = itertools.count()

        async def ticker():
            while True:
                next(turns)
                await asyncio.sleep(0)

        async def main():
            ticking = asyncio.create_task(ticker())
            await asyncio.sleep(0)
            before = next(turns)
            if kind == "thread":
                await abreast.amap(square, range(30_000))
            async for _ in abreast.aimap(square, range(300), kind=kind, buffersize=3 if kind == "thread" else None):
                await asyncio.sleep(0)
            ticking.cancel()
            return next(turns) - before

        assert run_async(main) > 3

    def test_for_several_runs_side_by_side(self):
        async def main():
            return await asyncio.gather(*[abreast.amap(square, range(i, i + 200), max_workers=2) for i in range(6)])

        assert run_async(main) == [[square(j) for j in range(i, i + 200)] for i in range(6)]

    def test_in_loops_of_several_threads(self):
        def run(i):
            async def main():
                return [x async for x in abreast.aimap(square, range(i, i + 200), max_workers=2)]

            return lambda: run_async(main)

        assert in_threads(*[run(i) for i in range(4)]) == [[square(j) for j in range(i, i + 200)] for i in range(4)]

    def test_a_slow_consumer_reads_no_further_than_the_buffersize(self):
        read = []

        async def main():
            ahead = []
            async for i in abreast.aimap(square, (read.append(i) or i for i in itertools.count()), buffersize=4, max_workers=2):
                ahead.append(len(read) - len(ahead) - 1)
                await asyncio.sleep(0)
                if i >= 900:
                    return max(ahead)

        assert run_async(main) <= 4


class TestWho:
    def test_inputs_are_read_in_the_loops_thread_and_functions_run_in_others(self):
        readers, workers = set(), set()

        def inputs():
            for i in range(50):
                readers.add(threading.get_ident())
                yield i

        def task(_):
            workers.add(threading.get_ident())

        async def main():
            await abreast.amap(task, inputs())
            async for _ in abreast.aimap(task, inputs()):
                pass

        run_async(main)
        assert readers == {threading.get_ident()}
        assert threading.get_ident() not in workers

    def test_tasks_see_the_context_of_the_coroutine(self):
        async def main(x):
            var.set(x)
            first = await abreast.amap(lambda _: var.get(), range(3))
            return first + [x async for x in abreast.aimap(lambda _: var.get(), range(2))]

        async def both():
            return await asyncio.gather(main("a"), main("b"))

        assert run_async(both) == [["a"] * 5, ["b"] * 5]


class TestEnds:
    def finish(self, end, *, start=None):
        """Run `end` while two tasks are held and others wait; return what has run at last."""
        with Gate() as gate:

            async def main():
                options = {"max_workers": 2, "chunksize": 1, "name": "ended"}
                inputs = Inputs(2)
                started = (start or abreast.aimap)(first_then(inputs, gate), inputs, **options)
                await end(gate, started)

            run_async(main)
            gate.open()
            join_threads("ended")
            return sorted(gate.started)

    def test_aclose(self):
        async def end(gate, results):
            assert await anext(results) == 0
            gate.wait_started(1, 2)
            await results.aclose()
            assert [i async for i in results] == []
            await results.aclose()

        assert self.finish(end) == [1, 2]

    def test_leaving_an_async_with_block(self):
        async def end(gate, results):
            async with results as entered:
                assert entered is results
                assert await anext(results) == 0
                gate.wait_started(1, 2)

        assert self.finish(end) == [1, 2]

    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    def test_break(self, no_gc):
        with Gate() as gate:

            async def main():
                inputs = Inputs(2)
                async for i in abreast.aimap(first_then(inputs, gate), inputs, max_workers=2, chunksize=1, name="ended"):
                    gate.wait_started(1, 2)
                    break
                gate.open()

            run_async(main)
            join_threads("ended")
            assert sorted(gate.started) == [1, 2]

    @pytest.mark.parametrize("what", ["amap", "aimap"])
    def test_cancelling_who_waits(self, what):
        async def consume(results):
            async for _ in results:
                pass

        async def end(gate, started):
            waiting = asyncio.create_task(started if what == "amap" else consume(started))
            while not {1, 2} <= set(gate.started):
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        assert self.finish(end, start=abreast.amap if what == "amap" else None) == [1, 2]

    @pytest.mark.parametrize("what", ["amap", "aimap"])
    def test_a_limit_of_asyncio(self, what):
        async def end(gate, started):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    if what == "amap":
                        await started
                    async for _ in started:
                        pass

        assert set(self.finish(end, start=abreast.amap if what == "amap" else None)) <= {1, 2}

    @pytest.mark.parametrize("what", ["amap", "aimap"])
    def test_the_limit_of_the_run(self, what):
        async def end(gate, started):
            with pytest.raises(TimeoutError, match="the run of ended took longer than its timeout"):
                if what == "amap":
                    await started
                async for _ in started:
                    pass

        def start(*args, **options):
            return getattr(abreast, what)(*args, **options, timeout=0.1)

        assert set(self.finish(end, start=start)) <= {1, 2}

    @pytest.mark.parametrize("what", ["amap", "aimap"])
    def test_an_error_ends_it_and_what_runs_is_not_waited_for(self, what):
        def start(_, inputs, **options):
            def task(i):
                if i == 0:
                    self.gate.wait_started(1)
                    raise LookupError
                return self.gate(i)

            return getattr(abreast, what)(task, inputs, **options)

        async def end(gate, started):
            self.gate = gate
            with pytest.raises(LookupError):
                if what == "amap":
                    await started
                async for _ in started:
                    pass

        assert set(self.finish(end, start=start)) <= {1, 2}

    def test_aclose_in_another_coroutine_ends_a_wait(self):
        async def end(gate, results):
            async def consume():
                return [i async for i in results]

            waiting = asyncio.create_task(consume())
            while not {1, 2} <= set(gate.started):
                await asyncio.sleep(0)
            await results.aclose()
            done, _ = await asyncio.wait([waiting], timeout=1)
            waiting.cancel()
            assert done
            assert waiting.result() in ([], [0])  # it may not have had its turn before

        assert self.finish(end) == [1, 2]

    def test_a_run_that_is_dropped_with_its_loop_says_nothing(self, caplog):
        """Tasks end when the loop has been closed: nobody is to be told, and nothing is to be logged."""
        with Gate() as gate:

            async def main():
                results = abreast.aimap(gate, range(20), max_workers=2, chunksize=1, name="late")
                waiting = asyncio.ensure_future(anext(results))
                while len(gate.started) < 2:
                    await asyncio.sleep(0)
                return results, waiting  # asyncio.run cancels what waits

            results, waiting = run_async(main)
            assert waiting.cancelled()
            gate.open()
            join_threads("late")
            del results, waiting
            gc.collect()
        assert caplog.text == ""
        assert sorted(gate.started) == [0, 1]


class TestIterator:
    def test_arguments_are_checked_at_the_call(self):
        with pytest.raises(TypeError, match="there is no option"):
            abreast.aimap(square, [1], wokers=1)

    def test_a_coroutine_of_amap_that_is_never_awaited_reads_nothing(self):
        read = []
        coroutine = abreast.amap(square, (read.append(i) for i in range(3)))
        coroutine.close()
        assert read == []

    def test_it_ends_for_good(self):
        async def main():
            results = abreast.aimap(square, [1, 2])
            first = [i async for i in results]
            return first, [i async for i in results], [i async for i in results]

        assert run_async(main) == ([1, 4], [], [])

    def test_it_has_a_summary_and_a_repr(self):
        async def main():
            results = abreast.aimap(square, [1, 2], name="squares")
            before = repr(results)
            assert [i async for i in results] == [1, 4]
            return before, repr(results), results.summary()

        before, after, summary = run_async(main)
        assert before == "<AsyncResults of squares: not started, 0 tasks ended>"
        assert after == "<AsyncResults of squares: over, 2 tasks ended>"
        assert summary.tasks == 2

    def test_an_awaitable_among_the_inputs_is_an_input_like_others(self):
        assert run_async(lambda: abreast.amap(type, [1, "a"])) == [int, str]
