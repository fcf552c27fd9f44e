"""A power cut between any two steps of every operation (invariants 3 and 7): nothing half-done stays, the next attempt works.

Planted faults, each seen red: an `allocate_step` whose undo does nothing; a `mark_step` or the last step of a snapshot without
undo (the walk found both); a snapshot whose undo forgets to resume the guest.
"""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from panal.core.errors import Failed
from panal.guests import claims
from panal.guests.drivers.base import CopyTarget
from panal.guests.rollback import rollback
from panal.guests.start import start
from panal.tasks.index import Filter
from tests.conftest import Soak
from tests.unit.guests.check import assert_tidy
from tests.unit.guests.crash import SCENARIOS, Cut, PowerCut, Scenario, nothing, one, running
from tests.unit.guests.world import USER, Node, World

MOMENTS = 60
WALKS = "power cuts between any two steps of an operation: leaks, claims without guest, next attempt fails"


async def cut_at(world: World, scenario: Scenario, at: int) -> bool:
    """Run it until moment `at`; False when it ended before."""
    async with world.boot() as node:
        await scenario.prepare(node)
    async with world.boot() as node:
        cut = Cut(scenario.kind, at)
        cut.install(node.guests)
        upid = await scenario.act(node)
        with suppress(PowerCut):
            await node.guests.tasks.wait(upid, 30)
        task = node.guests.tasks._open.get(upid)
        if task is not None and task.running is not None:
            with suppress(PowerCut):
                await task.running
        return cut.dead


async def settled_again(world: World, node: Node, scenario: Scenario) -> None:
    """What must hold after the restart."""
    open_tasks, _ = await node.guests.tasks.list(Filter(running=True))
    assert not open_tasks, "every task has ended"
    assert not await node.guests.tasks.journal.entries()
    assert_tidy(world, node)
    newest, _ = await node.guests.tasks.list(Filter(), limit=1)
    assert newest[0].status
    for vmid, guest in world.machine.guests.items():
        assert guest.status == "running", vmid
    with suppress(*scenario.again):
        await node.ok(await scenario.act(node))
    assert_tidy(world, node)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_power_cut_between_any_two_steps(name: str, soak: Soak) -> None:
    scenario = SCENARIOS[name]
    walks = soak(WALKS, small=1, big=4)
    cuts = sum([await walked(scenario) for _ in range(walks)])
    soak.found(WALKS, count=cuts)


async def walked(scenario: Scenario) -> int:
    """Cut at every moment; how many there are."""
    for at in range(1, MOMENTS):
        world = World()
        try:
            cut = await cut_at(world, scenario, at)
            async with world.boot() as node:
                if cut:
                    await settled_again(world, node, scenario)
                else:
                    assert_tidy(world, node)
        finally:
            world.close()
        if not cut:
            assert at > 5, "the walk saw every step"
            return at - 1
    raise AssertionError("the operation has more moments than are walked")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_power_cut_around_the_start_of_a_process(world: World, when: str) -> None:
    """Design 6.3. Planted fault: taking the claim after `driver.start` leaves a guest that nobody holds."""
    async with world.boot() as node:
        await one(node)
        real, stop = node.driver.start, node.driver.stop
        dead = False

        async def cut_start(*args, **kwargs):
            nonlocal dead
            if when == "after":
                await real(*args, **kwargs)
            else:
                for disk in args[0].disks:
                    os.close(disk.fd)
            dead = True
            raise PowerCut

        async def cut_stop(*args, **kwargs):
            if dead:
                raise PowerCut
            await stop(*args, **kwargs)

        node.driver.start = cut_start  # type: ignore[method-assign]
        node.driver.stop = cut_stop  # type: ignore[method-assign]
        upid = await start(node.guests, 100, USER)
        with suppress(PowerCut):
            task = node.guests.tasks._open[upid].running
            assert task is not None
            await task
        assert not claims.read(node.guests.store, 100).free
    async with world.boot() as node:
        assert (100 in node.settled.adopted) == (when == "after")
        assert_tidy(world, node)
        if when == "before":
            await node.ok(await start(node.guests, 100, USER))
        assert claims.read(node.guests.store, 100).held_by(node.guests.incarnation)


async def test_power_cut_at_the_instant_of_a_clone(world: World) -> None:
    """The driver had stopped the guest. Planted fault: a copy step without undo leaves it paused."""
    async with world.boot() as node:
        await running(node)
        cut = Cut("clone", MOMENTS)
        cut.install(node.guests)

        async def dies(vmid: int, targets: dict[str, CopyTarget], *args: object, **kwargs: object) -> None:
            await node.driver.pause(vmid)
            for target in targets.values():
                os.close(target.fd)
            cut.dead = True
            raise PowerCut

        node.driver.copy_disks = dies  # type: ignore[assignment, method-assign]
        upid = await SCENARIOS["clone-running"].act(node)
        task = node.guests.tasks._open[upid].running
        assert task is not None
        with suppress(PowerCut):
            await task
        assert (await node.driver.info(100)).status == "paused"
    async with world.boot() as node:
        assert world.machine.guests[100].status == "running"
        assert_tidy(world, node)


async def test_an_old_roll_forward_does_not_touch_a_new_guest(world: World) -> None:
    """Invariant 6. Planted fault: `free_step` without `still` removes the new guest's disk."""
    async with world.boot() as node:
        await nothing(node)
        await one(node)
        delete = SCENARIOS["delete"].act
        local = world.storages.drivers["local"]
        free = local.free

        async def stuck(name: str) -> None:
            raise Failed("stale handle")

        local.free = stuck  # type: ignore[method-assign]
        assert await node.ended(await delete(node)) != "OK"
        local.free = free  # type: ignore[method-assign]
        assert node.guests.get(100).lock == "destroyed"
        assert "locked" in await node.ended(await start(node.guests, 100, USER))
        await node.ok(await delete(node))
        await one(node)
        assert await node.guests.tasks.journal.entries(), "the failed one is still there"
    async with world.boot() as node:
        assert node.guests.get(100).config["name"] == "web"
        assert_tidy(world, node)
        await node.ok(await start(node.guests, 100, USER))


async def test_an_undo_that_comes_late_does_not_touch_a_new_guest(world: World) -> None:
    """Invariant 6: the undo failed, the number and the name went to another guest, the next start tries the undo again.

    Planted fault: an `allocate_step` that frees whatever has the name takes the new guest's disk away.
    """
    async with world.boot() as node:
        local = world.storages.drivers["local"]
        allocate, free = local.allocate, local.free

        async def stuck(*args: object) -> None:
            raise Failed("stale handle")

        local.allocate = local.free = stuck  # type: ignore[method-assign, assignment]
        assert "stale" in await node.ended(await SCENARIOS["create"].act(node))
        local.allocate, local.free = allocate, free  # type: ignore[method-assign]
        assert await node.guests.tasks.journal.entries(), "what could not be undone is tried again"
        await one(node)
    async with world.boot() as node:
        assert not await node.guests.tasks.journal.entries()
        assert_tidy(world, node)
        await node.ok(await start(node.guests, 100, USER))


async def test_an_undo_that_comes_late_does_not_touch_a_new_snapshot(world: World) -> None:
    """As above, for a snapshot's name; and a guest that was paused since then stays so.

    Planted fault: without asking whose the name is, the new snapshot's disks are gone, and the rollback to it fails.
    """
    async with world.boot() as node:
        await SCENARIOS["snapshot"].prepare(node)
        local = world.storages.drivers["local"]
        take, drop = local.snapshot, local.delete_snapshot

        async def stuck(*args: object) -> None:
            raise Failed("stale handle")

        local.snapshot = local.delete_snapshot = stuck  # type: ignore[method-assign, assignment]
        assert "stale" in await node.ended(await SCENARIOS["snapshot"].act(node))
        local.snapshot, local.delete_snapshot = take, drop  # type: ignore[method-assign]
        await node.ok(await SCENARIOS["snapshot"].act(node))
    async with world.boot() as node:
        assert not await node.guests.tasks.journal.entries()
        assert_tidy(world, node)
        await node.ok(await rollback(node.guests, 100, "xx", USER))
