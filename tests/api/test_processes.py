"""The two processes: what they may, what they give back, how they end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from panal.host.privileges import DAEMON_CAPABILITIES
from panal.web_front.listener import MAX_PER_ADDRESS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something up")


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_web_is_nobody(node):
    """D10. Planted fault: `become` without setresuid, or without the bounding set."""
    found = _status(node.web.pid)
    assert "0" not in found["Uid"].split() and "0" not in found["Gid"].split() and found["Groups"] == ""
    assert all(int(found[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert found["NoNewPrivs"] == "1"


def test_daemon_keeps_what_is_listed(node):
    allowed = sum(1 << number for number in DAEMON_CAPABILITIES.values())
    found = _status(node.daemon.pid)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(found[name], 16) & ~allowed == 0


def test_files_are_private(node, admin):
    """Row 17: whatever the daemon made is for its owner; in the run directory web may connect and read its key."""
    for path in node.state.rglob("*"):
        mode = path.lstat().st_mode
        assert not stat.S_IMODE(mode) & 0o007, path
        if path.is_file() and "storage" not in path.parts:
            assert not stat.S_IMODE(mode) & 0o077, path
    assert stat.S_IMODE((node.run / "admin.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((node.run / "tls/node.key").stat().st_mode) == 0o600


def test_a_connection_gives_its_place_back(node, soak):
    """More WebSocket handshakes than an address may hold at once. Planted fault: `_release_with` doing nothing."""
    import ssl

    context = ssl.create_default_context(cafile=str(node.run / "tls/ca.pem"))
    url = f"wss://127.0.0.1:{node.port}/api2/json/x"
    foreign = {"Origin": "https://evil.example"}
    rounds = soak("WebSocket handshakes refused, each gives its place back", small=MAX_PER_ADDRESS + 20, big=2000)
    for _ in range(rounds):
        with pytest.raises(InvalidStatus):
            connect(url, ssl=context, additional_headers=foreign, open_timeout=60).__enter__()
    assert node.session.get(node.url + "/", timeout=10).status_code == 200


def test_polite_end(node):
    """SIGTERM: status 0, sockets gone, nothing of a traceback in the log."""
    assert node.stop_daemon() == 0
    assert not (node.run / "admin.sock").exists()
    assert "Traceback" not in node.log()
    node.start_daemon()


def test_a_client_that_keeps_its_connection_does_not_hold_up_the_end(node):
    """Planted fault, as found: TLS's own wait for the client's goodbye (30 s) is longer than what uvicorn grants."""
    assert node.session.get(node.url + "/", timeout=10).ok
    before = len(node.log())
    node.web.terminate()
    assert node.web.wait(30) is not None
    assert "graceful shutdown exceeded" not in node.log()[before:]
    node.start_web()
