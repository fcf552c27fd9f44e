"""`panal --help` as a whole process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.report import spread, write

ROUNDS = 21


def main() -> None:
    """Measure and write."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "panal.cli.main", "--help"], env=env, check=True, stdout=subprocess.DEVNULL
        )
        times.append(time.perf_counter() - begin)
    write("Command line", "`panal --help`, whole process.", ["what", "p50 (min to max)", "goal"], [
        ["`panal --help`", spread(times), "200 ms"],
    ])  # fmt: skip


if __name__ == "__main__":
    main()
