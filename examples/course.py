"""A short course on concurrency, told with abreast: two named threads, two Thread subclasses, one by one, a pool of three.

python examples/course.py          about 14 seconds, as the course does it
python examples/course.py --fast   every sleep a tenth of that
"""

from __future__ import annotations

import os
import sys
import threading
import time

from abreast import ThreadPoolExecutor

SPEED = 10 if "--fast" in sys.argv else 1


def sleep(seconds: float) -> None:
    time.sleep(seconds / SPEED)


def task(message: str, seconds: float) -> None:
    sleep(seconds)
    print(f"{message}: {threading.current_thread().name}, process {os.getpid()}")


class Counter(threading.Thread):
    def __init__(self, name: str, pause: float) -> None:
        super().__init__(name=name)
        self.pause = pause

    def run(self) -> None:
        for n in range(1, 6):
            print(f"{self.name} {n}")
            sleep(self.pause)


def square_number(number: int) -> int:
    sleep(0.5)
    return number * number


def two_named_threads() -> None:
    one = threading.Thread(target=task, args=("Task 1", 3), name="T1")
    two = threading.Thread(target=task, args=("Task 2", 1), name="T2")
    one.start()
    two.start()
    one.join()
    two.join()
    print(f"{threading.current_thread().name}, process {os.getpid()}")


def two_subclasses() -> None:
    a, b = Counter("A", 1), Counter("B", 0.5)
    a.start()
    sleep(0.5)
    b.start()
    a.join()
    b.join()
    print("A and B are complete")


def one_after_another() -> list[int]:
    return list(map(square_number, range(1, 10)))


def a_pool_of_three() -> list[int]:
    with ThreadPoolExecutor(max_workers=3) as executor:
        return list(executor.map(square_number, range(1, 10)))


if __name__ == "__main__":
    for step in (two_named_threads, two_subclasses, one_after_another, a_pool_of_three):
        print(f"--- {step.__name__.replace('_', ' ')}")
        begun = time.perf_counter()
        result = step()
        if result:
            print(*result)
        print(f"{time.perf_counter() - begun:.2f} s")
