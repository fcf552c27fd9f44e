"""First start on an empty store: the user root@pam, the realms pam and pve, a ticket key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from panal.access.model import REALM, ROOT, USER, Json, new_uid
from panal.cluster.store import Absent, Put

if TYPE_CHECKING:
    from panal.access.context import Access

REALMS: Final[dict[str, Json]] = {
    "pam": {"v": 1, "type": "pam", "comment": "Linux PAM standard authentication"},
    "pve": {"v": 1, "type": "pve", "comment": "Panal's own users, with passwords kept in the cluster"},
}


async def bootstrap(access: Access) -> None:
    """Create what is missing; changes nothing that is there. Call at every start."""
    root: Json = {"v": 1, "uid": new_uid(), "enable": True, "expire": 0, "epoch": 0, "groups": {}}
    await access.store.txn([Absent(USER + ROOT)], [Put(USER + ROOT, root)])
    for name, value in REALMS.items():
        await access.store.txn([Absent(REALM + name)], [Put(REALM + name, value)])
    await access.keyring.rotate()
