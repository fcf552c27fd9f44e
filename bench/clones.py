"""50 clones asked by 5 clients at once, each id from `nextid`: no error, no duplicate."""

from __future__ import annotations

import json
import threading
import time
from urllib.parse import urlencode

from bench.node import BenchNode, node
from bench.report import write

CLIENTS, CLONES = 5, 10


def _client(started: BenchNode, ids: list[int], errors: list[str]) -> None:
    connection = started.connect()
    headers = {"Authorization": f"PVEAPIToken={started.token}", "Content-Type": "application/x-www-form-urlencoded"}

    def call(verb: str, path: str, params: dict[str, object] | None = None) -> object:
        body = urlencode(params) if params else None
        connection.request(verb, f"/api2/json{path}", body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{verb} {path}: {response.status} {response.reason}")
        return json.loads(content)["data"]

    for _ in range(CLONES):
        try:
            vmid = int(str(call("GET", "/cluster/nextid")))
            upid = call("POST", f"/nodes/{started.name}/qemu/100/clone", {"newid": vmid, "full": 1})
            while True:
                status = call("GET", f"/nodes/{started.name}/tasks/{upid}/status")
                if isinstance(status, dict) and status["status"] == "stopped":
                    break
                time.sleep(0.02)
            if status["exitstatus"] != "OK":
                raise RuntimeError(str(status["exitstatus"]))
            ids.append(vmid)
        except (RuntimeError, OSError) as exc:
            errors.append(str(exc))


def main() -> None:
    """Measure and write."""
    with node("fake") as started:
        disk = {"vmid": 100, "scsi0": "local:1", "name": "source"}
        started.wait_task(started.call("POST", f"/nodes/{started.name}/qemu", disk))
        ids: list[int] = []
        errors: list[str] = []
        threads = [threading.Thread(target=_client, args=(started, ids, errors)) for _ in range(CLIENTS)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - begin
        found = {row["vmid"] for row in started.call("GET", f"/nodes/{started.name}/qemu")} - {100}
    lost = len(set(ids) - found)
    write(
        "Clones with nextid",
        f"{CLIENTS} clients at once, {CLONES} full clones each of a guest with a 1 GiB qcow2 disk, ids from `nextid`.",
        ["what", "seen", "goal"],
        [
            ["errors", str(len(errors)) + (f" ({errors[0]})" if errors else ""), "0"],
            ["duplicate ids", str(len(ids) - len(set(ids))), "0"],
            ["clones that exist", f"{len(found)} (missing {lost})", str(CLIENTS * CLONES)],
            ["time for all", f"{took_s:.1f} s", "-"],
        ],
    )


if __name__ == "__main__":
    main()
