"""The systemd units agree with the code: capabilities, options of the daemons, guests that outlive a restart.

Planted fault: CAP_SYS_MODULE added to the unit, seen red.
"""

from __future__ import annotations

import re

from tests.tidy.tree import text

DAEMON, WEB = (f"packaging/systemd/{name}.service" for name in ("paneld", "panal-web"))


def values(unit: str, key: str) -> list[str]:
    return [value for found in re.findall(rf"^{key}=(.*)$", text(unit), re.M) for value in found.split()]


def test_paneld_gets_the_capabilities_that_it_keeps():
    from panal.host.privileges import DAEMON_CAPABILITIES

    assert set(values(DAEMON, "CapabilityBoundingSet")) == {f"CAP_{name}" for name in DAEMON_CAPABILITIES}


def test_panal_web_gets_none_and_no_root():
    assert values(WEB, "CapabilityBoundingSet") == [] and values(WEB, "AmbientCapabilities") == []
    assert values(WEB, "User") == ["panal"] and values(WEB, "NoNewPrivileges") == ["yes"]


def test_guests_survive_a_restart_of_the_daemon():
    assert values(DAEMON, "KillMode") == ["process"] and values(DAEMON, "RuntimeDirectoryPreserve") == ["yes"]
