"""What a daemon's start does with processes and claims that do not match (design 6.3): kill, reap, let go, or keep off."""

from __future__ import annotations

import pytest

from panal.cluster.store import Delete, Op, Put
from panal.core.errors import Conflict
from panal.guests import boot, claims
from panal.guests.claims import Claim
from panal.guests.create import create
from panal.guests.model import claim_key, config_key
from panal.guests.start import start
from tests.unit.guests.world import USER, Node, World

OTHER = Claim("n2", "n2:boot1", 7)


async def running(node: Node, *vmids: int) -> None:
    for vmid in vmids:
        await node.ok(await create(node.guests, vmid, {}, USER))
        await node.ok(await start(node.guests, vmid, USER))


def watched(node: Node) -> list[tuple[int, Claim]]:
    """Every later `driver.stop`: of which guest, and its claim at that moment."""
    calls: list[tuple[int, Claim]] = []
    real = node.driver.stop

    async def stop(vmid: int, timeout_s: float = 10) -> None:
        calls.append((vmid, claims.read(node.guests.store, vmid)))
        await real(vmid, timeout_s)

    node.driver.stop = stop  # type: ignore[method-assign]
    return calls


WITHOUT_RIGHT: dict[str, Op] = {
    "free": Put(claim_key(100), Claim(None, None, 1).value()),
    "another node's": Put(claim_key(100), OTHER.value()),
    "another boot's": Put(claim_key(100), Claim("n1", "n1:boot0", 1).value()),
    "another epoch's": Put(claim_key(100), Claim("n1", "n1:boot1", 2).value()),
    "no such guest": Delete(config_key(100)),
}


@pytest.mark.parametrize("why", WITHOUT_RIGHT)
async def test_what_runs_without_the_right_to_is_killed(world: World, why: str) -> None:
    """Planted fault: `settle` that only counts it as killed leaves a second runner."""
    async with world.boot() as node:
        await running(node, 100, 101)
        await node.guests.store.txn([], [WITHOUT_RIGHT[why]])
    async with world.boot() as node:
        assert set(world.machine.guests) == {101}, "the one that is held runs on"
        assert (node.settled.adopted, node.settled.killed) == ((101,), (100,))
        assert any("VM 100 runs without the right to" in note for note in node.notes)
        now = claims.read(node.guests.store, 100)
        if why == "another node's":
            assert (now.node, now.incarnation, now.epoch) == ("n2", "n2:boot1", 7)
        elif why != "no such guest":
            assert now.free


@pytest.mark.parametrize("held_by", ["n1:boot0", "n1:boot1"])
async def test_what_is_left_of_a_dead_guest_is_reaped_before_its_claim_is_let_go(world: World, held_by: str) -> None:
    """Planted fault: `_release_dead` without `driver.stop`: sockets, tap and cgroup of the dead one stay."""
    async with world.boot() as node:
        await running(node, 100, 101)
        await node.guests.store.txn([], [Put(claim_key(100), Claim("n1", held_by, 4).value())])
        del world.machine.guests[100]  # nobody hears of it
        calls = watched(node)
        settled = await boot.settle(node.guests, node.notes.append)
        assert [(vmid, claim.incarnation) for vmid, claim in calls] == [(100, held_by)]
        assert (settled.adopted, settled.killed, settled.released) == ((101,), (), (100,))
        now = claims.read(node.guests.store, 100)
        assert now.free and now.epoch == 4, "epochs never go back"
        assert (await boot.settle(node.guests, node.notes.append)).released == ()
        assert len(calls) == 1, "what is free has nothing left"


async def test_guests_of_other_nodes_are_not_touched(world: World) -> None:
    """Planted fault: without the comparison of nodes, `driver.stop` is called for what runs elsewhere."""
    async with world.boot() as node:
        await node.ok(await create(node.guests, 100, {}, USER))
        await node.guests.store.txn([], [Put(claim_key(100), OTHER.value())])
        before = claims.read(node.guests.store, 100)
        calls = watched(node)
        assert (await boot.settle(node.guests, node.notes.append)).released == ()
        assert not calls
        assert claims.read(node.guests.store, 100) == before, "not even written again"


async def test_a_claim_that_changes_while_the_node_starts_is_not_overwritten(world: World) -> None:
    """Planted faults: a release without its check, or a txn without them, frees what another node has just taken."""
    async with world.boot() as node:
        await running(node, 100, 101)
        world.machine.guests.clear()

        async def taken(vmid: int, timeout_s: float = 10) -> None:
            if vmid == 101:
                await node.guests.store.txn([], [Put(claim_key(101), OTHER.value())])

        node.driver.stop = taken  # type: ignore[method-assign]
        settled = await boot.settle(node.guests, node.notes.append)
        now = claims.read(node.guests.store, 101)
        assert (now.node, now.incarnation, now.epoch) == ("n2", "n2:boot1", 7)
        assert settled.released == (100,), "looked at again, the rest of the batch is let go"


async def test_claims_that_never_rest_stop_the_start(world: World) -> None:
    """Planted fault: tries without end, or a start that goes on with claims nobody backs."""
    async with world.boot() as node:
        await running(node, 100)
        world.machine.guests.clear()
        own = claims.read(node.guests.store, 100).value()

        async def touched(vmid: int, timeout_s: float = 10) -> None:
            await node.guests.store.txn([], [Put(claim_key(vmid), own)])

        node.driver.stop = touched  # type: ignore[method-assign]
        with pytest.raises(Conflict, match="start the daemon again"):
            await boot.settle(node.guests, node.notes.append)
        assert not claims.read(node.guests.store, 100).free
