"""The object graph that handlers see; built once by `daemon/`. Each field is the face of one lower noun."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from panal.api.resource_rows import ResourceRows

if TYPE_CHECKING:
    from pathlib import Path

    from panal.access import Access
    from panal.cluster.store import Mirror
    from panal.core.clock import Clock
    from panal.guests import Guests
    from panal.network import Network
    from panal.node import NodeInfo, Sampler, Series
    from panal.storage import Storages
    from panal.tasks.runner import Tasks


@dataclass(slots=True)
class Services:
    """One node's services."""

    node: str
    """this node's name"""
    state: Path
    """directory of everything that survives a restart"""
    run: Path
    """directory of sockets and run records"""
    clock: Clock
    store: Mirror
    tasks: Tasks
    access: Access
    storages: Storages
    nodeinfo: NodeInfo
    network: Network
    series: Series
    sampler: Sampler
    guests: Guests
    rows: ResourceRows = field(default_factory=ResourceRows)
    """kept rows of big lists"""
