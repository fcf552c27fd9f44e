"""The QEMU driver with real QEMU: RAM, snapshots, resize, consoles, and what survives the daemon."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess

import pytest

from panal.core.errors import Failed, NotFound
from panal.guests.drivers.qemu import launch
from panal.guests.drivers.qemu.records import Places
from tests.guests.qemu_rig import Rig

pytestmark = [pytest.mark.real]


class Console:
    """A person at a serial port."""

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)

    async def until(self, wanted: bytes, timeout_s: float = 90) -> bytes:
        seen = b""
        async with asyncio.timeout(timeout_s):
            while wanted not in seen:
                data = await asyncio.get_running_loop().sock_recv(self.socket, 4096)
                assert data, seen
                seen += data
        return seen

    async def say(self, line: str) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, line.encode() + b"\r")

    def close(self) -> None:
        self.socket.close()


async def _booted(rig: Rig, vmid: int = 100) -> Console:
    console = Console(rig.driver.serial(vmid, 0))
    await console.until(b"guest# ")
    return console


async def test_ram_and_disks_of_one_moment_come_back(rig: Rig, guest_disk):
    """Planted fault: without taking the drives back, the disk snapshot after the RAM ends QEMU (an assertion in it)."""
    disk = rig.disk("guest", source=guest_disk)
    config = {"virtio0": disk, "serial0": "socket", "memory": "128"}
    first = await rig.start(config)
    console = await _booted(rig)
    await console.say("echo before >/tmp/ram; echo before >/data/disk; sync; echo rea''dy")
    await console.until(b"ready\r\n")
    state = os.open(rig.directory / "state", os.O_RDWR | os.O_CREAT, 0o600)
    steps: list[tuple[int, int]] = []
    with pytest.raises(Failed, match="paused"):
        await rig.driver.save_ram(100, state, lambda done, total: None)
    await rig.driver.pause(100)
    await rig.driver.save_ram(100, state, lambda done, total: steps.append((done, total)))
    await rig.driver.snapshot_disks(100, ["virtio0"], "s1")
    assert (await rig.driver.info(100)).status == "paused"
    assert os.fstat(state).st_size > 10 << 20
    assert steps[-1][1] >= 128 << 20
    await rig.driver.resume(100)
    await console.say("echo after >/tmp/ram; echo after >/data/disk; sync; echo do''ne")
    await console.until(b"done\r\n")
    console.close()
    await rig.driver.stop(100)
    assert not any("-b-" in line for line in rig.log)

    subprocess.run(["qemu-img", "snapshot", "-a", "s1", str(rig.path(disk))], check=True)
    again = await rig.start(config, hardware=first.hardware, incoming=os.dup(state), epoch=2)
    os.close(state)
    assert again.hardware == first.hardware
    assert (await rig.driver.info(100)).qmpstatus == "running"
    console = Console(rig.driver.serial(100, 0))
    await console.say("cat /tmp/ram /data/disk; echo e''nd")
    assert b"before\r\nbefore\r\nend" in await console.until(b"end\r\n")
    await rig.driver.delete_disk_snapshot(100, "virtio0", "s1")
    await rig.driver.delete_disk_snapshot(100, "virtio0", "s1")
    listed = subprocess.run(
        ["qemu-img", "snapshot", "-l", "-U", str(rig.path(disk))], capture_output=True, text=True, check=True
    ).stdout
    assert "s1" not in listed
    console.close()


@pytest.mark.parametrize("hardware", ["virtio-scsi-single", "virtio-scsi-pci", "lsi", "sata", "virtio"])
async def test_disks_can_be_snapshotted_after_the_ram_and_the_guest_goes_on(rig: Rig, hardware: str):
    kind = {"sata": "sata0", "virtio": "virtio0"}.get(hardware, "scsi0")
    iothread = ",iothread=1" if hardware in ("virtio-scsi-single", "virtio") else ""
    config = {kind: f"{rig.disk('a')}{iothread}", "efidisk0": rig.disk("e"), "bios": "seabios"}
    if kind == "scsi0":
        config["scsihw"] = hardware
    await rig.start(config)
    for name in ("one", "two"):
        await rig.driver.pause(100)
        state = os.open(rig.directory / name, os.O_RDWR | os.O_CREAT, 0o600)
        await rig.driver.save_ram(100, state, lambda done, total: None)
        os.close(state)
        await rig.driver.snapshot_disks(100, [kind, "efidisk0"], name)
        await rig.driver.resume(100)
        assert (await rig.driver.info(100)).qmpstatus == "running"
    shown = subprocess.run(
        ["qemu-img", "snapshot", "-lU", str(rig.directory / "a.qcow2")], capture_output=True, check=True
    )
    assert shown.stdout.count(b"\n") == 4


async def test_damaged_ram_is_refused_and_nothing_runs(rig: Rig):
    bad = os.open(rig.directory / "bad", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(bad, b"QEVM" + os.urandom(4096))
    with pytest.raises(Failed):
        await rig.start({"scsi0": rig.disk("a")}, incoming=bad)
    assert rig.processes() == []
    assert list((rig.run / "guests").iterdir()) == []


async def test_full_disk_while_saving_is_an_error_and_the_guest_stays(rig: Rig):
    await rig.start({"scsi0": rig.disk("a")})
    await rig.driver.pause(100)
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(Failed, match="No space left"):
        await rig.driver.save_ram(100, full, lambda done, total: None)
    os.close(full)
    assert (await rig.driver.info(100)).status == "paused"
    await rig.driver.resume(100)
    assert (await rig.driver.info(100)).status == "running"


async def test_snapshots_of_several_drives_are_all_or_none(rig: Rig):
    one, two = rig.disk("a"), rig.disk("b")
    await rig.start({"scsi0": one, "virtio1": two})
    subprocess.run(["qemu-img", "info", "-U", str(rig.path(two))], check=True, capture_output=True)
    await rig.driver.snapshot_disks(100, ["virtio1"], "taken")
    with pytest.raises(Failed):
        await rig.driver.snapshot_disks(100, ["scsi0", "virtio1"], "taken")
    await rig.driver.stop(100)
    listed = subprocess.run(
        ["qemu-img", "snapshot", "-l", str(rig.path(one))], capture_output=True, text=True, check=True
    ).stdout
    assert "taken" not in listed


async def test_resize_reaches_the_guest(rig: Rig, guest_disk):
    disk, raw = rig.disk("guest", source=guest_disk), rig.disk("r", fmt="raw", size="16M")
    await rig.start({"virtio0": disk, "scsi1": raw, "serial0": "socket", "boot": "order=virtio0"})
    console = await _booted(rig)
    await rig.driver.resize_disk(100, "virtio0", 96 << 20)
    await rig.driver.resize_disk(100, "scsi1", 32 << 20)
    assert rig.path(raw).stat().st_size == 32 << 20
    await console.say("cat /sys/block/vda/size; echo e''nd")
    assert str((96 << 20) // 512).encode() in await console.until(b"end\r\n")
    console.close()
    with pytest.raises(Failed):
        await rig.driver.resize_disk(100, "scsi7", 1 << 30)


async def test_a_later_console_takes_over(rig: Rig, guest_disk):
    """Planted fault: without the shutdown of the earlier session the second one hears nothing."""
    await rig.start({"virtio0": rig.disk("guest", source=guest_disk), "serial0": "socket"})
    first = await _booted(rig)
    second = Console(rig.driver.serial(100, 0))
    await second.say("echo sec''ond")
    await second.until(b"second")
    await _ends(first)
    first.close()
    second.close()
    with pytest.raises(NotFound):
        rig.driver.serial(100, 1)


async def _ends(console: Console) -> None:
    """What the guest still said to it may lie there; then comes the end."""
    async with asyncio.timeout(5):
        while await asyncio.get_running_loop().sock_recv(console.socket, 4096):
            pass


async def test_a_console_that_outlived_the_daemon_gives_way(rig: Rig, guest_disk):
    """The web front holds the socket, the daemon is new. Planted fault: without free_ports the second one hears nothing."""
    await rig.start({"virtio0": rig.disk("guest", source=guest_disk), "serial0": "socket"})
    first = await _booted(rig)
    await _forget(rig)
    await rig.connect()
    await rig.driver.adopt()
    for _ in range(2):
        second = Console(rig.driver.serial(100, 0))
        await second.say("echo sec''ond")
        await second.until(b"second", timeout_s=20)
    await _ends(first)
    first.close()
    second.close()


async def test_the_power_button_ends_the_guest(rig: Rig, guest_disk):
    await rig.start({"virtio0": rig.disk("guest", source=guest_disk), "serial0": "socket"})
    console = await _booted(rig)
    await rig.driver.shutdown(100)
    assert await rig.driver.wait_stopped(100, 60)
    await rig.settle(lambda: "stopped" in rig.kinds())
    assert rig.kinds()[-2:] == ["shutdown", "stopped"]
    console.close()


async def test_guests_survive_the_daemon_and_are_found_again(rig: Rig):
    """The driver object is dropped without a word, as by SIGKILL. Planted fault: a wrong start time adopts nobody."""
    running = await rig.start({"scsi0": rig.disk("a"), "serial0": "socket"}, epoch=7)
    await rig.start({"scsi0": rig.disk("b")}, vmid=101)
    tpm = {"tpmstate0": rig.disk("tpm", fmt="raw", size="4M")} if shutil.which("swtpm") else {}
    await rig.start({"scsi0": rig.disk("c"), **tpm}, vmid=102, paused=True)
    count = len(rig.processes())
    await _forget(rig)
    os.kill(_pid(rig, 101), 9)
    await rig.settle(lambda: len(rig.processes()) == count - 1)

    await rig.connect()
    adopted = {r.vmid: r for r in await rig.driver.adopt()}
    assert set(adopted) == {100, 102}
    assert len(rig.processes()) == count - 1  # the TPM's process belongs to a guest that was kept
    assert adopted[100] == running
    assert sorted(p.name for p in (rig.run / "guests").iterdir()) == ["100", "102"]
    assert rig.driver.host.cgroups.names() <= {"100", "102"}
    assert (await rig.driver.info(102)).status == "paused"
    await rig.driver.pause(100)
    await rig.driver.resume(100)
    os.close(rig.driver.serial(100, 0))
    os.kill(running.pid, 9)
    await rig.settle(lambda: "crashed" in rig.kinds())


async def test_a_guest_that_hangs_at_adoption_speaks_again_later(rig: Rig):
    running = await rig.start({"scsi0": rig.disk("a")})
    await _forget(rig)
    os.kill(running.pid, signal.SIGSTOP)
    await rig.connect()
    assert [r.vmid for r in await rig.driver.adopt()] == [100]
    assert (await rig.driver.info(100)).qmpstatus == "unknown"
    os.kill(running.pid, signal.SIGCONT)
    for _ in range(20):
        if (await rig.driver.info(100)).qmpstatus == "running":
            break
    else:
        raise AssertionError("it never spoke again")
    await rig.driver.pause(100)


async def test_a_daemon_that_hangs_does_not_lock_its_successor_out(rig: Rig):
    """The first monitor is still held by somebody: the second one serves."""
    await rig.start({"scsi0": rig.disk("a")})
    old = rig.driver
    await rig.connect()
    assert [r.vmid for r in await rig.driver.adopt()] == [100]
    await rig.driver.pause(100)
    await old.close()


async def test_a_process_that_no_record_names_is_killed_at_adoption(rig: Rig):
    """The daemon died between fork and record. Planted fault: without _kill_strays the process stays."""
    running = await rig.start({"scsi0": rig.disk("a")})
    (rig.run / "guests/100/run.json").unlink()
    await _forget(rig)
    await rig.connect()
    assert await rig.driver.adopt() == []
    await rig.settle(lambda: rig.processes() == [])
    assert not (rig.run / "guests/100").exists()
    assert running.pid


async def test_a_start_that_was_cut_off_is_no_guest(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """Invariant 3. The daemon died after the record, before the vCPUs ran: that guest would say `prelaunch` for ever.

    Planted fault, as found: adoption took every record for a guest.
    """
    monkeypatch.setattr(launch, "_begin", _cut)
    monkeypatch.setattr(launch, "discard", _cut)  # nothing is cleaned up by a daemon that is dead
    monkeypatch.setattr(Places, "remove", lambda self, vmid: None)
    with pytest.raises(_PowerCut):
        await rig.start({"scsi0": rig.disk("a")})
    assert len(rig.processes()) == 1
    monkeypatch.undo()
    rig.driver._guests.clear()
    await _forget(rig)
    await rig.connect()
    assert await rig.driver.adopt() == []
    await rig.settle(lambda: rig.processes() == [])
    await rig.start({"scsi0": rig.disk("a")})
    assert (await rig.driver.info(100)).status == "running"


class _PowerCut(BaseException):
    """The daemon is dead."""


async def _cut(*_: object) -> None:
    raise _PowerCut


def _pid(rig: Rig, vmid: int) -> int:
    record = rig.driver.host.places.read(vmid)
    assert record is not None
    return record.pid


async def _forget(rig: Rig) -> None:
    await rig.driver.close()
