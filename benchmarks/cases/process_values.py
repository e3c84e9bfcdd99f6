"""Map whose results are objects of a class: each is pickled with its attributes, and made anew here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.case import ABREAST, STANDARD, Case, Contender
from benchmarks.cases import process_map
from benchmarks.cases.process_map import TUNED
from benchmarks.cases.process_submit import WORKERS, by_abreast, by_loky, by_standard, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIMIT = 3  # us per task


@dataclass(frozen=True)
class Point:
    x: int
    y: int


def point(x: int) -> Point:
    return Point(x, -x)


def pair(x: int) -> tuple[int, int]:
    return x, -x


def cases(*, quick: bool) -> list[Case]:
    tasks = 20_000 if quick else 200_000
    return [
        case("process_values_tuple", pair, tasks, "returns a tuple of two of each", rounds=2 if quick else 9),
        case("process_values_object", point, tasks, "makes a small frozen dataclass of each", rounds=2 if quick else 9),
    ]


def case(name: str, fn: Callable[[int], object], tasks: int, text: str, *, rounds: int) -> Case:
    tuned = f"chunksize={TUNED:,}"

    def contender(
        run: Callable[[Callable[[int], object], int], float], package: str | None = None, module: str | None = None, *, note: str
    ) -> Contender:
        return Contender(partial(run, fn, tasks), package, module, note=note)

    return Case(
        name=name,
        description=f"map a function that {text} of {tasks:,} numbers, {WORKERS} processes that stand already",
        unit="us per task",
        contenders={
            ABREAST: contender(partial(process_map.executor, by_abreast), note="executor.map"),
            "abreast.map": contender(process_map.by_function, note="with executor="),
            STANDARD: contender(partial(process_map.executor, by_standard, chunksize=TUNED), note=tuned),
            "multiprocessing Pool": contender(process_map.multiprocessing_pool, note="map; chunks of a static size"),
            "loky": contender(partial(process_map.executor, by_loky, chunksize=TUNED), "loky", "loky", note=tuned),
            "mpire": contender(process_map.mpire, "mpire", "mpire", note="static split"),
            "Pebble": contender(partial(process_map.pebble, chunksize=TUNED), "Pebble", "pebble", note=tuned),
            "joblib": contender(
                partial(process_map.joblib, batch_size=TUNED), "joblib", "joblib", note=f"loky; batch_size={TUNED:,}"
            ),
        },
        reference=STANDARD,
        goal=f"at most {LIMIT} us, by executor.map",
        reached=reached,
        rounds=rounds,
        unavailable=unavailable(WORKERS),
    )


def reached(medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= LIMIT
