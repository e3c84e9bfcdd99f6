"""Short tasks that compute, against bare processes that share nothing: from which length on a pool is worth its cost."""

from __future__ import annotations

import multiprocessing
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from benchmarks.case import ABREAST, STANDARD, Case, Contender, peer
from benchmarks.cases.process_cpu import BARE, bare, executor, mapped, measured
from benchmarks.cases.process_submit import WORKERS, by_abreast, by_loky, by_standard, unavailable, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHUNKS = 10  # for each worker, where a peer has to be told: what it costs to send them is nothing then


def cases(*, quick: bool) -> list[Case]:
    return [
        case(50, 400 if quick else 4_000, 1.15, rounds=2 if quick else 15),
        case(200, 200 if quick else 2_000, 1.08, rounds=2 if quick else 15),
    ]


def case(us: int, tasks: int, limit: float, *, rounds: int) -> Case:
    chunksize = tasks // WORKERS // CHUNKS
    tuned = f"chunksize={chunksize}"

    def contender(
        run: Callable[[int, int], float], package: str | None = None, module: str | None = None, *, note: str
    ) -> Contender:
        return Contender(partial(measured, run, tasks, us / 1e6, cycle([True, False])), package, module, note=note)

    return Case(
        name=f"process_short_{us}us",
        description=(
            f"map {tasks:,} tasks of {us} us of Python on {WORKERS} processes that stand already, in times of {WORKERS} bare ones "
            "with half of the same loop each, measured directly before or after"
        ),
        unit="times the bare processes",
        contenders={
            ABREAST: contender(partial(executor_map, by_abreast), note="executor.map"),
            "abreast, chunksize=1": contender(partial(executor_map, by_abreast, chunksize=1), note="executor.map"),
            "abreast, submit": contender(partial(executor, by_abreast), note="a future for each"),
            BARE: contender(bare, note="against themselves: the noise of this machine"),
            STANDARD: contender(partial(executor_map, by_standard, chunksize=chunksize), note=tuned),
            "multiprocessing Pool": contender(multiprocessing_pool, note="map; chunks of a static size"),
            "multiprocessing Pool, chunksize=1": contender(partial(multiprocessing_pool, chunksize=1), note="map"),
            "Pebble": contender(partial(pebble, chunksize=chunksize), "Pebble", "pebble", note=f"map, {tuned}"),
            "loky": contender(partial(executor_map, by_loky, chunksize=chunksize), "loky", "loky", note=tuned),
        },
        reference=BARE,
        goal=f"at most {limit} times the bare processes, by executor.map",
        reached=partial(reached, limit),
        rounds=rounds,
        unavailable=unavailable(WORKERS),
    )


def reached(limit: float, medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= limit  # a ratio of pairs already


def executor_map(make: Callable[[int], Any], tasks: int, loops: int, **options: int) -> float:
    with make(WORKERS) as ex:
        warm(ex.submit)
        return mapped(lambda fn, items: list(ex.map(fn, items, **options)), tasks, loops)


def multiprocessing_pool(tasks: int, loops: int, *, chunksize: int | None = None) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        return mapped(partial(pool.map, chunksize=chunksize), tasks, loops)


def pebble(tasks: int, loops: int, **options: int) -> float:
    with peer("pebble").ProcessPool(max_workers=WORKERS) as pool:
        return mapped(lambda fn, items: list(pool.map(fn, items, **options).result()), tasks, loops)
