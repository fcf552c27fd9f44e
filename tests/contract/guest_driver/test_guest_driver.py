"""What every hypervisor driver promises (guests/drivers/base.py), asked of the fake one and of real QEMU."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from panal.core.errors import Failed, PanalError
from panal.guests.drivers.base import CopyTarget
from panal.guests.drivers.fake import Timings
from tests.contract.guest_driver.rigs import FakeRig, QemuRig, Rig, opened


@pytest.fixture(params=["fake", pytest.param("qemu", marks=pytest.mark.real)])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async for made in opened(request.param):
        yield made


def snapshots(rig: Rig, name: str = "disk.qcow2") -> list[str]:
    out = subprocess.run(
        ["qemu-img", "snapshot", "-U", "-l", str(rig.directory / name)], check=True, capture_output=True, text=True
    )
    return [line.split()[1] for line in out.stdout.splitlines()[2:]]


def open_images(rig: Rig) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(path for path in found if path.startswith(str(rig.directory)) and path.endswith((".qcow2", ".raw")))


async def test_start_and_stop(rig: Rig) -> None:
    running = await rig.start(rig.disk(), epoch=7)
    assert (running.vmid, running.epoch, running.incarnation) == (100, 7, "n1:boot1")
    assert running.hardware["machine"]
    live = await rig.driver.info(100)
    assert (live.status, live.pid) == ("running", running.pid)
    assert [row.vmid for row in await rig.driver.sample()] == [100]
    await rig.driver.stop(100)
    assert (await rig.driver.info(100)).status == "stopped"
    assert not await rig.driver.sample()
    await rig.saw("stopped")
    await rig.driver.stop(100)


async def test_what_is_pinned_comes_back(rig: Rig) -> None:
    first = await rig.start(rig.disk())
    await rig.driver.stop(100)
    again = await rig.start(rig.disk(), hardware=first.hardware)
    assert dict(again.hardware) == dict(first.hardware)


async def test_twice_is_refused_and_the_first_lives(rig: Rig) -> None:
    running = await rig.start(rig.disk())
    with pytest.raises(PanalError):
        await rig.start(rig.disk("scsi1", "other.qcow2"))
    assert (await rig.driver.info(100)).pid == running.pid


async def test_one_image_in_two_guests_is_refused(rig: Rig) -> None:
    """Invariant 1, the second line: the image's own lock."""
    await rig.start(rig.disk())
    before = open_images(rig)
    with pytest.raises(Failed):
        await rig.start(rig.disk(), vmid=101)
    assert (await rig.driver.info(101)).status == "stopped"
    assert open_images(rig) == before, "the driver closed what it was given"


async def test_pause_and_resume(rig: Rig) -> None:
    await rig.start(paused=True)
    assert (await rig.driver.info(100)).status == "paused"
    await rig.driver.resume(100)
    assert (await rig.driver.info(100)).status == "running"
    await rig.driver.pause(100)
    assert (await rig.driver.info(100)).status == "paused"
    await rig.driver.reset(100)
    await rig.driver.resume(100)


async def test_a_killed_process_is_an_event(rig: Rig) -> None:
    running = await rig.start(rig.disk())
    rig.kill(100, running.pid)
    await rig.until(lambda: any(e.kind in ("crashed", "stopped") for e in rig.events))
    assert (await rig.driver.info(100)).status == "stopped"
    await rig.start(rig.disk())


async def test_not_running_is_said(rig: Rig) -> None:
    for call in (rig.driver.pause(100), rig.driver.resume(100), rig.driver.reset(100), rig.driver.screenshot(100)):
        with pytest.raises(PanalError):
            await call
    assert await rig.driver.wait_stopped(100, 0.1)


async def test_the_guest_survives_the_daemon(rig: Rig) -> None:
    running = await rig.start(rig.disk(), epoch=3)
    await rig.reconnect()
    (adopted,) = await rig.driver.adopt()
    assert (adopted.vmid, adopted.pid, adopted.epoch) == (100, running.pid, 3)
    assert dict(adopted.hardware) == dict(running.hardware)
    assert adopted.config["memory"] == "64"
    rig.events.clear()
    await rig.driver.stop(100)
    await rig.saw("stopped")


async def test_what_died_meanwhile_is_not_adopted(rig: Rig) -> None:
    running = await rig.start(rig.disk())
    rig.kill(100, running.pid)
    await rig.until(lambda: bool(rig.events))
    await rig.reconnect()
    assert not await rig.driver.adopt()
    await rig.start(rig.disk())


async def test_disk_snapshots_of_a_running_guest(rig: Rig) -> None:
    await rig.start(rig.disk(), rig.disk("scsi1", "two.qcow2"))
    await rig.driver.snapshot_disks(100, ["scsi0", "scsi1"], "s1")
    assert snapshots(rig) == snapshots(rig, "two.qcow2") == ["s1"]
    await rig.driver.delete_disk_snapshot(100, "scsi0", "s1")
    await rig.driver.delete_disk_snapshot(100, "scsi0", "s1")
    assert (snapshots(rig), snapshots(rig, "two.qcow2")) == ([], ["s1"])


async def test_all_disks_or_none(rig: Rig) -> None:
    await rig.start(rig.disk())
    with pytest.raises(PanalError):
        await rig.driver.snapshot_disks(100, ["scsi0", "scsi9"], "s1")
    assert not snapshots(rig)


async def test_ram_comes_back(rig: Rig) -> None:
    running = await rig.start(rig.disk())
    path = rig.image("ram.raw", "256M")
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    await rig.driver.pause(100)
    steps: list[tuple[int, int]] = []
    await rig.driver.save_ram(100, fd, lambda done, total: steps.append((done, total)))
    os.close(fd)
    assert (await rig.driver.info(100)).status == "paused"
    await rig.driver.stop(100)
    incoming = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    again = await rig.start(rig.disk(), hardware=running.hardware, incoming=incoming, paused=True, epoch=2)
    assert again.epoch == 2
    assert (await rig.driver.info(100)).status == "paused"
    await rig.driver.resume(100)
    assert (await rig.driver.info(100)).status == "running"


async def test_damaged_ram_leaves_nothing(rig: Rig) -> None:
    running = await rig.start(rig.disk())
    await rig.driver.stop(100)
    path = rig.directory / "bad.raw"
    path.write_bytes(b"not RAM at all" * 1000)
    with pytest.raises(PanalError):
        await rig.start(
            rig.disk(), hardware=running.hardware, incoming=os.open(path, os.O_RDONLY | os.O_CLOEXEC), paused=True
        )
    assert (await rig.driver.info(100)).status == "stopped"
    await rig.start(rig.disk())


async def test_a_disk_grows(rig: Rig) -> None:
    await rig.start(rig.disk("scsi0", "disk.raw"))
    await rig.driver.resize_disk(100, "scsi0", 16 * 1024 * 1024)
    assert (rig.directory / "disk.raw").stat().st_size == 16 * 1024 * 1024


async def test_serial_port_and_its_next_user(rig: Rig) -> None:
    await rig.start()
    with socket.socket(fileno=rig.driver.serial(100, 0)) as first:
        first.settimeout(5)
        with socket.socket(fileno=rig.driver.serial(100, 0)) as second:
            await asyncio.sleep(0.1)
            assert second.fileno() >= 0
            data = b"x"
            while data:  # the first one is closed, after what it had still to read
                data = await asyncio.to_thread(first.recv, 4096)
    with pytest.raises(PanalError):
        rig.driver.serial(100, 3)


async def test_keys_and_screen(rig: Rig) -> None:
    await rig.start(config={"vga": "std"})
    await rig.driver.send_keys(100, ["ctrl", "alt", "delete"])
    assert (await rig.driver.screenshot(100)).startswith(b"\x89PNG")


def target(rig: Rig, name: str) -> CopyTarget:
    path = rig.image(name)
    return CopyTarget(path.suffix[1:], os.open(path, os.O_RDWR | os.O_CLOEXEC))


def content(rig: Rig, name: str) -> bytes:
    """The first MiB as a guest sees it."""
    path = rig.directory / name
    raw = rig.directory / "shown"
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", str(path), str(raw)], check=True)
    return raw.read_bytes()[: 1 << 20]


def written(rig: Rig, name: str, what: bytes) -> None:
    subprocess.run(
        ["qemu-io", "-f", name.rpartition(".")[2], "-c", f"write -P {what[0]} 0 64k", str(rig.image(name))],
        check=True, capture_output=True,
    )  # fmt: skip


async def nothing_left(rig: Rig) -> None:
    """Another copy works at once; in QEMU no job, node, descriptor of the first one."""
    assert (await rig.driver.info(100)).status == "running"
    if isinstance(rig, QemuRig):
        guest = rig.driver._guests[100]  # type: ignore[attr-defined]
        assert await guest.call("query-jobs") == []
        nodes = await guest.call("query-named-block-nodes", {"flat": True})
        assert not [n["node-name"] for n in nodes if "copy" in n["node-name"]]
        assert not [s for s in await guest.call("query-fdsets") if any(f.get("opaque") for f in s["fds"])]


async def test_disks_are_copied_while_the_guest_runs(rig: Rig) -> None:
    """Planted fault: without `cont` at the end the guest stays paused; without `clear` the nodes stay."""
    written(rig, "disk.qcow2", b"a")
    written(rig, "two.raw", b"b")
    await rig.start(rig.disk(), rig.disk("virtio1", "two.raw"))
    before = open_images(rig)
    steps: list[tuple[int, int]] = []
    targets = {"scsi0": target(rig, "new.qcow2"), "virtio1": target(rig, "new.raw")}
    await rig.driver.copy_disks(100, targets, lambda done, total: steps.append((done, total)))
    assert content(rig, "new.qcow2")[: 1 << 16] == b"a" * (1 << 16)
    assert content(rig, "new.raw")[: 1 << 16] == b"b" * (1 << 16)
    assert steps
    assert all(0 <= done <= total for done, total in steps)
    assert open_images(rig) == before
    await nothing_left(rig)
    await rig.driver.pause(100)
    await rig.driver.copy_disks(100, {"scsi0": target(rig, "paused.qcow2")}, lambda done, total: None)
    assert (await rig.driver.info(100)).status == "paused", "as it was"


async def test_a_copy_that_fails_harms_nobody(rig: Rig) -> None:
    await rig.start(rig.disk())
    before = open_images(rig)
    with pytest.raises(PanalError):
        await rig.driver.copy_disks(
            100, {"scsi0": target(rig, "new.qcow2"), "scsi9": target(rig, "no.qcow2")}, lambda done, total: None
        )
    assert open_images(rig) == before
    await nothing_left(rig)
    with pytest.raises(PanalError):
        await rig.driver.copy_disks(101, {"scsi0": target(rig, "new.qcow2")}, lambda done, total: None)
    assert open_images(rig) == before


async def slow_copy(rig: Rig) -> asyncio.Task[None]:
    """A copy that has begun and does not end in this test's time."""
    written(rig, "disk.qcow2", b"a")
    if isinstance(rig, FakeRig):
        rig.driver.timings = Timings(copy_s=3600)
    await rig.start(rig.disk())
    begun = asyncio.Event()
    task = asyncio.create_task(
        rig.driver.copy_disks(
            100, {"scsi0": target(rig, "new.qcow2")}, lambda done, total: begun.set(), limit_bytes_s=1
        )
    )
    await asyncio.wait_for(begun.wait(), 30)
    return task


async def test_a_copy_that_is_cancelled_leaves_nothing(rig: Rig) -> None:
    """Planted fault: without `clear` in the end the job runs on."""
    task = await slow_copy(rig)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await nothing_left(rig)


async def test_a_copy_of_a_dead_daemon_ends_at_adoption(rig: Rig) -> None:
    """Planted fault: without `clear` at the connection the job runs on."""
    task = await slow_copy(rig)
    await rig.reconnect()
    task.cancel()
    with suppress(PanalError, asyncio.CancelledError):
        await task
    await rig.driver.adopt()
    await nothing_left(rig)
    await rig.driver.copy_disks(100, {"scsi0": target(rig, "again.qcow2")}, lambda done, total: None)
    assert content(rig, "again.qcow2")[:1] == b"a"


async def test_a_guest_that_ends_during_the_copy(rig: Rig) -> None:
    task = await slow_copy(rig)
    await rig.driver.stop(100)
    if isinstance(rig, FakeRig):
        task.cancel()
    with pytest.raises((PanalError, asyncio.CancelledError)):
        await task
    assert (await rig.driver.info(100)).status == "stopped"
    assert not open_images(rig)
