"""Control groups: what is written for which limits, in either version."""

import os

from panal.host import cgroups, kvm
from panal.host.cgroups import Cgroups, Limits

LIMITS = Limits(cpus=1.5, weight=200, memory=1 << 30, pids=100)


def test_version_2_switches_controllers_on_above(tmp_path):
    groups = Cgroups(2, "panal/n1", root=tmp_path)
    for path in (tmp_path, tmp_path / "panal", tmp_path / "panal/n1", tmp_path / "panal/n1/100"):
        path.mkdir(exist_ok=True)
        (path / "cgroup.controllers").write_text("cpu memory io")
        for name in ("cpu.max", "cpu.weight", "memory.max"):
            (path / name).touch()
    groups.create("100", LIMITS)
    assert (tmp_path / "panal/n1/cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (tmp_path / "panal/n1/100/cpu.max").read_text() == "150000 100000"
    assert (tmp_path / "panal/n1/100/cpu.weight").read_text() == "200"
    assert (tmp_path / "panal/n1/100/memory.max").read_text() == str(1 << 30)
    assert not (tmp_path / "panal/n1/100/pids.max").exists()
    assert groups.names() == {"100"}


def test_version_1_has_a_directory_a_controller(tmp_path):
    for c in ("cpu", "memory"):
        (tmp_path / c / "panal/n1/100").mkdir(parents=True)
    (tmp_path / "cpu/panal/n1/100/cpu.cfs_quota_us").touch()
    (tmp_path / "cpu/panal/n1/100/cpu.shares").touch()
    groups = Cgroups(1, "panal/n1", root=tmp_path)
    groups.create("100", Limits(cpus=0.5, weight=1))
    assert (tmp_path / "cpu/panal/n1/100/cpu.cfs_quota_us").read_text() == "50000"
    assert (tmp_path / "cpu/panal/n1/100/cpu.shares").read_text() == "2"
    groups.remove("100")


def test_a_node_that_ends_takes_its_empty_group_along(tmp_path):
    """Planted fault: `leave` that removes guests' groups, too, or does nothing."""
    (tmp_path / "cpu").mkdir()
    groups = Cgroups(1, "panal/n1", root=tmp_path)
    for _ in range(2):  # and makes it again
        groups.create("100", Limits())
        groups.leave()
        assert groups.names() == {"100"}
        groups.remove("100")
        groups.leave()
        assert list((tmp_path / "cpu/panal").iterdir()) == []


def test_nothing_to_use_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert cgroups.detect("n1", tmp_path).version == 0
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "root" in cgroups.detect("n1", tmp_path).reason


def test_kvm_is_refused_at_first_look(tmp_path):
    device = tmp_path / "kvm"
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("flags\t\t: fpu vme svmx\n")
    missing = kvm.first_look(str(cpu), str(tmp_path), str(device))
    assert missing is not None and "does not exist" in missing.reason
    device.touch()
    device.chmod(0o666)
    no_cpu = kvm.first_look(str(cpu), str(tmp_path), str(device))
    assert no_cpu is not None and "svm or vmx" in no_cpu.reason
    cpu.write_text("flags\t\t: fpu vmx vme\n")
    assert kvm.first_look(str(cpu), str(tmp_path), str(device)) is None
    device.chmod(0o600)
    closed = kvm.first_look(str(cpu), str(tmp_path), str(device))
    assert (closed is not None) == (os.geteuid() == 0)
    device.chmod(0o666)
    assert kvm.groups(str(device)) == []
    (tmp_path / "kvm_pvm").mkdir()
    nested = kvm.first_look(str(cpu), str(tmp_path), str(device))
    assert nested is not None and not nested.usable


async def test_kvm_is_decided_once_a_boot(tmp_path, monkeypatch):
    looks = []

    def look():
        looks.append(1)
        return kvm.Kvm(False, "because")

    monkeypatch.setattr(kvm, "first_look", look)
    first = await kvm.decide(tmp_path, "/nowhere/qemu")
    assert await kvm.decide(tmp_path, "/nowhere/qemu") == first == kvm.Kvm(False, "because")
    assert len(looks) == 1
    monkeypatch.setattr(kvm, "boot_id", lambda: "another")
    await kvm.decide(tmp_path, "/nowhere/qemu")
    assert len(looks) == 2


async def test_kvm_that_stays_silent_is_not_used(monkeypatch):
    """Stage 2 with a program that says nothing, and one that speaks as a guest would."""
    monkeypatch.setattr(kvm, "_KERNELS", ())
    silent = await kvm._confirm("/bin/true")
    assert not silent.usable
    monkeypatch.setattr(kvm, "_argv", lambda qemu, kernel: ["/bin/echo", "SeaBIOS (version 1)"])
    assert (await kvm._confirm("qemu")).usable
