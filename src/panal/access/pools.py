"""Pools: named sets of guests and storages on which permissions can stand; up to three levels (`a/b/c`).

A guest is in at most one pool. All changes of membership pass one counter (`pool-epoch`), so two of them never both win.
Guests' verbs call `join` when one is created in a pool and `forget_guest` when one is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from panal.access.model import ACL, POOL, Pool, new_uid, pool_from
from panal.cluster.store import Absent, Delete, Put, Unchanged
from panal.core.errors import BadInput, Conflict, NotFound

if TYPE_CHECKING:
    from panal.access.context import Access
    from panal.access.model import Json
    from panal.cluster.store import Op

EPOCH: Final = "pool-epoch"
ATTEMPTS: Final = 50
Pools = dict[str, Pool]
"""pools by name"""


def find(access: Access, poolid: str) -> Pool:
    """Raises NotFound."""
    value = access.store.value(POOL + poolid)
    if value is None:
        raise NotFound(f"pool '{poolid}' does not exist")
    return pool_from(poolid, value)


def _value(pool: Pool) -> Json:
    return {
        "v": 1, "uid": pool.uid, "comment": pool.comment, "vms": list(pool.vms), "storages": list(pool.storages),
    }  # fmt: skip


def _with(pool: Pool, vms: Sequence[int], storages: Sequence[str], comment: str | None = None) -> Pool:
    return Pool(
        pool.poolid, pool.uid, pool.comment if comment is None else comment, tuple(sorted(set(vms))),
        tuple(sorted(set(storages))),
    )  # fmt: skip


async def _change(access: Access, decide: Callable[[Pools], dict[str, Pool | None]]) -> None:
    """`decide` looks at all pools and says which become what (None: gone); it may raise. Retried when somebody was faster."""
    for _ in range(ATTEMPTS):
        epoch = access.store.get(EPOCH)
        pools = {i.key[len(POOL) :]: pool_from(i.key[len(POOL) :], i.value) for i in access.store.list(POOL)}
        new = decide(pools)
        if not new:
            return
        check = Absent(EPOCH) if epoch is None else Unchanged(EPOCH, epoch.revision)
        number = 1 if epoch is None else int(epoch.value["n"]) + 1
        ops: list[Op] = [Put(EPOCH, {"v": 1, "n": number})]
        ops += [Delete(POOL + name) if pool is None else Put(POOL + name, _value(pool)) for name, pool in new.items()]
        if (await access.store.txn([check], ops)).ok:
            return
    raise Conflict("pools are being changed by too many others; try again")


async def create_pool(access: Access, poolid: str, comment: str = "") -> None:
    """Raises Conflict when there is one, BadInput when the pool above it does not exist."""

    def decide(pools: Pools) -> dict[str, Pool | None]:
        if poolid in pools:
            raise Conflict(f"create pool failed: pool '{poolid}' already exists")
        parent = poolid.rpartition("/")[0]
        if parent and parent not in pools:
            raise BadInput("poolid", f"parent '{parent}' of pool '{poolid}' does not exist")
        return {poolid: Pool(poolid, new_uid(), comment)}

    await _change(access, decide)


async def update_pool(
    access: Access,
    poolid: str,
    *,
    comment: str | None = None,
    vms: Sequence[int] = (),
    storages: Sequence[str] = (),
    delete: bool = False,
    allow_move: bool = False,
    check_move: Callable[[str], None] | None = None,
) -> None:
    """Add members, or with `delete` take them out. A guest of another pool moves only with `allow_move`.

    `check_move` gets the pool a guest would leave and raises Forbidden when the caller may not change that one.
    """

    def decide(pools: Pools) -> dict[str, Pool | None]:
        pool = pools.get(poolid)
        if pool is None:
            raise NotFound(f"pool '{poolid}' does not exist")
        if delete:
            for vmid in vms:
                if vmid not in pool.vms:
                    raise BadInput("vms", f"VM {vmid} is not a pool member")
            for storage in storages:
                if storage not in pool.storages:
                    raise BadInput("storage", f"Storage '{storage}' is not a pool member")
            left = [v for v in pool.vms if v not in vms], [s for s in pool.storages if s not in storages]
            return {poolid: _with(pool, *left, comment)}
        new: dict[str, Pool | None] = {}
        homes = {vmid: p for p in pools.values() for vmid in p.vms}
        for vmid in vms:
            home = homes.get(vmid)
            if home is None or home.poolid == poolid:
                continue
            if not allow_move:
                raise BadInput(
                    "vms", f"VM {vmid} is already a member of pool '{home.poolid}'; give allow-move to move it"
                )
            if check_move is not None:
                check_move(home.poolid)
            before = new.get(home.poolid) or home
            new[home.poolid] = _with(before, [v for v in before.vms if v != vmid], before.storages)
        new[poolid] = _with(pool, [*pool.vms, *vms], [*pool.storages, *storages], comment)
        return new

    if len(vms) > 5000:
        raise BadInput("vms", "at most 5000 guests at once")
    await _change(access, decide)


async def delete_pool(access: Access, poolid: str) -> None:
    """Only an empty one. Its permissions go with it."""

    def decide(pools: Pools) -> dict[str, Pool | None]:
        pool = pools.get(poolid)
        if pool is None:
            raise NotFound(f"pool '{poolid}' does not exist")
        if pool.vms or pool.storages or any(name.startswith(poolid + "/") for name in pools):
            raise Conflict(f"delete pool failed: pool '{poolid}' is not empty")
        return {poolid: None}

    await _change(access, decide)
    await _forget_path(access, f"/pool/{poolid}")


async def join(access: Access, poolid: str, vmid: int) -> None:
    """Put a new guest into a pool (permission: VM.Allocate on the pool, checked by the caller)."""
    await update_pool(access, poolid, vms=[vmid])


async def forget_guest(access: Access, vmid: int) -> None:
    """A guest was deleted: out of its pool, and its permissions go, so that a new one of this number starts clean."""

    def decide(pools: Pools) -> dict[str, Pool | None]:
        return {
            p.poolid: _with(p, [v for v in p.vms if v != vmid], p.storages) for p in pools.values() if vmid in p.vms
        }

    await _change(access, decide)
    await _forget_path(access, f"/vms/{vmid}")


async def forget_storage(access: Access, storage: str) -> None:
    """A storage was removed: out of every pool, and its permissions go."""

    def decide(pools: Pools) -> dict[str, Pool | None]:
        return {
            p.poolid: _with(p, p.vms, [s for s in p.storages if s != storage])
            for p in pools.values()
            if storage in p.storages
        }

    await _change(access, decide)
    await _forget_path(access, f"/storage/{storage}")


async def _forget_path(access: Access, path: str) -> None:
    for item in access.store.list(ACL):
        if item.value["path"] == path:
            await access.store.txn([], [Delete(item.key)])
