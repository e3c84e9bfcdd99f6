"""From nothing to all results of a short map, in a fresh interpreter: what a script pays that maps once, or again with a new pool."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.case import ABREAST, Case, Contender
from benchmarks.cases.process_start import abreast_pool, in_fresh_interpreter, multiprocessing_pool, standard_pool
from benchmarks.cases.process_submit import WORKERS, unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS = 20_000
TUNED = 500  # tasks in a chunk
REFERENCE = "standard library (forkserver)"

# As in process_start: the code is no file, the clock begins after the imports and stops before the pool's end. `square` is in a
# module that imports nothing, since a worker has to import it.
CHILD = """
import multiprocessing, time
{imports}
from benchmarks.tasks import square
for _ in range({pools}):
    start = time.perf_counter()
    {make}
    results = {run}
    seconds = time.perf_counter() - start
    {end}
    assert results == [x * x for x in range({tasks})]
print(seconds * 1000)
"""


def cases(*, quick: bool) -> list[Case]:
    return [
        case("cold", 1, "the first pool of the process", 120, quick=quick),
        case("second", 2, "a second pool, after the first has ended", 30, quick=quick),
    ]


def case(name: str, pools: int, text: str, limit: float, *, quick: bool) -> Case:
    return Case(
        name=f"process_first_{name}",
        description=f"make a pool of {WORKERS} processes and map x*x over {TASKS:,} numbers, in a fresh interpreter, imports done: {text}",
        unit="ms",
        contenders={
            ABREAST: by_abreast(pools),
            REFERENCE: by_standard("forkserver", pools),
            "standard library (fork)": by_standard("fork", pools),
            "multiprocessing Pool (forkserver)": by_multiprocessing("forkserver", pools),
            "multiprocessing Pool (fork)": by_multiprocessing("fork", pools),
            "loky": by_loky(pools),
        },
        reference=REFERENCE,
        goal=f"at most {limit} ms",
        reached=partial(reached, limit),
        rounds=2 if quick else 15,
        warm_ups=1,  # compiles the bytecode
        unavailable=unavailable(WORKERS),
    )


def reached(limit: float, medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= limit


def contender(
    pools: int,
    imports: str,
    make: str,
    run: str,
    end: str,
    packages: tuple[str | None, str | None] = (None, None),
    *,
    note: str,
) -> Contender:
    code = CHILD.format(pools=pools, imports=imports, make=make, run=run, end=end, tasks=TASKS)
    return Contender(partial(in_fresh_interpreter, code), package=packages[0], module=packages[1], note=note)


def by_abreast(pools: int) -> Contender:
    run = f"list(pool.map(square, range({TASKS})))"
    return contender(pools, *abreast_pool(WORKERS), run, "pool.shutdown()", note="executor.map")


def by_standard(method: str, pools: int) -> Contender:
    run = f"list(pool.map(square, range({TASKS}), chunksize={TUNED}))"
    return contender(pools, *standard_pool(WORKERS, method), run, "pool.shutdown()", note=f"chunksize={TUNED}")


def by_multiprocessing(method: str, pools: int) -> Contender:
    run, end = f"pool.map(square, range({TASKS}))", "pool.close(); pool.join()"
    return contender(pools, *multiprocessing_pool(WORKERS, method), run, end, note="map; chunks of a static size")


def by_loky(pools: int) -> Contender:
    make, run = f"pool = loky.ProcessPoolExecutor({WORKERS})", f"list(pool.map(square, range({TASKS}), chunksize={TUNED}))"
    return contender(pools, "import loky", make, run, "pool.shutdown()", ("loky", "loky"), note=f"chunksize={TUNED}")
