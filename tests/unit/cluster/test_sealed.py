"""Values under `secret/` are not readable in the store's files, cannot be moved, and need the right key."""

from __future__ import annotations

from pathlib import Path

import pytest

from panal.cluster.store import Put, SealedStore, SqliteStore
from panal.cluster.store.sealed import load_key
from panal.core.errors import Failed

CANARY = "canary-7f3a9c"


async def test_secrets_are_not_in_any_file(tmp_path):
    """Invariant 11. Planted fault: `startswith("secrets/")` in `_seal`."""
    key = load_key(tmp_path / "key", tmp_path / "store.db")
    store = SealedStore(SqliteStore(tmp_path / "store.db"), key)
    await store.txn(
        [], [Put("secret/access/x", {"v": 1, "password": CANARY}), Put("plain", {"v": 1, "text": "visible-text"})]
    )
    item = await store.get("secret/access/x")
    assert item is not None and item.value["password"] == CANARY
    data = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert CANARY.encode() not in data and b"visible-text" in data
    await store.close()


async def test_a_sealed_value_cannot_be_moved_or_opened_with_another_key(tmp_path):
    inner = SqliteStore(tmp_path / "store.db")
    store = SealedStore(inner, b"a" * 32)
    await store.txn([], [Put("secret/a", {"v": 1, "x": CANARY})])
    sealed = await inner.get("secret/a")
    assert sealed is not None and set(sealed.value) == {"v", "sealed"}
    await inner.txn([], [Put("secret/b", sealed.value), Put("secret/c", {"v": 1})])
    for key in ("secret/b", "secret/c"):
        with pytest.raises(Failed, match="cannot be decrypted"):
            await store.get(key)
    with pytest.raises(Failed, match="cannot be decrypted") as caught:
        await SealedStore(inner, b"b" * 32).get("secret/a")
    assert CANARY not in str(caught.value)
    await inner.close()


def test_the_key_is_made_once_for_the_owner_alone(tmp_path):
    key = load_key(tmp_path / "key", tmp_path / "store.db")
    assert len(key) == 32 and load_key(tmp_path / "key", tmp_path / "store.db") == key
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["key"]
    (tmp_path / "key").write_bytes(b"")
    with pytest.raises(Failed, match="cluster key"):
        load_key(tmp_path / "key", tmp_path / "store.db")


async def test_no_new_key_beside_a_store_that_exists(tmp_path: Path) -> None:
    """Planted fault: load_key makes a key whenever there is none."""
    state = tmp_path / "key", tmp_path / "store.db"
    load_key(*state)
    await SqliteStore(state[1]).close()
    assert state[1].exists()
    state[0].unlink()
    with pytest.raises(Failed, match=r"key is missing.*Restore key from the backup"):
        load_key(*state)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("key")] == []
