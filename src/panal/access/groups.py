"""Groups: names for sets of users. Who is in one is kept with the user, bound to the group's uid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panal.access.model import ACL, GROUP, USER, new_uid
from panal.cluster.store import Delete, Put, Unchanged
from panal.core.errors import NotFound

if TYPE_CHECKING:
    from panal.access.context import Access
    from panal.access.model import Json


async def create_group(access: Access, groupid: str, comment: str = "") -> None:
    """Raises Conflict when there is one."""
    value = {"v": 1, "uid": new_uid(), "comment": comment}
    await access.store.create(GROUP + groupid, value, f"create group failed: group '{groupid}' already exists")


async def update_group(access: Access, groupid: str, comment: str | None) -> None:
    """Change the comment. Raises NotFound."""

    def change(value: Json | None) -> Json | None:
        if value is None:
            raise NotFound(f"group '{groupid}' does not exist")
        return None if comment is None else {**value, "comment": comment}

    await access.store.update(GROUP + groupid, change)


async def delete_group(access: Access, groupid: str) -> None:
    """Remove it. Memberships and permissions that a crash leaves behind never count again (uid)."""
    if access.store.get(GROUP + groupid) is None:
        raise NotFound(f"group '{groupid}' does not exist")
    grants = [i.key for i in access.store.list(ACL) if i.value["type"] == "group" and i.value["ugid"] == groupid]
    await access.store.txn([], [Delete(GROUP + groupid), *map(Delete, grants[:90])])
    for key in grants[90:]:
        await access.store.txn([], [Delete(key)])
    for item in access.store.list(USER):
        if groupid in item.value.get("groups", {}):
            left = {n: uid for n, uid in item.value["groups"].items() if n != groupid}
            # lost to a faster change: the stale membership does not count anyway
            await access.store.txn(
                [Unchanged(item.key, item.revision)], [Put(item.key, {**item.value, "groups": left})]
            )
