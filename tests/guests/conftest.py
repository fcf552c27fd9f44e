"""What real guests boot from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from panal_demo.guest_image import ImageError, build

CACHE = Path(os.environ.get("PANAL_CACHE") or Path(__file__).parents[2] / ".cache")


@pytest.fixture(scope="session")
def guest_disk() -> Path:
    """A qcow2 disk that boots a tiny Linux in seconds (see panal_demo/guest_image.py); read-only: copy it."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    try:
        return build(CACHE)
    except ImageError as error:
        pytest.skip(f"no guest disk: {error}")


@pytest.fixture
async def rig():
    """A real QEMU driver; everything it started is gone afterwards."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    from tests.guests.qemu_rig import Rig

    made = await Rig.open()
    yield made
    await made.close()
