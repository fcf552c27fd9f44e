"""What /proc says, in the API's names and types."""

from __future__ import annotations

import pytest

from panal.node import status
from tests.unit.node.world import Machine


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_the_whole_answer(machine):
    got = status.status(machine.info)
    assert got["uptime"] == 1234
    assert got["loadavg"] == ["0.10", "0.20", "0.30"]
    assert got["memory"] == {"total": 1024000, "used": 409600, "free": 204800, "available": 614400}
    assert got["swap"] == {"total": 51200, "used": 10240, "free": 40960}
    assert (got["cpu"], got["wait"], got["idle"]) == (pytest.approx(0.2), pytest.approx(0.1), pytest.approx(0.7))
    cpu = got["cpuinfo"]
    assert (cpu["cpus"], cpu["sockets"], cpu["cores"], cpu["model"], cpu["mhz"]) == (8, 2, 2, "Test CPU", "2000.5")
    assert cpu["hvm"] == "1" and "vmx" in cpu["flags"]
    assert got["kversion"] == "Linux 6.1.0 #1 SMP"
    assert got["boot-info"] == {"mode": "legacy-bios"}
    assert set(got["rootfs"]) == {"total", "used", "free", "avail"}


def test_processors_are_measured_between_two_looks(machine):
    machine.info.meter.read()
    machine.file("proc/stat", "cpu  190 0 100 710 100 0 0 0 0 0\n")
    assert machine.info.meter.read().busy == pytest.approx(0.2), "less than a second later: the same answer"
    machine.clock.now += 5
    shares = machine.info.meter.read()
    assert (shares.busy, shares.wait, shares.idle) == (pytest.approx(0.9), 0.0, pytest.approx(0.1))
    machine.clock.now += 5
    assert machine.info.meter.read().busy == pytest.approx(0.9), "no tick in between"


def test_a_sample_counts_physical_interfaces_only(machine):
    got = status.sample(machine.info)
    assert (got["netin"], got["netout"]) == (500, 70)
    assert got["pressurecpusome"] == 1.5 and "pressurecpufull" not in got
    assert got["maxcpu"] == 8 and got["arcsize"] == 0


def test_efi_and_secure_boot(machine):
    variables = machine.root / "sys/firmware/efi/efivars"
    variables.mkdir(parents=True)
    assert status.boot_info(machine.info) == {"mode": "efi", "secureboot": 0}
    (variables / "SecureBoot-8be4df61").write_bytes(b"\x06\x00\x00\x00\x01")
    assert status.boot_info(machine.info) == {"mode": "efi", "secureboot": 1}
