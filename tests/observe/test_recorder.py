"""What is recorded of real runs, executors and groups; and that nothing is built while nobody records."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import signal
import sys
import threading
import time
import tracemalloc
import traceback

import pytest

import abreast
from abreast.core import watch
from abreast.core.states import CANCELLED, CRASHED, FAILED, JOINING, OK, RETRIED, TIMEOUT
from abreast.core.gil import Prober
from abreast.observe.recorder import Recorder

KINDS = ["thread", "process", "serial"]


def square(x):
    return x * x


def bad(x):
    if x == 2:
        raise ValueError("no\x1b[31m")
    return x


def flaky(x):
    if abreast.current_task().attempt < 3:
        raise ConnectionError("again")
    return x


def die(x):
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def spin(seconds):
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        pass
    return time.thread_time() - begin


def use_everything():
    for kind in KINDS:
        assert abreast.map(square, range(30), kind=kind) == [x * x for x in range(30)]
        assert len(list(abreast.outcomes(bad, range(4), kind=kind, retries=abreast.Retry(1, wait_initial=0, wait_jitter=0)))) == 4
    for pool in (abreast.ThreadPoolExecutor(2), abreast.ProcessPoolExecutor(1), abreast.SerialExecutor()):
        with pool as executor:
            assert executor.submit(square, 3).result() == 9
            assert executor.with_options(retries=1).submit(square, 3).result() == 9
            assert list(executor.map(square, [1, 2])) == [1, 4]
    for kind in ("thread", "process"):
        with abreast.TaskGroup(kind=kind) as group:
            futures = [group.submit(square, 2), group.start(square, args=(3,))]
        assert [future.result() for future in futures] == [4, 9]
    with concurrent.futures.ThreadPoolExecutor(1) as foreign:
        assert abreast.map(square, range(30), executor=foreign) == [x * x for x in range(30)]


class TestNobodyRecords:
    def test_nothing_is_built(self, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise AssertionError("nobody watches")

        for name in (
            "Log",
            "Measure",
            "Attempts",
            "Told",
            "Watched",
            "this_thread",
            "process_row",
            "joining",
            "usage",
            "value_text",
        ):
            monkeypatch.setattr(watch, name, refuse)
        use_everything()

    def test_no_thread_and_no_descriptor_is_left(self):
        before = len(os.listdir("/proc/self/fd"))
        with abreast.record():
            use_everything()
        assert watch.active == ()
        assert not any(thread.name == "abreast-prober" for thread in threading.enumerate())
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # the guardian's, if this was the first process


class TestRuns:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_attempt_is_there_once(self, kind):
        with abreast.record() as run:
            abreast.map(square, range(500), kind=kind, max_workers=None if kind == "serial" else 2)
        recording = run.recording
        (work,) = recording.works
        assert (work.name, work.kind, work.tasks, work.attempts, work.failed) == ("square", kind, 500, 500, 0)
        assert sorted(each.number for each in recording.attempts) == list(range(500))
        assert {each.call for each in recording.attempts} == {f"square({x})" for x in range(500)}
        assert all(each.outcome == OK and each.begin <= each.end for each in recording.attempts)
        assert all(work.begin <= each.begin and each.end <= work.end for each in recording.attempts)
        assert recording.complete
        for row in recording.rows:
            mine = sorted(each[5:7] for each in recording.attempts if each.row == row.serial)
            assert all(first[1] <= second[0] for first, second in zip(mine, mine[1:], strict=False)), "two at once on a row"

    @pytest.mark.parametrize("kind", KINDS)
    def test_errors_have_their_text_and_do_nothing_on_a_terminal(self, kind):
        with abreast.record() as run:
            list(abreast.outcomes(bad, range(4), kind=kind))
        failed = [each for each in run.tasks if each.outcome == FAILED]
        assert [(each.number, each.error) for each in failed] == [(2, "ValueError: no\\x1b[31m")]
        assert run.stats()["failed"] == 1

    def test_tasks_that_go_again_since_their_process_died_are_counted_once(self):
        def dies(x):
            if x % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

        retry = abreast.Retry(1, wait_initial=0, wait_jitter=0)
        with abreast.record() as run:
            found = list(abreast.outcomes(dies, range(4), kind="process", max_workers=1, chunksize=2, retries=retry))
        stats = run.stats()
        assert (stats["tasks"], stats["failed"]) == (4, sum(each.error is not None for each in found)) == (4, 2)

    @pytest.mark.parametrize("kind", KINDS)
    def test_attempts_that_were_tried_again_are_marked(self, kind):
        with abreast.record() as run:
            abreast.map(flaky, [7], kind=kind, retries=abreast.Retry(5, wait_initial=0, wait_jitter=0))
        assert [(each.attempt, each.outcome) for each in sorted(run.tasks, key=lambda each: each.attempt)] == [
            (1, RETRIED),
            (2, RETRIED),
            (3, OK),
        ]
        stats = run.stats()
        assert (stats["tasks"], stats["attempts"], stats["retries"], stats["failed"]) == (1, 3, 2, 0)

    def test_a_task_whose_process_died(self):
        with abreast.record() as run:
            list(abreast.outcomes(die, range(3), kind="process", max_workers=1))
        assert [(each.number, each.outcome) for each in sorted(run.tasks, key=lambda each: each.number)] == [
            (0, OK),
            (1, CRASHED),
            (2, OK),
        ]
        assert run.stats()["crashes"] == 1

    @pytest.mark.parametrize("kind", ["thread", "process"])
    def test_a_task_over_its_limit(self, kind):
        with abreast.record() as run:
            list(abreast.outcomes(time.sleep, [0.3], kind=kind, task_timeout=0.05))
        (attempt,) = run.tasks
        assert attempt.outcome == TIMEOUT
        assert "task_timeout of 0.05" in attempt.error
        assert attempt.end - attempt.begin > 40_000_000

    @pytest.mark.parametrize("options", [{}, {"name": "slow"}])
    def test_a_call_over_its_limit_that_goes_on(self, options):
        go, threads = threading.Event(), []

        def wait():
            threads.append(threading.current_thread())
            go.wait(30)

        with abreast.record() as run:
            with abreast.ThreadPoolExecutor(1, task_timeout=0.3) as executor:  # on a busy machine it may take a while to begin
                future = (executor.with_options(**options) if options else executor).submit(wait)
                error = future.exception()
            (attempt,) = run.tasks  # now, and not when it returns
            go.set()
            threads[0].join()
            assert run.tasks == [attempt]
        assert attempt.outcome == TIMEOUT
        assert attempt.error == watch.error_text(error)
        assert 0 < attempt.end - attempt.begin < 20_000_000_000
        assert "watch.py" not in error.stack

    def test_resumed_tasks_are_counted_and_are_no_attempts(self, tmp_path):
        abreast.map(square, range(5), journal=tmp_path / "run.db")
        with abreast.record() as run:
            abreast.map(square, range(8), journal=tmp_path / "run.db")
        assert (run.stats()["tasks"], run.stats()["resumed"], len(run.tasks)) == (3, 5, 3)

    @pytest.mark.parametrize("kind", ["thread", "process"])
    def test_computing_and_waiting_are_told_apart(self, kind):
        def both(_):
            cpu = spin(0.03)
            time.sleep(0.05)
            return cpu

        with abreast.record() as run:
            computed = sum(abreast.map(both, range(4), kind=kind, max_workers=1))
        work = run.recording.works[0]
        assert work.cpu / 1e9 == pytest.approx(computed, abs=0.02)
        assert work.wall / 1e9 > computed + 0.19

    def test_what_a_task_over_its_limit_did_is_not_known(self):
        gate = threading.Event()
        with abreast.record() as run:
            found = list(abreast.outcomes(lambda x: x or gate.wait(), [1, 0, 2], max_workers=1, task_timeout=0.2))
            gate.set()
        (work,) = run.recording.works
        (over,) = (task for task in run.tasks if task.outcome == TIMEOUT)
        assert isinstance(found[1].error, abreast.TaskTimeout)
        assert work.unmeasured == over.end - over.begin >= 0.19e9
        assert work.cpu is not None

    @pytest.mark.parametrize("pool", [abreast.ThreadPoolExecutor, abreast.ProcessPoolExecutor, abreast.SerialExecutor])
    def test_calls_with_options_are_there_too(self, pool):
        retry = abreast.Retry(2, wait_initial=0, wait_jitter=0)
        with abreast.record() as run, pool(1) as executor:
            executor.with_options(name="other").submit(square, 3).result()
            executor.with_options(retries=retry).submit(flaky, 4).result()
            executor.submit(square, 5).result()
        found = sorted((each.number, each.call, each.attempt, each.outcome) for each in run.tasks)
        assert found == [
            (0, "square(3)", 1, OK),
            (1, "flaky(4)", 1, RETRIED),
            (1, "flaky(4)", 2, RETRIED),
            (1, "flaky(4)", 3, OK),
            (2, "square(5)", 1, OK),
        ]
        stats = run.stats()
        assert (stats["tasks"], stats["attempts"], stats["failed"], stats["retries"]) == (3, 5, 0, 2)

    def test_waiting_for_results_is_a_span_of_the_thread_that_waits(self):
        with abreast.record() as run:
            abreast.map(time.sleep, [0.05])
        joins = [span for span in run.recording.spans if span.state == JOINING]
        assert joins
        assert {run.recording.rows[span.row].kind for span in joins} == {"main"}
        assert "results of sleep" in {span.what for span in joins}

    def test_inputs_are_shown_as_they_were(self):
        inputs = [[1], [2], "x" * 500]

        def alter(item):
            if isinstance(item, list):
                item.clear()

        class Wild:
            def __repr__(self):
                raise RuntimeError("no")

        with abreast.record() as run:
            abreast.map(alter, [*inputs, Wild()], max_workers=1)
        calls = [each.call for each in sorted(run.tasks, key=lambda each: each.number)]
        assert calls[0].endswith("alter([1])")
        assert calls[1].endswith("alter([2])")
        assert len(calls[2]) <= 80
        assert "Wild" in calls[3]


class TestExecutorsAndGroups:
    @pytest.mark.parametrize("make", [abreast.ThreadPoolExecutor, abreast.ProcessPoolExecutor])
    def test_submit(self, make):
        with abreast.record() as run, make(2) as executor:
            futures = [executor.submit(pow, 2, n) for n in range(5)]
            failing = executor.submit(divmod, 1, 0)
            assert [future.result() for future in futures] == [1, 2, 4, 8, 16]
            assert isinstance(failing.exception(), ZeroDivisionError)
        attempts = sorted(run.tasks, key=lambda each: each.number)
        assert [each.call for each in attempts] == [*(f"pow(2, {n})" for n in range(5)), "divmod(1, 0)"]
        assert [each.outcome for each in attempts] == [OK] * 5 + [FAILED]
        assert attempts[5].error.startswith("ZeroDivisionError")
        assert all(each.queued <= each.begin <= each.end for each in attempts)
        assert {run.recording.rows[each.submitter].kind for each in attempts} == {"main"}

    def test_calls_of_a_process_pool_that_went_the_short_way_before_and_after(self):
        with abreast.ProcessPoolExecutor(1) as executor:
            for _ in range(3):
                assert executor.submit(abs, -1).result() == 1
            with abreast.record() as run:
                assert [executor.submit(abs, -n).result() for n in range(20)] == list(range(20))
            assert [executor.submit(abs, -n).result() for n in range(20)] == list(range(20))
        assert len(run.tasks) == 20

    @pytest.mark.parametrize("kind", ["thread", "process"])
    @pytest.mark.parametrize("max_workers", [None, 1])
    def test_groups(self, kind, max_workers):
        with abreast.record() as run, abreast.TaskGroup(max_workers, kind=kind) as group:
            group.submit(square, 2)
            group.start(square, args=(3,), name="T1")
        assert sorted(each.call for each in run.tasks) == ["square(2)", "square(3)"]
        assert len(run.recording.works) == 1

    def test_what_ended_as_its_group_asked_it_to_has_not_failed(self, caplog):
        begun = threading.Barrier(3)

        def slow():
            begun.wait()
            abreast.sleep(60)

        def bad():
            begun.wait()
            raise KeyError("mine")

        with (
            caplog.at_level("INFO", "abreast.tasks"),
            abreast.record(observers=["log"]) as run,
            pytest.raises(ExceptionGroup),
            abreast.TaskGroup() as group,
        ):
            for fn in (slow, slow, bad):
                group.submit(fn)
        assert sorted(task.outcome for task in run.tasks) == [FAILED, CANCELLED, CANCELLED]
        stats = run.stats()
        assert (stats["tasks"], stats["failed"], stats["cancelled"]) == (3, 1, 2)
        assert "1 of 3 tasks failed with KeyError" in str(run.report())
        assert sorted(record.levelname for record in caplog.records) == ["INFO", "INFO", "WARNING"]

    def test_what_ended_as_its_run_asked_it_to_has_not_failed(self):
        begun = threading.Barrier(2)

        def work(x):
            begun.wait()
            if x == 1:
                raise KeyError("mine")
            abreast.sleep(60)

        with abreast.record() as run:
            with pytest.raises(KeyError):
                abreast.map(work, range(2), max_workers=2)
            for thread in threading.enumerate():  # who is left behind, and asked to end
                if thread.name.startswith("work"):
                    thread.join()
        assert run.stats()["failed"] == 1
        assert sorted(task.outcome for task in run.tasks) in ([FAILED], [FAILED, CANCELLED])

    def test_a_thread_of_ones_own_in_a_group(self):
        class Mine(threading.Thread):
            def run(self):
                time.sleep(0.01)

        with abreast.record() as run, abreast.TaskGroup() as group:
            group.start(Mine(name="mine"))
        (attempt,) = run.tasks
        assert run.recording.rows[attempt.row].name == "mine"

    def test_a_thread_has_a_row_of_its_own_although_idents_are_used_again(self):
        with abreast.record() as run:
            for _ in range(5):
                with abreast.ThreadPoolExecutor(1) as executor:
                    executor.submit(square, 1).result()
        assert len({each.row for each in run.tasks}) == 5

    def test_the_traceback_of_a_task_is_the_users(self):
        with abreast.record(), abreast.ThreadPoolExecutor(1) as executor:
            error = executor.submit(bad, 2).exception()
        frames = []
        trace = error.__traceback__
        while trace is not None:
            frames.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert frames[-1] == "bad"


class TestBounds:
    def test_what_is_too_much_is_counted_and_sums_are_exact(self):
        with abreast.record(limit=100) as run:
            abreast.map(square, range(3000), max_workers=2)
        recording = run.recording
        assert len(recording.attempts) <= 100
        assert len(recording.attempts) + recording.dropped == 3000 == recording.works[0].attempts

    def test_when_an_executor_ended_is_known_of_what_was_dropped(self):
        with abreast.record(limit=2) as run, abreast.ThreadPoolExecutor(2) as executor:
            ends = [executor.submit(lambda: (time.sleep(0.01), time.perf_counter_ns())[1]) for _ in range(6)]
        (work,) = run.recording.works
        assert len(run.tasks) == 2
        assert work.end >= max(end.result() for end in ends) - run._recorder._zero
        assert run.report().summary.works[0].share <= 1.0

    def test_what_the_gil_held_up_is_estimated_of_what_was_dropped(self):
        with abreast.record() as whole, abreast.record(limit=1) as short:
            for prober in (whole._recorder._prober, short._recorder._prober):
                if prober is not None:
                    prober.stop()
                    later = time.perf_counter_ns() + 10**12
                    prober.times, prober.late, prober.cpus = (
                        [later + n for n in range(20)],
                        list(range(21)),
                        [0] * 20,
                    )  # all were late
            abreast.map(spin, [0.03] * 6, max_workers=3)
        (whole_work,), (short_work,) = whole.recording.works, short.recording.works
        assert len(short.tasks) == 1
        assert (short_work.gil, short_work.gil_bound) == pytest.approx((whole_work.gil, whole_work.gil_bound))
        if whole._recorder._prober is not None:
            assert short_work.gil > 0

    def test_a_run_that_ends_after_the_block_has_no_end_behind_it(self):
        with abreast.record() as run:
            results = abreast.imap(square, range(100_000), max_workers=1, buffersize=2)
            for _ in range(20):
                next(results)
        for _ in range(20):
            next(results)
        results.close()  # which gives up what waits
        (work,) = run.recording.works
        assert 0 < work.tasks == len(run.tasks) <= 22  # the last ones may have been taken and not yet told
        assert work.end <= run.recording.end
        assert work.cancelled == 0

    def test_a_run_in_which_nothing_had_to_run_is_there(self, tmp_path):
        abreast.map(square, range(5), journal=tmp_path / "run.db")
        with abreast.record() as run:
            abreast.map(square, range(5), journal=tmp_path / "run.db")
        assert (run.stats()["tasks"], run.stats()["resumed"]) == (0, 5)
        assert "5 results from the journal, and nothing had to run" in str(run.report())

    def test_many_works_take_no_longer_than_their_attempts(self):
        def took(works):
            recorder = Recorder()
            for n in range(works):
                log = watch.Log("f", "thread", 1)
                recorder._chunks.append((log, watch.Attempts(0, None, 0, n, [n + 1], {}, [1], are_texts=False)))
            begin = time.thread_time()
            assert len(recorder.recording().works) == works
            return time.thread_time() - begin

        assert min(took(4000) for _ in range(3)) < 10 * min(took(1000) for _ in range(3))  # not 16 times

    def test_rows_that_are_older_than_the_recording_begin_with_it(self):
        with abreast.ThreadPoolExecutor(1) as executor:
            for _ in range(2):
                with abreast.record() as run:
                    executor.submit(square, 2).result()
                executor.submit(square, 2).result()
            recording = run.recording
        assert recording.rows
        assert all(0 <= row.begin <= row.end <= recording.end for row in recording.rows)

    @pytest.mark.parametrize("kind", ["thread", "process"])
    def test_rows_last_as_long_as_what_they_did(self, kind):
        with abreast.record() as run:
            abreast.map(time.sleep, [0.02], kind=kind)
        (task,) = run.tasks
        row = run.recording.rows[task.row]
        assert row.begin <= task.begin < task.end <= row.end

    def test_a_finalizer_may_submit_while_a_log_is_made(self, monkeypatch):
        with abreast.SerialExecutor() as one, abreast.SerialExecutor() as other:

            class Log(watch.Log):
                def __init__(self, name, kind, workers):
                    super().__init__(name, kind, workers)
                    if not other_called:  # as a collection of garbage would, which may come with any object that is made
                        other_called.append(1)
                        other.submit(square, 2)

            other_called = []
            monkeypatch.setattr(watch, "Log", Log)

            def use():
                with abreast.record() as run:
                    one.submit(square, 3)
                calls.extend(task.call for task in run.tasks)

            calls = []
            thread = threading.Thread(target=use, daemon=True)
            thread.start()
            thread.join(30)
            assert sorted(calls) == ["square(2)", "square(3)"]

    def test_blocks_in_two_threads_each_see_both(self):
        both = threading.Barrier(2)
        found = []

        def use(inputs):
            with abreast.record() as run:
                both.wait()
                abreast.map(square, inputs, kind="serial")
                both.wait()
            found.append(len(run.tasks))

        threads = [threading.Thread(target=use, args=[range(n)]) for n in (2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [5, 5]

    @pytest.mark.parametrize("limit", [1, 100])
    def test_an_executor_is_one_work_although_others_record_too(self, limit):
        gate = threading.Event()
        with abreast.ThreadPoolExecutor(2) as executor:
            with abreast.record(limit=limit) as outer:
                first = executor.submit(gate.wait)  # told when another log has begun
                executor.submit(square, 0).result()
                for n in (1, 2):
                    with abreast.record() as inner:
                        executor.submit(square, n).result()
                        gate.set()
                        first.result()
                    assert [(task.number, task.call) for task in inner.tasks] == [(0, f"square({n})")]
        (work,) = outer.recording.works
        assert (work.tasks, work.attempts) == (4, 4)
        if limit == 100:
            assert sorted((task.number, task.call) for task in outer.tasks) == [
                (0, "Event.wait()"),
                (1, "square(0)"),
                (2, "square(1)"),
                (3, "square(2)"),
            ]

    def test_blocks_within_blocks_see_the_same(self):
        with abreast.record() as outer:
            abreast.map(square, [1])
            with abreast.record() as inner:
                abreast.map(square, [2, 3])
        assert sorted(each.call for each in outer.tasks) == ["square(1)", "square(2)", "square(3)"]
        assert sorted(each.call for each in inner.tasks) == ["square(2)", "square(3)"]

    def test_what_ends_after_the_block_is_not_in_it(self):
        gate = threading.Event()
        with abreast.ThreadPoolExecutor(1) as executor:
            with abreast.record() as run:
                future = executor.submit(gate.wait)
                assert not run.recording.complete
            gate.set()
            future.result()
        assert run.tasks == []

    def test_what_begins_after_the_block_leaves_nothing(self):
        gate = threading.Event()
        with abreast.ThreadPoolExecutor(1) as executor:
            with abreast.record() as run:
                executor.submit(gate.wait)
                later = executor.submit(square, 3)
            gate.set()
            assert later.result() == 9
        assert run.tasks == []

    def test_many_threads_at_once(self):
        with abreast.record() as run, abreast.ThreadPoolExecutor(16) as executor:
            barrier = threading.Barrier(16)

            def work(_):
                barrier.wait()
                return [executor.submit(square, n) for n in range(50)]

            futures = [future for some in [executor.submit(work, n) for n in range(16)] for future in some.result()]
            concurrent.futures.wait(futures)
        assert len(run.tasks) == 16 + 16 * 50
        assert sorted(each.number for each in run.tasks) == list(range(16 + 16 * 50))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
    def test_nobody_watches_in_a_forked_child(self):
        with abreast.record() as run:
            abreast.map(square, [1])
            with run._recorder._lock:  # as another thread may hold it just now
                if (pid := os.fork()) == 0:
                    told = watch.active == () and list(abreast.SerialExecutor().imap(square, [2])) == [4]
                    os._exit(0 if told else 1)
            assert os.waitpid(pid, 0)[1] == 0
            assert watch.active
        assert len(run.tasks) == 1

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
    def test_a_forked_child_has_rows_of_its_own(self):
        with abreast.record():
            abreast.map(square, [1])
            if (pid := os.fork()) == 0:
                row = watch.this_thread()
                os._exit(0 if row.pid == os.getpid() else 1)
            assert os.waitpid(pid, 0)[1] == 0


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "error", "text"),
        [
            ({"path": "x.txt"}, ValueError, "must end with"),
            ({"path": 3}, TypeError, "path must be the name of a file"),
            ({"limit": 0}, ValueError, "limit must be greater than 0"),
            ({"limit": True}, TypeError, "limit must be an integer"),
            ({"observers": "log"}, TypeError, "must be a list"),
            ({"observers": [3]}, TypeError, "neither"),
        ],
    )
    def test_wrong_ones_fail_at_the_call(self, arguments, error, text):
        with pytest.raises(error, match=text):
            abreast.record(**arguments)

    def test_an_error_of_the_block_goes_before_one_of_saving(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        with pytest.raises(KeyError) as caught, abreast.record(folder / "run.json"):  # noqa: PT012  # at the end of the block
            folder.rmdir()
            raise KeyError("mine")
        (note,) = caught.value.__notes__
        assert note.startswith("abreast: and the recording was not saved: FileNotFoundError")

    def test_one_block_each(self):
        run = abreast.record()
        with run:
            pass
        with pytest.raises(RuntimeError, match="one block"), run:
            pass


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="no GIL")
def test_threads_that_compute_are_held_up_by_the_gil():
    with abreast.record() as run:
        abreast.map(spin, [0.15] * 3, max_workers=3)
    work = run.recording.works[0]
    assert work.gil > 0.1 * work.wall
    assert work.gil <= work.gil_bound <= work.wall


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_thread_that_has_ended_keeps_no_descriptor():
    with abreast.record():
        abreast.map(square, [1], max_workers=1)
        before = descriptors()
        for _ in range(10):
            with abreast.TaskGroup() as group:
                for number in range(5):
                    group.submit(square, number)
        assert descriptors() <= before + 5  # those of the last group may be about to end


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/schedstat"), reason="not told here")
def test_a_thread_that_is_watched_again_is_measured_again():
    for _ in range(3):
        with abreast.record():
            abreast.map(square, [1], kind="serial")
            assert watch.this_thread().runqueue() is not None


def function_names(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def errors_of_everything():
    for pool in (abreast.ThreadPoolExecutor(1), abreast.SerialExecutor()):
        with pool as executor:
            yield executor.submit(bad, 2).exception()
            yield executor.with_options(retries=abreast.Retry(1, wait_initial=0, wait_jitter=0)).submit(bad, 2).exception()
    with pytest.raises(BaseExceptionGroup) as caught, abreast.TaskGroup() as group:
        group.submit(bad, 2)
    yield caught.value.exceptions[0]
    with pytest.raises(BaseExceptionGroup) as caught, abreast.TaskGroup() as group:
        group.start(threading.Thread(target=bad, args=(2,)))
    yield caught.value.exceptions[0]


def test_tracebacks_are_as_they_are_without():
    expected = [function_names(error) for error in errors_of_everything()]
    with abreast.record():
        assert [function_names(error) for error in errors_of_everything()] == expected
    assert all(names[-1] == "bad" for names in expected)


def test_texts_of_inputs_of_different_kinds_and_of_retries():
    failed = set()

    def fail_once(x):
        if x == "b" and x not in failed:
            failed.add(x)
            raise ConnectionError(x)

    def inputs():
        yield from [1, 2]
        yield from ["a", "b", "c"]

    with abreast.record() as run:
        retry = abreast.Retry(1, wait_initial=0, wait_jitter=0)
        for _ in abreast.imap(fail_once, inputs(), max_workers=1, buffersize=2, chunksize=1, retries=retry):
            pass
    assert sorted(task.call.partition("(")[2] for task in run.tasks) == ["'a')", "'b')", "'b')", "'c')", "1)", "2)"]


def test_no_text_is_kept_of_what_is_resumed(tmp_path, monkeypatch):
    inputs = [str(number) for number in range(50)]
    abreast.map(len, inputs, journal=tmp_path / "run.db")
    logs = []
    init = watch.Log.__init__
    monkeypatch.setattr(watch.Log, "__init__", lambda self, *args: (init(self, *args), logs.append(self))[0])
    with abreast.record(), abreast.imap(len, inputs, journal=tmp_path / "run.db") as results:
        for _ in range(40):
            next(results)
        assert [log.calls for log in logs] == [{}]


class Exits(Exception):
    def __str__(self):
        raise SystemExit(3)


def exits(_):
    raise Exits


@pytest.mark.parametrize("kind", ["thread", "serial"])
def test_an_error_without_a_text_is_delivered(kind):
    with abreast.record() as run:
        assert [type(outcome.error) for outcome in abreast.outcomes(exits, [1, 2], kind=kind)] == [Exits, Exits]
    assert [task.outcome for task in run.tasks] == [FAILED, FAILED]


def test_a_finalizer_under_the_recorders_lock_may_be_watched_itself():
    with abreast.record(limit=1) as run:  # of what is not kept the sums are made at once
        log = watch.Log("f", "thread", 1)
        log.attempts(watch.Attempts(2, None, 0, 0, [1], {}, [1], are_texts=False))

        class Failed(dict):
            def values(self):  # as a collection of garbage, which may run a finalizer at any step
                log.attempts(watch.Attempts(1, None, 0, 0, [1], {}, [1], are_texts=False))
                return super().values()

        log.attempts(watch.Attempts(0, None, 0, 0, [1], Failed(), [1], are_texts=False))
    assert run.stats()["tasks"] == 3


def test_a_folder_that_is_not_there_is_told_before_the_block(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*missing' to write it to; make it first: '.*run\.json'$"):
        abreast.record(tmp_path / "missing" / "run.json")
    abreast.record("run.json")  # here


def test_an_error_at_writing_names_the_file_once(tmp_path):
    run = abreast.record(tmp_path / "run.json")
    with pytest.raises(FileNotFoundError) as caught, run:  # noqa: PT012  # at the end of the block
        tmp_path.rename(tmp_path.with_name("moved"))
    assert str(caught.value).endswith("run.json'")


class TestTexts:
    @pytest.mark.parametrize("kind", ["serial", "thread"])
    def test_an_integer_that_python_does_not_show(self, kind):
        number = 10**5000  # above sys.get_int_max_str_digits()
        with abreast.record() as run:
            assert abreast.map(int.bit_length, [number, 3], kind=kind) == [16610, 2]
            assert abreast.map(len, [[number]], kind=kind) == [1]
            with abreast.ThreadPoolExecutor(1) as executor:
                assert executor.submit(int.bit_length, number).result() == 16610
        shown = {task.call for task in run.tasks}
        assert shown == {"int.bit_length(<int of 16,610 bits>)", "int.bit_length(3)", "len([<int of 16,610 bits>])"}

    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_of_many_bytes_few_are_looked_at(self, kind):
        many = kind(1_000_000)
        tracemalloc.start()
        try:
            text = watch.value_text(many)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 100_000  # the whole text has 4 MB
        assert len(text) < watch.CALL
        assert text.endswith("… (1,000,000 bytes)")
        assert watch.value_text(kind(b"\x1b")) == repr(kind(b"\x1b"))

    def test_names_do_nothing_on_a_terminal(self, caplog):
        def fn(x, **_):
            return x

        class Bad:
            def __repr__(self):
                raise ValueError

        fn.__qualname__ = "evil\x1b[31m\nERROR forged"
        Bad.__name__ = "Bad\x1b[2J"
        with (
            caplog.at_level("INFO", "abreast.tasks"),
            abreast.record(observers=["log"]) as run,
            abreast.ThreadPoolExecutor(1, thread_name_prefix="w\x1b[1m") as executor,
        ):
            executor.submit(fn, Bad(), **{"key\x1b": 1}).result()
            list(executor.map(fn, [1]))
        assert len(run.tasks) == 2
        assert all(task.call.isprintable() for task in run.tasks)
        assert len(caplog.messages) == 2
        assert all(message.isprintable() for message in caplog.messages), caplog.messages


class TestProber:
    def test_who_waits_for_a_cpu_is_not_held_up_by_the_gil(self, monkeypatch):
        waited = itertools.count(0, 1_000_000_000)  # a busy machine
        monkeypatch.setattr(watch.Thread, "runqueue", lambda _: next(waited))
        prober = Prober()
        prober.start()
        while len(prober.times) < 3:
            spin(0.01)
        prober.stop()
        assert prober.late[2:] == [prober.late[1]] * (len(prober.late) - 2)  # of the first one, nothing is known before

    def test_what_was_before_the_work_is_no_part_of_it(self):
        prober = Prober()
        prober.times = [10, 20, 30, 40, 50, 60]
        prober.late = [0, 1, 2, 3, 4, 4, 4]  # late until 40
        assert prober.share(45, 55) > 0.5
        assert prober.share(45, 55, 42) == 0
        assert prober.share(41, 42, 100) == 0
        assert prober.share(35, 36, 36) == 1 / 5  # one late look says little
