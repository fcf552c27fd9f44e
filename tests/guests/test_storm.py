"""Real daemons that die while they work, and guests that come and go a lot of times: nothing leaks, nothing is lost.

The store of the fake hypervisor is as real as its storage (`dir`, qemu-img); its guests die with their daemon.
Planted faults, each seen red within ten rounds: an `allocate_step` without undo; `boot.settle` that lets go of no claim.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import pytest

from panal.core.frames import BadFrame
from tests.conftest import Soak
from tests.daemon_under_test import NodeUnderTest
from tests.storm import assert_whole, descriptors, done, ended, memory_mib, qemus, records, running, together

pytestmark = [pytest.mark.real]
QCOW2 = "local:1,format=qcow2"
SMALL = {"memory": "32", "cpu": "qemu64"}


@pytest.fixture
def qemu_node() -> Iterator[NodeUnderTest]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with NodeUnderTest("qemu", f"t{os.getpid()}") as node:
        yield node


@pytest.fixture
def fake_node() -> Iterator[NodeUnderTest]:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    with NodeUnderTest("fake") as node:
        yield node


def asked(node: NodeUnderTest, chance: random.Random) -> tuple[str, str, dict[str, object]]:
    """Something to be in the middle of."""
    base = f"/nodes/{node.node}/qemu"
    vmid, new = chance.choice([100, 101, 102]), chance.choice([101, 102, 103])
    snap = f"{base}/{vmid}/snapshot"
    choices: list[tuple[str, str, dict[str, object]]] = [
        ("POST", base, {"vmid": vmid, "scsi0": QCOW2, "virtio1": "local:1", **SMALL}),
        ("POST", base, {"vmid": new, "scsi0": QCOW2, "efidisk0": "local:1,format=qcow2", **SMALL}),
        ("POST", f"{base}/{vmid}/clone", {"newid": new, "full": 1}),
        ("POST", snap, {"snapname": chance.choice(["s1", "s2"])}),
        ("DELETE", f"{snap}/{chance.choice(['s1', 's2'])}", {}),
        ("POST", f"{snap}/s1/rollback", {}),
        ("DELETE", f"{base}/{vmid}", {}),
        ("POST", f"{base}/{vmid}/config", {"scsi2": QCOW2, "cores": 2}),
        ("PUT", f"{base}/{vmid}/config", {"delete": "scsi2"}),
        ("PUT", f"{base}/{vmid}/config", {"delete": "unused0"}),
        ("PUT", f"{base}/{vmid}/resize", {"disk": "scsi0", "size": "+1M"}),
        ("POST", f"{base}/{vmid}/status/start", {}),
        ("POST", f"{base}/{vmid}/status/stop", {}),
        ("POST", f"{base}/{vmid}/template", {}),
    ]  # fmt: skip
    return chance.choice(choices)


def storm(node: NodeUnderTest, rounds: int, longest_s: float, seed: int) -> int:
    """Ask for a lot, kill the daemon somewhere in it, start it again, look; tasks that did not end well."""
    chance = random.Random(seed)
    base = f"/nodes/{node.node}/qemu"

    def ask(own: random.Random) -> None:
        with contextlib.suppress(OSError, BadFrame):  # until it dies while we wait
            while True:
                verb, path, params = asked(node, own)
                node.admin(verb, path, **params)

    for number in range(rounds):
        together(
            *(partial(ask, random.Random(chance.random())) for _ in range(3)),
            lambda: _kill(node, chance.random() * longest_s),
        )
        node.start_daemon()
        try:
            assert_whole(node)
            done(node, "POST", base, vmid=900, scsi0="local:1")
            done(node, "POST", f"{base}/900/clone", newid=901, full=1)
            for vmid in (900, 901):
                done(node, "DELETE", f"{base}/{vmid}")
        except AssertionError as error:
            raise AssertionError(f"round {number} of seed {seed}: {error}\n{node.log()[-3000:]}") from error
    cut = [row for row in _tasks(node) if row["status"] != "OK"]
    for vmid in running(node):
        done(node, "POST", f"{base}/{vmid}/status/stop")
    for row in node.must("GET", base):
        assert ended(node, node.must("DELETE", f"{base}/{row['vmid']}")) == "OK"
    assert_whole(node)
    assert not records(node, "guest/")
    return len(cut)


def _tasks(node: NodeUnderTest) -> list[dict[str, str]]:
    found: list[dict[str, str]] = node.must("GET", f"/nodes/{node.node}/tasks", limit=10_000)
    return found


def _kill(node: NodeUnderTest, delay_s: float) -> None:
    time.sleep(delay_s)
    node.kill_daemon()


def test_paneld_is_killed_in_the_middle_of_everything(fake_node: NodeUnderTest, soak: Soak) -> None:
    """Invariants 1, 3, 6, 7."""
    what = "kill -9 of paneld while it works: leaks, half-done guests, tasks without end"
    cut = storm(fake_node, soak(what, small=3, big=150), 0.25, seed=2)
    soak.found(what, note=f"{cut} tasks were cut off or refused")


def test_paneld_is_killed_in_the_middle_of_everything_with_qemu(qemu_node: NodeUnderTest, soak: Soak) -> None:
    """The same with processes that live on."""
    what = "kill -9 of paneld while it works, with real QEMU: also guests without claim, claims without guest"
    cut = storm(qemu_node, soak(what, small=2, big=60), 0.6, seed=3)
    soak.found(what, note=f"{cut} tasks were cut off or refused")


def test_running_guests_outlive_the_daemon(qemu_node: NodeUnderTest, soak: Soak) -> None:
    """Invariant 1. All are adopted: same processes, same claims."""
    base = f"/nodes/{qemu_node.node}/qemu"
    vmids = (100, 101, 102)
    for vmid in vmids:
        done(qemu_node, "POST", base, vmid=vmid, scsi0="local:1", **SMALL)
        done(qemu_node, "POST", f"{base}/{vmid}/status/start")
    before, claims = running(qemu_node), {k: v for k, v in records(qemu_node, "guest/").items() if k.endswith("claim")}
    assert set(before) == set(vmids)
    for number in range(
        soak("restarts of paneld, every other by kill -9, over running guests: lost ones", small=2, big=40)
    ):
        if number % 2:
            qemu_node.restart_daemon()
        else:
            qemu_node.kill_daemon()
            qemu_node.start_daemon()
        assert running(qemu_node) == before
        assert {k: v for k, v in records(qemu_node, "guest/").items() if k.endswith("claim")} == claims
        assert {row["status"] for row in qemu_node.must("GET", base)} == {"running"}
    for vmid in vmids:
        done(qemu_node, "POST", f"{base}/{vmid}/status/stop")
    assert_whole(qemu_node)


def _inside(root: str, name: str) -> set[str]:
    group = Path(root, name)
    return {str(path) for path in group.iterdir() if path.is_dir()} if group.is_dir() else set()


def traces(node: NodeUnderTest) -> dict[str, Any]:
    """What starts and stops must leave as it was."""
    assert node.daemon is not None
    roots = glob("/sys/fs/cgroup/*/panal") + glob("/sys/fs/cgroup/panal")
    groups = {name for root in roots for name in _inside(root, node.node)}
    return {
        "processes": qemus(node),
        "links": sorted(os.listdir("/sys/class/net")),
        "groups": sorted(groups),
        "files": sorted(str(p) for p in (node.run / "guests").glob("**/*")),
        "descriptors": descriptors(node.daemon.pid),
    }


def left_behind(node: NodeUnderTest, before: dict[str, Any]) -> dict[str, Any]:
    """What is there now and was not before. A descriptor less is none: a connection was open when they were counted."""
    return {
        name: now
        for name, now in traces(node).items()
        if (now > before[name] if name == "descriptors" else now != before[name])
    }


def test_starts_and_stops_leave_nothing(qemu_node: NodeUnderTest, soak: Soak) -> None:
    """Planted fault: `Process` that is not closed at a guest's end (one descriptor each)."""
    assert qemu_node.daemon is not None
    base = f"/nodes/{qemu_node.node}/qemu"
    net = "virtio"
    if "PANAL_TEST_ISOLATED" in os.environ and os.geteuid() == 0:
        subprocess.run(["ip", "link", "add", "vmbr77", "type", "bridge"], check=True)
        net = "virtio,bridge=vmbr77"
    what = "starts and stops of real guests: process, tap, control group, file or descriptor left behind"
    rounds = soak(what, small=6, big=150)
    try:
        for vmid in (100, 101):
            done(qemu_node, "POST", base, vmid=vmid, scsi0="local:1", net0=net, serial0="socket", **SMALL)

        def life(vmid: int, end: int) -> None:
            done(qemu_node, "POST", f"{base}/{vmid}/status/start")
            if end == 0:
                done(qemu_node, "POST", f"{base}/{vmid}/status/stop")
                return
            os.kill(running(qemu_node)[vmid], signal.SIGKILL)
            while qemu_node.must("GET", f"{base}/{vmid}/status/current")["status"] != "stopped":
                time.sleep(0.02)

        before, mib = traces(qemu_node), 0
        for number in range(rounds // 2):
            together(lambda n=number: life(100, n % 3), lambda n=number: life(101, (n + 1) % 3))  # type: ignore[misc]
            if number == 1:
                before["descriptors"], mib = descriptors(qemu_node.daemon.pid), memory_mib(qemu_node.daemon.pid)
        _settle(lambda: left_behind(qemu_node, before) == {})
        assert left_behind(qemu_node, before) == {}
        grown = memory_mib(qemu_node.daemon.pid) - mib
        assert grown < 30, f"paneld grew by {grown} MiB"
        soak.found(what, note=f"paneld grew by {grown} MiB to {mib + grown}")
        assert_whole(qemu_node)
    finally:
        if "bridge" in net:
            subprocess.run(["ip", "link", "del", "vmbr77"], check=False)


def _settle(holds) -> None:
    for _ in range(100):
        if holds():
            return
        time.sleep(0.1)
