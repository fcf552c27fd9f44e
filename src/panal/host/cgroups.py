"""Control groups of guests, version 1 or 2, where this machine lets us make them.

Called by the guest drivers. `detect` says once what there is; a machine without (no root, read-only mount, a container) is
no error: guests then run without limits and the reason is shown. Invariant: groups lie below `panal/<node>` alone and are
removed only when they are empty, so two nodes on one kernel (the lab) never touch each other's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
CONTROLLERS: Final = ("cpu", "memory", "pids")
PERIOD_US: Final = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """`cpus` 0: no limit; `weight` None: the kernel's default (v1 shares 2..262144, v2 weight 1..10000)."""

    cpus: float = 0
    weight: int | None = None
    memory: int | None = None
    pids: int | None = 2048


@dataclass(frozen=True, slots=True)
class Cgroups:
    """What this machine offers. `version` 0: nothing, and `reason` says why."""

    version: int
    base: str
    reason: str = ""
    root: Path = ROOT

    def paths(self, name: str) -> Sequence[Path]:
        """Directories of a guest's group (one a controller in version 1)."""
        if self.version == 2:
            return [self.root / self.base / name]
        return [self.root / c / self.base / name for c in CONTROLLERS if (self.root / c).is_dir()]

    def create(self, name: str, limits: Limits) -> None:
        """Make the group and set its limits. OSError when the kernel refuses one."""
        for path in self.paths(name):
            if self.version == 2:
                _delegate(self.root, path.parent)
            path.mkdir(parents=True, exist_ok=True)
        for file, value in _settings(self.version, limits):
            for path in self.paths(name):
                if (path / file).exists():
                    (path / file).write_text(value)

    def add(self, name: str, pid: int) -> None:
        """Move a process with all its threads into the group."""
        for path in self.paths(name):
            (path / "cgroup.procs").write_text(str(pid))

    def remove(self, name: str) -> None:
        """Remove the group; one that still holds processes, or is not there, is left alone."""
        for path in self.paths(name):
            with contextlib.suppress(OSError):
                path.rmdir()

    def leave(self) -> None:
        """Remove the node's own group when no guest is in it; `create` makes it again."""
        for path in self.paths("x") if self.version else ():
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def names(self) -> set[str]:
        """Groups that exist; those of another user's node of this name are not ours to see."""
        found: set[str] = set()
        for path in self.paths("x") if self.version else ():
            if path.parent.is_dir():
                found |= {p.name for p in path.parent.iterdir() if p.is_dir()}
        return found


def detect(node: str, root: Path = ROOT) -> Cgroups:
    """Look what can be used; makes the base group to find out."""
    base = f"panal/{node}"
    if os.geteuid() != 0:
        return Cgroups(0, base, "only root can make control groups", root)
    version = 2 if (root / "cgroup.controllers").exists() else 1 if (root / "cpu").is_dir() else 0
    if not version:
        return Cgroups(0, base, f"no control groups are mounted at {root}", root)
    groups = Cgroups(version, base, "", root)
    try:
        for path in groups.paths("x"):
            if version == 2:
                _delegate(root, path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        return Cgroups(0, base, f"control groups cannot be made here: {exc.strerror}", root)
    return groups


def _delegate(root: Path, parent: Path) -> None:
    """Version 2: controllers must be switched on in every group above the one that uses them."""
    path = root
    for part in ("", *parent.relative_to(root).parts):
        path = path / part if part else path
        path.mkdir(exist_ok=True)
        have = (path / "cgroup.controllers").read_text().split()
        wanted = [f"+{c}" for c in CONTROLLERS if c in have]
        if wanted:
            (path / "cgroup.subtree_control").write_text(" ".join(wanted))


def _settings(version: int, limits: Limits) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    quota = round(limits.cpus * PERIOD_US)
    if version == 2:
        out.append(("cpu.max", f"{quota} {PERIOD_US}" if quota else f"max {PERIOD_US}"))
        if limits.weight is not None:
            out.append(("cpu.weight", str(min(max(limits.weight, 1), 10_000))))
        out.append(("memory.max", str(limits.memory) if limits.memory else "max"))
        out.append(("pids.max", str(limits.pids) if limits.pids else "max"))
        return out
    out.append(("cpu.cfs_period_us", str(PERIOD_US)))
    out.append(("cpu.cfs_quota_us", str(quota or -1)))
    if limits.weight is not None:
        out.append(("cpu.shares", str(min(max(limits.weight, 2), 262_144))))
    out.append(("memory.limit_in_bytes", str(limits.memory or -1)))
    out.append(("pids.max", str(limits.pids) if limits.pids else "max"))
    return out
