"""Guests go down in the order opposite to their start, in parallel within a group, whatever one of them does."""

from __future__ import annotations

import asyncio

from panal.core.errors import Failed
from panal.guests import boot
from panal.guests.create import create
from panal.guests.drivers.fake import Timings
from panal.guests.model import Guest
from panal.guests.start import start
from panal.guests.startall import startall
from panal.guests.stopall import Ending, plan_stop, stopall
from panal.tasks.model import Task
from tests.unit.guests.world import USER, Node, World

STARTUP = {100: None, 101: "order=2", 102: "order=1,down=7", 103: "order=2,down=0", 104: None, 105: "order=3"}


async def made(node: Node, *running: int) -> None:
    for vmid, text in STARTUP.items():
        more = {} if text is None else {"startup": text}
        await node.ok(await create(node.guests, vmid, {"onboot": "1", **more} if vmid != 105 else more, USER))
    for vmid in running:
        await node.ok(await start(node.guests, vmid, USER))


async def log_of(node: Node, upid: str) -> list[str]:
    return [line for _, line in (await node.guests.tasks.read_log(upid, 0, 100))[0]]


async def test_the_plan(world: World) -> None:
    """Planted fault: the groups in the order of their start."""
    async with world.boot() as node:
        await made(node)
        listed: list[Guest] = node.guests.list()
    assert plan_stop(listed, {100, 101, 102, 103, 104}) == [
        (Ending(104, 180), Ending(100, 180)), (Ending(103, 0), Ending(101, 180)), (Ending(102, 7),),
    ]  # fmt: skip
    assert plan_stop(listed, {102}, 3) == [(Ending(102, 3),)]
    assert plan_stop(listed, ()) == []


async def test_groups_one_after_the_other_and_then_the_rest(world: World) -> None:
    """Planted fault: all at once: order 1 ends before order 2 was begun to be shut down."""
    async with world.boot() as node:
        await made(node, *STARTUP)
        node.driver.timings = Timings(shutdown_s=0.05)
        left: list[list[int]] = []
        press = node.driver.shutdown

        async def pressed(vmid: int) -> None:
            left.append([vmid, *sorted(world.machine.guests)])
            await press(vmid)

        node.driver.shutdown = pressed  # type: ignore[method-assign]

        async def then(task: Task) -> None:
            task.log(f"the end, {len(world.machine.guests)} left")

        upid = await stopall(node.guests, USER, then=then)
        await node.ok(upid)
        assert not world.machine.guests
        assert sorted(v[0] for v in left[:2]) == [100, 104] and all(len(v) == 7 for v in left[:2])
        assert left[2] == [105, 101, 102, 103, 105]
        assert left[-1] == [102, 102]
        log = await log_of(node, upid)
        assert "VM 102: shutting down (7 s at most)" in log and "VM 102: is off" in log
        assert log[-2] == "the end, 0 left"


async def test_the_deaf_are_forced_and_the_failing_hold_up_nobody(world: World) -> None:
    async with world.boot() as node:
        await made(node, 100, 101, 102, 105)
        world.machine.guests[105].acpi = world.machine.guests[101].acpi = False
        node.driver.fail_next("shutdown", Failed("no such button"))
        upid = await stopall(node.guests, USER, vmids={105, 101, 102}, timeout_s=0.05)
        assert await node.ended(upid) == "WARNINGS: 1"
        assert sorted(world.machine.guests) == [100, 105]
        assert "WARN: VM 105 was not shut down: no such button" in await log_of(node, upid)
        assert await node.ended(await stopall(node.guests, USER, timeout_s=0.05, force_stop=False)) == "WARNINGS: 1"
        assert sorted(world.machine.guests) == [105]


async def test_stopped_it_leaves_the_others_alone(world: World) -> None:
    """Planted fault: children that are not cancelled with the task, or `then` that comes all the same."""
    async with world.boot() as node:
        await made(node, 100, 101)
        world.machine.guests[100].acpi = False
        went: list[Task] = []

        async def then(task: Task) -> None:
            went.append(task)

        upid = await stopall(node.guests, USER, then=then)
        while "VM 100: shutting down (180 s at most)" not in await log_of(node, upid):
            await asyncio.sleep(0.01)
        await node.guests.tasks.stop(upid)
        assert await node.ended(upid) != "OK"
        assert sorted(world.machine.guests) == [100, 101] and not went
        assert node.guests.tasks.queues.holder("guest/100") is None


async def test_startall_starts_what_wants_to_run(world: World) -> None:
    async with world.boot() as node:
        await made(node)
        await node.ok(await startall(node.guests, USER, vmids={100, 101, 105}))
        assert list(world.machine.guests) == [101, 100]
        await node.ok(await startall(node.guests, USER, force=True))
        assert list(world.machine.guests) == [101, 100, 102, 103, 105, 104]


async def test_stopall_ends_a_start_of_all_for_good(world: World) -> None:
    """Planted fault: the start is not ended: it starts guests behind the back of what shuts them down."""
    async with world.boot() as node:
        await made(node)
        node.driver.timings = Timings(start_s=0.1)
        starting = await boot.autostart(node.guests)
        assert starting is not None
        while not world.machine.guests:
            await asyncio.sleep(0.01)
        await node.ok(await stopall(node.guests, USER))
        assert await node.ended(starting) != "OK" and not world.machine.guests
    async with world.boot() as node:
        assert await boot.autostart(node.guests) is None
