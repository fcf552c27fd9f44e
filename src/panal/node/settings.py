"""What is configured of one node (PVE's /etc/pve/nodes/NODE/config): a record under `node/<name>`.

Called by `api/node_config.py`; `startall-onboot-delay` is for whoever starts the guests with the node. A write without a digest
is applied by key to the newest record; one with a digest is refused when the record is another (design D8).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from panal.cluster.store import Json, Mirror
from panal.core.errors import BadInput
from panal.core.props import Schema
from panal.node import files

SCHEMAS: Final[Mapping[str, Schema]] = {
    "acme": Schema.of("account:string domains:string"),
    "acmedomain": Schema.of("domain:string^* plugin:string alias:string"),
    "location": Schema.of("latitude:number[-90..90]* longitude:number[-180..180]* name:string"),
    "wakeonlan": Schema.of("mac:string^* bind-interface:string broadcast-address:string"),
}


def key(node: str) -> str:
    """Where the record is."""
    return f"node/{node}"


def stored(store: Mirror, node: str) -> dict[str, Any]:
    """Name → value as it was set; {} when nothing was."""
    value = store.value(key(node))
    return dict(value.get("options", {})) if value else {}


def digest(options: Mapping[str, Any]) -> str:
    """Names this content."""
    return files.digest(json.dumps(dict(options), sort_keys=True).encode())


def startall_delay_s(store: Mirror, node: str) -> int:
    """Seconds to wait before guests are started with the node."""
    return int(stored(store, node).get("startall-onboot-delay", 0))


async def change(store: Mirror, node: str, new: Mapping[str, Any], delete: Collection[str], wanted: str | None) -> None:
    """Set some, remove others, keep the rest. Conflict for a stale digest, BadInput for a key in both."""
    both = set(delete) & set(new)
    if both:
        raise BadInput("delete", f"'{min(both)}' cannot be set and deleted at once")

    def apply(old: Json | None) -> Json | None:
        before = old.get("options", {}) if old else {}
        if wanted and wanted != digest(before):
            raise files.changed()
        after = {k: v for k, v in before.items() if k not in delete} | dict(new)
        return None if after == before else {**(old or {}), "v": 1, "options": after}

    await store.update(key(node), apply)
