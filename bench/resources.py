"""`GET /cluster/resources` with 1,000 and 10,000 guests of the fake driver whose live state moves, and unchanged."""

from __future__ import annotations

import json
import time

from bench.node import BenchNode, node
from bench.report import spread, write

ROUNDS = 40
GOALS_MS = {1000: 30, 10_000: 150}


def _ask(started: BenchNode, rounds: int, pause_s: float) -> tuple[list[float], str]:
    times, etag = [], ""
    for _ in range(rounds):
        begin = time.perf_counter()
        status, headers, body = started.request("GET", "/cluster/resources")
        times.append(time.perf_counter() - begin)
        if status != 200:
            raise RuntimeError(f"{status} {body[:200]!r}")
        etag = headers.get("etag", "")
        time.sleep(pause_s)
    return times, etag


def _unchanged(started: BenchNode) -> tuple[list[float], int]:
    """Ask with the newest ETag; answers other than 304 (the live state moved) are counted apart."""
    times: list[float] = []
    etag, moved = "", 0
    while len(times) < ROUNDS and moved < ROUNDS * 10:
        begin = time.perf_counter()
        status, headers, _ = started.request("GET", "/cluster/resources", headers={"If-None-Match": etag})
        if status == 304:
            times.append(time.perf_counter() - begin)
        else:
            moved += 1
        etag = headers.get("etag", etag)
    return times, moved


def main() -> None:
    """Measure and write."""
    rows = []
    for count, goal in GOALS_MS.items():
        with node("fake", populate=count) as started:
            found = sum(row["type"] == "qemu" for row in started.call("GET", "/cluster/resources"))
            running = sum(row.get("status") == "running" for row in started.call("GET", "/cluster/resources"))
            if found != count:
                raise RuntimeError(f"{found} guests instead of {count}")
            # pauses longer than the sampling period would measure the cache; the spread shows both
            times, _ = _ask(started, ROUNDS, 0.25)
            same, moved = _unchanged(started)
            size = len(json.dumps(started.call("GET", "/cluster/resources")))
        rows.append([f"{count:,} guests, {running:,} running ({size / 1e6:.1f} MB)", spread(times), f"{goal} ms"])
        rows.append([f"{count:,} guests, unchanged (304; {moved} changed answers left out)", spread(same), "3 ms"])
    write(
        "Cluster resources",
        "Whole answer over HTTPS on one kept connection, one client, root's token.",
        ["what", "p50 (min to max)", "goal"],
        rows,
    )


if __name__ == "__main__":
    main()
