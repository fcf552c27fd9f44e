"""Realms: where users come from. Types now: pam (accounts of this Linux) and pve (our own users)."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from panal.access.model import REALM
from panal.cluster.store import Delete, Op, Put
from panal.core.errors import BadInput, Conflict, NotFound, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from panal.access.context import Access
    from panal.access.model import Json

BUILT_IN = ("pam", "pve")
FIELDS = ("comment", "default")


def find(access: Access, realm: str) -> Json:
    """The stored realm. Raises NotFound."""
    value = access.store.value(REALM + realm)
    if value is None:
        raise NotFound(f"domain '{realm}' does not exist")
    return value


def digest(access: Access) -> str:
    """Changes with any realm."""
    held = [(i.key, i.value) for i in access.store.list(REALM)]
    return hashlib.sha1(json.dumps(held, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def every(access: Access) -> list[tuple[str, Json]]:
    """All realms, by name."""
    return [(item.key[len(REALM) :], item.value) for item in access.store.list(REALM)]


async def create_realm(access: Access, realm: str, kind: str) -> None:
    """A second realm of a type makes no sense for pam and pve, so for now this only says what there is."""
    if kind not in access.realms:
        raise BadInput(
            "type", f"realm type '{kind}' is not available in this version; there are: {', '.join(BUILT_IN)}"
        )
    if access.store.get(REALM + realm) is not None:
        raise Conflict(f"domain '{realm}' already exists")
    raise BadInput("type", f"there can be only one realm of type '{kind}', and it is there already")


async def update_realm(
    access: Access, realm: str, fields: Mapping[str, Any], delete: tuple[str, ...] = (), expected: str | None = None
) -> None:
    """Change comment or default. `expected`: digest. Raises NotFound, BadInput for anything else, Conflict."""
    find(access, realm)
    for name in (*fields, *delete):
        if name not in FIELDS:
            raise BadInput(name, f"realm '{realm}' has no such setting; there are: {', '.join(FIELDS)}")
    if expected is not None and expected != digest(access):
        raise Conflict("detected modified configuration - file changed by other user? Try again.")
    ops: list[Op] = []
    for item in access.store.list(REALM):
        name = item.key[len(REALM) :]
        value = dict(item.value)
        if name == realm:
            value.update(fields)
            for gone in delete:
                value.pop(gone, None)
        elif fields.get("default"):
            value.pop("default", None)
        if value != item.value:
            ops.append(Put(item.key, value))
    if ops:
        await access.store.txn([], ops)


async def delete_realm(access: Access, realm: str) -> None:
    """The built-in ones stay."""
    find(access, realm)
    if realm in BUILT_IN:
        raise BadInput("realm", f"realm '{realm}' is built in and cannot be removed; disable its users instead")
    await access.store.txn([], [Delete(REALM + realm)])


async def sync_realm(access: Access, realm: str) -> None:
    """Only directories can be synchronised, and there are none yet."""
    kind = find(access, realm)["type"]
    raise Unsupported(f"realm type '{kind}' has nothing to synchronise from: its users are created here")
