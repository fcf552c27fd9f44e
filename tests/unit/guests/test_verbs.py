"""Create, clone, snapshot, rollback, template, delete: what they leave, what they refuse."""

from __future__ import annotations

import asyncio
import random

import pytest

from panal.core.errors import BadInput, Conflict, Failed, Forbidden, NotFound
from panal.guests import claims
from panal.guests.clone import CloneRequest, clone
from panal.guests.config.wish import Wish
from panal.guests.configure import configure
from panal.guests.create import create, plan_create
from panal.guests.delete import delete
from panal.guests.delsnapshot import delsnapshot
from panal.guests.nextid import NextIds
from panal.guests.pause import pause, resume
from panal.guests.rollback import rollback
from panal.guests.shutdown import reboot, shutdown
from panal.guests.snapshot import snapshot
from panal.guests.start import start
from panal.guests.stop import stop
from panal.guests.template import template
from tests.unit.guests.check import assert_tidy
from tests.unit.guests.world import USER, Node, World

DISK = {"name": "web", "scsi0": "local:1", "net0": "virtio,bridge=vmbr0", "serial0": "socket"}


def disk(world: World, name: str = "100/vm-100-disk-0.qcow2") -> str:
    with world.storages.drivers["local"].path(name).open("rb") as file:
        return file.read(8).rstrip(b"\0").decode()


def write(world: World, text: str, name: str = "100/vm-100-disk-0.qcow2") -> None:
    with world.storages.drivers["local"].path(name).open("r+b") as file:
        file.write(text.encode().ljust(8, b"\0"))


async def made(node: Node, vmid: int = 100, **more: str) -> None:
    await node.ok(await create(node.guests, vmid, {**DISK, **more}, USER))


async def test_create(world: World) -> None:
    async with world.boot() as node:
        await made(node)
        guest = node.guests.get(100)
        assert guest.config["scsi0"] == "local:100/vm-100-disk-0.qcow2,size=1G"
        assert guest.config["net0"].startswith("virtio=BC:24:11:")
        assert "uuid=" in guest.config["smbios1"]
        assert guest.lock is None
        with pytest.raises(Conflict, match="already exists"):
            await create(node.guests, 100, DISK, USER)
        with pytest.raises(BadInput) as wrong:
            await create(node.guests, 101, {"scsi3": "nowhere:1"}, USER)
        assert wrong.value.field == "scsi3"
        with pytest.raises(BadInput) as wrong:
            await create(node.guests, 101, {"scsi3": "local:101/vm-101-disk-9.raw"}, USER)
        assert wrong.value.field == "scsi3"
        assert_tidy(world, node)


async def test_two_creates_of_one_number(world: World) -> None:
    async with world.boot() as node:
        first = await create(node.guests, 100, DISK, USER)
        second = await create(node.guests, 100, {"name": "other", "scsi1": "plain:2"}, USER)
        await node.ok(first)
        assert "already exists" in await node.ended(second)
        assert node.guests.get(100).config["name"] == "web"
        assert_tidy(world, node)


async def test_a_stale_plan_undoes_only_its_own(world: World) -> None:
    """Invariant 6. Planted fault: an undo of `reserve_step` that deletes the record whatever its `birth`."""
    async with world.boot() as node:
        guests = node.guests
        stale = await plan_create(guests, 100, DISK)
        await made(node)
        status = await node.ended(
            await guests.tasks.spawn("qmcreate", "100", USER, lambda task: guests.tasks.operate(task, "create", stale))
        )
        assert "already exists" in status
        assert_tidy(world, node)
        assert guests.get(100)


async def test_full_disk_at_create_leaves_nothing(world: World) -> None:
    async with world.boot() as node:
        plain = world.storages.drivers["plain"]

        async def full(*_: object) -> None:
            raise Failed("no space left on the storage; free some or choose another one")

        plain.allocate = full  # type: ignore[method-assign, assignment]
        status = await node.ended(await create(node.guests, 100, {**DISK, "scsi1": "plain:1"}, USER))
        assert "no space left" in status
        del plain.allocate
        assert not world.storages.files()
        await made(node)
        assert_tidy(world, node)


async def test_create_and_start(world: World) -> None:
    async with world.boot() as node:
        await node.ok(await create(node.guests, 100, DISK, USER, start=True))
        assert node.guests.live.get(100).status == "running"
        with pytest.raises(Conflict, match="is running"):
            await delete(node.guests, 100, USER)
        await node.ok(await stop(node.guests, 100, USER))
        await node.ok(await delete(node.guests, 100, USER))
        with pytest.raises(NotFound, match="does not exist"):
            node.guests.get(100)
        assert not world.storages.files()
        assert not node.guests.store.list("guest/")


async def test_protection(world: World) -> None:
    async with world.boot() as node:
        await made(node, protection="1")
        with pytest.raises(Conflict, match="protection mode"):
            await delete(node.guests, 100, USER)


async def test_power(world: World) -> None:
    async with world.boot() as node:
        await made(node)
        with pytest.raises(Conflict, match="VM 100 not running"):
            await pause(node.guests, 100, USER)
        await node.ok(await start(node.guests, 100, USER))
        await node.ok(await pause(node.guests, 100, USER))
        assert node.guests.live.get(100).status == "paused"
        assert "paused" in await node.ended(await shutdown(node.guests, 100, USER, timeout_s=1))
        await node.ok(await resume(node.guests, 100, USER))
        await node.ok(await reboot(node.guests, 100, USER, timeout_s=5))
        assert claims.read(node.guests.store, 100).epoch == 2
        world.machine.guests[100].acpi = False
        assert "timeout" in await node.ended(await shutdown(node.guests, 100, USER, timeout_s=0.05))
        assert 100 in world.machine.guests
        await node.ok(await shutdown(node.guests, 100, USER, timeout_s=0.05, force_stop=True))
        assert claims.read(node.guests.store, 100).free


async def test_stop_overrules_a_shutdown(world: World) -> None:
    async with world.boot() as node:
        await made(node)
        await node.ok(await start(node.guests, 100, USER))
        world.machine.guests[100].acpi = False
        waiting = await shutdown(node.guests, 100, USER, timeout_s=100)
        await asyncio.sleep(0.05)
        await node.ok(await stop(node.guests, 100, USER, overrule_shutdown=True))
        assert await node.ended(waiting) != "OK"


async def test_hung_guest_can_be_stopped(world: World) -> None:
    async with world.boot() as node:
        await made(node)
        await node.ok(await start(node.guests, 100, USER))
        node.driver.hang(100)
        assert "does not answer" in await node.ended(await pause(node.guests, 100, USER))
        await node.ok(await stop(node.guests, 100, USER))
        assert claims.read(node.guests.store, 100).free


async def test_snapshots_nest_and_roll_back(world: World) -> None:
    async with world.boot() as node:
        guests = node.guests
        await made(node)
        write(world, "one")
        await node.ok(await snapshot(guests, 100, "s1", USER, description="first"))
        write(world, "two")
        await guests.update(100, config={**guests.get(100).config, "cores": "3"})
        await node.ok(await snapshot(guests, 100, "s2", USER))
        write(world, "three")
        assert [(s.name, s.parent) for s in guests.snapshots(100)] == [("s1", None), ("s2", "s1")]
        assert guests.get(100).parent == "s2"
        await node.ok(await rollback(guests, 100, "s1", USER))
        assert disk(world) == "one"
        assert "cores" not in guests.get(100).config
        assert guests.get(100).parent == "s1"
        await node.ok(await rollback(guests, 100, "s2", USER, start=True))
        assert disk(world) == "two"
        assert guests.get(100).config["cores"] == "3"
        assert guests.live.get(100).status == "running"
        with pytest.raises(Conflict, match="already used"):
            await snapshot(guests, 100, "s1", USER)
        await node.ok(await delsnapshot(guests, 100, "s1", USER))
        assert [(s.name, s.parent) for s in guests.snapshots(100)] == [("s2", None)]
        assert_tidy(world, node)
        await node.ok(await stop(guests, 100, USER))
        await node.ok(await delete(guests, 100, USER))
        assert not world.storages.files()


async def test_snapshot_with_ram(world: World) -> None:
    async with world.boot() as node:
        guests = node.guests
        await made(node)
        await node.ok(await start(guests, 100, USER))
        ram = world.machine.guests[100].ram
        write(world, "one")
        await node.ok(await snapshot(guests, 100, "live", USER, vmstate=True))
        assert guests.live.get(100).status == "running"
        assert guests.snapshot(100, "live").vmstate == "local:100/vm-100-state-live.raw"
        write(world, "two")
        await node.ok(await stop(guests, 100, USER))
        await node.ok(await start(guests, 100, USER))
        assert world.machine.guests[100].ram != ram
        await node.ok(await rollback(guests, 100, "live", USER))
        assert world.machine.guests[100].ram == ram
        assert guests.live.get(100).status == "running"
        assert disk(world) == "one"
        assert_tidy(world, node)
        await node.ok(await delsnapshot(guests, 100, "live", USER))
        assert_tidy(world, node)
        assert len(world.storages.files()) == 1


async def test_failed_ram_leaves_a_running_guest_and_nothing_else(world: World) -> None:
    async with world.boot() as node:
        await made(node)
        await node.ok(await start(node.guests, 100, USER))
        node.driver.fail_next("save_ram", Failed("disk full"))
        assert await node.ended(await snapshot(node.guests, 100, "xx", USER, vmstate=True)) == "disk full"
        assert world.machine.guests[100].status == "running"
        assert not node.guests.snapshots(100)
        assert_tidy(world, node)
        await node.ok(await snapshot(node.guests, 100, "xx", USER, vmstate=True))


async def test_disks_that_cannot_are_named(world: World) -> None:
    async with world.boot() as node:
        await made(node, scsi1="plain:1")
        with pytest.raises(Conflict, match=r"scsi1 \(plain:100/vm-100-disk-0.qcow2\)"):
            await snapshot(node.guests, 100, "s1", USER)


async def test_clone_has_its_own_identity(world: World) -> None:
    async with world.boot() as node:
        guests = node.guests
        await made(node)
        write(world, "one")
        await node.ok(await clone(guests, 100, CloneRequest(101, name="copy", storage="plain", fmt="raw"), USER))
        new, old = guests.get(101).config, guests.get(100).config
        assert new["scsi0"] == "plain:101/vm-101-disk-0.raw,size=1G"
        assert new["name"] == "copy"
        for key in ("net0", "smbios1", "vmgenid"):
            assert new[key] != old[key]
        assert_tidy(world, node)
        with pytest.raises(BadInput) as wrong:
            await clone(guests, 100, CloneRequest(102, full=False), USER)
        assert wrong.value.field == "full"
        with pytest.raises(BadInput) as wrong:
            await clone(guests, 100, CloneRequest(102, target="n9"), USER)
        assert wrong.value.field == "target"


async def test_a_running_guest_is_cloned_by_its_hypervisor(world: World) -> None:
    async with world.boot() as node:
        await made(node)
        await node.ok(await start(node.guests, 100, USER))
        write(world, "one")
        upid = await clone(node.guests, 100, CloneRequest(101, storage="plain", fmt="raw"), USER)
        await node.ok(upid)
        assert world.machine.guests[100].status == "running"
        with world.storages.drivers["plain"].path("101/vm-101-disk-0.raw").open("rb") as file:
            assert file.read(3) == b"one"
        log, _ = await node.guests.tasks.read_log(upid)
        assert any("scsi0" in line and "transferred 1.0 GiB of 1.0 GiB (100%)" in line for _, line in log), log
        assert_tidy(world, node)
        node.driver.fail_next("copy_disks", Failed("no space left on the storage"))
        assert "no space" in await node.ended(await clone(node.guests, 100, CloneRequest(102), USER))
        await node.guests.driver.pause(100)
        await node.ok(await clone(node.guests, 100, CloneRequest(103), USER))
        assert (await node.driver.info(100)).status == "paused", "whoever paused it resumes it"
        assert_tidy(world, node)


async def test_the_state_of_a_tpm_stays_raw(world: World) -> None:
    async with world.boot() as node:
        await made(node, tpmstate0="local:1,version=v2.0")
        await node.ok(await clone(node.guests, 100, CloneRequest(101, fmt="qcow2"), USER))
        config = node.guests.get(101).config
        assert ".raw," in config["tpmstate0"]
        assert ".qcow2," in config["scsi0"]
        assert_tidy(world, node)


async def test_template_is_cloned_and_never_started(world: World) -> None:
    async with world.boot() as node:
        guests = node.guests
        await made(node)
        await node.ok(await template(guests, 100, USER))
        assert guests.get(100).template
        assert guests.get(100).config["scsi0"] == "local:100/base-100-disk-0.qcow2,size=1G"
        assert "template" in await node.ended(await start(guests, 100, USER))
        await node.ok(await clone(guests, 100, CloneRequest(101), USER))
        assert not guests.get(101).template
        assert_tidy(world, node)
        await node.ok(await delete(guests, 100, USER))
        assert_tidy(world, node)


async def test_fifty_clones_by_five_clients(world: World) -> None:
    """Invariant 6. Planted fault: `next_id` that neither reads nor checks reservations gives duplicates."""
    async with world.boot() as node:
        guests = node.guests
        await made(node)
        await node.ok(await template(guests, 100, USER))
        ids = NextIds(guests)
        await ids.start()
        got: list[int] = []

        async def client(number: int) -> None:
            pick = random.Random(number)
            for _ in range(10):
                newid = await ids.next_id(f"u{number}@pve")
                got.append(newid)
                await asyncio.sleep(pick.random() / 100)
                await node.ok(await clone(guests, 100, CloneRequest(newid), USER))

        await asyncio.gather(*(client(n) for n in range(5)))
        assert len(set(got)) == 50
        assert len(guests.list()) == 51
        assert_tidy(world, node)


async def test_a_number_is_reserved_only_for_who_may_have_it(world: World) -> None:
    """What `check` raises leaves nothing, what is given back is free. Planted fault: `check` after the txn."""

    def check(number: int) -> None:
        raise Forbidden(f"not {number}")

    async with world.boot() as node:
        ids = NextIds(node.guests)
        with pytest.raises(Forbidden, match="100"):
            await ids.next_id("a@pve", check)
        assert not node.guests.store.list("vmid/")
        assert await ids.next_id("a@pve") == 100
        await ids.give_back(100)
        await ids.give_back(100)
        assert not node.guests.store.list("vmid/")
        assert await ids.next_id("b@pve") == 100


async def test_reservations_end(world: World) -> None:
    async with world.boot() as node:
        ids = NextIds(node.guests)
        await ids.start()
        assert [await ids.next_id("a@pve"), await ids.next_id("b@pve")] == [100, 101]
        await made(node, 100)
        assert await ids.next_id("a@pve") == 102
        fresh = NextIds(node.guests)
        await fresh.start()
        assert await fresh.next_id("a@pve") == 101


async def test_a_snapshot_does_not_hold_what_is_unused(world: World) -> None:
    """It has no snapshot of its own: it can go before the snapshot, and a rollback leaves it as it is.

    Planted fault, as found: `unused0` in the snapshot's configuration made it part of the snapshot.
    """
    anybody = lambda needs: None  # noqa: E731
    async with world.boot() as node:
        await made(node, scsi1="local:1,format=raw", scsi2="local:1,format=raw")
        await configure(node.guests, 100, Wish(delete=("scsi1", "scsi2")), USER, anybody)
        await node.ok(await snapshot(node.guests, 100, "s1", USER))
        await configure(node.guests, 100, Wish(delete=("unused0",)), USER, anybody)
        await node.ok(await rollback(node.guests, 100, "s1", USER))
        kept = [v for k, v in node.guests.get(100).config.items() if k.startswith("unused")]
        assert kept == ["local:100/vm-100-disk-2.raw"]
        assert_tidy(world, node)
