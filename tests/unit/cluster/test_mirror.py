"""The local copy: complete at start, read-your-writes, listeners after the fact, retried updates."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from panal.cluster.store import Delete, Event, Mirror, Put, SqliteStore, TxnResult
from panal.core.errors import Conflict, Unavailable


@pytest.fixture
async def engine(tmp_path):
    return SqliteStore(tmp_path / "store.db", 50)


@pytest.fixture
async def mirror(engine):
    made = Mirror(engine)
    await made.start()
    yield made
    await made.close()


async def test_it_holds_what_was_there_before(tmp_path):
    engine = SqliteStore(tmp_path / "x.db")
    await engine.txn([], [Put("b", {"v": 1}), Put("a", {"v": 1, "n": 2})])
    mirror = Mirror(engine)
    await mirror.start()
    assert [i.key for i in mirror.list("")] == ["a", "b"]
    assert mirror.value("a") == {"v": 1, "n": 2} and mirror.value("x") is None
    await mirror.close()


async def test_what_one_wrote_one_reads(mirror):
    for n in range(30):
        await mirror.txn([], [Put("a/x", {"v": 1, "n": n}), Put(f"b/{n}", {"v": 1})])
        item = mirror.get("a/x")
        assert item is not None and item.value["n"] == n and len(mirror.list("b/")) == n + 1
    await mirror.txn([], [Delete("b/3")])
    assert mirror.get("b/3") is None and len(mirror.list("b/")) == 29


async def test_prefixes(mirror):
    await mirror.txn(
        [], [Put(k, {"v": 1}) for k in ("guest/100/a", "guest/1000/a", "guest/10", "guest0", "guest/\U0001f600")]
    )
    assert [i.key for i in mirror.list("guest/100/")] == ["guest/100/a"]
    assert len(mirror.list("guest/")) == 4
    assert len(mirror.list("")) == 5


async def test_create_is_for_the_first_only(mirror):
    results = await asyncio.gather(
        *(mirror.create("a", {"v": 1, "n": n}, "a exists") for n in range(10)), return_exceptions=True
    )
    assert sum(isinstance(r, int) for r in results) == 1
    assert sum(isinstance(r, Conflict) for r in results) == 9


async def test_updates_of_many_lose_nothing(mirror):
    """Planted fault: writing without the check loses increments."""

    def add(value):
        return {"v": 1, "n": (value or {"n": 0})["n"] + 1}

    await asyncio.gather(*(mirror.update("n", add) for _ in range(30)))
    assert mirror.value("n") == {"v": 1, "n": 30}


async def test_an_update_may_delete_do_nothing_or_give_up(mirror):
    await mirror.create("a", {"v": 1}, "")
    head = mirror.revision
    assert await mirror.update("a", lambda value: None) == {"v": 1}
    assert mirror.revision == head

    def refuse(value):
        raise Conflict("no")

    with pytest.raises(Conflict):
        await mirror.update("a", refuse)
    assert await mirror.update("a", lambda value: Delete("a")) is None
    assert mirror.get("a") is None


async def test_listeners_hear_a_txn_at_once_after_the_mirror_shows_it(mirror):
    heard: list[list[tuple[str, bool]]] = []

    def listener(events: tuple[Event, ...]) -> None:
        assert all(mirror.get(e.key) == e.item for e in events)
        heard.append([(e.key, e.item is not None) for e in events])

    mirror.listen("guest/", listener)
    await mirror.txn([], [Put("guest/1", {"v": 1}), Put("x", {"v": 1}), Put("guest/2", {"v": 1})])
    await mirror.txn([], [Put("x", {"v": 2})])
    await mirror.txn([], [Delete("guest/1")])
    assert heard == [[("guest/1", True), ("guest/2", True)], [("guest/1", False)]]


async def test_rooms_tell_when_anything_below_changed(mirror):
    await mirror.txn([], [Put("access/a", {"v": 1}), Put("guest/1", {"v": 1})])
    before = mirror.room_revision("access"), mirror.room_revision("guest")
    await mirror.txn([], [Delete("access/a")])
    assert mirror.room_revision("access") > before[0]
    assert mirror.room_revision("guest") == before[1]


async def test_a_room_never_goes_back_over_a_restart(tmp_path):
    """A cache or an ETag keyed by it would match what is gone. Planted fault: rooms from the listing's items only."""
    mirror = Mirror(SqliteStore(tmp_path / "x.db"))
    await mirror.start()
    await mirror.txn([], [Put("access/a", {"v": 1})])
    await mirror.txn([], [Put("access/b", {"v": 1})])
    await mirror.txn([], [Delete("access/a")])
    before = mirror.room_revision("access")
    await mirror.close()
    again = Mirror(SqliteStore(tmp_path / "x.db"))
    await again.start()
    assert again.room_revision("access") >= before
    await again.close()


async def test_a_compacted_history_is_read_anew_and_announced(mirror, engine):
    await mirror.txn([], [Put("access/gone", {"v": 1}), Put("access/stays", {"v": 1})])
    room = mirror.room_revision("access")
    heard: dict[str, bool] = {}
    mirror.listen("access/", lambda events: heard.update({e.key: e.item is not None for e in events}))
    assert mirror._task is not None
    mirror._task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await mirror._task
    await engine.txn([], [Delete("access/gone")])
    for n in range(220):
        await engine.txn([], [Put("x", {"v": 1, "n": n})])
    mirror._task = asyncio.create_task(mirror._follow())
    await mirror.wait((await engine.list("")).revision)
    assert mirror.get("access/gone") is None and mirror.value("x") == {"v": 1, "n": 219}
    assert heard == {"access/gone": False, "access/stays": True}
    assert mirror.room_revision("access") > room


async def test_a_copy_that_stays_behind_says_so(mirror):
    with pytest.raises(Unavailable):
        await mirror.wait(mirror.revision + 1, timeout_s=0.01)


async def test_too_many_rivals_end_in_a_sentence(mirror, monkeypatch):
    async def lose(checks, ops):
        return TxnResult(False, 0)

    monkeypatch.setattr(mirror, "txn", lose)
    with pytest.raises(Conflict, match="too many others"):
        await mirror.update("a", lambda value: {"v": 1})
