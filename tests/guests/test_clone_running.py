"""Clones of a running guest, with real QEMU: one instant for all its disks, and nothing lost when the daemon dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from panal.core.errors import Failed
from panal.guests.drivers.base import CopyTarget
from panal.guests.drivers.qemu import copies
from panal.guests.drivers.qemu.guest import Guest
from tests.daemon_under_test import NodeUnderTest
from tests.guests.qemu_rig import Rig
from tests.guests.test_qemu_state import _booted

pytestmark = [pytest.mark.real]
BASE = "/nodes/n1/qemu"

COUNTER = (
    "i=0; while :; do i=$((i+1)); for d in vdb vdc; do echo $i | dd of=/dev/$d bs=512 conv=fsync,notrunc 2>/dev/null;"
    " done; done & echo cou''nting"
)


def first_number(path: Path) -> int:
    """What the guest wrote last, as the image has it."""
    raw = path.with_suffix(".shown")
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", str(path), str(raw)], check=True)
    return int(raw.read_bytes()[:512].split(b"\n")[0])


async def test_both_disks_are_of_one_instant_while_the_guest_writes(
    rig: Rig, guest_disk: Path, monkeypatch: pytest.MonkeyPatch
):
    """The guest counts, on one disk, then the other. Planted fault: without stop and cont around the cuts they differ."""
    call = Guest.call

    async def slowly(self: Guest, command: str, *args: Any, **kwargs: Any) -> Any:
        result = await call(self, command, *args, **kwargs)
        if command == "block-job-cancel":
            await asyncio.sleep(0.3)  # time enough between the two for a guest that runs to write
        return result

    monkeypatch.setattr(Guest, "call", slowly)
    config = {
        "virtio0": rig.disk("guest", source=guest_disk), "virtio1": rig.disk("a", size="16M"),
        "virtio2": f"{rig.disk('b', fmt='raw', size='16M')},iothread=1", "serial0": "socket",
    }  # fmt: skip
    await rig.start(config)
    console = await _booted(rig)
    await console.say(COUNTER)
    await console.until(b"counting\r\n")
    last = 0
    for number in range(3):
        paths = {
            k: rig.path(rig.disk(f"{k}-{number}", fmt, "16M")) for k, fmt in (("virtio1", "raw"), ("virtio2", "qcow2"))
        }
        targets = {k: CopyTarget(p.suffix[1:], os.open(p, os.O_RDWR | os.O_CLOEXEC)) for k, p in paths.items()}
        await rig.driver.copy_disks(100, targets, lambda done, total: None)
        one, two = (first_number(p) for p in paths.values())
        assert one - two in (0, 1), (number, one, two)
        assert one > last, "the guest went on"
        last = one
        assert (await rig.driver.info(100)).status == "running"
    console.close()


async def test_a_qemu_that_hangs_is_cleared_when_it_answers_again(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """Planted fault: without the cleaner the job goes on for ever."""
    monkeypatch.setattr(copies, "_AGAIN_S", 0.1)
    disk = rig.disk("a")
    fill(rig.path(disk), 1, 16)
    running = await rig.start({"scsi0": disk})
    begun = asyncio.Event()
    target = CopyTarget("qcow2", os.open(rig.path(rig.disk("b")), os.O_RDWR | os.O_CLOEXEC))
    copying = asyncio.create_task(
        rig.driver.copy_disks(100, {"scsi0": target}, lambda done, total: begun.set(), limit_bytes_s=1024)
    )
    await asyncio.wait_for(begun.wait(), 30)
    os.kill(running.pid, signal.SIGSTOP)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    os.kill(running.pid, signal.SIGCONT)
    guest = rig.driver._guests[100]
    async with asyncio.timeout(30):
        assert guest.cleaner is not None
        await guest.cleaner
    assert await guest.call("query-jobs") == []
    assert not [f for f in await guest.call("query-fdsets") if any(fd.get("opaque") for fd in f["fds"])]


async def test_a_job_that_was_taken_away_is_no_copy(rig: Rig):
    """Planted fault: no job left counts as all jobs ready, and the half copy as a whole one."""
    disk = rig.disk("a")
    fill(rig.path(disk), 1, 16)
    await rig.start({"scsi0": disk})
    begun = asyncio.Event()
    target = CopyTarget("qcow2", os.open(rig.path(rig.disk("b")), os.O_RDWR | os.O_CLOEXEC))
    copying = asyncio.create_task(
        rig.driver.copy_disks(100, {"scsi0": target}, lambda done, total: begun.set(), limit_bytes_s=1024)
    )
    await asyncio.wait_for(begun.wait(), 30)
    await copies.clear(rig.driver._guests[100])
    with pytest.raises(Failed, match="try again"):
        await copying


@pytest.mark.root
async def test_a_full_storage_is_an_error_of_the_copy_and_not_of_the_guest(rig: Rig, guest_disk: Path):
    """The guest writes on. Planted fault: backup jobs instead of mirrors give it I/O errors."""
    await rig.start(
        {"virtio0": rig.disk("guest", source=guest_disk), "virtio1": rig.disk("a", size="16M"), "serial0": "socket"}
    )
    console = await _booted(rig)
    await console.say("dd if=/dev/urandom of=/dev/vdb bs=1M count=16 conv=fsync; echo rea''dy")
    await console.until(b"ready\r\n")
    small = rig.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "small", str(small)], check=True)
    try:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(small / "t.qcow2"), "16M"], check=True)
        target = CopyTarget("qcow2", os.open(small / "t.qcow2", os.O_RDWR | os.O_CLOEXEC))
        with pytest.raises(Failed, match="no space left on the storage"):
            await rig.driver.copy_disks(100, {"virtio1": target}, lambda done, total: None)
        await console.say("dd if=/dev/zero of=/dev/vdb bs=1M count=16 conv=fsync && echo writ''ten")
        await console.until(b"written\r\n")
        assert (await rig.driver.info(100)).qmpstatus == "running"
    finally:
        subprocess.run(["umount", str(small)], check=True)
    console.close()


@pytest.fixture(scope="module")
def node() -> Iterator[NodeUnderTest]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with NodeUnderTest(driver="qemu") as running:
        yield running


def images(node: NodeUnderTest) -> Path:
    return node.state / "storage/local/images"


def ended(node: NodeUnderTest, upid: str) -> tuple[str, list[str]]:
    """The task's end, and its log."""
    while True:
        status = node.must("GET", f"/nodes/n1/tasks/{upid}/status")
        if status["status"] == "stopped":
            lines = [row["t"] for row in node.must("GET", f"/nodes/n1/tasks/{upid}/log", limit=100)]
            return status["exitstatus"], lines
        time.sleep(0.1)


def fill(path: Path, byte: int, mib: int) -> None:
    commands = ["-c", f"write -P {byte} 0 {mib}M"]
    subprocess.run(["qemu-io", "-f", path.suffix[1:], *commands, str(path)], check=True, capture_output=True)


def check(path: Path, byte: int, mib: int) -> None:
    shown = subprocess.run(
        ["qemu-io", "-U", "-r", "-f", path.suffix[1:], "-c", f"read -P {byte} 0 {mib}M", str(path)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stdout
    assert "failed" not in shown.stdout


def made(node: NodeUnderTest, vmid: int, **config: object) -> str:
    upid = node.must("POST", BASE, vmid=vmid, memory=64, vga="none", **config)
    assert ended(node, upid)[0] == "OK"
    return f"{BASE}/{vmid}"


def gone(node: NodeUnderTest, *vmids: int) -> None:
    for vmid in vmids:
        with_it = node.admin("GET", f"{BASE}/{vmid}/status/current")
        if with_it[0] == 200:
            ended(node, node.must("POST", f"{BASE}/{vmid}/status/stop"))
            assert ended(node, node.must("DELETE", f"{BASE}/{vmid}"))[0] == "OK"


def test_clone_and_clone_of_a_snapshot_while_it_runs(node: NodeUnderTest) -> None:
    more = {"bios": "ovmf"} if Path("/usr/share/OVMF").exists() else {}
    more |= {"tpmstate0": "local:1,version=v2.0"} if shutil.which("swtpm") else {}
    path = made(
        node, 100, scsi0="local:1,format=qcow2", scsi1="local:1,format=raw", efidisk0="local:1,format=qcow2",
        ide2="none,media=cdrom", scsihw="virtio-scsi-single", scsi2="local:1,format=qcow2,ro=1", **more,
    )  # fmt: skip
    names = {
        k: v.split(",")[0].split(":")[1] for k, v in node.must("GET", f"{path}/config").items() if "vm-100" in str(v)
    }
    fill(images(node) / names["scsi0"], 1, 8)
    fill(images(node) / names["scsi1"], 2, 8)
    fill(images(node) / names["scsi2"], 3, 1)
    assert ended(node, node.must("POST", f"{path}/status/start"))[0] == "OK"
    status, log = ended(node, node.must("POST", f"{path}/clone", newid=101, full=1))
    assert status == "OK", log
    assert any("transferred" in line and "(100%)" in line for line in log), log
    assert node.must("GET", f"{path}/status/current")["qmpstatus"] == "running"
    config = node.must("GET", f"{BASE}/101/config")
    assert config["ide2"] == "none,media=cdrom"
    volumes = {k: config[k].split(",")[0].split(":")[1] for k in ("scsi0", "scsi1", "scsi2", "efidisk0")}
    check(images(node) / volumes["scsi0"], 1, 8)
    check(images(node) / volumes["scsi1"], 2, 8)
    check(images(node) / volumes["scsi2"], 3, 1)
    assert (images(node) / volumes["scsi1"]).stat().st_blocks * 512 < 64 << 20, "holes stay holes"
    assert ended(node, node.must("POST", f"{BASE}/101/status/start"))[0] == "OK", "the clone is a guest"
    status, log = ended(node, node.must("POST", f"{path}/clone", newid=102, full=1, format="raw", bwlimit=1 << 20))
    assert status == "OK", log
    check(images(node) / node.must("GET", f"{BASE}/102/config")["scsi0"].split(",")[0].split(":")[1], 1, 8)
    gone(node, 100, 101, 102)

    path = made(node, 110, scsi0="local:1,format=qcow2", agent=1)  # nobody answers there: no clone fails for it
    disk = images(node) / node.must("GET", f"{path}/config")["scsi0"].split(",")[0].split(":")[1]
    fill(disk, 3, 4)
    assert ended(node, node.must("POST", f"{path}/status/start"))[0] == "OK"
    assert ended(node, node.must("POST", f"{path}/snapshot", snapname="s1", vmstate=1))[0] == "OK"
    status, log = ended(node, node.must("POST", f"{path}/clone", newid=111, full=1, snapname="s1"))
    assert status == "OK", log
    assert ended(node, node.must("POST", f"{path}/snapshot/s1/rollback"))[0] == "OK"
    status, log = ended(node, node.must("POST", f"{path}/clone", newid=112, full=1))
    assert status == "OK", log
    for vmid in (111, 112):
        check(images(node) / node.must("GET", f"{BASE}/{vmid}/config")["scsi0"].split(",")[0].split(":")[1], 3, 4)
    assert ended(node, node.must("PUT", f"{BASE}/112/resize", disk="scsi0", size="+1G"))[0] == "OK"
    assert node.must("GET", f"{path}/status/current")["qmpstatus"] == "running"
    gone(node, 110, 111, 112)


def volumes(node: NodeUnderTest) -> set[str]:
    return {str(p.relative_to(images(node))) for p in images(node).rglob("*") if p.is_file()}


def qemu_deleted_files(node: NodeUnderTest, vmid: int) -> list[str]:
    """Files that the guest's process has open though they are gone: a leak."""
    pid = json.loads((node.run / f"guests/{vmid}/run.json").read_text())["pid"]
    links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if "images/" in link and "deleted" in link]


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_clone_that_is_cut_off_leaves_nothing(node: NodeUnderTest, how: str) -> None:
    """A person stops it, or the daemon is killed. Planted fault: without `clear` at adoption QEMU keeps the file open."""
    path = made(node, 120, scsi0="local:1,format=qcow2")
    disk = images(node) / node.must("GET", f"{path}/config")["scsi0"].split(",")[0].split(":")[1]
    fill(disk, 4, 64)
    assert ended(node, node.must("POST", f"{path}/status/start"))[0] == "OK"
    before = volumes(node)
    upid = node.must("POST", f"{path}/clone", newid=121, full=1, bwlimit=64)
    while not any("transferred" in row["t"] for row in node.must("GET", f"/nodes/n1/tasks/{upid}/log")):
        time.sleep(0.05)
    assert volumes(node) != before
    if how == "killed":
        node.kill_daemon()
        node.start_daemon()
    else:
        node.must("DELETE", f"/nodes/n1/tasks/{upid}")
    assert ended(node, upid)[0] != "OK"
    assert volumes(node) == before
    assert node.admin("GET", f"{BASE}/121/config")[0] != 200
    assert node.must("GET", f"{path}/status/current")["qmpstatus"] == "running"
    assert qemu_deleted_files(node, 120) == []
    status, log = ended(node, node.must("POST", f"{path}/clone", newid=121, full=1))
    assert status == "OK", log
    gone(node, 120, 121)
