"""Starts and stops the two daemons in the background, as systemd would.

Invariant: a daemon is known by process id *and* start time, so a reused id is never taken for ours, and never killed.
Guests are the daemon's children no more (paneld sets them free): stopping daemons leaves guests running.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from panal_demo.place import DemoError, Facts, Place

START_S = 30.0
STOP_S = 20.0
NAMES = ("paneld", "panal-web")


def commands(place: Place, facts: Facts) -> dict[str, list[str]]:
    """How each daemon is started, in order."""
    return {
        "paneld": [
            "panal.daemon.main", "--state", str(place.node), "--run", str(place.run),
            "--node", facts.node, "--web-user", facts.web_user,
        ],
        "panal-web": [
            "panal.web_front.main", "--run", str(place.run),
            "--listen", f"127.0.0.1:{facts.port}", "--user", facts.web_user,
        ],
    }  # fmt: skip


def start(place: Place, facts: Facts, names: Sequence[str] = NAMES) -> list[str]:
    """Start those that do not run or run older code; returns which were started. They answer when this returns."""
    place.prepare()
    code = os.environ["PYTHONPATH"]
    wanted = {name: argv for name, argv in commands(place, facts).items() if name in names}
    if any(_record(place, name).get("code") not in (None, code) for name in NAMES):
        stop(place)
    started = []
    for name, argv in wanted.items():
        if running(place, name):
            continue
        if name == "panal-web":
            _check_port(facts.port)
        _spawn(place, name, argv, code)
        started.append(name)
        _wait(place, name, partial(_answers_admin if name == "paneld" else _answers_port, place, facts))
    return started


def stop(place: Place) -> list[str]:
    """Stop both, the public one first; returns which ran."""
    stopped = []
    for name in reversed(NAMES):
        pid = running(place, name)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while running(place, name) is not None:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
            stopped.append(name)
        (place.run / f"{name}.json").unlink(missing_ok=True)
    return stopped


def running(place: Place, name: str) -> int | None:
    """The daemon's process id, None when it does not run."""
    record = _record(place, name)
    pid = record.get("pid")
    if isinstance(pid, int) and started_at(pid) == record.get("started"):
        return pid
    return None


def _record(place: Place, name: str) -> dict[str, object]:
    try:
        record = json.loads((place.run / f"{name}.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def started_at(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot with the boot's id; None for no process or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{fields[19]}"


def _spawn(place: Place, name: str, argv: list[str], code: str) -> None:
    with (place.log / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": code, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"},
        )  # fmt: skip
    record = {"pid": process.pid, "started": started_at(process.pid), "code": code}
    (place.run / f"{name}.json").write_text(json.dumps(record))


def _wait(place: Place, name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        pid = _record(place, name).get("pid")
        ended = isinstance(pid, int) and os.waitpid(pid, os.WNOHANG)[0] != 0
        if ended or time.monotonic() > deadline:
            log = place.log / f"{name}.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise DemoError(f"{name} {'ended' if ended else 'does not answer'}; the end of {log}:\n{tail}")
        time.sleep(0.05)


def _answers_admin(place: Place, _facts: Facts) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(place.run / "admin.sock")) == 0


def _answers_port(_place: Place, facts: Facts) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", facts.port)) == 0


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} of 127.0.0.1 is taken; stop what uses it, or PANAL_DEMO_PORT=8007 ./demo"
            ) from error
