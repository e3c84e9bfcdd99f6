"""`PoolCore` under the seeded simulator (sim.py): kills at any byte, limits, failed starts, clock jumps; its oracle looks after every step."""

from __future__ import annotations

import pytest

from tests.executors.process import sim

pytestmark = pytest.mark.whole


@pytest.mark.parametrize("block", range(10))
def test_two_thousand_seeds(block):
    """A seed that fails is told by its number: ``python -m tests.executors.process.sim SEED`` plays it again."""
    for seed in range(200 * block, 200 * (block + 1)):
        try:
            sim.play(seed)
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\n{sim.told(seed)}")


@pytest.mark.slow
def test_fifty_thousand_seeds():
    for seed in range(2_000, 52_000):
        sim.play(seed)
