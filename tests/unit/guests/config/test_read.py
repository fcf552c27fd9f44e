"""Typed readers and what is made at create."""

from __future__ import annotations

import os
import re

import pytest

from panal.core.errors import BadInput
from panal.guests.config import read
from panal.guests.config.generate import fresh_identity, identity, with_boot


def test_defaults_of_an_empty_configuration():
    assert read.topology({}) == read.Topology(1, 1, 1)
    assert (read.memory_mib({}), read.balloon_mib({}), read.vga({}).kind) == (512, None, "std")
    assert read.cpu_model({}) == read.CpuModel("kvm64", explicit=False)
    assert (read.machine({}).kind, read.is_q35({}), read.boot_order({}), read.serials({}), read.smbios({})) == (
        None,
        False,
        [],
        {},
        {},
    )
    assert read.agent({}) == read.Agent(False) and read.startup({}) == read.Startup() and read.watchdog({}) is None
    assert read.rng({}) is None and read.tags({}) == [] and read.cpulimit({}) == 0 and not read.localtime({})
    assert read.vmgenid({}) is None and not read.is_template({})


def test_processors():
    shape = read.topology({"cores": "4", "sockets": "2", "vcpus": "3"})
    assert (shape.maximum, shape.vcpus) == (8, 3)
    assert read.topology({"smp": "3"}).maximum == 3
    assert read.topology({"cores": "2", "vcpus": "9"}).vcpus == 2
    model = read.cpu_model({"cpu": "host,flags=+aes;-pcid,hidden=1,phys-bits=host"})
    assert (model.name, model.flags, model.hidden, model.phys_bits) == ("host", ("+aes", "-pcid"), True, "host")


def test_memory_in_both_forms():
    assert read.memory_mib({"memory": "1024"}) == read.memory_mib({"memory": "current=1024"}) == 1024
    assert read.balloon_mib({"balloon": "0"}) == 0
    with pytest.raises(BadInput, match="format"):
        read.memory_mib({"memory": "a"})


def test_boot_order():
    config = {"scsi1": "l1:vm-1-disk-0", "ide2": "none,media=cdrom", "net0": "virtio", "efidisk0": "l1:vm-1-disk-1"}
    assert read.boot_order(config) == ["scsi1", "ide2", "net0"]
    assert read.boot_order({**config, "boot": "order=net0;scsi1;scsi7"}) == ["net0", "scsi1"]
    assert read.boot_order({**config, "boot": "dn"}) == ["ide2", "net0"]
    assert read.boot_order({**config, "virtio0": "l1:vm-1-disk-2", "boot": "c", "bootdisk": "virtio0"}) == ["virtio0"]
    assert with_boot(config)["boot"] == "order=scsi1;ide2;net0"
    assert with_boot({"boot": "order=net0"}) == {"boot": "order=net0"} and "boot" not in with_boot({"name": "a"})


def test_the_rest():
    assert read.startup({"startup": "2,up=30,down=60"}) == read.Startup(2, 30, 60)
    assert read.agent({"agent": "1,type=isa,fstrim_cloned_disks=1"}) == read.Agent(True, "isa", True, True)
    assert read.watchdog({"watchdog": "i6300esb,action=reset"}) == read.Watchdog("i6300esb", "reset")
    assert read.rng({"rng0": "source=/dev/urandom,max_bytes=8"}) == read.Rng("/dev/urandom", 8, 1000)
    assert read.vga({"vga": "virtio,memory=64"}) == read.Vga("virtio", 64)
    assert read.serials({"serial1": "socket"}) == {1: "socket"}
    assert read.is_q35({"machine": "pc-q35-7.2"}) and read.machine({"machine": "q35,viommu=intel"}).viommu == "intel"
    assert read.smbios({"smbios1": "base64=1,product=QSwgQg==,uuid=6f6c0a0e-3a4c-4a4e-8d5b-0a5f4c1d2e3f"}) == {
        "product": "A, B", "uuid": "6f6c0a0e-3a4c-4a4e-8d5b-0a5f4c1d2e3f"}  # fmt: skip
    assert read.localtime({"ostype": "win11"}) and not read.localtime({"ostype": "win11", "localtime": "0"})
    assert read.tags({"tags": "a;b"}) == ["a", "b"]


def test_identity_is_made_once_and_anew_for_a_clone():
    made = identity({"smbios1": "product=a"}, os.urandom)
    assert re.fullmatch(r"product=a,uuid=[0-9a-f-]{36}", made["smbios1"]) and read.vmgenid(made)
    assert identity(made, os.urandom) == made
    assert "vmgenid" in identity({}, os.urandom) and identity({"vmgenid": "0"}, os.urandom)["vmgenid"] == "0"
    other = fresh_identity(made, os.urandom)
    assert other["smbios1"].startswith("product=a,uuid=") and other["smbios1"] != made["smbios1"]
    assert other["vmgenid"] != made["vmgenid"]
    assert fresh_identity({"vmgenid": "0"}, os.urandom)["vmgenid"] == "0"
