"""Full disks, killed tools, guests that write headers: nothing half-made stays, nothing is guessed."""

import asyncio
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from panal.core.errors import Failed, PanalError
from panal.storage import create
from panal.storage.upload import begin, finish
from tests.contract.storage.conftest import make, qemu_io
from tests.contract.storage.test_driver import MIB, image
from tests.unit.storage.hostile import qcow2


def children_named(name):
    """Pids of our children (and theirs) that run a program of this name."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            pid = int(entry.name)
            names[pid] = text.partition("(")[2].rpartition(")")[0]
            parents[pid] = int(text.rpartition(")")[2].split()[1])

    def ours(pid):
        while pid > 1:
            pid = parents.get(pid, 0)
            if pid == os.getpid():
                return True
        return False

    return [pid for pid, found in names.items() if found == name and ours(pid)]


async def test_killed_qemu_img_leaves_no_volume(driver, fmt):
    name = await image(driver, fmt, size=1024 * MIB)
    await qemu_io(driver.location(name), fmt, "write -P 1 0 512M")
    target = driver.image_name(200, "vm-200-disk-0", "raw")
    begun = asyncio.Event()
    task = asyncio.create_task(driver.copy(name, driver, target, "raw", progress=lambda share: begun.set()))
    await begun.wait()
    for pid in children_named("qemu-img"):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(Failed):
        await task
    assert [v.name for v in await driver.list()] == [name]
    await driver.copy(name, driver, target, "raw")


@pytest.fixture
async def driver(storages, tmp_path):
    """These faults are those of files."""
    return await make(storages, "dir", tmp_path)


@pytest.fixture
async def full(storages, tmp_path):
    """A storage on a file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", path], check=True)
    try:
        await create(storages, "small", "dir", {"path": str(path), "content": "images,iso", "preallocation": "full"})
        yield await storages.usable("small")
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
async def test_full_disk(full, driver, kind):
    used = (await full.usage()).used
    with pytest.raises(Failed, match=r"[Nn]o space"):
        await image(full, kind, size=64 * MIB)
    assert await full.list() == [] and (await full.usage()).used <= used + 65536
    big = await image(driver, "raw", size=64 * MIB)
    await qemu_io(driver.location(big), "raw", "write -P 1 0 64M")
    with pytest.raises(Failed, match=r"[Nn]o space"):
        await driver.copy(big, full, full.image_name(100, "vm-100-disk-0", kind), kind)
    assert await full.list() == []
    await image(full, "raw", size=MIB)


@pytest.mark.root
async def test_full_disk_while_uploading(full, storages):
    place = await begin(storages, "small", "iso")
    with pytest.raises(OSError, match="No space"):
        while True:
            os.write(place.fd, bytes(MIB))
    from panal.storage.upload import abort

    await abort(place)
    assert (await full.usage()).used < MIB and await full.list() == []


async def test_raw_stays_raw_whatever_its_guest_writes(driver, tmp_path):
    """Attack row 15. Planted fault: leaving out `driver=raw` makes qemu-img follow the header to the secret."""
    (tmp_path / "secret").write_bytes(b"secret" * 20000)
    name = await image(driver, "raw")
    with open(driver.location(name), "r+b") as file:
        file.write(qcow2(backing=str(tmp_path / "secret").encode(), size=1 << 20))
    before = Path(driver.location(name)).read_bytes()
    await driver.resize(name, 16 * MIB)
    assert (await driver.info(name)).size == 16 * MIB
    assert Path(driver.location(name)).read_bytes()[: len(before)] == before
    target = driver.image_name(200, "vm-200-disk-0", "raw")
    await driver.copy(name, driver, target, "raw")
    assert Path(driver.location(target)).read_bytes()[: len(before)] == before
    second = driver.image_name(201, "vm-201-disk-0", "qcow2")
    await driver.copy(name, driver, second, "qcow2")
    assert (await driver.info(second)).size == 16 * MIB
    assert await asyncio.to_thread(lambda: b"secretsecret" not in Path(driver.location(second)).read_bytes())


async def test_allocation_cancelled_while_the_file_is_made_leaves_nothing(driver, fmt, monkeypatch):
    """Planted fault: with a plain `to_thread` around the creation the file stays, and its descriptor."""
    making, go_on, create_file = threading.Event(), threading.Event(), driver._root.create

    def slowly(path):
        fd = create_file(path)
        making.set()
        go_on.wait(30)
        return fd

    monkeypatch.setattr(driver._root, "create", slowly)
    task = asyncio.create_task(driver.allocate(100, driver.image_name(100, "vm-100-disk-0", fmt), fmt, MIB))
    await asyncio.to_thread(making.wait, 30)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await driver.list() == [] and list((driver._root.path / "images").iterdir()) == []


@pytest.mark.parametrize("how", ["backing", "data_file"])
async def test_an_image_that_names_another_file_is_not_touched(driver, tmp_path, how):
    """Attack row 14. Planted fault: without `require_plain` the copy holds the secret."""
    (tmp_path / "secret").write_bytes(b"secret" * 20000)
    name = await image(driver, "qcow2")
    with open(driver.location(name), "wb") as file:
        file.write(qcow2(**{how: str(tmp_path / "secret").encode()}))
    for work in (
        lambda: driver.copy(name, driver, driver.image_name(200, "vm-200-disk-0", "raw"), "raw"),
        lambda: driver.resize(name, 64 * MIB),
        lambda: driver.snapshot(name, "one"),
        lambda: driver.snapshots(name),
    ):
        with pytest.raises(PanalError, match="refers to"):
            await work()
    assert [v.name for v in await driver.list()] == [name]
    await driver.free(name)


async def test_everything_made_is_private(storages, driver, fmt):
    """Attack row 17: also with a careless umask."""
    before = os.umask(0)
    try:
        name = await image(driver, fmt)
        await driver.copy(name, driver, driver.image_name(200, "vm-200-disk-0", fmt), fmt)
        place = await begin(storages, "s1", "iso")
        await finish(place, "iso", "a.iso", None)
        await driver.set_attributes("iso/a.iso", notes="x", protected=True)
    finally:
        os.umask(before)
    root = Path(driver.location(name)).parents[2]
    public = [p for p in root.rglob("*") if p.stat().st_mode & 0o077]
    assert public == []


async def test_link_instead_of_an_image(driver, tmp_path):
    """Attack rows 9 and 16."""
    name = await image(driver, "raw")
    (tmp_path / "secret").write_bytes(b"secret")
    path = Path(driver.location(name))
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    for work in (lambda: driver.resize(name, 64 * MIB), lambda: driver.info(name)):
        with pytest.raises(PanalError):
            await work()
    with pytest.raises(PanalError):
        driver.open(name, write=True)
    assert await driver.list() == []
    await driver.free(name)
    assert (tmp_path / "secret").read_bytes() == b"secret"


async def test_a_hanging_storage_blocks_nobody(storages, driver, monkeypatch):
    """Planted fault: awaiting the driver's usage without a limit makes this wait for ever."""
    hang = asyncio.Event()

    async def never():
        await hang.wait()

    monkeypatch.setattr(driver, "usage", never)
    storages._usage.clear()
    both = await asyncio.gather(*(storages.status("s1") for _ in range(20)))
    assert not any(status.active for status in both)
    assert len(storages._asking) == 1
