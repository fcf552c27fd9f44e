"""The one way to start, and what follows when a guest ends."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import panal
from panal.cluster.store import Put
from panal.core.errors import Failed
from panal.guests import claims
from panal.guests.drivers.fake import Timings
from panal.guests.model import config_key, new_record
from panal.guests.start import start
from panal.guests.stop import stop
from tests.unit.guests.world import USER, Node, World


async def put_guest(node: Node, vmid: int = 100, **config: str) -> None:
    guests = node.guests
    await guests.store.txn([], [Put(config_key(vmid), new_record("n1", config, guests.word()))])


async def add_disk(node: Node, vmid: int = 100) -> str:
    name = f"{vmid}/vm-{vmid}-disk-0.raw"
    await node.guests.storages.driver("local").allocate(vmid, name, "raw", 4096)
    return f"local:{name}"


async def test_start_takes_the_claim_and_stop_lets_it_go(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node, scsi0=await add_disk(node))
        await node.ok(await start(node.guests, 100, USER))
        claim = claims.read(node.guests.store, 100)
        assert claim.held_by(node.guests.incarnation, 1)
        assert node.guests.live.get(100).status == "running"
        assert node.guests.run_record(100).hardware["machine"].startswith("pc-")
        assert "already running" in await node.ended(await start(node.guests, 100, USER))
        await node.ok(await stop(node.guests, 100, USER))
        assert claims.read(node.guests.store, 100).free
        assert node.guests.live.get(100).status == "stopped"
        await node.ok(await start(node.guests, 100, USER))
        assert claims.read(node.guests.store, 100).epoch == 2


async def test_pending_is_applied_at_start(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node, name="a", cores="1")
        await node.guests.update(100, pending={"cores": "2", "name": None})
        await node.ok(await start(node.guests, 100, USER))
        guest = node.guests.get(100)
        assert guest.config == {"cores": "2"}
        assert not guest.pending
        assert node.guests.running_config(100) == {"cores": "2"}


async def test_failed_start_leaves_no_claim(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node, scsi0="local:100/vm-100-disk-7.raw")
        assert "scsi0" in await node.ended(await start(node.guests, 100, USER))
        assert claims.read(node.guests.store, 100).free
        await node.guests.update(100, config={})
        node.driver.fail_next("start", Failed("no memory"))
        assert await node.ended(await start(node.guests, 100, USER)) == "no memory"
        assert claims.read(node.guests.store, 100).free
        await node.ok(await start(node.guests, 100, USER))


async def test_claim_is_kept_while_the_process_may_live(world: World) -> None:
    """Planted fault: releasing in `_let_go` although `driver.stop` failed turns this red."""
    async with world.boot() as node:
        await put_guest(node)
        node.driver.fail_next("start", Failed("no memory"))
        node.driver.fail_next("stop", Failed("does not die"))
        assert "not known" in await node.ended(await start(node.guests, 100, USER))
        assert not claims.read(node.guests.store, 100).free
        await node.ok(await stop(node.guests, 100, USER))
        assert claims.read(node.guests.store, 100).free


async def test_claim_of_a_crashed_guest_is_freed(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node)
        await node.ok(await start(node.guests, 100, USER))
        node.driver.crash(100)
        async with asyncio.timeout(5):
            while not claims.read(node.guests.store, 100).free:
                await asyncio.sleep(0.01)
        assert node.guests.live.get(100).status == "stopped"


async def test_late_end_does_not_rob_a_new_run(world: World) -> None:
    """Invariant 1. Planted fault: `Reaper._ended` without the queue's turn frees the claim under the second start."""
    async with world.boot() as node:
        await put_guest(node)
        node.driver.timings = Timings(start_s=0.1)
        starting = await start(node.guests, 100, USER)
        async with asyncio.timeout(5):
            while claims.read(node.guests.store, 100).free:
                await asyncio.sleep(0.005)
        node.driver._tell(100, "crashed")  # of an earlier run, late
        await node.ok(starting)
        await asyncio.sleep(0.05)
        assert claims.read(node.guests.store, 100).held_by(node.guests.incarnation, 1)


async def test_held_elsewhere_is_refused(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node)
        claim = claims.Claim("n2", "n2:boot9", 4)
        await node.guests.store.txn([], [Put("guest/100/claim", claim.value())])
        assert "node 'n2'" in await node.ended(await start(node.guests, 100, USER))
        assert not world.machine.guests


async def test_restart_of_the_daemon_adopts(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node)
        await node.ok(await start(node.guests, 100, USER))
    async with world.boot() as node:
        assert node.settled.adopted == (100,)
        assert node.guests.live.get(100).status == "running"
        await node.ok(await stop(node.guests, 100, USER))


async def test_boot_kills_what_it_does_not_hold(world: World) -> None:
    """Invariant 1, design 6.11. Planted fault: adopting without comparing the epoch turns this red."""
    async with world.boot() as node:
        for vmid in (100, 101, 102):
            await put_guest(node, vmid)
            await node.ok(await start(node.guests, vmid, USER))
        claim = claims.read(node.guests.store, 100)
        await node.guests.store.txn([], [Put("guest/100/claim", {**claim.value(), "epoch": 9})])
        await node.guests.store.txn([], [Put("guest/101/claim", claims.Claim("n2", "n2:x", 1).value())])
    async with world.boot() as node:
        assert node.settled.killed == (100, 101)
        assert node.settled.adopted == (102,)
        assert sorted(world.machine.guests) == [102]
        assert claims.read(node.guests.store, 100).free
        assert claims.read(node.guests.store, 101).node == "n2"


async def test_next_boot_takes_over_old_claims(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node)
        await node.ok(await start(node.guests, 100, USER))
    world.machine.guests.clear()
    world.boot_id = "boot2"
    async with world.boot() as node:
        assert node.settled.released == (100,)
        await node.ok(await start(node.guests, 100, USER))
        assert claims.read(node.guests.store, 100).epoch == 2


def test_one_function_starts_guests() -> None:
    """Design 6.3. Planted fault: any `x.driver.start(...)` elsewhere in the package."""
    root = Path(panal.__file__).parent
    callers = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "start":
                target = ast.unparse(node.func.value)
                if target.split(".")[-1].lstrip("_") in ("driver", "_driver", "hypervisor"):
                    callers.add(str(path.relative_to(root)))
    assert callers == {"guests/start.py"}
