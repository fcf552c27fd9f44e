"""How far a copy is, as lines of the task's log. Called by the steps of clone and move_disk."""

from __future__ import annotations

from typing import Final

from panal.core.clock import Clock
from panal.tasks import steps

PERIOD_S: Final = 2.0
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Meter:
    """One copy of `total` bytes, or of as many as it says while it goes on. `what` begins every line."""

    def __init__(self, clock: Clock, what: str, total: int = 0) -> None:
        self._clock = clock
        self._what = what
        self._total = total
        self._said: tuple[float, int] | None = None

    def share(self, done: float) -> None:
        """0..1 of the total."""
        self.count(int(done * self._total), self._total)

    def count(self, done: int, total: int) -> None:
        """Bytes. At most a line every PERIOD_S, none that says the same again; the end is always told.

        Nothing is said of nothing: an empty copy, or one whose size is not known yet.
        """
        if not total:
            return
        now = self._clock.monotonic_s()
        percent = done * 100 // total
        if self._said is not None:
            at, before = self._said
            if percent == before or (now - at < PERIOD_S and percent < 100):
                return
        self._said = (now, percent)
        steps.note(f"{self._what}: transferred {size_text(done)} of {size_text(total)} ({percent}%)")


def size_text(size: float) -> str:
    """`1.5 GiB`."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}"
