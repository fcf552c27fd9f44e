"""A node of its own, both daemons and real QEMU, for foreign clients to drive."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from panal.client.connection import AdminSocket, Https
from panal_demo import daemons, guest
from panal_demo.guest_image import ImageError, build
from panal_demo.place import Facts, Place

TOP = Path(__file__).parents[2]
CACHE = Path(os.environ.get("PANAL_CACHE") or TOP / ".cache")


@dataclass
class Node:
    """A running node: where it is, who may log in, and its API."""

    place: Place
    facts: Facts
    api: Https
    disk: Path

    def configuration(self, vmid: int) -> dict[str, Any]:
        """What a client sends to create a VM that boots the tiny Linux; its disk is made first, through the API."""
        return {
            "memory": 128, "cores": 1, "ostype": "l26", "scsihw": "virtio-scsi-pci", "boot": "order=scsi0",
            "scsi0": guest.make_disk(self.api, self.facts, vmid, self.disk), "serial0": "socket", "net0": "virtio",
        }  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """Started once; whatever happens, no guest, daemon or file is left."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    try:
        disk = build(CACHE)
    except ImageError as error:
        pytest.skip(f"no guest disk: {error}")
    place = Place(Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp")))
    place.state.chmod(0o711)
    facts = Facts("interop", free_port(), "demo@pve", "a password for tests", None, None, web_user="nobody")
    os.environ["PYTHONPATH"] = str(TOP / "src")
    try:
        daemons.start(place, facts)
        guest.ensure_user(place, facts)
        api = guest.login(place, facts)
        guest.ensure_storage(api, place)
        yield Node(place, facts, api, disk)
        guest.stop_all(AdminSocket(place.run / "admin.sock"), facts.node, print)
    finally:
        daemons.stop(place)
        for log in place.log.glob("*.log"):
            print(f"---- {log.name}\n" + log.read_text(errors="replace")[-4000:])
        shutil.rmtree(place.state, ignore_errors=True)
