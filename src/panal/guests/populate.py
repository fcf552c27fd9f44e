"""Many guests at once, for benches and demos of big nodes: `paneld --driver fake --populate 10000`.

They are records like any others, most of them running on the fake hypervisor, without disks on a storage. Called by `daemon/`
after everything is settled; guests that exist already are left alone.
"""

from __future__ import annotations

from typing import Final

from panal.cluster.store import MAX_OPERATIONS, Op, Put
from panal.guests import claims
from panal.guests.context import Guests
from panal.guests.drivers.base import StartSpec
from panal.guests.drivers.fake import FakeDriver
from panal.guests.model import RunRecord, claim_key, config_key, new_record, run_key

FIRST: Final = 1000
_PER_TXN: Final = MAX_OPERATIONS // 3
_OFF_EVERY: Final = 10
_HARDWARE: Final = {"machine": "pc-i440fx-7.2+panal0"}


def sample_config(vmid: int) -> dict[str, str]:
    """What a usual guest has, a little different from number to number."""
    return {
        "name": f"guest-{vmid}", "memory": str(512 * (1 + vmid % 8)), "cores": str(1 + vmid % 4), "ostype": "l26",
        "scsihw": "virtio-scsi-single", "tags": ("web", "db;prod", "test")[vmid % 3], "boot": "order=net0",
        "net0": f"virtio=BC:24:11:{vmid >> 16 & 255:02X}:{vmid >> 8 & 255:02X}:{vmid & 255:02X},bridge=vmbr0",
    }  # fmt: skip


async def populate(guests: Guests, count: int, driver: FakeDriver) -> int:
    """Make guests FIRST … FIRST+count-1; returns how many were made."""
    numbers = [n for n in range(FIRST, FIRST + count) if guests.catalog.get(n) is None]
    for at in range(0, len(numbers), _PER_TXN):
        ops: list[Op] = []
        for vmid in numbers[at : at + _PER_TXN]:
            config = sample_config(vmid)
            ops.append(Put(config_key(vmid), new_record(guests.node, config, f"{vmid:016x}")))
            if vmid % _OFF_EVERY:
                held = claims.Claim(guests.node, guests.incarnation.id, 1)
                ops.append(Put(claim_key(vmid), held.value()))
                ops.append(Put(run_key(vmid), RunRecord(1, _HARDWARE, config).value()))
        await guests.store.txn([], ops)
        for vmid in numbers[at : at + _PER_TXN]:
            if vmid % _OFF_EVERY:
                driver.seed(
                    StartSpec(vmid, f"guest-{vmid}", sample_config(vmid), (), 1, guests.incarnation.id, _HARDWARE)
                )
    await guests.live.sample()
    return len(numbers)
