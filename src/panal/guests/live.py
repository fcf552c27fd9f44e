"""What guests do right now, in memory only (design D7): one `Live` a running guest, kept by driver events and by sampling.

Read by the API (lists, `status/current`, `/cluster/resources`); `version` moves on any change, so that answers can be
reused while nothing moved. Invariant: a guest without an entry does not run here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from panal.core.clock import Clock
from panal.core.errors import PanalError
from panal.guests.drivers.base import GuestDriver, Live

SAMPLE_S: Final = 3.0
SAMPLE_TIMEOUT_S: Final = 30.0

Sink = Callable[[Sequence[Live], float], None]
"""Gets every sample with its wall-clock second: the series (rrddata)."""


class LiveTable:
    """vmid → Live of the guests that run here."""

    def __init__(self, driver: GuestDriver, clock: Clock) -> None:
        self._driver = driver
        self._clock = clock
        self._rows: dict[int, Live] = {}
        self._sinks: list[Sink] = []
        self._changed = asyncio.Event()
        self._touched: dict[int, int] = {}
        self._loop: asyncio.Task[None] | None = None
        self.version = 0
        self.problem: str | None = None
        """why the last sample failed; None when it did not"""

    def get(self, vmid: int) -> Live:
        """The last sample; `stopped` when it does not run."""
        return self._rows.get(vmid) or Live(vmid, "stopped")

    def running(self) -> Mapping[int, Live]:
        """All that run or are paused. Do not change it."""
        return self._rows

    def add_sink(self, sink: Sink) -> None:
        """Give every sample to `sink` too; it must be quick and must not raise."""
        self._sinks.append(sink)

    def _move(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, version: int) -> int:
        """Until `version` has moved; the new one."""
        while self.version == version:
            await self._changed.wait()
        return self.version

    async def refresh(self, vmid: int) -> Live:
        """A fresh sample of one guest, now: after an event, or for `status/current`."""
        live = await self._driver.info(vmid)
        self.put(live)
        return live

    def put(self, live: Live) -> None:
        """Note what is known of one guest; newer than any sample that is under way."""
        self._touched[live.vmid] = self.version + 1
        old = self._rows.get(live.vmid)
        if live.status == "stopped":
            if old is None:
                return
            del self._rows[live.vmid]
        elif old == live:
            return
        else:
            self._rows[live.vmid] = live
        self._move()

    async def sample(self) -> None:
        """One round over all guests. What events told us meanwhile wins over the older sample."""
        before = self.version
        self._touched.clear()
        async with asyncio.timeout(SAMPLE_TIMEOUT_S):
            rows = await self._driver.sample()
        fresh = {live.vmid: live for live in rows if live.status != "stopped"}
        for vmid in self._touched:
            fresh.pop(vmid, None)
            if vmid in self._rows:
                fresh[vmid] = self._rows[vmid]
        if fresh != self._rows:
            self._rows = fresh
            self._move()
        if before != self.version or fresh:
            now = self._clock.wall_s()
            for sink in self._sinks:
                sink(rows, now)

    async def _run(self, period_s: float) -> None:
        while True:
            try:
                await self.sample()
                self.problem = None
            except (PanalError, TimeoutError, OSError) as exc:  # the next round may work
                self.problem = str(exc) or "the hypervisor did not answer in time"
            await self._clock.sleep(period_s)

    def start(self, period_s: float = SAMPLE_S) -> None:
        """Sample from now on, every `period_s` seconds."""
        self._loop = asyncio.create_task(self._run(period_s), name="guest samples")

    async def close(self) -> None:
        """Stop sampling."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
