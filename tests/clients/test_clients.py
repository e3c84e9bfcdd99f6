"""Real clients of executors: dask's threaded scheduler, asyncio, tornado, tqdm's thread_map."""

from __future__ import annotations

import asyncio
import threading

import pytest
from abreast import ThreadPoolExecutor

from tests.helpers import in_threads


def square(x):
    return x * x


class TestAsyncio:
    def test_as_the_default_executor(self):
        async def main():
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(2, thread_name_prefix="A"))
            names = await asyncio.gather(*[asyncio.to_thread(lambda: threading.current_thread().name) for _ in range(20)])
            assert set(names) <= {"A_0", "A_1"}
            await loop.shutdown_default_executor()

        asyncio.run(main())

    def test_run_in_executor_results_errors_and_many_at_once(self):
        async def main():
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(4) as executor:
                results = await asyncio.gather(*[loop.run_in_executor(executor, square, i) for i in range(500)])
                assert results == [square(i) for i in range(500)]
                with pytest.raises(ValueError, match="invalid literal"):
                    await loop.run_in_executor(executor, int, "x")

        asyncio.run(main())

    def test_cancelling_the_wrapper_cancels_what_has_not_started(self):
        async def main():
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(1) as executor:
                gate, started = threading.Event(), threading.Event()
                loop.run_in_executor(executor, lambda: (started.set(), gate.wait(30)))
                await asyncio.to_thread(started.wait)
                ran = []
                waiting = loop.run_in_executor(executor, ran.append, 1)
                waiting.cancel()
                await asyncio.sleep(0)
                gate.set()
            await asyncio.sleep(0)
            assert ran == []

        asyncio.run(main())

    def test_wait_for_with_a_timeout(self):
        async def main():
            with ThreadPoolExecutor(1) as executor:
                gate = threading.Event()
                try:
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(asyncio.wrap_future(executor.submit(gate.wait, 30)), 0.05)
                finally:
                    gate.set()

        asyncio.run(main())

    def test_loops_in_several_threads_share_one(self):
        with ThreadPoolExecutor(3) as executor:

            async def work():
                loop = asyncio.get_running_loop()
                return sum(await asyncio.gather(*[loop.run_in_executor(executor, square, i) for i in range(100)]))

            assert in_threads(*[lambda: asyncio.run(work())] * 4) == [sum(square(i) for i in range(100))] * 4


@pytest.mark.clients
class TestTornado:
    def test_run_in_executor_and_default(self):
        ioloop = pytest.importorskip("tornado.ioloop")

        async def main():
            loop = ioloop.IOLoop.current()
            with ThreadPoolExecutor(2) as executor:
                assert await loop.run_in_executor(executor, square, 3) == 9
                with pytest.raises(ValueError, match="invalid literal"):
                    await loop.run_in_executor(executor, int, "x")
            loop.set_default_executor(ThreadPoolExecutor(2))
            assert await loop.run_in_executor(None, square, 4) == 16
            await asyncio.get_running_loop().shutdown_default_executor()

        asyncio.run(main())

    def test_run_on_executor(self):
        concurrent = pytest.importorskip("tornado.concurrent")

        class Service:
            def __init__(self):
                self.executor = ThreadPoolExecutor(2)

            @concurrent.run_on_executor
            def square(self, x):
                return x * x

        async def main():
            service = Service()
            assert await service.square(5) == 25
            service.executor.shutdown()

        asyncio.run(main())


@pytest.mark.clients
class TestDask:
    @pytest.fixture
    def dask(self):
        return pytest.importorskip("dask")

    def test_threaded_scheduler_on_our_pool(self, dask):
        @dask.delayed
        def add(x, y):
            return x + y

        total = add(add(1, 2), add(3, add(4, 5)))
        with ThreadPoolExecutor(3) as executor:
            assert total.compute(scheduler="threads", pool=executor) == 15
            with dask.config.set(pool=executor, scheduler="threads"):
                assert dask.compute(*[add(i, i) for i in range(200)]) == tuple(2 * i for i in range(200))
            assert executor.statistics().finished > 0

    def test_an_error_comes_out(self, dask):
        with ThreadPoolExecutor(3) as executor, pytest.raises(ZeroDivisionError):
            dask.delayed(lambda: 1 / 0)().compute(scheduler="threads", pool=executor)

    def test_several_graphs_at_once(self, dask):
        with ThreadPoolExecutor(3) as executor:

            def run():
                parts = [dask.delayed(square)(i) for i in range(50)]
                return dask.delayed(sum)(parts).compute(scheduler="threads", pool=executor)

            assert in_threads(run, run, run) == [sum(square(i) for i in range(50))] * 3


@pytest.mark.clients
class TestTqdm:
    def test_thread_map(self, monkeypatch):
        """It takes the class from concurrent.futures, replaces `submit` on the instance, and counts through it."""
        contrib = pytest.importorskip("tqdm.contrib.concurrent")
        import concurrent.futures
        import io

        import tqdm

        monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # else it leaves a thread that watches slow bars
        made = []

        class Spy(ThreadPoolExecutor):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                made.append(self)

        if hasattr(contrib, "ThreadPoolExecutor"):
            monkeypatch.setattr(contrib, "ThreadPoolExecutor", Spy)
        monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", Spy)
        out = io.StringIO()
        assert contrib.thread_map(square, range(50), max_workers=3, file=out) == [square(i) for i in range(50)]
        assert [executor._max_workers for executor in made] == [3]
        assert made[0].statistics().finished == 50
        assert "50/50" in out.getvalue()


def test_a_class_built_on_ours_keeps_working():
    """As APScheduler does: type(pool)(n, …)."""

    class Mine(ThreadPoolExecutor):
        pass

    with Mine(2) as executor, type(executor)(executor._max_workers) as again:
        assert again.submit(square, 2).result() == 4
    assert "ThreadPoolExecutor" in type(executor).__mro__[1].__name__
