"""What starts with the node, in which order, and when it does not; the live table; the incarnation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from panal.cluster.incarnation import read_boot_id
from panal.cluster.store import Absent
from panal.core.errors import Failed
from panal.guests import boot
from panal.guests.create import create
from panal.guests.drivers.base import Live
from panal.guests.drivers.fake import Timings
from panal.guests.populate import FIRST, populate
from panal.guests.start import start
from tests.unit.guests.world import USER, Node, World


async def three(node: Node) -> None:
    for vmid, more in ((100, {}), (101, {"startup": "order=2"}), (102, {"startup": "order=1,up=0"}), (103, {})):
        onboot = {} if vmid == 103 else {"onboot": "1"}
        await node.ok(await create(node.guests, vmid, {**onboot, **more}, USER))


async def test_what_starts_with_the_node(world: World) -> None:
    async with world.boot() as node:
        await three(node)
        assert await boot.autostart(node.guests)
    world.machine.guests.clear()
    world.boot_id = "boot2"
    async with world.boot() as node:
        assert sorted(node.settled.released) in ([], [100, 101, 102])
        upid = await boot.autostart(node.guests)
        assert upid is not None
        await node.ok(upid)
        assert list(world.machine.guests) == [102, 101, 100]
    world.machine.guests.clear()
    async with world.boot() as node:
        assert await boot.autostart(node.guests) is None, "a restart of the daemon is no boot"
        assert not world.machine.guests


async def test_a_daemon_that_dies_while_it_starts_guests_goes_on(world: World) -> None:
    """Planted fault: an incarnation that counts as started when it is registered."""
    async with world.boot() as node:
        await three(node)
        node.driver.timings = Timings(start_s=0.2)
        await boot.autostart(node.guests)
        await asyncio.sleep(0.3)
    assert 0 < len(world.machine.guests) < 3
    async with world.boot() as node:
        upid = await boot.autostart(node.guests)
        assert upid is not None
        await node.ok(upid)
        assert sorted(world.machine.guests) == [100, 101, 102]


async def test_one_that_fails_does_not_hold_up_the_others(world: World) -> None:
    async with world.boot() as node:
        await three(node)
        node.driver.fail_next("start", Failed("no memory"))
        upid = await boot.autostart(node.guests)
        assert upid is not None
        assert await node.ended(upid) == "WARNINGS: 1"
        assert sorted(world.machine.guests) == [100, 101]


def test_boot_id(tmp_path: Path) -> None:
    assert read_boot_id(tmp_path)
    (tmp_path / "incarnation").write_text("lab-7\n")
    assert read_boot_id(tmp_path) == "lab-7"
    (tmp_path / "incarnation").write_text("a/../b")
    with pytest.raises(Failed):
        read_boot_id(tmp_path)


async def test_live_table(world: World) -> None:
    async with world.boot() as node:
        live = node.guests.live
        await node.ok(await create(node.guests, 100, {}, USER))
        quiet = live.version
        await live.sample()
        assert live.version == quiet, "nothing moved"
        seen: list[int] = []
        live.add_sink(lambda rows, now: seen.append(len(rows)))
        await node.ok(await start(node.guests, 100, USER))
        assert live.version > quiet
        await live.sample()
        assert seen == [1]
        node.driver.fail_next("sample", Failed("busy"))
        with pytest.raises(Failed):
            await live.sample()
        assert live.get(100).status == "running"


async def test_an_event_beats_an_older_sample(world: World) -> None:
    """Planted fault: `sample` that takes its rows whatever events said meanwhile shows a dead guest as running."""
    async with world.boot() as node:
        await node.ok(await create(node.guests, 100, {}, USER))
        await node.ok(await start(node.guests, 100, USER))
        live, driver = node.guests.live, node.driver
        real = driver.sample

        async def slow() -> object:
            rows = await real()
            live.put(Live(100, "stopped"))
            return rows

        driver.sample = slow  # type: ignore[method-assign, assignment]
        await live.sample()
        assert live.get(100).status == "stopped"


async def test_populate(world: World) -> None:
    async with world.boot() as node:
        assert await populate(node.guests, 250, node.driver) == 250
        assert await populate(node.guests, 250, node.driver) == 0
        assert len(node.guests.list()) == 250
        assert len(node.guests.live.running()) == 225
        assert not (await node.guests.store.txn([Absent(f"guest/{FIRST}/config")], [])).ok
    async with world.boot() as node:
        assert len(node.settled.adopted) == 225
