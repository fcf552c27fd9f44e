"""`./demo` from its first run to `--purge`, with real daemons and a real guest (its packages and environment being there).

Planted fault: `ensure_running` that always starts again; `_purge` that forgets the images; each seen red.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.real
TOP = Path(__file__).parents[2]
ISOLATED = "PANAL_TEST_ISOLATED" in os.environ


class Demo:
    def __init__(self, state: Path, port: int) -> None:
        self.state = state
        self.env = {
            **os.environ, "PANAL_DEMO_STATE": str(state), "PANAL_DEMO_PORT": str(port), "PYTHONPATH": str(TOP / "src"),
            "PANAL_DEMO_WEB_USER": "nobody", "PANAL_DEMO_PLAIN": "" if ISOLATED else "1",
        }  # fmt: skip

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        argv = (sys.executable, "-m", "panal_demo.main", *argv)
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=200, check=False)

    def status(self):
        return json.loads(self("status", "--json").stdout)

    def pid(self, name: str) -> int:
        return int(json.loads((self.state / f"run/{name}.json").read_text())["pid"])

    def guests(self) -> list[str]:
        """QEMU processes of this demo, whoever knows of them."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                program, said = os.readlink(entry / "exe"), os.readlink(entry / "fd/2")
                if "qemu-system" in program and said.startswith(str(self.state)):
                    found.append(entry.name)
        return found


@pytest.fixture
def demo(guest_disk):
    state = Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp"))
    state.chmod(0o755)
    (state / "cache/guest").mkdir(parents=True)
    for file in guest_disk.parent.glob("disk-*"):
        (state / "cache/guest" / file.name).symlink_to(file)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    demo = Demo(state, port)
    yield demo
    demo("down", "--purge")
    for name in ("panal-web", "paneld", "udhcpd"):
        with contextlib.suppress(OSError, ValueError):
            os.kill(demo.pid(name), signal.SIGKILL)
    for pid in demo.guests():
        os.kill(int(pid), signal.SIGKILL)
    shutil.rmtree(state, ignore_errors=True)


def test_from_the_first_run_to_the_last(demo):
    first = demo()
    assert first.returncode == 0, first.stdout + first.stderr
    assert "answers on its serial console: Linux" in first.stdout
    if ISOLATED and os.geteuid() == 0 and Path("/dev/net/tun").exists():
        assert "answers a ping at" in first.stdout
    status = demo.status()
    assert {"url", "username", "password", "nodes", "guests"} <= status.keys()
    assert [(g["vmid"], g["status"]) for g in status["guests"]] == [(100, "running")]
    kept, guests = (demo.state / "demo.json").read_bytes(), demo.guests()
    daemons = demo.pid("paneld"), demo.pid("panal-web")

    again = demo()
    assert again.returncode == 0 and "already running" in again.stdout and "creating" not in again.stdout
    assert (demo.state / "demo.json").read_bytes() == kept and demo.guests() == guests and len(guests) == 1
    assert (demo.pid("paneld"), demo.pid("panal-web")) == daemons

    os.kill(demo.pid("paneld"), signal.SIGKILL)  # a crash: the guest goes on, the next run finds it
    after = demo()
    assert after.returncode == 0, after.stdout + after.stderr
    assert demo.guests() == guests and demo.pid("paneld") != daemons[0]

    assert demo("down").returncode == 0
    assert demo.guests() == [] and demo("status").returncode == 3
    assert demo().returncode == 0 and len(demo.guests()) == 1
    assert demo("down", "--purge").returncode == 0
    assert not demo.state.exists() and demo.guests() == []


def test_a_taken_port_is_named(demo):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        demo.env["PANAL_DEMO_PORT"] = str(taken.getsockname()[1])
        result = demo()
    assert result.returncode == 1 and f"port {demo.env['PANAL_DEMO_PORT']}" in result.stderr
    assert "Traceback" not in result.stderr
