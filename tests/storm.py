"""A node that is hit, and what must hold whenever it serves again: for tests of storms and of many clients.

Looks at the machine itself (files, processes, the store's file), not at what the daemon says of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.daemon_under_test import NodeUnderTest

VOLUMES = ("scsi", "virtio", "ide", "sata", "efidisk", "tpmstate", "unused")


def ended(node: NodeUnderTest, upid: str, timeout_s: float = 120) -> str:
    """Wait for a task; its end."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        status = node.must("GET", f"/nodes/{node.node}/tasks/{upid}/status")
        if status["status"] == "stopped":
            return str(status["exitstatus"])
        time.sleep(0.02)
    raise AssertionError(f"{upid} never ends")


def done(node: NodeUnderTest, verb: str, path: str, **params: Any) -> None:
    """A task that must end well."""
    said = ended(node, node.must(verb, path, **params))
    assert said == "OK", (verb, path, said)


def together(*works: Callable[[], None]) -> None:
    """Each in a thread; the first error is raised when all have ended."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def records(node: NodeUnderTest, prefix: str) -> dict[str, dict[str, Any]]:
    """What the store's file holds."""
    with sqlite3.connect(node.state / "store.db") as db:
        rows = db.execute("select key, value from item where key >= ? and key < ?", (prefix, prefix + "\U0010ffff"))
        return {key: json.loads(value) for key, value in rows}


def _volumes(config: dict[str, str]) -> set[str]:
    found = set()
    for key, value in config.items():
        volid = value.partition(",")[0]
        if key.rstrip("0123456789") in VOLUMES and volid.startswith("local:") and volid != "none":
            found.add(volid.removeprefix("local:"))
    return found


def assert_whole(node: NodeUnderTest) -> None:
    """Invariants 1, 3, 6, 7: files == referenced volumes, claims == processes, tasks ended, no half record."""
    guests = records(node, "guest/")
    configs = {int(key.split("/")[1]): value for key, value in guests.items() if key.endswith("/config")}
    assert {int(key.split("/")[1]) for key in guests} == set(configs), sorted(guests)
    referenced: set[str] = set()
    snapshots: dict[str, set[str]] = {}
    for vmid, value in configs.items():
        assert value.get("lock") is None and "op" not in value, value
        referenced |= _volumes(value["config"])
        referenced |= _volumes({key: text for key, text in value.get("pending", {}).items() if text})
        for key, snap in guests.items():
            if key.startswith(f"guest/{vmid}/snapshot/"):
                assert not snap.get("state"), snap
                for name in _volumes(snap["config"]):
                    snapshots.setdefault(name, set()).add(key.rpartition("/")[2])
                referenced |= _volumes(snap["config"])
                if snap.get("vmstate"):
                    referenced.add(str(snap["vmstate"]).removeprefix("local:"))
    images = node.state / "storage/local/images"
    files = {str(path.relative_to(images)) for path in images.rglob("*") if path.is_file()}
    assert files == referenced, {"nobody's": files - referenced, "missing": referenced - files}
    for name in files:
        if name.endswith(".qcow2"):
            assert _inside(images / name) == snapshots.get(name, set()), name
    held = {int(key.split("/")[1]) for key, value in guests.items() if key.endswith("/claim") and value["incarnation"]}
    assert held == set(running(node)), guests
    active = [row for row in node.must("GET", f"/nodes/{node.node}/tasks", source="active") if not row.get("status")]
    assert not active, active


def _inside(image: Path) -> set[str]:
    told = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", str(image)], capture_output=True, text=True, check=True
    )
    return {row["name"] for row in json.loads(told.stdout).get("snapshots", [])}


def running(node: NodeUnderTest) -> dict[int, int]:
    """VM id → process: QEMUs that write their messages into the node's run directory; with the fake driver what it says."""
    if node.driver == "fake":
        rows = node.must("GET", f"/nodes/{node.node}/qemu")
        return {int(row["vmid"]): 0 for row in rows if row["status"] == "running"}
    found: dict[int, int] = {}
    for pid, said in qemus(node):
        vmid = int(Path(said).relative_to(node.run / "guests").parts[0])
        assert vmid not in found, f"VM {vmid} runs twice"
        found[vmid] = pid
    return found


def qemus(node: NodeUnderTest) -> Sequence[tuple[int, str]]:
    """Processes below the node's run directory, and where their messages go."""
    found = []
    for pid, said in node.guest_processes():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if "qemu-system" in os.readlink(f"/proc/{pid}/exe"):
                found.append((pid, said))
    return found


def memory_mib(pid: int) -> int:
    """Resident."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def descriptors(pid: int) -> int:
    """How many are open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
