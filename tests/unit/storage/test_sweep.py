"""What uploads of a killed daemon leave goes with the next start; what is being received now stays, wherever it was begun."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from panal.storage.drivers.dir.driver import DirDriver
from panal.storage.model import StorageConfig


@pytest.mark.parametrize("shared", [False, True])
async def test_leftovers_of_uploads(tmp_path: Path, shared: bool) -> None:
    """Planted fault, as found: everything younger than two days stayed, however big."""
    options: dict[str, str | bool] = {"path": str(tmp_path), "content": "iso,import", "shared": shared}
    first = DirDriver(StorageConfig("s1", "dir", options))
    await first.activate()
    descriptor, token = first.create_upload("iso")
    left = [tmp_path / f"template/iso/.upload-{n * 32}" for n in ("a", "b")]
    for path in left:
        path.write_bytes(b"half an image")
    os.utime(left[1], (0, 0))
    second = DirDriver(StorageConfig("s1", "dir", options))  # the configuration was changed meanwhile
    await second.activate()
    assert [path.exists() for path in left] == [shared, False]
    os.write(descriptor, b"whole")
    os.close(descriptor)
    assert await first.finish_upload(token, "iso", "x.iso") == "iso/x.iso"
    assert (tmp_path / "template/iso/x.iso").read_bytes() == b"whole"
