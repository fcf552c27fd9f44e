"""Memory of both processes, idle, with 1,000 guests of the fake driver: proportional set size, so shared pages count once."""

from __future__ import annotations

import re
import time
from pathlib import Path

from bench.node import node
from bench.report import write

SETTLE_S = 20.0


def _mib(pid: int, field: str) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.M)
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Measure and write."""
    with node("fake", populate=1000) as started:
        for _ in range(20):  # used once, as any node has been, then idle
            started.call("GET", "/cluster/resources")
        time.sleep(SETTLE_S)
        rows, total = [], 0.0
        for name, process in zip(("paneld", "panal-web"), started.processes, strict=True):
            pss, rss = _mib(process.pid, "Pss"), _mib(process.pid, "Rss")
            total += rss
            rows.append([name, f"{rss:.0f} MiB resident ({pss:.0f} MiB proportional)", "-"])
    rows.append(["both, resident", f"{total:.0f} MiB", "150 MB"])
    write("Memory, idle, 1,000 guests", f"{SETTLE_S:.0f} s after the last request.", ["what", "seen", "goal"], rows)


if __name__ == "__main__":
    main()
