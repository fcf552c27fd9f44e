"""What only the SQLite engine promises: about its file."""

from __future__ import annotations

import sqlite3

import pytest

from panal.cluster.store import Put, SqliteStore
from panal.core.errors import Failed
from panal.host.database import Database


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "store.db"
    await SqliteStore(path).close()
    db = sqlite3.connect(path)
    db.execute("pragma user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(Failed, match="newer version"):
        SqliteStore(path)
    assert path.read_bytes() == before


async def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"this is not a database at all, but it is long enough to be looked at" * 100)
    with pytest.raises(Failed, match=r"store\.db"):
        SqliteStore(path)


async def test_there_is_no_second_writer(tmp_path):
    """Planted fault: without the exclusive lock a second daemon writes behind the first one's watches."""
    store = SqliteStore(tmp_path / "store.db")
    with pytest.raises(Failed, match="in use by another process"):
        SqliteStore(tmp_path / "store.db")
    assert (await store.txn([], [Put("a", {"v": 1})])).ok
    await store.close()
    again = SqliteStore(tmp_path / "store.db")
    assert await again.get("a") is not None
    await again.close()


async def test_files_are_for_the_owner_alone(tmp_path):
    store = SqliteStore(tmp_path / "new" / "store.db")
    await store.txn([], [Put("a", {"v": 1})])
    assert {p.stat().st_mode & 0o077 for p in [tmp_path / "new", *(tmp_path / "new").iterdir()]} == {0}
    await store.close()


async def test_a_failing_transaction_changes_nothing(tmp_path):
    db = Database(tmp_path / "x.db", ("create table t (n integer primary key)",), durable=False)

    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("insert into t values (1)")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await db.run(bad)
    assert await db.run(lambda c: c.execute("select count(*) from t").fetchone()) == (0,)
    db.close()


async def test_an_old_file_is_brought_forward_step_by_step(tmp_path):
    one = ("create table t (n integer)",)
    Database(tmp_path / "x.db", one, durable=True).close()
    db = Database(
        tmp_path / "x.db", (*one, "alter table t add column m integer; insert into t values (1, 2)"), durable=True
    )
    assert db.run_now(lambda c: c.execute("select n, m from t").fetchall()) == [(1, 2)]
    db.close()


async def test_a_full_disk_is_an_error_of_ours_and_changes_nothing(tmp_path):
    store = SqliteStore(tmp_path / "store.db")
    await store.txn([], [Put("a", {"v": 1})])
    pages = store._db.run_now(lambda c: c.execute("pragma page_count").fetchone())[0]
    store._db._pool.submit(lambda: store._db._db.execute(f"pragma max_page_count = {pages + 1}")).result()
    with pytest.raises(Failed, match="full"):
        await store.txn([], [Put("b", {"v": 1, "x": "y" * 100_000})])
    assert await store.get("b") is None
    assert (await store.txn([], [Put("a", {"v": 2})])).ok
    await store.close()
