"""For every test: what was skipped and why is handed to `./test`; `soak` gives a test its bigger counts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SOAK = os.environ.get("PANAL_SOAK") == "1"


@dataclass
class Soak:
    """How often a test marked `soak` does its work, and where it says how that went."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def count(self, usual: int, long: int) -> int:
        """`usual` in every run, `long` under `./test --soak`."""
        return long if SOAK else usual

    def note(self, what: str, count: int, failures: int = 0, note: str = "") -> None:
        """One row for docs/reliability.md."""
        self.rows.append({"what": what, "count": count, "failures": failures, "note": note})


@pytest.fixture
def soak(request: pytest.FixtureRequest):
    """Counts of a soak test; a test that notes nothing still leaves its name."""
    counts = Soak()
    before = request.session.testsfailed
    yield counts
    target = os.environ.get("PANAL_SOAK_RESULTS")
    if not target:
        return
    if not counts.rows:
        counts.note(request.node.nodeid, 1, request.session.testsfailed - before)
    with Path(target).open("a") as out:
        for row in counts.rows:
            out.write(json.dumps(row) + "\n")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write counts and reasons where `./test` reads them."""
    target = os.environ.get("PANAL_TEST_REPORT")
    if not target:
        return
    stats = terminalreporter.stats
    words = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")
    closing = ", ".join(f"{len(stats[word])} {word}" for word in words if stats.get(word))
    skipped: dict[str, list[str]] = {}
    for report in stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    Path(target).write_text(json.dumps({"closing": closing or "no tests", "skipped": skipped}))
