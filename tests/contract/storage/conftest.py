"""Storages for the contract: a node's context over a real store, one driver a parameter."""

import asyncio

import pytest

from panal.cluster.store import Mirror
from panal.cluster.store.sqlite import SqliteStore
from panal.core.clock import SystemClock
from panal.storage import Storages, create
from panal.storage.drivers import TYPES
from panal.storage.drivers.fake import fake_type


@pytest.fixture
async def storages(tmp_path):
    mirror = Mirror(SqliteStore(tmp_path / "store.db"))
    await mirror.start()
    context = Storages(
        store=mirror, state=tmp_path / "state", clock=SystemClock(), node="n1", types={**TYPES, "fake": fake_type()}
    )
    yield context
    await context.close()
    await mirror.close()


async def make(storages, kind, tmp_path):
    options = {"content": "images,iso,vztmpl,snippets,backup,import"}
    if kind == "dir":
        options["path"] = str(tmp_path / "vz")
    await create(storages, "s1", kind, options)
    return await storages.usable("s1")


@pytest.fixture(params=["dir", "fake"])
async def driver(request, storages, tmp_path):
    return await make(storages, request.param, tmp_path)


@pytest.fixture(params=["raw", "qcow2"])
def fmt(request, driver):
    if request.param not in driver.capabilities.formats:
        pytest.skip(f"this driver has no {request.param}")
    return request.param


async def qemu_io(path, fmt, *commands):
    """What a guest would do to a disk."""
    argv = ["qemu-io", "-f", fmt]
    for command in commands:
        argv += ["-c", command]
    process = await asyncio.create_subprocess_exec(
        *argv, str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0 and b"failed" not in out, out.decode()
    return out.decode()
