"""The power cut as it is: a daemon that dies by `os._exit` in the middle of an operation, in a process of its own.

The walk over every step is `tests/unit/guests/test_crash.py`; this one proves that the exception there is as good as a death:
files, journal and store are what a dead process leaves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from panal.tasks.index import Filter
from tests.conftest import Soak
from tests.soaking import SOAK
from tests.unit.guests.check import assert_tidy
from tests.unit.guests.crash import SCENARIOS
from tests.unit.guests.world import World

DEATH = 86
CHILD = """
import asyncio, os, sys
from pathlib import Path
from tests.unit.guests.crash import SCENARIOS, Cut
from tests.unit.guests.world import World

async def main(directory, name, at):
    scenario, world = SCENARIOS[name], World(Path(directory))
    async with world.boot() as node:
        await scenario.prepare(node)
        Cut(scenario.kind, at, end=lambda: os._exit(86)).install(node.guests)
        await node.ok(await scenario.act(node))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("at", range(1, 21) if SOAK else [1, 2, 4, 5])
async def test_a_daemon_that_dies(name: str, at: int, soak: Soak) -> None:
    soak("a daemon that ends between two steps of an operation: files, claims, tasks, next attempt", small=1, big=1)
    world = World()
    try:
        root = Path(__file__).parents[2]
        died = subprocess.run(
            [sys.executable, "-c", CHILD, str(world.directory), name, str(at)], cwd=root, timeout=60,
            env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert died.returncode == DEATH or (SOAK and died.returncode == 0), died.stderr
        # the fake processes died with it; the boot is the same, so their claims are this incarnation's own
        async with world.boot() as node:
            open_tasks, _ = await node.guests.tasks.list(Filter(running=True))
            assert not open_tasks
            assert not await node.guests.tasks.journal.entries()
            assert_tidy(world, node)
    finally:
        world.close()
