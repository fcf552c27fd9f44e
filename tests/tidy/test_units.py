"""The systemd units agree with the code: capabilities, options of the daemons, guests that outlive a restart.

Planted fault: CAP_SYS_MODULE added to the unit, seen red.
"""

from __future__ import annotations

import re

from tests.tidy.tree import text

DAEMON, WEB, GUESTS = (f"packaging/systemd/{name}.service" for name in ("paneld", "panal-web", "panal-guests"))


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


def test_guests_are_shut_down_while_the_daemon_still_runs_and_not_when_it_restarts():
    """Units stop in the reverse of their start. Planted fault: `Requires=paneld.service`, and `Before=paneld.service`."""
    from panal.cli.commands import COMMANDS
    from panal.cli.main import root
    from panal.host.cgroups import Limits
    from panal.host.systemd import properties

    assert "paneld.service" in values(GUESTS, "After") and not values(GUESTS, "Before")
    for binding in ("Requires", "Requisite", "BindsTo", "PartOf", "Conflicts"):
        assert not values(GUESTS, binding), binding
    assert dict(properties([1], "x", Limits()))["Before"].value == ["paneld.service"], "the scopes end last"
    assert values(GUESTS, "Type") == ["oneshot"] and values(GUESTS, "RemainAfterExit") == ["yes"]
    program, *words = values(GUESTS, "ExecStop")
    assert program == "/usr/lib/panal/bin/panal" and words[:3] == ["--run", "/run/panal", "--yes"]
    assert {o for p in root.params for o in p.opts} >= {"--run", "--yes"}
    assert tuple(words[3:]) in {(c.noun, c.verb) for c in COMMANDS}
    assert values(GUESTS, "TimeoutStopSec") == ["25min"]
