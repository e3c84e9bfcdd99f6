"""A short course on concurrency: the code that ``abreast demo`` shows is the code that it runs, here.

It is what a user would write, but for two names: `sleep` can be made short and is watched, `print` writes a line in one piece (Python
writes text and line end apart, and two threads would mix them), and is watched too. Both belong to the `Stage`, as does `show`, which
prints what tasks say of themselves. Functions that run in a worker process return what they have to say: the stage is in this one.
"""

from __future__ import annotations

import os
import sys
import threading
from time import perf_counter
from typing import TYPE_CHECKING

import abreast
from abreast import TaskGroup, ThreadPoolExecutor
from abreast.cli.stage import done, private_memory, stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from abreast.cli.stage import Done

__all__ = [
    "A",
    "B",
    "a_crash",
    "a_group",
    "a_pool_of_three",
    "add_up",
    "all_at_once",
    "computing_in_processes",
    "computing_on_threads",
    "computing_one_after_another",
    "count_to",
    "interrupted",
    "memory_of",
    "one_after_another",
    "one_call",
    "square_number",
    "square_or_die",
    "task1",
    "task2",
    "time_to_start",
    "two_named_threads",
    "two_subclasses",
    "what_is_shared",
    "what_one_costs",
]

sleep = stage.sleep
print = stage.print  # noqa: A001  # see above
show = stage.show
show_turns = stage.show_turns

numbers = range(1, 10)
COUNT = 5_250_000
counts = [COUNT] * 4
"""How much each of the tasks that compute has to do; the demo makes it less with ``--fast``."""


def task1() -> str:
    sleep(3)
    print("Task 1:", threading.current_thread().name, "of process", os.getpid())
    return "one"


def task2() -> str:
    sleep(1)
    print("Task 2:", threading.current_thread().name, "of process", os.getpid())
    return "two"


def two_named_threads() -> None:
    one = threading.Thread(target=task1, name="T1")
    two = threading.Thread(target=task2, name="T2")
    one.start()
    two.start()
    one.join()
    two.join()
    print("Main:", threading.current_thread().name, "of process", os.getpid())


def a_group() -> None:
    with TaskGroup() as group:
        one = group.start(task1, name="T1")
        two = group.start(task2, name="T2")
    print("Results:", one.result(), two.result())


class A(threading.Thread):
    def run(self) -> None:
        for number in range(1, 6):
            print("A", number)
            sleep(1)


class B(threading.Thread):
    def run(self) -> None:
        for number in range(1, 6):
            print("B", number)
            sleep(0.5)


def two_subclasses() -> None:
    with TaskGroup() as group:
        group.start(A(name="A"))
        sleep(0.5)
        group.start(B(name="B"))
    print("A and B are complete")


def square_number(number: int) -> int:
    sleep(0.5)
    return number * number


def one_after_another() -> list[int]:
    results = list(map(square_number, numbers))
    print(*results)
    return results


def a_pool_of_three() -> list[int]:
    with ThreadPoolExecutor(max_workers=3) as executor:
        results = list(executor.map(square_number, numbers))
    print(*results)
    return results


def one_call() -> list[int]:
    results = abreast.map(square_number, numbers, max_workers=3)
    print(*results)
    return results


def all_at_once() -> list[int]:
    results = abreast.map(square_number, numbers, max_workers=9)
    print(*results)
    return results


def add_up(count: int) -> Done:
    begin = perf_counter()
    total = 0
    for number in range(count):
        total += number * number % 7
    return done(total, begin)  # tells its thread and process, too


def computing_one_after_another() -> None:
    show(map(add_up, counts))


def computing_on_threads() -> None:
    show(abreast.map(add_up, counts))


def computing_in_processes() -> None:
    show(abreast.map(add_up, counts, kind="process"))


steps: list[tuple[str, int, float]] = []


def count_to(last: int, name: str, together: threading.Barrier) -> None:
    together.wait()
    for number in range(1, last + 1):
        steps.append((name, number, perf_counter()))


def interrupted() -> None:
    together, interval = threading.Barrier(2), sys.getswitchinterval()
    sys.setswitchinterval(0.001)  # seconds that a thread may run when another wants to; 0.005 by default
    with TaskGroup() as group:
        for name in "AB":
            group.submit(count_to, 50_000, name, together)
    sys.setswitchinterval(interval)
    show_turns(steps)


def what_is_shared() -> None:
    seen: list[str] = []

    def append(word: str) -> list[str]:
        seen.append(word)
        return seen

    print("Thread:", *abreast.map(append, ["one"]))
    print("Here, after the thread:", seen)
    print("Process:", *abreast.map(append, ["two"], kind="process"))
    print("Here, after the process:", seen)


def time_to_start(pool: Callable[..., Executor]) -> float:
    begin = perf_counter()
    with pool(max_workers=1) as executor:
        executor.submit(abs, -1).result()
        return 1000 * (perf_counter() - begin)


def memory_of(threads: int) -> tuple[float, float]:
    process = private_memory()
    barrier = threading.Barrier(threads + 1, timeout=20)

    def wait_twice() -> None:
        barrier.wait()
        barrier.wait()

    with TaskGroup() as group:
        for _ in range(threads):
            group.submit(wait_twice)
        barrier.wait()
        more = private_memory() - process
        barrier.wait()
    return process, more / threads


def what_one_costs() -> None:
    thread = min(time_to_start(ThreadPoolExecutor) for _ in range(5))
    process = min(time_to_start(abreast.ProcessPoolExecutor) for _ in range(2))
    print(f"To start: thread {thread:.2f} ms, process {process:.0f} ms")
    ((process, thread),) = abreast.map(memory_of, [50], kind="process")
    print(f"Memory: thread {thread:.0f} kB, process {process:,.0f} kB")


def square_or_die(number: int) -> int:
    if number == 3:
        os._exit(3)  # the process is gone, as after a crash in C code
    return number * number


def a_crash() -> None:
    for outcome in abreast.outcomes(square_or_die, range(1, 5), kind="process"):
        if outcome.ok:
            print(outcome.input, "gives", outcome.value)
        else:
            print(outcome.input, "fails:", outcome.error)
