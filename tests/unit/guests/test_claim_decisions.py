"""Each decision about a claim as a table, and the compare-and-set behind it against a store that others write to in between.

The state machine is in `test_claims.py`; what it finds by chance stands here for certain (`tests/unit/mutants`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from panal.cluster.incarnation import Incarnation
from panal.cluster.store import Absent, Check, Mirror, Op, Put, SqliteStore, TxnResult
from panal.core.errors import Conflict
from panal.guests import claims
from panal.guests.claims import Claim, decide_release, decide_take, decide_takeover
from panal.guests.model import claim_key

ME, BEFORE, OTHER = Incarnation("a", "2"), Incarnation("a", "1"), Incarnation("b", "1")
FREE, MINE, OLD, THEIRS = Claim(epoch=7), *(Claim(i.node, i.id, 7) for i in (ME, BEFORE, OTHER))
LET_GO = Claim(None, None, 7)


@pytest.mark.parametrize(
    ("claim", "take", "takeover", "release"),
    [
        (FREE, Claim("a", ME.id, 8), None, None),
        (MINE, Claim("a", ME.id, 8), None, LET_GO),
        (OLD, None, LET_GO, None),
        (THEIRS, None, None, None),
    ],
)
def test_what_is_decided(claim: Claim, take: Claim | None, takeover: Claim | None, release: Claim | None) -> None:
    assert decide_take(claim, ME) == take
    assert decide_takeover(claim, ME) == takeover
    assert decide_release(claim, ME, 7) == release
    assert decide_release(claim, ME, 6) is None


def test_an_earlier_boot_of_the_same_node_does_not_hold_it() -> None:
    assert MINE.held_by(ME) and MINE.held_by(ME, 7) and not MINE.held_by(ME, 6)
    assert not OLD.held_by(ME) and not OLD.held_by(ME, 7)
    assert not THEIRS.held_by(ME)


class Raced(Mirror):
    """Somebody writes just before the next txn."""

    before: Callable[[], Sequence[Op]] | None = None

    async def txn(self, checks: Sequence[Check], ops: Sequence[Op]) -> TxnResult:
        if self.before is not None:
            others, self.before = self.before(), None
            assert (await super().txn([], others)).ok
        return await super().txn(checks, ops)


@pytest.fixture
async def store(tmp_path):
    made = Raced(SqliteStore(tmp_path / "store.db"))
    await made.start()
    yield made
    await made.close()


def taken() -> Sequence[Op]:
    return [Put(claim_key(100), THEIRS.value())]


async def test_a_claim_that_somebody_takes_in_between_is_not_taken(store: Raced) -> None:
    for _ in range(2):  # with no record yet, and with one
        store.before = taken
        assert await claims.take(store, 100, ME, ops=[Put("x", {"v": 1})]) is None
        assert claims.read(store, 100).held_by(OTHER) and store.get("x") is None
        with pytest.raises(Conflict):
            await claims.take(store, 100, ME)
        await store.txn([], [Put(claim_key(100), FREE.value())])


async def test_a_claim_is_taken_only_with_what_else_was_asked_for(store: Raced) -> None:
    await store.txn([], [Put("config", {"v": 1})])
    assert await claims.take(store, 100, ME, [Absent("config")], [Put("x", {"v": 1})]) is None
    assert claims.read(store, 100).free and store.get("x") is None


async def test_a_release_that_comes_too_late_takes_nothing_away(store: Raced) -> None:
    got = await claims.take(store, 100, ME)
    assert got is not None
    store.before = taken
    assert not await claims.release(store, 100, ME, got.epoch)
    assert claims.read(store, 100).held_by(OTHER)
