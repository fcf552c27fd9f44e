"""What a guest uses right now. Called by the driver's `sample` and `info`.

CPU and RAM come from /proc, network from the taps, drives and balloon from QMP. Invariant: a QEMU that does not answer within
QMP_S gives a sample without QMP's part, and delays no other guest's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from panal.core.errors import PanalError
from panal.guests.config import read
from panal.guests.drivers.base import Live, Status
from panal.guests.drivers.qemu.guest import Guest
from panal.host import process, tap

QMP_S: Final = 1.0
BALLOON: Final = "/machine/peripheral/balloon0"
_POLL_S: Final = 10
_DAY_S: Final = 24 * 3600


async def sample(guest: Guest) -> Live:
    """One sample; never raises for a guest that hangs or has just ended."""
    times = guest.process.times()
    if times is None:
        return Live(guest.vmid, "stopped")
    qmp: dict[str, object] = {"status": guest.status}
    if guest.monitor is None or guest.monitor.closed.is_set():
        qmp["status"] = "unknown"
    elif guest.probe is None or guest.probe.done():
        try:
            async with asyncio.timeout(QMP_S):
                qmp |= await _ask(guest)
        except PanalError:
            pass
        except TimeoutError:
            # one question stays open until it answers: a QEMU that hangs for days must not get a queue of them
            guest.probe = asyncio.create_task(_wake(guest), name=f"probe {guest.vmid}")
    balloon = qmp.get("balloon")
    counters = [c for c in map(tap.counters, guest.record.taps.values()) if c is not None]
    read_bytes, written = _numbers(qmp.get("disk"))
    used = qmp.get("mem")
    memory = used if isinstance(used, int) else min(times.rss, read.memory_mib(guest.record.config) << 20)
    return Live(
        guest.vmid, status_of(str(qmp["status"])), str(qmp["status"]), guest.process.pid,
        int(process.age_s(guest.process)), _cpu(guest, times.cpu_s), memory, times.rss,
        sum(c.rx for c in counters), sum(c.tx for c in counters), read_bytes, written,
        balloon if isinstance(balloon, int) else None,
        guest.record.hardware.get("machine"), guest.version,
    )  # fmt: skip


def status_of(qmpstatus: str) -> Status:
    """QEMU's run state as ours; a QEMU that does not answer counts as running: its process is there."""
    return "running" if qmpstatus in ("running", "unknown") else "paused"


async def _wake(guest: Guest) -> None:
    with contextlib.suppress(PanalError):
        await guest.call("query-status", timeout_s=_DAY_S)


async def _ask(guest: Guest) -> dict[str, object]:
    answers = await asyncio.gather(guest.call("query-status"), guest.call("query-blockstats"), _balloon(guest))
    state, stats, (balloon, free) = answers
    guest.status = str(state["status"])
    own = [s["stats"] for s in stats if s.get("qdev")]
    total = read.memory_mib(guest.record.config) << 20
    return {
        "status": guest.status,
        "disk": (sum(s["rd_bytes"] for s in own), sum(s["wr_bytes"] for s in own)),
        "balloon": balloon,
        "mem": None if free is None else max(0, total - free),
    }


async def _balloon(guest: Guest) -> tuple[int | None, int | None]:
    """Size of the balloon's guest side, and memory the guest says is free. None without device or driver."""
    if read.balloon_mib(guest.record.config) == 0:
        return None, None
    try:
        if not guest.balloon_polled:
            path = {"path": BALLOON, "property": "guest-stats-polling-interval", "value": _POLL_S}
            await guest.call("qom-set", dict(path))
            guest.balloon_polled = True
        actual = await guest.call("query-balloon")
        stats: Any = await guest.call("qom-get", {"path": BALLOON, "property": "guest-stats"})
    except PanalError:
        return None, None
    values = stats.get("stats", {})
    available = int(values.get("stat-available-memory", -1))
    free = available if available >= 0 else int(values.get("stat-free-memory", -1))
    # 2^64-1: the guest did not say
    return int(actual["actual"]), free if 0 <= free < 1 << 60 and stats.get("last-update", 0) else None


def _cpu(guest: Guest, used_s: float) -> float:
    """Share of all vCPUs since the last sample (the first one: since start)."""
    now = time.monotonic()
    before = guest.cpu_seen or (now - max(process.age_s(guest.process), 0.01), 0.0)
    guest.cpu_seen = (now, used_s)
    elapsed = now - before[0]
    if elapsed <= 0:
        return 0.0
    return min(1.0, max(0.0, (used_s - before[1]) / elapsed / read.topology(guest.record.config).vcpus))


def _numbers(value: object) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (0, 0)
