"""proxmoxer (PyPI) takes a virtual machine through its life on a real node, every task to its end."""

from __future__ import annotations

import time

import pytest
from proxmoxer import ProxmoxAPI

pytestmark = pytest.mark.real
VMID, CLONE = 301, 302


def test_the_life_of_a_virtual_machine(node):
    panal = ProxmoxAPI(
        "127.0.0.1", port=node.facts.port, user=node.facts.userid, password=node.facts.password,
        verify_ssl=str(node.place.ca), timeout=60,
    )  # fmt: skip
    here = panal.nodes(node.facts.node)
    vm = here.qemu(VMID)

    def ended(upid):
        while (status := here.tasks(upid).status.get())["status"] != "stopped":
            time.sleep(0.2)
        assert status["exitstatus"] == "OK", [line["t"] for line in here.tasks(upid).log.get()]

    ended(here.qemu.post(**node.configuration(VMID), vmid=VMID, name="from-python"))
    ended(vm.status.start.post())
    assert vm.status.current.get()["status"] == "running"
    ended(vm.snapshot.post(snapname="before", vmstate=1))
    assert {s["name"]: s.get("vmstate") for s in vm.snapshot.get()}["before"] == 1
    ended(vm.snapshot("before").rollback.post())
    assert vm.status.current.get()["status"] == "running"
    ended(vm.clone.post(newid=CLONE, name="python-clone", full=1))  # while it runs
    assert vm.status.current.get()["status"] == "running"
    before = here.qemu(CLONE).config.get()["scsi0"]
    ended(here.qemu(CLONE).resize.put(disk="scsi0", size="+16M"))
    assert here.qemu(CLONE).config.get()["scsi0"] != before
    ended(here.qemu(CLONE).delete())
    ended(vm.status.stop.post())
    ended(vm.delete())
    assert not {row["vmid"] for row in here.qemu.get()} & {VMID, CLONE}
    assert not here.storage("demo").content.get(vmid=VMID)
