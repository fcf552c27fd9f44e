"""The stock fence agent for Proxmox VE (Debian's fence-agents) switches a virtual machine off and on."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from panal.client.connection import api_path
from panal_demo import guest

pytestmark = pytest.mark.real
VMID = 401


def test_fence_pve_powers_a_guest(node):
    agent = shutil.which("fence_pve")
    if agent is None:
        pytest.skip("fence_pve is not installed; install the package fence-agents")
    guests = api_path("nodes", node.facts.node, "qemu")
    guest.wait(node.api, node.api.call("POST", guests, {"vmid": VMID, "memory": 64}).data)

    def fence(action: str) -> subprocess.CompletedProcess[str]:
        # as Pacemaker does it: options on standard input, so that the password is in no argument vector
        options = {
            "ip": "127.0.0.1", "ipport": str(node.facts.port), "username": node.facts.userid,
            "password": node.facts.password, "plug": str(VMID), "ssl_insecure": "1", "pve_node_auto": "1", "action": action,
        }  # fmt: skip
        text = "".join(f"{key}={value}\n" for key, value in options.items())
        return subprocess.run([agent], input=text, capture_output=True, text=True, timeout=120, check=False)

    assert fence("status").returncode == 2, "2 means off"
    for action, status in (("on", "running"), ("off", "stopped")):
        done = fence(action)
        assert done.returncode == 0, done.stderr
        assert node.api.call("GET", f"{guests}/{VMID}/status/current").data["status"] == status
    guest.wait(node.api, node.api.call("DELETE", f"{guests}/{VMID}").data)
