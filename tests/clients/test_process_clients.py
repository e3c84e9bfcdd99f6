"""Real clients of pools of processes: dask's process scheduler, asyncio, tornado, tqdm's process_map, the standard library's own functions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import time

import pytest
from abreast import ProcessPoolExecutor, WorkerCrashed

from tests.helpers import in_threads

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

PATIENCE = 30


def square(x):
    return x * x


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool


class TestAsyncio:
    def test_results_errors_and_many_at_once(self, pool):
        async def main():
            loop = asyncio.get_running_loop()
            results = await asyncio.gather(*[loop.run_in_executor(pool, square, i) for i in range(300)])
            assert results == [square(i) for i in range(300)]
            with pytest.raises(ValueError, match="invalid literal"):
                await loop.run_in_executor(pool, int, "x")
            with pytest.raises(WorkerCrashed):
                await loop.run_in_executor(pool, os._exit, 1)
            assert await loop.run_in_executor(pool, lambda: os.getpid()) != os.getpid()

        asyncio.run(main())

    def test_the_default_executor_has_to_be_of_threads(self, pool):
        async def main():
            with pytest.raises(TypeError):
                asyncio.get_running_loop().set_default_executor(pool)

        asyncio.run(main())

    def test_cancelling_the_wrapper_cancels_what_has_not_started(self):
        async def main():
            loop = asyncio.get_running_loop()
            with ProcessPoolExecutor(1) as pool:
                running = loop.run_in_executor(pool, time.sleep, 0.3)
                queued = [pool.submit(square, i) for i in range(3)]
                wrapped = asyncio.wrap_future(queued[2])
                wrapped.cancel()
                await running
                await asyncio.sleep(0)
                assert queued[2].cancelled()
                assert [await asyncio.wrap_future(future) for future in queued[:2]] == [0, 1]

        asyncio.run(main())

    def test_wait_for_with_a_timeout(self, pool):
        async def main():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(pool.submit(time.sleep, 0.5)), 0.05)

        asyncio.run(main())

    def test_loops_in_several_threads_share_one(self, pool):
        async def work():
            loop = asyncio.get_running_loop()
            return sum(await asyncio.gather(*[loop.run_in_executor(pool, square, i) for i in range(50)]))

        assert in_threads(*[lambda: asyncio.run(work())] * 4) == [sum(square(i) for i in range(50))] * 4


@pytest.mark.clients
class TestTornado:
    def test_run_in_executor(self, pool):
        ioloop = pytest.importorskip("tornado.ioloop")

        async def main():
            loop = ioloop.IOLoop.current()
            assert await loop.run_in_executor(pool, square, 3) == 9
            with pytest.raises(ValueError, match="invalid literal"):
                await loop.run_in_executor(pool, int, "x")

        asyncio.run(main())


@pytest.mark.clients
class TestDask:
    @pytest.fixture
    def dask(self):
        return pytest.importorskip("dask")

    def test_process_scheduler_on_our_pool(self, dask, pool):
        @dask.delayed
        def add(x, y):
            return x + y

        total = add(add(1, 2), add(3, add(4, 5)))
        assert total.compute(scheduler="processes", pool=pool) == 15
        with dask.config.set(pool=pool, scheduler="processes"):
            assert dask.compute(*[add(i, i) for i in range(100)]) == tuple(2 * i for i in range(100))
        assert pool.statistics().finished > 0

    def test_the_executor_as_the_scheduler(self, dask, pool):
        """dask takes any executor, and reads `_max_workers`."""
        parts = [dask.delayed(square)(i) for i in range(50)]
        assert dask.delayed(sum)(parts).compute(scheduler=pool) == sum(square(i) for i in range(50))
        assert pool.statistics().finished > 0

    def test_tasks_run_in_the_workers(self, dask, pool):
        pids = dask.compute(*[dask.delayed(lambda _: os.getpid())(i) for i in range(30)], scheduler="processes", pool=pool)
        assert os.getpid() not in pids
        assert set(pids) <= set(pool._processes)

    def test_an_error_comes_out(self, dask, pool):
        with pytest.raises(ZeroDivisionError):
            dask.delayed(lambda: 1 / 0)().compute(scheduler="processes", pool=pool)
        assert dask.delayed(square)(3).compute(scheduler="processes", pool=pool) == 9

    def test_a_crash_comes_out_and_the_pool_goes_on(self, dask, pool):
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            dask.delayed(os._exit)(1).compute(scheduler="processes", pool=pool)
        assert dask.delayed(square)(3).compute(scheduler="processes", pool=pool) == 9

    def test_several_graphs_at_once(self, dask, pool):
        def run():
            parts = [dask.delayed(square)(i) for i in range(30)]
            return dask.delayed(sum)(parts).compute(scheduler="processes", pool=pool)

        assert in_threads(run, run, run) == [sum(square(i) for i in range(30))] * 3

    def test_bags(self, dask, pool):
        bag = pytest.importorskip("dask.bag")
        numbers = bag.from_sequence(range(100), npartitions=7)
        assert numbers.map(square).sum().compute(scheduler="processes", pool=pool) == sum(map(square, range(100)))


@pytest.mark.clients
class TestTqdm:
    @pytest.fixture
    def process_map(self, monkeypatch):
        contrib = pytest.importorskip("tqdm.contrib.concurrent")
        import tqdm

        monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # else it leaves a thread that watches slow bars
        made = []

        class Spy(ProcessPoolExecutor):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                made.append(self)

        if hasattr(contrib, "ProcessPoolExecutor"):
            monkeypatch.setattr(contrib, "ProcessPoolExecutor", Spy)
        monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Spy)
        return contrib.process_map, made

    @pytest.mark.parametrize("chunksize", [1, 7])
    def test_process_map(self, process_map, chunksize):
        """It replaces `submit` on the instance and counts through it; a lock of multiprocessing goes to the initializer."""
        import io

        process_map, made = process_map
        out = io.StringIO()
        assert process_map(square, range(50), max_workers=2, file=out, chunksize=chunksize) == [square(i) for i in range(50)]
        assert [executor._max_workers for executor in made] == [2]
        assert "50/50" in out.getvalue()

    @pytest.mark.parametrize("chunksize", [1, 7])
    def test_process_map_with_a_lock_of_threads(self, process_map, chunksize):
        """`lock_name` without its multiprocessing part; the initializer replaced by None."""
        import io

        process_map, made = process_map
        out = io.StringIO()
        results = process_map(
            square,
            range(50),
            max_workers=2,
            file=out,
            chunksize=chunksize,
            _initializer=len,
            _initargs=("",),
            lock_name="th_lock",
        )
        assert results == [square(i) for i in range(50)]
        assert "50/50" in out.getvalue()
        assert made[0].statistics().finished == 50


class TestStandardFunctions:
    def test_wait_and_as_completed_with_futures_of_several_executors(self, pool):
        with concurrent.futures.ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1) as other:
            futures = {one.submit(square, i): i for i in range(20) for one in (pool, threads, other)}
            for future in concurrent.futures.as_completed(futures, PATIENCE):
                assert future.result() == square(futures[future])
            done, not_done = concurrent.futures.wait(futures, PATIENCE)
            assert (len(done), len(not_done)) == (60, 0)

    def test_as_completed_with_a_timeout(self, pool):
        slow, quick = pool.submit(time.sleep, 60), pool.submit(square, 3)
        assert quick.result(PATIENCE) == 9
        got = []
        with pytest.raises(TimeoutError):
            for future in concurrent.futures.as_completed([slow, quick], 0.1):
                got.append(future)
        assert got == [quick]
        pool.kill_workers()

    def test_wait_for_the_first_exception(self, pool):
        futures = [pool.submit(time.sleep, 60), pool.submit(divmod, 1, 0)]
        done, not_done = concurrent.futures.wait(futures, PATIENCE, concurrent.futures.FIRST_EXCEPTION)
        assert (done, not_done) == ({futures[1]}, {futures[0]})
        pool.kill_workers()


class TestSubclass:
    def test_isinstance_as_adaptive_and_requests_futures_ask(self, pool):
        """adaptive looks for the class and reads `_max_workers`; requests-futures asks for it and then pickles the session's method."""
        assert isinstance(pool, concurrent.futures.ProcessPoolExecutor)
        assert isinstance(pool, concurrent.futures.Executor)
        assert issubclass(ProcessPoolExecutor, concurrent.futures.ProcessPoolExecutor)
        assert not isinstance(pool, concurrent.futures.ThreadPoolExecutor)
        assert pool._max_workers == 2
        assert isinstance(pool.submit(square, 2), concurrent.futures.Future)

    def test_a_session_that_submits_its_own_methods(self):
        """As requests-futures' FuturesSession does with a pool of processes."""
        with FuturesSession(executor=ProcessPoolExecutor(2)) as session:
            futures = [session.get(f"/{i}") for i in range(10)]
            assert [future.result(PATIENCE) for future in futures] == [f"got /{i}" for i in range(10)]

    def test_a_class_built_on_ours_keeps_working(self):
        """As APScheduler does: type(pool)(n, …) when the pool is broken."""

        class Mine(ProcessPoolExecutor):
            def submit(self, fn, /, *args, **kwargs):
                return super().submit(fn, *args, **kwargs)

        with Mine(1) as executor, type(executor)(executor._max_workers) as again:
            assert again.submit(square, 2).result(PATIENCE) == 4
            assert list(again.map(square, range(5))) == [0, 1, 4, 9, 16]

    def test_joblib_and_s3transfer_call_it_so(self):
        executor = ProcessPoolExecutor(max_workers=1)
        future = executor.submit(square, 4)
        executor.shutdown(wait=True, cancel_futures=False)
        assert future.result() == 16

    def test_processes_are_found_by_pid_as_supervisors_of_pools_read_them(self, pool):
        pid = pool.submit(os.getpid).result(PATIENCE)
        assert pid in pool._processes
        assert all(isinstance(process.pid, int) for process in pool._processes.values())
        pool.shutdown()
        assert pool._processes is None


class Session:
    def request(self, method, path):
        return f"{'got' if method == 'GET' else method} {path}"


class FuturesSession(Session):
    def __init__(self, executor):
        self.executor = executor
        self._owned = True

    def __getstate__(self):
        return {}

    def request(self, *args):
        if isinstance(self.executor, concurrent.futures.ProcessPoolExecutor):
            return self.executor.submit(Session.request, self, *args)
        return self.executor.submit(super().request, *args)

    def get(self, path):
        return self.request("GET", path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.executor.shutdown()
