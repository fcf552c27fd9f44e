"""Writes a measurement's table into `docs/performance.md`: each bench owns one section, replaced whole at each run."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

TARGET = Path(__file__).parents[1] / "docs" / "performance.md"
_HEAD = """# Performance

Written by `python -m bench`; do not edit. Each section is one run: date, commit, machine, medians.
Machines are shared and noisy: ratios measured in one run mean more than the absolute figures.
"""


def median_ms(seconds: Sequence[float]) -> float:
    """The median in milliseconds."""
    return statistics.median(seconds) * 1000


def spread(seconds: Sequence[float]) -> str:
    """`p50 (min to max)` in milliseconds."""
    return f"{median_ms(seconds):.1f} ms ({min(seconds) * 1000:.1f} to {max(seconds) * 1000:.1f})"


def _commit() -> str:
    """The commit measured; `+` when more than the table itself differs from it."""
    git = ["git", "-C", str(TARGET.parent.parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", ":/", ":!/docs/performance.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (head.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")


def write(section: str, intro: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace (or add) a section; also prints it."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"
    now = datetime.datetime.now(datetime.UTC)
    stamp = f"{now:%Y-%m-%d %H:%M} UTC, commit {_commit()}, {machine}, load {os.getloadavg()[0]:.1f}"
    table = "\n".join(
        ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header), *("| " + " | ".join(r) + " |" for r in rows)]
    )
    text = f"## {section}\n\n{intro}\n\n{table}\n\n{stamp}\n"
    print(text)
    old = TARGET.read_text(encoding="utf-8") if TARGET.exists() else _HEAD
    sections = {m[1]: m[0].strip() + "\n" for m in re.finditer(r"(?ms)^## (.+?)\n.*?(?=^## |\Z)", old)}
    sections[section] = text
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(_HEAD + "\n" + "\n".join(sections[name] for name in sorted(sections)), encoding="utf-8")
