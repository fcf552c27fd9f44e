"""How busy the processors are: shares of the time between two looks at /proc/stat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from panal.core.clock import Clock

MIN_INTERVAL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class CpuShares:
    """0..1 of all processors: busy, waiting for disks, idle."""

    busy: float = 0.0
    wait: float = 0.0
    idle: float = 1.0


class CpuMeter:
    """Looks at the counters; two looks within a second see the same answer, since less time says little."""

    def __init__(self, stat: Path, clock: Clock) -> None:
        self._stat = stat
        self._clock = clock
        self._last: tuple[int, int, int] | None = None
        self._at = 0.0
        self._shares = CpuShares()

    def read(self) -> CpuShares:
        """Shares since the look before; since boot the first time."""
        now = self._clock.monotonic_s()
        if self._last is not None and now - self._at < MIN_INTERVAL_S:
            return self._shares
        fields = [int(x) for x in self._stat.read_text().partition("\n")[0].split()[1:9]]
        # user nice system idle iowait irq softirq steal; guest time is in user already
        total, idle, wait = sum(fields), fields[3], fields[4]
        before = self._last or (0, 0, 0)
        elapsed = total - before[0]
        if elapsed > 0:
            idle_share = min(max((idle - before[1]) / elapsed, 0.0), 1.0)
            wait_share = min(max((wait - before[2]) / elapsed, 0.0), 1.0)
            self._shares = CpuShares(max(1.0 - idle_share - wait_share, 0.0), wait_share, idle_share)
        self._last, self._at = (total, idle, wait), now
        return self._shares
