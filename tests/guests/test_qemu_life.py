"""The QEMU driver with real QEMU: a guest's life from start to the last trace."""

import asyncio
import os
import signal
import stat
from pathlib import Path

import pytest

from panal.core.errors import BadInput, Conflict, Failed, NotFound
from tests.guests.qemu_rig import Rig

pytestmark = [pytest.mark.real]


async def test_start_runs_confined_and_stop_leaves_nothing(rig: Rig):
    """Planted faults: without setpriv Uid is 0; without -sandbox Seccomp is 0; a listener bound before fchmod is 0755."""
    before = sorted(os.listdir("/proc/self/fd"))
    running = await rig.start({"scsi0": rig.disk("a"), "serial0": "socket", "net0": "virtio=BC:24:11:00:00:01"})
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{running.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert int(status["Uid"].split()[0]) >= 0x7000_0000
        assert int(status["CapEff"], 16) == 0
        assert int(status["CapBnd"], 16) == 0
    for path in rig.run.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    live = await rig.driver.info(100)
    assert (live.status, live.qmpstatus, live.pid) == ("running", "running", running.pid)
    await rig.driver.stop(100)
    assert (await rig.driver.info(100)).status == "stopped"
    assert not Path(f"/proc/{running.pid}").exists()
    assert list((rig.run / "guests").iterdir()) == []
    assert rig.driver.host.cgroups.names() == set()
    assert sorted(os.listdir("/proc/self/fd")) == before
    await rig.settle(lambda: "stopped" in rig.kinds())
    assert rig.kinds() == ["started", "shutdown", "stopped"]


async def test_two_guests_have_two_uids(rig: Rig):
    await rig.start({"scsi0": rig.disk("a")})
    await rig.start({"scsi0": rig.disk("b")}, vmid=101)
    uids = {rig.driver._guests[vmid].record.uid for vmid in (100, 101)}
    assert len(uids) == (2 if os.geteuid() == 0 else 1)


async def test_one_image_is_never_open_twice(rig: Rig):
    """Invariant 1. Planted fault: with locking off the second start succeeds."""
    image = rig.disk("a")
    await rig.start({"scsi0": image})
    with pytest.raises(Failed, match="lock"):
        await rig.start({"scsi0": image}, vmid=101)
    assert (await rig.driver.info(101)).status == "stopped"
    assert [p.name for p in (rig.run / "guests").iterdir()] == ["100"]
    with pytest.raises(Conflict):
        await rig.start({"scsi0": image})


async def test_a_start_that_fails_leaves_nothing_and_says_why(rig: Rig):
    before = len(os.listdir("/proc/self/fd"))
    for config, word in (
        ({"scsi0": rig.disk("a"), "args": "-device no-such-device"}, "no-such-device"),
        ({"scsi0": rig.disk("a"), "cpu": "NoSuchModel"}, "NoSuchModel"),
        ({"scsi0": rig.disk("b", fmt="raw"), "memory": "4000000"}, "memory"),
    ):
        with pytest.raises((Failed, BadInput), match=word):
            await rig.start(config)
    assert list((rig.run / "guests").iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert rig.driver.host.cgroups.names() == set()


async def test_refusals_name_the_key_before_anything_starts(rig: Rig):
    for key, value in (("hostpci0", "0000:00:02.0"), ("usb0", "spice"), ("vga", "virtio-gl"), ("machine", "virt"),
                       ("serial0", "/dev/ttyS0"), ("net0", "virtio")):  # fmt: skip
        with pytest.raises(BadInput) as refused:
            await rig.start({key: value})
        assert refused.value.field == key
    assert list((rig.run / "guests").iterdir()) == []


async def test_kill_is_a_crash_and_seen_at_once(rig: Rig):
    running = await rig.start({"scsi0": rig.disk("a")})
    os.kill(running.pid, signal.SIGKILL)
    assert await rig.driver.wait_stopped(100, 5)
    await rig.settle(lambda: "crashed" in rig.kinds())
    assert list((rig.run / "guests").iterdir()) == []
    with pytest.raises(NotFound):
        await rig.driver.pause(100)


async def test_a_hung_qemu_blocks_nobody(rig: Rig):
    """Planted fault: without the time limits of sample() and of Monitor.call this never ends."""
    running = await rig.start({"scsi0": rig.disk("a")})
    await rig.start({"scsi0": rig.disk("b")}, vmid=101)
    os.kill(running.pid, signal.SIGSTOP)
    samples = {live.vmid: live for live in await rig.driver.sample()}
    assert samples[101].qmpstatus == "running"
    assert samples[100].pid == running.pid
    await rig.driver.pause(101)
    assert (await rig.driver.info(101)).status == "paused"
    await rig.driver.stop(100, timeout_s=5)
    assert (await rig.driver.info(100)).status == "stopped"


async def test_pause_resume_reset(rig: Rig):
    await rig.start({"scsi0": rig.disk("a")})
    await rig.driver.pause(100)
    assert (await rig.driver.info(100)).status == "paused"
    await rig.driver.resume(100)
    assert (await rig.driver.info(100)).status == "running"
    await rig.driver.reset(100)
    await rig.settle(lambda: "reset" in rig.kinds())
    assert [k for k in rig.kinds() if k != "reset"] == ["started", "paused", "resumed"]


async def test_paused_start_and_freeze(rig: Rig):
    await rig.start({}, paused=True)
    assert (await rig.driver.info(100)).status == "paused"
    await rig.driver.resume(100)
    assert (await rig.driver.info(100)).status == "running"
    await rig.start({"freeze": "1"}, vmid=101)
    assert (await rig.driver.info(101)).status == "paused"


async def test_screenshot_is_a_png_and_keys_arrive(rig: Rig):
    await rig.start({})
    picture = await rig.driver.screenshot(100)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    await rig.driver.send_keys(100, ["ctrl", "alt", "delete"])
    with pytest.raises(BadInput):
        await rig.driver.send_keys(100, ["no-such-key"])
    assert len(os.listdir(f"/proc/{rig.driver._guests[100].process.pid}/fd")) < 60


async def test_cancelled_start_leaves_nothing(rig: Rig):
    """A stopped task in the middle of a start. Planted fault: without the shield the process stays."""
    for delay in (0.0, 0.005, 0.015, 0.03):
        task = asyncio.create_task(rig.start({"scsi0": rig.disk("a")}))
        await asyncio.sleep(delay)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:  # it was quicker than we
            await rig.driver.stop(100)
        assert list((rig.run / "guests").iterdir()) == []
        assert rig.processes() == []
