"""For every test: what was skipped and why is handed to `./test`; `soak` gives a test its bigger counts.

    rounds = soak("writes acknowledged before SIGKILL, then lost", small=3, big=300)

gives 3 in every run and 300 under `./test --soak`, where docs/reliability.md gets one row of that name. Tests that say the same
name are added up. Every property-based test takes part by itself, with `examples(...)` times as many examples.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.soaking import SOAK, examples

RESULTS = os.environ.get("PANAL_SOAK_RESULTS")

hypothesis.settings.register_profile("panal", max_examples=examples(100), deadline=None)
hypothesis.settings.load_profile("panal")


@dataclass
class Row:
    """What one test adds to one row of docs/reliability.md."""

    what: str
    count: int
    failures: int = 0
    note: str = ""


class Soak:
    """How often a test does its work, and what came out. Without `found`, a test that fails is one failure."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def __call__(self, what: str, *, small: int, big: int) -> int:
        """The count to do now: `small` in every run, `big` under `./test --soak`."""
        count = big if SOAK else small
        self.rows[what] = Row(what, count)
        return count

    def found(self, what: str, *, count: int | None = None, failures: int = 0, note: str = "") -> None:
        """What the test itself counted."""
        row = self.rows.setdefault(what, Row(what, 0))
        row.count = row.count if count is None else count
        row.failures, row.note = failures, note


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Soak:
    """See above."""
    request.node.soak = counts = Soak()
    return counts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m soak` are those that take counts and those that make their own inputs."""
    for item in items:
        function = getattr(item, "function", None)
        made = hypothesis.is_hypothesis_test(function) or "runTest" in item.name
        if "soak" in getattr(item, "fixturenames", ()) or made:
            item.add_marker("soak")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A row is written as soon as its test ends, so that a soak that is cut short has its rows, too."""
    report = yield
    if RESULTS and (report.when == "call" or report.failed):
        rows = list(item.soak.rows.values()) if hasattr(item, "soak") else []
        if not rows:
            said = re.search(r"(\d+) passing", getattr(item, "hypothesis_statistics", ""))
            rows = [Row(f"made-up inputs of `{item.nodeid.removeprefix('tests/')}`", int(said[1]) if said else 0)]
        with Path(RESULTS).open("a") as out:
            for row in rows if not report.skipped else []:
                row.failures = max(row.failures, int(report.failed))
                out.write(json.dumps(asdict(row)) + "\n")
    return report


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
