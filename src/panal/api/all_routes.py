"""Every declaration, in one list. A new file in `api/` is appended here; `table()` is what dispatch, docs and tests use."""

from __future__ import annotations

from functools import cache

from panal.api import (
    access,
    access_domains,
    access_groups,
    access_users,
    cluster,
    cluster_options,
    cluster_resources,
    index,
    lxc,
    nextid,
    node_config,
    node_guests,
    node_network,
    node_panal,
    node_series,
    node_storage,
    node_storage_content,
    node_storage_panal,
    node_storage_upload,
    node_system,
    node_tasks,
    nodes,
    pools,
    qemu,
    qemu_config,
    qemu_console,
    qemu_firewall,
    qemu_firewall_sets,
    qemu_snapshot,
    qemu_status,
    storage,
    version,
)
from panal.api.table import Routes, Table

ALL: tuple[Routes, ...] = (
    access.routes,
    access_domains.routes,
    access_groups.routes,
    access_users.routes,
    pools.routes,
    qemu_config.routes,
    version.routes,
    nodes.routes,
    node_system.routes,
    node_config.routes,
    node_guests.routes,
    node_network.routes,
    node_series.routes,
    node_tasks.routes,
    node_panal.routes,
    cluster.routes,
    cluster_options.routes,
    cluster_resources.routes,
    nextid.routes,
    qemu.routes,
    qemu_status.routes,
    qemu_snapshot.routes,
    qemu_console.routes,
    qemu_firewall.routes,
    qemu_firewall_sets.routes,
    lxc.routes,
    storage.routes,
    node_storage.routes,
    node_storage_content.routes,
    node_storage_panal.routes,
    node_storage_upload.routes,
)


@cache
def table() -> Table:
    """The whole method table, generated index methods included."""
    return Table([*ALL, index.generate(ALL)])
