"""Configuration keys become the machine they name, at addresses that never move, and nothing else slips in (row 8)."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from panal.core.errors import PanalError
from tests.guests.qemu_rig import Rig

pytestmark = [pytest.mark.real]

NET = "BC:24:11:00:00:0"


async def _places(rig: Rig, vmid: int = 100) -> dict[str, tuple[str, str]]:
    """Device id → bus and slot.function, as QEMU has them."""
    guest = rig.driver._guests[vmid]
    found: dict[str, tuple[str, str]] = {}
    for child in await guest.call("qom-list", {"path": "/machine/peripheral"}):
        if not child["type"].startswith("child<"):
            continue
        path = f"/machine/peripheral/{child['name']}"
        if any(p["name"] == "legacy-addr" for p in await guest.call("qom-list", {"path": path})):
            bus = await guest.call("qom-get", {"path": path, "property": "parent_bus"})
            address = await guest.call("qom-get", {"path": path, "property": "legacy-addr"})
            found[child["name"]] = (bus.rsplit("/", 1)[-1], address)
    return found


async def test_addresses_stay_when_devices_come_and_go(rig: Rig):
    """Planted fault: without addr= in -device, QEMU packs the devices and net0 moves when virtio0 is added."""
    small = {"scsi0": rig.disk("a"), "net0": f"virtio={NET}1", "scsihw": "virtio-scsi-single"}
    large = {**small, "virtio0": rig.disk("b"), "net1": f"e1000={NET}2", "rng0": "/dev/urandom", "net7": f"virtio={NET}3",
             "watchdog": "i6300esb", "sata0": "none,media=cdrom", "agent": "1", "audio0": "device=ich9-intel-hda"}  # fmt: skip
    first = await rig.start(small)
    one = await _places(rig)
    await rig.driver.stop(100)
    second = await rig.start(large, hardware=first.hardware)
    two = await _places(rig)
    await rig.driver.stop(100)
    third = await rig.start(small, hardware=second.hardware)
    three = await _places(rig)
    assert {"net0", "virtioscsi0", "vga", "balloon0", "pci.1"} <= set(one)
    assert one == {key: two[key] for key in one} == {key: three[key] for key in one}
    assert len(set(two.values())) == len(two)
    assert one["net0"] == ("pci.0", "12.0")
    assert third.hardware == second.hardware
    assert first.hardware["machine"] == "pc-i440fx-7.2" or re.match(r"pc-i440fx-\d+\.\d+", first.hardware["machine"])


async def test_a_pinned_place_wins_over_the_table(rig: Rig):
    running = await rig.start({"net0": f"virtio={NET}1"}, hardware={"machine": "pc-i440fx-7.1", "pci.net0": "0/0x1e"})
    assert (await _places(rig))["net0"][1] == "1e.0"
    assert running.hardware["machine"] == "pc-i440fx-7.1"
    await rig.driver.stop(100)
    moved = await rig.start({"machine": "q35", "net0": f"virtio={NET}1"}, hardware=running.hardware)
    assert moved.hardware["machine"].startswith("pc-q35-")
    assert moved.hardware["pci.net0"] == "0/0x12"


MACHINES: dict[str, dict[str, str]] = {
    "q35": {"machine": "q35", "sata0": "DISK", "ide2": "none,media=cdrom", "net0": f"virtio={NET}1", "agent": "1"},
    "scsi-lsi": {"scsihw": "lsi", "scsi0": "DISK", "scsi9": "DISK"},
    "scsi-megasas": {"scsihw": "megasas", "scsi0": "DISK"},
    "scsi-pvscsi": {"scsihw": "pvscsi", "scsi3": "DISK"},
    "scsi-single": {"scsihw": "virtio-scsi-single", "scsi0": "DISK,iothread=1,ssd=1,discard=on", "scsi30": "DISK"},
    "virtio": {"virtio0": "DISK,iothread=1,cache=writeback,aio=threads,werror=stop,rerror=report", "virtio15": "DISK"},
    "native": {"virtio0": "DISK,aio=native,cache=none", "scsi1": "DISK,serial=ab_1,wwn=0x5000c50015ea71ac,ro=1"},
    "throttled": {"virtio0": "DISK,mbps_rd=1,mbps_rd_max=2,iops=100", "scsi0": "DISK,iops_wr=7", "ide0": "DISK,bps=99999"},
    "cds": {"ide2": "DISK,media=cdrom", "scsi2": "none,media=cdrom", "sata5": "none,media=cdrom"},
    "nics": {f"net{n}": f"{m}={NET}{n}" for n, m in enumerate(
        ("virtio", "e1000", "e1000e", "rtl8139", "vmxnet3", "pcnet", "ne2k_pci", "i82551"))},
    "net31": {"net31": f"virtio={NET}1,link_down=1,mtu=1400"},
    "cpus": {"sockets": "2", "cores": "2", "vcpus": "3", "cpu": "qemu64,flags=+aes;-pcid", "numa": "1"},
    "cpu-level": {"cpu": "x86-64-v2-AES", "kvm": "0"},
    "cpu-host": {"cpu": "host,hidden=1"},
    "numa": {"sockets": "2", "numa": "1", "numa0": "cpus=0,memory=64", "numa1": "cpus=1,memory=64"},
    "windows": {"ostype": "win10", "machine": "q35", "localtime": "1", "tdf": "1", "vga": "std,memory=32"},
    "qxl": {"vga": "qxl"}, "virtio-gpu": {"vga": "virtio"}, "cirrus": {"vga": "cirrus"}, "vmware": {"vga": "vmware"},
    "text": {"vga": "serial0", "serial0": "socket", "serial3": "socket"}, "no-screen": {"vga": "none", "acpi": "0"},
    "small": {"balloon": "0", "watchdog": "ib700,action=reset", "rng0": "source=/dev/urandom,max_bytes=10,period=100",
              "audio0": "device=AC97,driver=none", "tablet": "0", "keyboard": "de", "startdate": "2020-01-02T03:04:05",
              "vmgenid": "0f0f0f0f-0000-4000-8000-000000000001", "agent": "1,type=isa", "affinity": "0", "cpulimit": "0.5",
              "cpuunits": "50", "reboot": "0", "allow-ksm": "0", "spice_enhancements": "foldersharing=1"},
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
async def test_the_machine_starts(rig: Rig, name: str):
    config = {k: v.replace("DISK", rig.disk(f"{name}-{k}")) for k, v in MACHINES[name].items()}
    await rig.start(config)
    live = await rig.driver.info(100)
    assert live.qmpstatus == "running"
    inquiry = json.dumps(await rig.driver._guests[100].call("query-block"))
    for key, value in config.items():
        if value.startswith("tt:"):
            assert f"drive-{key}" in inquiry
    words = rig.driver.host.places.last_words(100)
    assert not words or name.startswith("cpu"), words
    rig.log = [line for line in rig.log if "KVM" not in line]


async def test_limits_are_set(rig: Rig):
    await rig.start({"virtio0": f"{rig.disk('a')},mbps_rd=1,iops=100", "scsi0": f"{rig.disk('b')},iops_wr=7"})
    throttles = {
        b["inserted"]["node-name"]: b["inserted"]
        for b in await rig.driver._guests[100].call("query-block")
        if "inserted" in b
    }
    assert throttles["drive-virtio0"]["bps_rd"] == 1 << 20
    assert throttles["drive-virtio0"]["iops"] == 100
    assert throttles["drive-scsi0"]["iops_wr"] == 7


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make control groups")
async def test_control_group_limits_and_affinity(rig: Rig):
    groups = rig.driver.host.cgroups
    if not groups.version:
        pytest.skip(groups.reason)
    running = await rig.start({"cpulimit": "0.5", "cpuunits": "50", "affinity": "0"})
    for path in groups.paths("100"):
        assert str(running.pid) in (path / "cgroup.procs").read_text().split()
    file, wanted = ("cpu.max", "50000 100000") if groups.version == 2 else ("cpu.cfs_quota_us", "50000")
    values = [(p / file).read_text().strip() for p in groups.paths("100") if (p / file).exists()]
    assert values == [wanted]
    for thread in os.listdir(f"/proc/{running.pid}/task"):
        assert os.sched_getaffinity(int(thread)) == {0}


async def test_smbios_and_names_may_hold_commas(rig: Rig):
    """Row 8. Planted fault: without the doubled commas QEMU takes `serial=evil` for an option of its own."""
    from base64 import b64encode

    coded = b64encode(b"a,serial=evil,uuid=x").decode()
    await rig.start({"smbios1": f"base64=1,product={coded},uuid=0f0f0f0f-0000-4000-8000-000000000001"})
    cmdline = Path(f"/proc/{rig.driver._guests[100].process.pid}/cmdline").read_bytes()
    assert b"product=a,,serial=evil,,uuid=x" in cmdline


PAYLOADS = ("x,readonly=on", "x\n-monitor stdio", "x\0y", "x'\"}", '","driver":"null-co', "-device", "$(id)", "; id")


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_injected_options_change_nothing(rig: Rig, payload: str):
    """Row 8: a hostile value is refused with our error, or is one value and nothing else."""
    for key, text in (
        ("scsi0", f"{rig.disk('a')},serial={payload}"), ("smbios1", f"serial={payload}"), ("vga", payload),
        ("net0", f"virtio={NET}1,bridge={payload}"), ("cpu", payload), ("machine", payload), ("rng0", payload),
        ("keyboard", payload), ("startdate", payload), ("watchdog", payload), ("vmgenid", payload),
        ("audio0", f"device={payload}"), ("numa0", f"cpus={payload}"), ("memory", payload), ("cores", payload),
        ("ostype", payload), ("affinity", payload), ("boot", f"order={payload}"),
    ):  # fmt: skip
        try:
            await rig.start({key: text, "numa": "1"})
        except PanalError:
            assert rig.processes() == []
            continue
        guest = rig.driver._guests[100]
        argv = Path(f"/proc/{guest.process.pid}/cmdline").read_bytes().split(b"\0")
        assert sum(word == b"-device" for word in argv) <= 8
        assert b"-monitor" not in argv
        blocks = await guest.call("query-named-block-nodes")
        assert all(b["drv"] in ("qcow2", "file") for b in blocks)
        assert all(not b["ro"] for b in blocks)
        await rig.driver.stop(100)


async def test_extra_arguments_come_last(rig: Rig):
    await rig.start({"args": "-global 'isa-debugcon.iobase=0x402' -device isa-debug-exit"})
    assert (await rig.driver.info(100)).status == "running"


@pytest.mark.skipif(not os.path.exists("/usr/share/OVMF/OVMF_CODE_4M.fd"), reason="the package ovmf is not installed")
@pytest.mark.parametrize("fmt", ["raw", "qcow2", ""])
async def test_ovmf_keeps_its_variables(rig: Rig, fmt: str):
    """Planted fault: a check for emptiness that fails reads as empty, and every start wipes the variables."""
    config = {"bios": "ovmf", "machine": "q35", "serial0": "socket"}
    if fmt:
        config["efidisk0"] = f"{rig.disk('efi', fmt=fmt, size='4M')},efitype=4m"
    await rig.start(config)
    assert (await rig.driver.info(100)).status == "running"
    await rig.driver.stop(100)
    if not fmt:
        return
    image, plain = rig.path(f"tt:efi.{fmt}"), rig.directory / "plain"

    def content() -> bytes:
        subprocess.run(["qemu-img", "convert", "-f", fmt, "-O", "raw", str(image), str(plain)], check=True)
        return plain.read_bytes()

    assert b"\x8d\x2b\xf1\xff" in content()[:4096]  # GUID of the variable store
    subprocess.run(
        ["qemu-io", "-f", fmt, "-c", "write -P 0x5a 100000 512", str(image)], check=True, capture_output=True
    )
    await rig.start(config)
    await rig.driver.snapshot_disks(100, ["efidisk0"] if fmt == "qcow2" else [], "s")
    await rig.driver.stop(100)
    assert content()[100_000:100_512] == b"\x5a" * 512


async def test_missing_ovmf_names_the_package(rig: Rig, monkeypatch):
    from panal.guests.drivers.qemu import firmware

    monkeypatch.setattr(firmware, "OVMF", rig.directory / "nowhere")
    with pytest.raises(PanalError, match="package `ovmf`"):
        await rig.start({"bios": "ovmf"})


@pytest.mark.skipif(not os.path.exists("/usr/bin/swtpm"), reason="the package swtpm is not installed")
async def test_tpm_keeps_its_state_and_goes_with_the_guest(rig: Rig):
    config = {"tpmstate0": f"{rig.disk('tpm', fmt='raw', size='4M')},version=v2.0", "machine": "q35"}
    await rig.start(config)
    assert await rig.driver._guests[100].call("query-tpm")
    assert len(rig.processes()) == 2
    await rig.driver.stop(100)
    assert rig.processes() == []
    kept = rig.path("tt:tpm.raw").read_bytes()
    assert any(kept)
    await rig.start(config)
    running = rig.driver._guests[100].process
    running.signal(signal.SIGKILL)
    assert await rig.driver.wait_stopped(100, 10)
    assert rig.processes() == []
    with pytest.raises(PanalError, match="raw"):
        await rig.start({"tpmstate0": rig.disk("tpm2")})


async def test_missing_swtpm_names_the_package(rig: Rig, monkeypatch):
    from panal.guests.drivers.qemu import tpm

    monkeypatch.setattr(tpm, "SWTPM", rig.directory / "nowhere")
    with pytest.raises(PanalError, match="package `swtpm`"):
        await rig.start({"tpmstate0": rig.disk("tpm", fmt="raw")})
    assert rig.processes() == []


async def test_raw_image_with_a_qcow2_header_stays_raw(rig: Rig):
    """Row 15: the guest writes a header of another format into its raw disk. Planted fault: a guessed format follows it."""
    raw, inner = rig.disk("plain", fmt="raw", size="16M"), rig.disk("inner", size="64M")
    shutil.copyfile(rig.path(inner), rig.path(raw))
    await rig.start({"scsi0": raw})
    node = next(
        n for n in await rig.driver._guests[100].call("query-named-block-nodes") if n["node-name"] == "drive-scsi0"
    )
    assert node["drv"] == "raw"
    assert node["image"]["virtual-size"] < 16 << 20
