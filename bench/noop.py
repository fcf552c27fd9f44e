"""A task that does nothing, from the POST to the status that says it has ended: what every task costs."""

from __future__ import annotations

import time

from bench.node import node
from bench.report import spread, write

ROUNDS = 200


def main() -> None:
    """Measure and write."""
    with node("fake") as started:
        whole, answered = [], []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            upid = started.call("POST", f"/nodes/{started.name}/panal/noop")
            answered.append(time.perf_counter() - begin)
            started.wait_task(upid)
            whole.append(time.perf_counter() - begin)
    write(
        "No-op task",
        "`POST /nodes/{node}/panal/noop`, then `…/tasks/{upid}/status` until it has ended; HTTPS, one kept connection.",
        ["what", "p50 (min to max)", "goal"],
        [["POST → ended", spread(whole), "15 ms"], ["POST → UPID", spread(answered), "-"]],
    )


if __name__ == "__main__":
    main()
