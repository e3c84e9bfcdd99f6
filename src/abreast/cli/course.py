"""A short course on concurrency: the code that ``abreast demo`` shows is the code that it runs, here.

It is what a user would write, but for two names: `sleep` can be made short and is watched, `print` writes a line in one piece (Python
writes text and line end apart, and two threads would mix them), and is watched too. Both belong to the `Stage`.
"""

from __future__ import annotations

import os
import threading

import abreast
from abreast import TaskGroup, ThreadPoolExecutor
from abreast.cli.stage import stage

__all__ = [
    "A",
    "B",
    "a_group",
    "a_pool_of_three",
    "all_at_once",
    "one_after_another",
    "one_call",
    "square_number",
    "task1",
    "task2",
    "two_named_threads",
    "two_subclasses",
]

sleep = stage.sleep
print = stage.print  # noqa: A001  # see above

numbers = range(1, 10)


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
