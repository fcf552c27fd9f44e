"""What every verb of `node` takes: where this machine's files are and how its programs are run.

Built once by `daemon/` (`NodeInfo.build`), kept in `api/services.py`. Invariant: nothing in `node/` touches a path outside of
`root`, so that a test gives it a directory and never changes the machine it runs on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from panal.core.clock import Clock
from panal.host.run import Result
from panal.host.run import run as run_program
from panal.node.meter import CpuMeter

PROGRAM_TIMEOUT_S: Final = 30.0


class Run(Protocol):
    """`host.run.run`, as far as it is used here."""

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        check: bool = True,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Result:
        """Run a program to its end."""


@dataclass(slots=True)
class NodeInfo:
    """This machine. `systemd`: it is run by systemd, and we may ask it."""

    node: str
    clock: Clock
    root: Path
    run: Run
    systemd: bool
    log_file: Path | None
    """our own log, shown where there is neither a journal nor a syslog file"""
    meter: CpuMeter
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """held while one of the machine's files is compared and replaced"""

    @classmethod
    def build(
        cls, node: str, clock: Clock, *, root: Path = Path("/"), run: Run = run_program, log_file: Path | None = None
    ) -> NodeInfo:
        """For the machine at `root`."""
        systemd = (root / "run/systemd/system").is_dir()
        return cls(node, clock, root, run, systemd, log_file, CpuMeter(root / "proc/stat", clock))

    def path(self, absolute: str) -> Path:
        """A file of the machine."""
        return self.root / absolute.lstrip("/")

    @property
    def journal(self) -> bool:
        """Whether systemd's journal is kept here."""
        return self.systemd and any(self.path(p).is_dir() for p in ("/run/log/journal", "/var/log/journal"))
