"""From nothing to the first result of a pool of processes, in a fresh interpreter: servers and templates are started too."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import process
from benchmarks.case import ABREAST, Case, Contender

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKERS = 2
STANDARD_DEFAULT = "forkserver" if sys.version_info >= (3, 14) else "fork"
REFERENCE = f"standard library ({STANDARD_DEFAULT})"

# The code is no file, so that processes that are spawned import no main script; `abs` imports nothing in them either. The clock
# begins after the imports, which another case measures, and stops before the pool's end.
CHILD = """
import multiprocessing, time
{imports}
start = time.perf_counter()
{make}
{first}
print((time.perf_counter() - start) * 1000)
assert result == 1, result
{end}
"""
SUBMIT, SHUTDOWN = "result = pool.submit(abs, -1).result()", "pool.shutdown()"


def cases(*, quick: bool) -> list[Case]:
    standard = {f"standard library ({method})": by_standard(method) for method in ("fork", "forkserver", "spawn")}
    pools = {f"multiprocessing Pool ({method})": by_multiprocessing(method) for method in ("fork", "forkserver", "spawn")}
    pebble = {f"Pebble ({method})": by_pebble(method) for method in ("fork", "forkserver", "spawn")}
    mpire = {f"mpire ({method})": by_mpire(method) for method in ("fork", "forkserver", "spawn")}
    return [
        Case(
            name="process_start",
            description=f"make a pool of {WORKERS} processes and wait for the first result, in a fresh interpreter, imports done",
            unit="ms",
            contenders={
                ABREAST: by_abreast(""),
                "abreast (fork)": by_abreast(', mp_context="fork"'),
                **standard,
                **pools,
                **pebble,
                "loky": contender("import loky", f"pool = loky.get_reusable_executor({WORKERS})", packages=("loky", "loky")),
                **mpire,
                "joblib": contender(
                    "import joblib",
                    f"pool = joblib.Parallel(n_jobs={WORKERS})",
                    "result, _ = pool([joblib.delayed(abs)(-1)] * 2)",
                    "",
                    ("joblib", "joblib"),
                    note="loky; of two tasks, since it runs a single one here",
                ),
            },
            reference=REFERENCE,
            goal="none",
            reached=no_goal,
            rounds=2 if quick else 15,
            warm_ups=1,  # compiles the bytecode
        )
    ]


def no_goal(_: Mapping[str, float]) -> bool:
    raise KeyError("there is no goal")  # as if its contender were missing: shown as "not judged"


def contender(
    imports: str,
    make: str,
    first: str = SUBMIT,
    end: str = SHUTDOWN,
    packages: tuple[str | None, str | None] = (None, None),
    *,
    note: str = "",
) -> Contender:
    code = CHILD.format(imports=imports, make=make, first=first, end=end)
    return Contender(partial(in_fresh_interpreter, code), package=packages[0], module=packages[1], note=note)


def in_fresh_interpreter(code: str) -> float:
    # 3.12 and later warn where a process with threads is forked, as some peers do: a word on stderr would be taken for a failure.
    return process.figure("-W", "ignore::DeprecationWarning", "-c", code, seconds=60)


# What such an interpreter imports, and how it makes a pool: process_first and process_ready use these too.


def abreast_pool(workers: int, options: str = "") -> tuple[str, str]:
    return "import abreast; abreast.ProcessPoolExecutor", f"pool = abreast.ProcessPoolExecutor({workers}{options})"


def standard_pool(workers: int, method: str) -> tuple[str, str]:
    make = f'pool = futures.ProcessPoolExecutor({workers}, multiprocessing.get_context("{method}"))'
    return "from concurrent import futures; futures.ProcessPoolExecutor", make


def multiprocessing_pool(workers: int, method: str) -> tuple[str, str]:
    return "import multiprocessing.pool", f'pool = multiprocessing.get_context("{method}").Pool({workers})'


def by_abreast(options: str) -> Contender:
    note = "one process so far" if not options else "one process so far, and its template"
    return contender(*abreast_pool(WORKERS, options), note=note)


def by_standard(method: str) -> Contender:
    note = "all processes" if method == "fork" else "one process so far"
    return contender(*standard_pool(WORKERS, method), note=note)


def by_multiprocessing(method: str) -> Contender:
    first = "result = pool.apply(abs, (-1,))"
    return contender(*multiprocessing_pool(WORKERS, method), first, "pool.terminate()", note="all processes")


def by_pebble(method: str) -> Contender:
    make = f'pool = pebble.ProcessPool({WORKERS}, context=multiprocessing.get_context("{method}"))'
    first, end = "result = pool.schedule(abs, args=(-1,)).result()", "pool.close(); pool.join()"
    return contender("import pebble", make, first, end, ("Pebble", "pebble"), note="all processes")


def by_mpire(method: str) -> Contender:
    make = f'pool = mpire.WorkerPool({WORKERS}, start_method="{method}", keep_alive=True)'
    first, end = "result = pool.apply(abs, (-1,))", "pool.stop_and_join()"
    return contender("import mpire", make, first, end, ("mpire", "mpire"), note="all processes")
