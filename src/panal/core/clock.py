"""Time as a dependency: everything that waits or stamps takes a `Clock`, so that a test can own it.

Durations are monotonic; wall clocks of two nodes are never compared for a decision (design, section 7).
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the product needs of time."""

    def wall_s(self) -> float:
        """Seconds since the epoch: for people, logs and stamps only."""

    def monotonic_s(self) -> float:
        """Seconds that never go back: for every duration."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clock."""

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
