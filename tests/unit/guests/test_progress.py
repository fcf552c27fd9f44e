"""Lines about copies."""

from __future__ import annotations

import pytest

from panal.core.clock import SystemClock
from panal.guests import progress


def test_nothing_is_said_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: a total that is not known yet counts as 100 % (`transferred 0.0 B of 0.0 B (100%)`)."""
    said: list[str] = []
    monkeypatch.setattr("panal.guests.progress.steps.note", said.append)
    meter = progress.Meter(SystemClock(), "drive scsi0")
    meter.count(0, 0)
    assert said == []
    meter.count(1024, 1024)
    assert said == ["drive scsi0: transferred 1.0 KiB of 1.0 KiB (100%)"]
