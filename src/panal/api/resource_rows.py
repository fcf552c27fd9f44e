"""Rows of `/cluster/resources` as JSON text, kept and made anew only for what changed.

One `ResourceRows` a daemon (`api/services.py`). A guest's row has two halves: what its configuration says (made again when its
record, pool or lock changes) and what it does (when its sample changed); both are recognised by identity, since records and
samples are immutable. Invariant: work on thousands of rows gives the loop back every few milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec

from panal.guests.drivers.base import Live
from panal.guests.model import Guest
from panal.guests.sizes import SizeTable

if TYPE_CHECKING:
    from panal.api.call import Call
    from panal.api.services import Services

SLICE_S: Final = 0.004
CHECK_EVERY: Final = 64
_encode = msgspec.json.Encoder().encode
_STOPPED: Final = (
    b'"status":"stopped","uptime":0,"cpu":0,"mem":0,"disk":0,"diskread":0,"diskwrite":0,"netin":0,"netout":0}'
)
_RUNNING: Final = (
    b'"status":"running","uptime":%d,"cpu":%.6g,"mem":%d,"memhost":%d,"disk":0,"diskread":%d,"diskwrite":%d,'
    b'"netin":%d,"netout":%d}'
)


class _Row:
    """One guest's row and what it was made of."""

    __slots__ = ("guest", "live", "lock", "pool", "static", "text")

    def __init__(self, guest: Guest, pool: str | None, lock: str | None, static: bytes) -> None:
        self.guest = guest
        self.pool = pool
        self.lock = lock
        self.static = static
        self.live: Live | None = None
        self.text = static + _STOPPED


class ResourceRows:
    """Kept rows, and the newest whole answer for those who see everything."""

    def __init__(self) -> None:
        self.sizes = SizeTable()
        self._rows: dict[int, _Row] = {}
        self._whole: tuple[object, bytes] = (None, b"")

    async def guests(self, services: Services, call: Call | None) -> bytes:
        """Rows of all guests that the caller may see (all when `call` is None), divided by commas."""
        guests = services.guests
        key = (
            guests.catalog.version,
            guests.live.version,
            services.store.revision,
            tuple(sorted(guests.locks.items())),
        )
        if call is None and self._whole[0] == key:
            return self._whole[1]
        live = guests.live.running()
        pools = services.access.policy.pool_of
        out: list[bytes] = []
        begin = time.perf_counter()
        for number, guest in enumerate(guests.list()):
            if number % CHECK_EVERY == 0 and time.perf_counter() - begin > SLICE_S:
                await asyncio.sleep(0)
                begin = time.perf_counter()
            if call is not None and "VM.Audit" not in call.rights.privileges(f"/vms/{guest.vmid}"):
                continue
            out.append(self._text(guest, live.get(guest.vmid), pools.get(guest.vmid), guests.lock_of(guest)))
        if len(self._rows) > len(guests.catalog.numbers()):
            for vmid in set(self._rows) - set(guests.catalog.numbers()):
                del self._rows[vmid]
                self.sizes.forget(vmid)
        text = b",".join(out)
        if call is None:
            self._whole = (key, text)
        return text

    def _text(self, guest: Guest, live: Live | None, pool: str | None, lock: str | None) -> bytes:
        row = self._rows.get(guest.vmid)
        if row is None or row.guest is not guest or row.pool != pool or row.lock != lock:
            row = self._rows[guest.vmid] = _Row(guest, pool, lock, self._static(guest, pool, lock))
        if row.live is not live:
            row.live = live
            if live is None or live.status == "stopped":
                row.text = row.static + _STOPPED
            else:
                row.text = row.static + _RUNNING % (
                    live.uptime_s, live.cpu, live.mem, live.memhost, live.diskread, live.diskwrite, live.netin, live.netout,
                )  # fmt: skip
        return row.text

    def _static(self, guest: Guest, pool: str | None, lock: str | None) -> bytes:
        """The object's begin, up to and with a comma."""
        sizes = self.sizes.of(guest)
        row: dict[str, str | int] = {
            "id": f"qemu/{guest.vmid}",
            "type": "qemu",
            "vmid": guest.vmid,
            "node": guest.node,
            "name": guest.name,
            "template": int(guest.template),
            "maxcpu": sizes.maxcpu,
            "maxmem": sizes.maxmem,
            "maxdisk": sizes.maxdisk,
        }
        if guest.config.get("tags"):
            row["tags"] = guest.config["tags"]
        if pool is not None:
            row["pool"] = pool
        if lock is not None:
            row["lock"] = lock
        return _encode(row)[:-1] + b","
