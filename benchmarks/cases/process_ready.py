"""From nothing to ten processes that have all begun a task, in a fresh interpreter: how quickly a pool is at its full size."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.case import ABREAST, Case, Contender
from benchmarks.cases.process_start import abreast_pool, in_fresh_interpreter, multiprocessing_pool, standard_pool
from benchmarks.cases.process_submit import unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKERS = 10
REFERENCE = "standard library (forkserver)"

# As in process_start and process_first. Each task says on one named pipe that it has begun, and waits for the other until all have:
# what has no second worker would wait for ever, and nobody looks at a clock meanwhile.
CHILD = """
import multiprocessing, os, tempfile, time
{imports}
from benchmarks.tasks import meet
with tempfile.TemporaryDirectory() as folder:
    arrivals, gate = names = [os.path.join(folder, name) for name in ("arrivals", "gate")]
    for name in names:
        os.mkfifo(name)
    fds = [os.open(name, os.O_RDWR) for name in names]
    for _ in range({pools}):
        start = time.perf_counter()
        {make}
        results = {begin}
        arrived = 0
        while arrived < {workers}:
            arrived += len(os.read(fds[0], {workers}))
        os.write(fds[1], bytes({workers}))
        pids = {end}
        seconds = time.perf_counter() - start
        {close}
        assert len(set(pids)) == {workers}, pids
print(seconds * 1000)
"""


def cases(*, quick: bool) -> list[Case]:
    return [
        case("cold", 1, "the first pool of the process", 1.0, quick=quick),
        case("warm", 2, "a second pool, after the first has ended", 0.3, quick=quick),
    ]


def case(name: str, pools: int, text: str, limit: float, *, quick: bool) -> Case:
    return Case(
        name=f"process_ready_{name}",
        description=f"make a pool, submit {WORKERS} tasks that wait until all have begun, and take the results, in a fresh interpreter, "
        f"imports done: {text}",
        unit="ms",
        contenders={
            ABREAST: by_executor(pools, *abreast_pool(WORKERS)),
            REFERENCE: by_executor(pools, *standard_pool(WORKERS, "forkserver")),
            "multiprocessing Pool (forkserver)": by_multiprocessing("forkserver", pools),
            "multiprocessing Pool (fork)": by_multiprocessing("fork", pools),
        },
        reference=REFERENCE,
        goal=f"at most {limit} of the standard library (forkserver)",
        reached=partial(reached, limit),
        rounds=2 if quick else 15,
        warm_ups=1,  # compiles the bytecode
        unavailable=unavailable(),
    )


def reached(limit: float, medians: Mapping[str, float]) -> bool:
    return medians[ABREAST] <= limit * medians[REFERENCE]


def by_executor(pools: int, imports: str, make: str) -> Contender:
    begin = f"[pool.submit(meet, arrivals, gate) for _ in range({WORKERS})]"
    return contender(pools, imports, make, begin, "[future.result() for future in results]", "pool.shutdown()", note="submit")


def by_multiprocessing(method: str, pools: int) -> Contender:
    begin = f"[pool.apply_async(meet, (arrivals, gate)) for _ in range({WORKERS})]"
    end, close = "[result.get() for result in results]", "pool.close(); pool.join()"
    return contender(pools, *multiprocessing_pool(WORKERS, method), begin, end, close, note="apply_async")


def contender(pools: int, imports: str, make: str, begin: str, end: str, close: str, *, note: str) -> Contender:
    code = CHILD.format(pools=pools, imports=imports, make=make, begin=begin, end=end, close=close, workers=WORKERS)
    return Contender(partial(in_fresh_interpreter, code), note=note)
