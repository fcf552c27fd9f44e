"""Kept rows of `/cluster/resources`: always what is true now, and made anew only for what changed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from panal.api import resource_rows
from panal.api.resource_rows import ResourceRows
from panal.guests.drivers.base import Live
from panal.guests.model import Guest

CONFIG = {"name": 'a"b</script>', "cores": "2", "sockets": "2", "memory": "1024", "scsi0": "local:100/x.qcow2,size=8G"}


class World:
    """As much of the services as the rows look at."""

    def __init__(self, count: int = 3) -> None:
        self.guests_now = {n: Guest(n, "n1", dict(CONFIG), {}, 1) for n in range(100, 100 + count)}
        self.lives: dict[int, Live] = {}
        self.locks: dict[int, str] = {}
        self.pools: dict[int, str] = {}
        self.catalog = SimpleNamespace(version=0, numbers=lambda: list(self.guests_now))
        self.live = SimpleNamespace(version=0, running=lambda: self.lives)
        self.store = SimpleNamespace(revision=0)
        guests = SimpleNamespace(
            catalog=self.catalog, live=self.live, locks=self.locks, list=lambda: list(self.guests_now.values()),
            lock_of=lambda g: g.lock or self.locks.get(g.vmid),
        )  # fmt: skip
        access = SimpleNamespace(policy=SimpleNamespace(pool_of=self.pools))
        self.services: Any = SimpleNamespace(guests=guests, access=access, store=self.store)
        self.rows = ResourceRows()

    async def read(self, call: Any = None) -> dict[int, dict[str, Any]]:
        return {row["vmid"]: row for row in json.loads(b"[" + await self.rows.guests(self.services, call) + b"]")}


@pytest.fixture
def world():
    return World()


async def test_a_row_holds_configuration_and_state(world):
    world.lives[101] = Live(101, "paused", "paused", 7, 12, 0.25, 100, 200, 1, 2, 3, 4)
    rows = await world.read()
    assert rows[100] == {
        "id": "qemu/100", "type": "qemu", "vmid": 100, "node": "n1", "name": 'a"b</script>', "template": 0, "maxcpu": 4,
        "maxmem": 1 << 30, "maxdisk": 8 << 30, "status": "stopped", "uptime": 0, "cpu": 0, "mem": 0, "disk": 0,
        "diskread": 0, "diskwrite": 0, "netin": 0, "netout": 0,
    }  # fmt: skip
    got = {
        k: rows[101][k]
        for k in ("status", "uptime", "cpu", "mem", "memhost", "netin", "netout", "diskread", "diskwrite")
    }
    assert list(got.values()) == ["running", 12, 0.25, 100, 200, 1, 2, 3, 4]


async def test_every_change_is_seen(world):
    """Planted fault: the pool left out of what a kept row is compared by."""
    await world.read()
    world.lives[100], world.live.version = Live(100, "running", uptime_s=5), 1
    assert (await world.read())[100]["uptime"] == 5
    world.lives[100], world.live.version = Live(100, "running", uptime_s=8), 2
    assert (await world.read())[100]["uptime"] == 8
    del world.lives[100]
    world.live.version = 3
    assert (await world.read())[100]["status"] == "stopped"
    world.locks[101] = "backup"
    assert (await world.read())[101]["lock"] == "backup"
    world.locks.clear()
    assert "lock" not in (await world.read())[101]
    world.pools[102], world.store.revision = "p", 1
    assert (await world.read())[102]["pool"] == "p"
    world.guests_now[100] = replace(
        world.guests_now[100], config={**CONFIG, "memory": "2048", "template": "1", "tags": "x;y"}
    )
    world.catalog.version = 1
    row = (await world.read())[100]
    assert (row["maxmem"], row["template"], row["tags"]) == (2 << 30, 1, "x;y")
    del world.guests_now[101]
    world.catalog.version = 2
    assert set(await world.read()) == {100, 102} and set(world.rows._rows) == {100, 102}


async def test_rows_are_filtered_for_others_and_their_answer_is_not_kept_for_root(world):
    rights = SimpleNamespace(privileges=lambda path: {"VM.Audit": True} if path == "/vms/101" else {})
    assert set(await world.read(SimpleNamespace(rights=rights))) == {101}
    assert set(await world.read()) == {100, 101, 102}
    assert set(await world.read(SimpleNamespace(rights=rights))) == {101}


async def test_only_what_changed_is_made_anew(world, monkeypatch):
    made: list[int] = []
    original = ResourceRows._static

    def counted(self: ResourceRows, guest: Guest, pool: str | None, lock: str | None) -> bytes:
        made.append(guest.vmid)
        return original(self, guest, pool, lock)

    monkeypatch.setattr(ResourceRows, "_static", counted)
    await world.read()
    world.lives[101], world.live.version = Live(101, "running"), 1
    await world.read()
    assert made == [100, 101, 102]


async def test_a_configuration_that_cannot_be_read_does_not_take_the_list_with_it(world):
    world.guests_now[100] = replace(world.guests_now[100], config={"memory": "x", "cores": "many", "scsi0": ",,,"})
    rows = await world.read()
    assert len(rows) == 3 and rows[100]["maxcpu"] == 1 and rows[100]["name"] == "VM 100"


async def test_the_loop_goes_on_while_a_long_list_is_made(monkeypatch):
    monkeypatch.setattr(resource_rows, "SLICE_S", 0.0)
    world = World(1000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    await asyncio.sleep(0)
    assert len(await world.read()) == 1000
    running.cancel()
    assert turns > 10
