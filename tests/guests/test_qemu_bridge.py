"""Guests on a bridge, in a network namespace of the test's own: the tests themselves are in inside_bridge.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from panal.host import tap

_ENTER = """
set -e
mount -t sysfs none /sys
ip link set lo up
ip link add vmbr0 type bridge && ip link set vmbr0 up
ip link add vmbr1 mtu 1400 type bridge && ip link set vmbr1 up
exec "$@"
"""


@pytest.mark.real
@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces")
def test_in_a_namespace():
    """Everything vanishes with the last process in it."""
    reason = tap.unavailable()
    if reason:
        pytest.skip(reason)
    here = Path(__file__).parent
    argv = ["unshare", "--net", "--mount", "--", "sh", "-c", _ENTER, "sh"]
    argv += [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(here / "inside_bridge.py")]
    done = subprocess.run(argv, cwd=here.parents[1], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "5 passed" in done.stdout
