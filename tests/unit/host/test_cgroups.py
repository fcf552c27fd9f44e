"""Control groups: what is written for which limits, in either version."""

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
    no_cpu = kvm.first_look(str(cpu), str(tmp_path), str(device))
    assert no_cpu is not None and "svm or vmx" in no_cpu.reason
    cpu.write_text("flags\t\t: fpu vmx vme\n")
    assert kvm.first_look(str(cpu), str(tmp_path), str(device)) is None
    (tmp_path / "kvm_pvm").mkdir()
    nested = kvm.first_look(str(cpu), str(tmp_path), str(device))
    assert nested is not None and not nested.usable
