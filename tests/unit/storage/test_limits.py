"""How fast disks may be copied: the slowest of what is configured and asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from panal.cluster import options
from panal.cluster.store import Mirror, Put, SqliteStore
from panal.core.clock import SystemClock
from panal.storage.limits import copy_limit_bytes_s
from panal.storage.storages import Storages


@pytest.fixture
async def storages(tmp_path: Path) -> AsyncIterator[Storages]:
    store = Mirror(SqliteStore(tmp_path / "store.db"))
    await store.start()
    for name, limit in (("free", None), ("slow", "clone=100,default=300"), ("open", "clone=0")):
        more = {} if limit is None else {"bwlimit": limit}
        await store.txn([], [Put(f"storage/{name}", {"v": 1, "type": "dir", "options": {"path": "/x", **more}})])
    yield Storages(store=store, state=tmp_path, clock=SystemClock(), node="n1")
    await store.close()


@pytest.mark.parametrize(
    ("ids", "kind", "asked", "override", "kib"),
    [
        (["free"], "clone", None, False, 0), (["free", "slow"], "clone", None, False, 100),
        (["slow"], "move", None, False, 300),
        (["slow"], "clone", 50, False, 50), (["slow"], "clone", 5000, False, 100), (["slow"], "clone", 0, False, 100),
        (["slow"], "clone", 0, True, 0), (["slow"], "clone", 5000, True, 5000), (["free"], "clone", 7, False, 7),
        (["nowhere"], "clone", None, False, 0),
    ],
)  # fmt: skip
async def test_the_slowest_counts(
    storages: Storages, ids: list[str], kind: str, asked: int | None, override: bool, kib: int
) -> None:
    limit = copy_limit_bytes_s(storages, ids, kind, asked, override=override)  # type: ignore[arg-type]
    assert limit == kib * 1024


async def test_the_installation_has_one_where_a_storage_has_none(storages: Storages) -> None:
    await options.change(storages.store, {"bwlimit": "clone=10,default=20"}, ())
    assert copy_limit_bytes_s(storages, ["free"], "clone", None, override=False) == 10 * 1024
    assert copy_limit_bytes_s(storages, ["free"], "move", None, override=False) == 20 * 1024
    assert copy_limit_bytes_s(storages, ["open"], "clone", None, override=False) == 0, "its own word"
