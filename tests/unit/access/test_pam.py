"""Real PAM, real chpasswd, on accounts of a copy of /etc that only a namespace of our own sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, sys
from panal.access.model import User
from panal.access.realms import PamRealm
from panal.core.errors import Failed

async def main():
    realm, bob = PamRealm("other"), User("pnlbob@pam", "x")
    assert await realm.new_password(None, "pnlbob@pam", "", "right one") == []
    assert await realm.check(None, bob, "right one")
    assert not await realm.check(None, bob, "wrong one")
    assert not await realm.check(None, bob, "")
    assert not await realm.check(None, None, "right one")
    assert not await realm.check(None, User("pnlghost@pam", "x"), "right one")
    try:
        await realm.new_password(None, "pnlghost@pam", "", "right one")
    except Failed as exc:
        assert "pnlghost" in str(exc) and "right one" not in str(exc)
    else:
        raise AssertionError("a ghost got a password")
    print("fine")

asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_pam_accounts(tmp_path: Path) -> None:
    """The copy goes with the namespace, also when the test is killed. Planted fault: `check` that answers True."""
    shell = (
        "mount -t tmpfs none /mnt && cp -a /etc /mnt/etc && mount --bind /mnt/etc /etc && "
        'useradd -M -s /bin/sh pnlbob && exec "$0" -c "$1"'
    )
    env = {**os.environ, "PYTHONPATH": "src", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", shell, sys.executable, PROGRAM]
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=120)
    if "permission denied" in done.stderr.lower() and "mount" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.stdout.strip() == "fine", done.stderr
    assert "pnlbob" not in Path("/etc/passwd").read_text()
