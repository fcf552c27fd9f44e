"""Rebooting and switching off this machine: only where that is what it would do."""

from __future__ import annotations

from typing import Final, Literal

from panal.core.errors import Unsupported
from panal.node.context import PROGRAM_TIMEOUT_S, NodeInfo

Command = Literal["reboot", "shutdown"]
_CONTAINER_MARKS: Final = ("/run/systemd/container", "/.dockerenv", "/run/.containerenv")


def container(info: NodeInfo) -> bool:
    """Whether this is a container (a lab node, say), not a machine."""
    if any(info.path(mark).exists() for mark in _CONTAINER_MARKS):
        return True
    try:
        return b"container=" in info.path("/proc/1/environ").read_bytes()
    except OSError:  # not ours to read: then we could not switch it off either
        return False


def plan(info: NodeInfo, command: Command) -> list[str]:
    """The program to run; Unsupported, with the reason, where nothing sensible would happen. Pure but for looking."""
    if container(info):
        raise Unsupported(f"this node runs in a container: its host decides about {command}; do it there")
    if info.systemd:
        return ["systemctl", "--no-block", "reboot" if command == "reboot" else "poweroff"]
    try:
        first = info.path("/proc/1/comm").read_text().strip()
    except OSError:
        first = ""
    if first in ("init", "openrc-init", "runit"):
        return ["shutdown", "-r" if command == "reboot" else "-h", "now"]
    raise Unsupported(f"process 1 of this node ('{first or 'unknown'}') is no init system that could do a {command}")


async def act(info: NodeInfo, command: Command) -> None:
    """Do it: returns once it is on its way."""
    await info.run(plan(info, command), timeout_s=PROGRAM_TIMEOUT_S)
