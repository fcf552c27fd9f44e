"""Fits what is measured to the sampler: the node, its guests, its storages. No measuring here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from panal.api.services import Services
from panal.cluster.store import Event
from panal.node import status
from panal.node.sampler import Values

_log = structlog.get_logger("series")


def add_sources(services: Services) -> None:
    """Call once the guests and storages are there, before `sampler.start`."""

    async def node() -> Mapping[str, Values]:
        return {services.node: await asyncio.to_thread(status.sample, services.nodeinfo)}

    async def guests() -> Mapping[str, Values]:
        out: dict[str, Values] = {}
        for number, (vmid, live) in enumerate(list(services.guests.live.running().items())):
            if number % 200 == 199:
                await asyncio.sleep(0)  # sizes of new guests are parsed here
            guest = services.guests.catalog.get(vmid)
            if guest is None:
                continue
            sizes = services.rows.sizes.of(guest)
            out[str(vmid)] = {
                "maxcpu": sizes.maxcpu, "cpu": live.cpu, "maxmem": sizes.maxmem, "mem": live.mem, "memhost": live.memhost,
                "maxdisk": sizes.maxdisk, "disk": 0, "netin": live.netin, "netout": live.netout,
                "diskread": live.diskread, "diskwrite": live.diskwrite,
            }  # fmt: skip
        return out

    async def storages() -> Mapping[str, Values]:
        found = await services.storages.statuses()
        return {s.config.id: {"total": s.total, "used": s.used} for s in found if s.active}

    services.sampler.add("node", node)
    services.sampler.add("guest", guests)
    services.sampler.add("storage", storages)
    _forget_removed(services)


def _forget_removed(services: Services) -> None:
    """A new guest of an old one's number starts without its history."""
    pending: set[asyncio.Task[None]] = set()

    def removed(events: tuple[Event, ...]) -> None:
        for event in events:
            parts = event.key.split("/")
            if event.item is None and len(parts) == 3 and parts[2] == "config":
                task = asyncio.create_task(services.sampler.forget("guest", parts[1]))
                pending.add(task)
                task.add_done_callback(pending.discard)

    services.store.listen("guest/", removed)


def on_error(what: str, error: BaseException) -> None:
    """The log of what could not be measured."""
    _log.warning("not measured", what=what, error=str(error))
