"""What every storage driver does, whatever is behind it (storage/drivers/base.py)."""

import asyncio
import os

import pytest

from panal.core.errors import BadInput, Conflict, NotFound, Unsupported
from tests.contract.storage.conftest import qemu_io

MIB = 1024 * 1024


async def image(driver, fmt, size=8 * MIB, vmid=100, stem="vm-100-disk-0"):
    name = driver.image_name(vmid, stem, fmt)
    await driver.allocate(vmid, name, fmt, size)
    return name


async def write(driver, name, pattern, offset=0):
    await qemu_io(driver.location(name), driver.source(name).format, f"write -P {pattern} {offset} 64k")


async def verify(driver, name, pattern, offset=0):
    await qemu_io(driver.location(name), driver.source(name).format, f"read -P {pattern} {offset} 64k")


async def test_allocate_list_free(driver, fmt):
    name = await image(driver, fmt)
    (volume,) = await driver.list("images")
    assert (volume.name, volume.content, volume.format, volume.size, volume.vmid) == (name, "images", fmt, 8 * MIB, 100)
    assert await driver.info(name) == volume
    assert [v.name for v in await driver.list(vmid=101)] == []
    await driver.free(name)
    await driver.free(name)
    assert await driver.list() == []
    with pytest.raises(NotFound):
        await driver.info(name)


async def test_allocate_never_overwrites(driver, fmt):
    """Planted fault: opening without O_EXCL truncates the first image."""
    name = await image(driver, fmt)
    await write(driver, name, 7)
    with pytest.raises(Conflict):
        await image(driver, fmt, size=MIB)
    await verify(driver, name, 7)


@pytest.mark.parametrize("size", [0, -1, 1 << 60])
async def test_allocate_refuses_sizes(driver, fmt, size):
    with pytest.raises(BadInput) as caught:
        await image(driver, fmt, size=size)
    assert caught.value.field == "size" and await driver.list() == []


@pytest.mark.parametrize(
    "name",
    ["../x.raw", "100/../101/vm-100-disk-0.raw", "100/vm-101-disk-0.raw", "/etc/passwd", "100/vm-100-disk-0.vmdk", "a",
     "100/vm-100-a/b.raw", "iso/x.iso", "100/vm-100-disk,0.raw", "100/vm-100-disk-0.raw\n", ""],
)  # fmt: skip
async def test_allocate_refuses_names(driver, name):
    with pytest.raises(BadInput):
        await driver.allocate(100, name, "raw", MIB)


async def test_resize_grows_and_never_shrinks(driver, fmt):
    name = await image(driver, fmt)
    await write(driver, name, 5)
    await driver.resize(name, 16 * MIB)
    await driver.resize(name, 16 * MIB)
    assert (await driver.info(name)).size == 16 * MIB
    with pytest.raises(BadInput):
        await driver.resize(name, 8 * MIB)
    await verify(driver, name, 5)


@pytest.mark.parametrize("target_fmt", ["raw", "qcow2"])
async def test_copy_between_formats(driver, fmt, target_fmt):
    name = await image(driver, fmt)
    await write(driver, name, 9, MIB)
    target = driver.image_name(200, "vm-200-disk-0", target_fmt)
    seen: list[float] = []
    await driver.copy(name, driver, target, target_fmt, progress=seen.append, limit_bytes_s=1 << 40)
    assert (await driver.info(target)).size == 8 * MIB and seen[-1] == 1.0
    await verify(driver, target, 9, MIB)
    with pytest.raises(Conflict):
        await driver.copy(name, driver, target, target_fmt)
    await verify(driver, target, 9, MIB)


async def test_snapshots(driver, fmt):
    name = await image(driver, fmt)
    if fmt not in driver.capabilities.snapshot_formats:
        with pytest.raises(Unsupported):
            await driver.snapshot(name, "one")
        assert list(await driver.snapshots(name)) == []
        return
    await write(driver, name, 1)
    await driver.snapshot(name, "one")
    await write(driver, name, 2)
    await driver.snapshot(name, "two")
    await driver.resize(name, 16 * MIB)
    await write(driver, name, 3)
    assert list(await driver.snapshots(name)) == ["one", "two"]
    with pytest.raises(Conflict):
        await driver.snapshot(name, "two")
    target = driver.image_name(200, "vm-200-disk-0", "raw")
    await driver.copy(name, driver, target, "raw", snapshot="one")
    await verify(driver, target, 1)
    assert (await driver.info(target)).size == 8 * MIB, "a snapshot has the size of its moment"
    await driver.rollback(name, "one")
    await verify(driver, name, 1)
    with pytest.raises(NotFound):
        await driver.rollback(name, "three")
    with pytest.raises(NotFound):
        await driver.copy(name, driver, driver.image_name(201, "vm-201-disk-0", "raw"), "raw", snapshot="three")
    await driver.delete_snapshot(name, "one")
    await driver.delete_snapshot(name, "one")
    assert list(await driver.snapshots(name)) == ["two"]


async def test_base_image_is_read_only(driver, fmt):
    name = await image(driver, fmt)
    await write(driver, name, 4)
    base = await driver.make_base(name)
    assert base != name and await driver.make_base(base) == base and await driver.make_base(name) == base
    assert driver.parse(base).base
    with pytest.raises(Conflict):
        driver.open(base, write=True)
    with pytest.raises(Conflict):
        await driver.resize(base, 16 * MIB)
    await verify_copy_of_base(driver, base)
    await driver.free(base)
    assert await driver.list() == []


async def verify_copy_of_base(driver, base):
    target = driver.image_name(200, "vm-200-disk-0", "qcow2")
    await driver.copy(base, driver, target, "qcow2")
    await verify(driver, target, 4)
    await driver.free(target)


async def test_export_is_raw(driver, fmt, tmp_path):
    name = await image(driver, fmt)
    await write(driver, name, 6, MIB)
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await driver.export(name, fd)
    finally:
        os.close(fd)
    data = (tmp_path / "out").read_bytes()
    assert len(data) == 8 * MIB and data[MIB : MIB + 65536] == b"\x06" * 65536 and not any(data[:MIB])


async def test_open_gives_a_descriptor_of_the_image(driver):
    name = await image(driver, "raw")
    fd = driver.open(name, write=True)
    os.pwrite(fd, b"x", 0)
    os.close(fd)
    with pytest.raises(NotFound):
        driver.open(driver.image_name(100, "vm-100-disk-9", "raw"), write=False)


async def test_usage(driver):
    usage = await driver.usage()
    assert usage.active and usage.total >= usage.used + usage.available > 0


async def test_cancelled_copy_leaves_nothing(driver, fmt):
    """Planted fault: without the `free` in storage/copy.py the half-written target is listed."""
    name = await image(driver, fmt, size=512 * MIB)
    await qemu_io(driver.location(name), driver.source(name).format, "write -P 1 0 256M")
    target = driver.image_name(200, "vm-200-disk-0", "raw")
    begun = asyncio.Event()
    task = asyncio.create_task(driver.copy(name, driver, target, "raw", progress=lambda share: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [v.name for v in await driver.list()] == [name]


async def test_upload(driver):
    fd, token = driver.create_upload("iso")
    os.write(fd, b"first")
    os.close(fd)
    assert await driver.finish_upload(token, "iso", "../../a b,c.iso") == "iso/a_b_c.iso"
    fd, token = driver.create_upload("iso")
    os.write(fd, b"second!")
    os.close(fd)
    await driver.finish_upload(token, "iso", "a_b_c.iso")
    (volume,) = await driver.list("iso")
    assert (volume.name, volume.size, volume.format, volume.vmid) == ("iso/a_b_c.iso", 7, "iso", None)
    assert driver.source(volume.name).format == "raw"
    fd, token = driver.create_upload("snippets")
    os.close(fd)
    await driver.abort_upload(token)
    await driver.abort_upload(token)
    assert [v.name for v in await driver.list()] == ["iso/a_b_c.iso"]
    with pytest.raises(BadInput):
        await driver.finish_upload("../../../etc/passwd", "iso", "x.iso")


async def test_attributes(driver):
    fd, token = driver.create_upload("iso")
    os.close(fd)
    name = await driver.finish_upload(token, "iso", "x.iso")
    await driver.set_attributes(name, notes="för later", protected=True)
    volume = await driver.info(name)
    assert (volume.notes, volume.protected) == ("för later", True) and await driver.list("iso") == [volume]
    with pytest.raises(Conflict):
        await driver.free(name)
    await driver.set_attributes(name, notes="", protected=False)
    assert (await driver.info(name)).notes is None
    await driver.free(name)
    assert await driver.list() == []
