"""Tells systemd that a service is ready or stops (sd_notify). Does nothing when systemd did not ask."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """`READY=1`, `STOPPING=1`, `STATUS=…`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
