"""A machine in a directory: a fake /etc and /proc, a clock that the test owns, and programs that only write down their call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from panal.core.errors import ProgramFailed
from panal.host.run import Result
from panal.node import NodeInfo

PROC = {
    "stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n",
    "meminfo": "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 600 kB\nSwapTotal: 50 kB\nSwapFree: 40 kB\n",
    "cpuinfo": "".join(
        f"processor: {n}\nmodel name: Test CPU\ncpu MHz: 2000.5\nphysical id: {n // 4}\ncore id: {n // 2 % 2}\n"
        "flags: fpu vmx\n\n"
        for n in range(8)
    ),
    "uptime": "1234.5 99\n",
    "loadavg": "0.10 0.20 0.30 1/2 3\n",
    "sys/kernel/ostype": "Linux\n",
    "sys/kernel/osrelease": "6.1.0\n",
    "sys/kernel/version": "#1 SMP\n",
    "net/dev": "h\nh\n lo: 1 0 0 0 0 0 0 0 1 0\n eth0: 500 0 0 0 0 0 0 0 70 0\n",
    "pressure/cpu": "some avg10=1.50 avg60=0 avg300=0 total=1\nfull avg10=9.0 avg60=0 avg300=0 total=1\n",
}


class OwnClock:
    """Time stands still until the test moves it."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def wall_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Programs:
    """Stands for host.run.run."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.output = b""
        self.status = 0

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        check: bool = True,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Result:
        self.calls.append(list(argv))
        if self.status and check:
            raise ProgramFailed(argv[0], self.status, "it did not work")
        if on_output is not None:
            for at in range(0, len(self.output), 7):  # in pieces, as they come from a pipe
                on_output(self.output[at : at + 7])
        return Result(self.status, b"" if on_output else self.output, "")


class Machine:
    """`info` on `root`, with `clock` and `programs`."""

    def __init__(self, root: Path, *, systemd: bool = False) -> None:
        self.root, self.clock, self.programs = root, OwnClock(), Programs()
        for name, text in PROC.items():
            self.file(f"proc/{name}", text)
        (root / "sys/class/net/eth0/device").mkdir(parents=True)
        if systemd:
            (root / "run/systemd/system").mkdir(parents=True)
            (root / "run/log/journal").mkdir(parents=True)
        self.info = NodeInfo.build("n1", self.clock, root=root, run=self.programs)

    def file(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path
