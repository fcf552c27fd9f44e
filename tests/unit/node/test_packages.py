"""Packages by dpkg and apt."""

from __future__ import annotations

import pytest

from panal.core.errors import Unsupported
from panal.node import packages
from tests.unit.node.world import Machine

INSTALLED = b"""qemu-utils\t1:7.2+dfsg\tamd64\tinstalled\totherosfs\toptional\tQEMU utilities
lvm2\t2.03\tamd64\tnot-installed\tadmin\toptional\t
python3\t3.11\tamd64\tinstalled\tpython\toptional\tinteractive
broken line
"""
SIMULATED = """NOTE: This is only a simulation!
Inst python3 [3.11] (3.12 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64]) []
Inst fresh (1.0 Debian:12/x [all])
Conf python3 (3.12 Debian:12.15/oldstable [amd64])
"""


async def test_versions_are_those_of_what_a_node_is_made_of(tmp_path):
    machine = Machine(tmp_path)
    with pytest.raises(Unsupported):
        await packages.versions(machine.info)
    machine.file("var/lib/dpkg/status", "")
    machine.programs.output = INSTALLED
    rows = await packages.versions(machine.info)
    assert [(r["Package"], r["Version"], r["CurrentState"]) for r in rows] == [
        ("qemu-utils", "1:7.2+dfsg", "Installed"), ("python3", "3.11", "Installed"),
    ]  # fmt: skip


def test_updates_are_upgrades_of_what_is_there():
    installed = packages.parse_installed(INSTALLED.decode())
    (row,) = packages.parse_updates(SIMULATED, installed)
    assert (row["Package"], row["OldVersion"], row["Version"], row["Arch"], row["Origin"], row["Section"]) == (
        "python3", "3.11", "3.12", "amd64", "Debian", "python",
    )  # fmt: skip


async def test_apt_is_only_asked_to_simulate(tmp_path):
    machine = Machine(tmp_path)
    machine.file("var/lib/dpkg/status", "")
    await packages.updates(machine.info)
    assert machine.programs.calls[-1] == ["apt-get", "--simulate", "-o", "Debug::NoLocking=true", "dist-upgrade"]
