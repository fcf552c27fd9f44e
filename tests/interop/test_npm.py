"""npm proxmox-api takes a virtual machine through its life on a real node, every task to its end (npm/life.mjs)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.npm import place

pytestmark = pytest.mark.real
VMID, CLONE = 311, 312


def test_the_life_of_a_virtual_machine(node):
    packages = place()
    if not packages.exists() or shutil.which("node") is None:
        pytest.skip("npm's clients are not installed: run ./test interop with a network")
    script = packages / "life.mjs"
    shutil.copyfile(Path(__file__).parent / "npm/life.mjs", script)
    facts = {
        "node": node.facts.node, "port": node.facts.port, "username": node.facts.userid, "password": node.facts.password,
        "vmid": VMID, "clone": CLONE, "config": node.configuration(VMID),
    }  # fmt: skip
    done = subprocess.run(
        ["node", str(script)], input=json.dumps(facts), capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(node.place.ca)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "delete: OK"
