"""Measures the node and whatever it is given every 10 s, and writes a row a minute into the series.

`daemon/` builds it and adds the sources: guests (their live table) and storages (their usage). It also keeps the newest sample
of each source for lists (`latest`, `version`), so that no list measures anything itself.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from panal.core.clock import Clock
from panal.core.errors import PanalError
from panal.node.series import Kind, Series

PERIOD_S: Final = 10.0
SOURCE_TIMEOUT_S: Final = 30.0
STEP_S: Final = 60
# fields that sources give as counters since some start; the series hold bytes a second
COUNTERS: Final = frozenset({"netin", "netout", "diskread", "diskwrite"})
SLICE: Final = 500

Values = Mapping[str, float]
Source = Callable[[], Awaitable[Mapping[str, Values]]]


class _Sum:
    """One subject within the present minute."""

    __slots__ = ("counts", "sums")

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def average(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}


class Sampler:
    """One loop over all sources."""

    def __init__(self, series: Series, clock: Clock, on_error: Callable[[str, BaseException], None]) -> None:
        """`on_error(what, error)` hears of every source that failed; the others go on."""
        self._series = series
        self._clock = clock
        self._on_error = on_error
        self._sources: list[tuple[Kind, Source]] = []
        self._sums: dict[Kind, dict[str, _Sum]] = {}
        self._before: dict[tuple[Kind, str], tuple[float, Values]] = {}
        self._minute: int | None = None
        self._loop: asyncio.Task[None] | None = None
        self.latest: dict[Kind, Mapping[str, Values]] = {}
        self.version = 0

    def add(self, kind: Kind, source: Source) -> None:
        """Measure this, too: subject → field → value."""
        self._sources.append((kind, source))

    async def tick(self) -> None:
        """One round: what the loop does every 10 s."""
        now = self._clock.wall_s()
        minute = int(now) // STEP_S * STEP_S
        before, self._minute = self._minute, minute
        if before is not None and minute != before:
            await self._flush(before)
        for kind, source in self._sources:
            try:
                async with asyncio.timeout(SOURCE_TIMEOUT_S):
                    sample = await source()
            except (PanalError, OSError, TimeoutError, ValueError) as exc:
                self._on_error(f"sampling {kind}", exc)
                continue
            await self._take(kind, sample, self._clock.monotonic_s())
            if self.latest.get(kind) != sample:
                self.latest[kind] = sample
                self.version += 1

    async def _take(self, kind: Kind, sample: Mapping[str, Values], at: float) -> None:
        sums = self._sums.setdefault(kind, {})
        for number, (subject, values) in enumerate(sample.items()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)  # thousands of guests must not hold the loop
            row = sums.get(subject)
            if row is None:
                row = sums[subject] = _Sum()
            before = self._before.get((kind, subject))
            self._before[kind, subject] = (at, values)
            for name, value in values.items():
                if name not in COUNTERS:
                    row.add(name, value)
                elif before is not None and at > before[0] and value >= before[1].get(name, math.inf):
                    row.add(name, (value - before[1][name]) / (at - before[0]))
        gone = [key for key in self._before if key[0] == kind and key[1] not in sample]
        for key in gone:
            del self._before[key]

    async def _flush(self, minute: int) -> None:
        if not self._sums:  # writing nothing would remove what the minute has already
            return
        rows = {kind: {subject: s.average() for subject, s in sums.items()} for kind, sums in self._sums.items()}
        self._sums = {}
        writing = asyncio.ensure_future(self._series.write(minute, rows))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # `close` must not lose the minute, nor close the file under it
            raise
        except PanalError as exc:  # a full disk: the minute is lost, the node goes on
            self._on_error("writing the series", exc)

    async def _run(self) -> None:
        while True:
            begin = self._clock.monotonic_s()
            await self.tick()
            await self._clock.sleep(max(PERIOD_S - (self._clock.monotonic_s() - begin), 1.0))

    def start(self) -> None:
        """Measure from now on."""
        self._loop = asyncio.create_task(self._run(), name="series")

    async def forget(self, kind: Kind, subject: str) -> None:
        """A subject was deleted."""
        self._sums.get(kind, {}).pop(subject, None)
        self._before.pop((kind, subject), None)
        await self._series.forget(kind, subject)

    async def close(self) -> None:
        """Stop; what the present minute had is written. The series are closed by whoever opened them."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._minute is not None:
            await self._flush(self._minute)
