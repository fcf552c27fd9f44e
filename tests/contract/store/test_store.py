"""The contract of `cluster.store.Store`: every engine passes it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from panal.cluster.store import (
    MAX_OPERATIONS,
    MAX_TXN_BYTES,
    Absent,
    Delete,
    Event,
    Put,
    Store,
    Unchanged,
)
from panal.core.errors import BadInput, NotFound
from tests.contract.store.engines import ENGINES


@pytest.fixture(params=sorted(ENGINES))
def engine(request):
    return ENGINES[request.param]


@pytest.fixture
async def store(engine, tmp_path):
    made = engine(tmp_path, 10_000)
    yield made
    await made.close()


async def put(store: Store, key: str, **value) -> int:
    result = await store.txn([], [Put(key, {"v": 1, **value})])
    assert result.ok
    return result.revision


async def collect(store: Store, prefix: str, revision: int, count: int) -> list[tuple[Event, ...]]:
    got: list[tuple[Event, ...]] = []
    async with asyncio.timeout(10):
        async for events in store.watch(prefix, revision):
            got.append(events)
            if len(got) == count:
                break
    return got


async def test_a_new_store_is_empty_at_a_revision(store):
    assert (await store.list("")).items == ()
    assert await store.get("x") is None


async def test_what_was_put_is_there(store):
    first = await put(store, "guest/100/config", memory="512", text="äöü\n\x00", n=[1, {"a": None}])
    item = await store.get("guest/100/config")
    assert item is not None
    assert item.value == {"v": 1, "memory": "512", "text": "äöü\n\x00", "n": [1, {"a": None}]}
    assert item.revision == item.created == first
    second = await put(store, "guest/100/config")
    item = await store.get("guest/100/config")
    assert item is not None and (item.revision, item.created, item.value) == (second, first, {"v": 1})
    assert second == first + 1


async def test_a_deleted_key_is_born_again(store):
    await put(store, "a")
    await store.txn([], [Delete("a")])
    third = await put(store, "a")
    item = await store.get("a")
    assert item is not None and item.created == third


async def test_lists_are_sorted_and_take_prefixes_literally(store):
    """Planted fault: LIKE instead of a range lets `_` and `%` match anything."""
    keys = [
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "a0",
        "a_b",
        "aXb",
        "a%",
        "b",
        "guest/100/x",
        "guest/1000/x",
        "ä/x",
        "A/b",
        "a/\U0001f600",
    ]
    for key in keys:
        await put(store, key)

    async def under(prefix: str) -> list[str]:
        return [item.key for item in (await store.list(prefix)).items]

    assert await under("") == sorted(keys)
    assert await under("a/") == ["a/", "a/b", "a/b/c", "a/\U0001f600"]
    assert await under("a_") == ["a_b"]
    assert await under("a%") == ["a%"]
    assert await under("guest/100/") == ["guest/100/x"]
    assert await under("guest/100") == ["guest/100/x", "guest/1000/x"]
    assert await under("zzz") == []


async def test_checks_decide_and_a_lost_txn_changes_nothing(store):
    first = await put(store, "a", n=1)
    lost = await store.txn([Absent("a")], [Put("a", {"v": 1, "n": 2}), Put("b", {"v": 1})])
    assert not lost.ok and lost.revision == first
    lost = await store.txn([Unchanged("a", first), Unchanged("b", 1)], [Delete("a")])
    assert not lost.ok
    assert (await store.get("b")) is None
    item = await store.get("a")
    assert item is not None and item.value["n"] == 1
    won = await store.txn([Unchanged("a", first), Absent("b")], [Put("a", {"v": 1, "n": 3}), Put("b", {"v": 1})])
    assert won.ok and won.revision == first + 1
    assert {i.revision for i in (await store.list("")).items} == {won.revision}


async def test_removing_what_is_not_there_is_no_change(store):
    before = await put(store, "a")
    result = await store.txn([], [Delete("b")])
    assert result.ok and result.revision == before
    result = await store.txn([Unchanged("a", before)], [])
    assert result.ok and result.revision == before


async def test_limits_are_the_same_in_every_engine(store):
    full = [Put(f"k/{n}", {"v": 1}) for n in range(MAX_OPERATIONS)]
    assert (await store.txn([Absent(f"k/{n}") for n in range(MAX_OPERATIONS)], full)).ok
    head = (await store.list("")).revision
    big = {"v": 1, "x": "y" * MAX_TXN_BYTES}
    for checks, ops in [
        ([], [*full, Put("one-more", {"v": 1})]),
        ([Absent(f"x/{n}") for n in range(MAX_OPERATIONS + 1)], []),
        ([], [Put("a", {"v": 1}), Put("a", {"v": 1})]),
        ([], [Put("a", {"v": 1}), Delete("a")]),
        ([], [Put("a", big)]),
        ([], [Put("", {"v": 1})]),
        ([], [Put("/a", {"v": 1})]),
        ([], [Put("a\n", {"v": 1})]),
        ([], [Put("a\0b", {"v": 1})]),
        ([], [Put("a" * 513, {"v": 1})]),
        ([Absent("\ud800")], []),
        ([], [Put("a", {"v": float("nan")})]),
        ([], [Put("a", {"v": object()})]),
    ]:
        with pytest.raises(BadInput):
            await store.txn(checks, ops)
    assert (await store.list("")).revision == head


async def test_a_watch_sees_history_then_the_present_a_tuple_a_txn(store):
    start = (await store.list("")).revision
    first = await put(store, "a/1")
    await put(store, "other")
    third = await store.txn([], [Put("a/2", {"v": 1}), Put("zzz", {"v": 1}), Delete("a/1")])
    watching = asyncio.create_task(collect(store, "a/", start, 3))
    await asyncio.sleep(0.01)
    fourth = await put(store, "a/3", n=7)
    one, two, three = await watching
    assert [(e.key, e.item is None, e.revision) for e in one] == [("a/1", False, first)]
    assert [(e.key, e.item is None, e.revision) for e in two] == [
        ("a/2", False, third.revision),
        ("a/1", True, third.revision),
    ]
    (event,) = three
    assert event.revision == fourth and event.item is not None
    assert (event.item.value, event.item.created) == ({"v": 1, "n": 7}, fourth)


async def test_many_writers_one_order(store):
    """Every watcher sees every revision once, in order; compare-and-set loses no increment."""
    start = await put(store, "n", n=0)
    writers, rounds = 8, 10
    watching = asyncio.create_task(collect(store, "n", start, writers * rounds))

    async def add() -> None:
        for _ in range(rounds):
            while True:
                item = await store.get("n")
                assert item is not None
                change = Put("n", {"v": 1, "n": item.value["n"] + 1})
                if (await store.txn([Unchanged("n", item.revision)], [change])).ok:
                    break

    await asyncio.gather(*(add() for _ in range(writers)))
    seen = [events[0].item.value["n"] for events in await watching if events[0].item]
    assert seen == list(range(1, writers * rounds + 1))


async def test_a_cancelled_writer_does_not_hide_its_write_from_watches(store):
    start = (await store.list("")).revision
    watching = asyncio.create_task(collect(store, "a", start, 1))
    writing = asyncio.create_task(put(store, "a"))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert len(await watching) == 1


async def test_a_history_that_is_gone_says_so(engine, tmp_path):
    store = engine(tmp_path, 50)
    start = (await store.list("")).revision
    for n in range(220):
        await put(store, "a", n=n)
    with pytest.raises(NotFound, match="list again"):
        await collect(store, "", start, 1)
    head = (await store.list("")).revision
    got = await collect(store, "", head - 20, 20)
    assert [events[0].revision for events in got] == list(range(head - 19, head + 1))
    await store.close()


async def test_it_is_all_there_after_opening_again(engine, tmp_path):
    store = engine(tmp_path, 10_000)
    first = await put(store, "a", n=1)
    await put(store, "secret/access/x", password="canary")
    await store.close()
    store = engine(tmp_path, 10_000)
    listing = await store.list("")
    assert [i.key for i in listing.items] == ["a", "secret/access/x"]
    assert listing.items[1].value == {"v": 1, "password": "canary"}
    assert listing.revision == first + 1
    assert await put(store, "b") == first + 2
    await store.close()


async def test_closing_ends_watches(engine, tmp_path):
    store = engine(tmp_path, 10_000)

    async def follow() -> None:
        async for _ in store.watch("", 0):
            pass

    watching = asyncio.create_task(follow())
    await asyncio.sleep(0.01)
    await store.close()
    await asyncio.wait_for(watching, 5)


CHILD = """
import asyncio, sys
from pathlib import Path
from panal.cluster.store import Put
from tests.contract.store.engines import ENGINES

async def main():
    store = ENGINES[sys.argv[1]](Path(sys.argv[2]), 10000)
    n = 0
    while True:
        n += 1
        value = {"v": 1, "n": n}
        await store.txn([], [Put(f"k/{n}/a", value), Put(f"k/{n}/b", value), Put("last", value)])
        print(n, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("name", sorted(ENGINES))
@pytest.mark.parametrize("after", [1, 7, 40])
async def test_what_was_acknowledged_survives_a_kill_and_nothing_is_half_there(tmp_path, name, after, soak):
    """Invariant 3. Planted fault: `pragma user_version`-style autocommit per statement shows `a` without `b`."""
    for number in range(
        soak("SIGKILL of a store's writer: acknowledged transactions lost, or half there", small=1, big=60)
    ):
        await killed(tmp_path / str(number), name, after + number)


async def killed(directory: Path, name: str, after: int) -> None:
    """One round: all that was acknowledged is there, whole, and at most the one in flight besides."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, name, str(directory), stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout is not None
    acknowledged = 0
    async with asyncio.timeout(30):
        while acknowledged < after:
            acknowledged = int(await child.stdout.readline())
        child.kill()
        rest = await child.stdout.read()
    await child.wait()
    acknowledged = max([acknowledged, *map(int, rest.split(b"\n")[:-1])])
    store = ENGINES[name](directory, 10_000)
    values = {i.key: i.value["n"] for i in (await store.list("")).items}
    last = values.pop("last")
    await store.close()
    assert last in (acknowledged, acknowledged + 1)
    assert sorted(values) == sorted(f"k/{n}/{x}" for n in range(1, last + 1) for x in "ab")
