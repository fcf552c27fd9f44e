"""The services of this machine that matter to a node: their state, and starting and stopping them.

Through systemd where it runs. Elsewhere (a container, a lab node) we can only look which of them has a process, and say so when
asked to do more. Only services of the list below are ever touched: a name from outside never reaches a program.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from panal.core.errors import BadInput, NotFound, Unsupported
from panal.node.context import PROGRAM_TIMEOUT_S, NodeInfo
from panal.tasks.model import Task
from panal.tasks.runner import Tasks

Action = Literal["start", "stop", "restart", "reload"]
ACTION_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Known:
    """A service: its unit, what it is for, and the name its process has (15 characters, as in /proc/*/comm)."""

    unit: str
    description: str
    process: str
    ours: bool = False


KNOWN: Final[Mapping[str, Known]] = {
    "paneld": Known("paneld", "Panal node daemon", "paneld", ours=True),
    "panal-web": Known("panal-web", "Panal API and web front", "panal-web", ours=True),
    "chrony": Known("chrony", "Time synchronisation", "chronyd"),
    "cron": Known("cron", "Scheduled programs", "cron"),
    "ksmtuned": Known("ksmtuned", "Memory deduplication tuning", "ksmtuned"),
    "postfix": Known("postfix", "Mail transport", "master"),
    "sshd": Known("ssh", "Secure shell", "sshd"),
    "syslog": Known("rsyslog", "System log files", "rsyslogd"),
    "systemd-journald": Known("systemd-journald", "System journal", "systemd-journal"),
    "systemd-timesyncd": Known("systemd-timesyncd", "Time synchronisation (simple)", "systemd-timesyn"),
}
_PROPERTIES: Final = ("Id", "Description", "LoadState", "ActiveState", "SubState", "UnitFileState")


def known(service: str) -> Known:
    """The service of that name. NotFound."""
    found = KNOWN.get(service)
    if found is None:
        raise NotFound(f"unknown service '{service[:64]}'; one of {', '.join(sorted(KNOWN))}")
    return found


def _row(name: str, description: str, state: str, active: str, unit: str) -> dict[str, str]:
    return {
        "service": name,
        "name": name,
        "desc": description,
        "state": state,
        "active-state": active,
        "unit-state": unit,
    }


def parse(text: str) -> list[dict[str, str]]:
    """What `systemctl show` says about the known units, one row a unit that is there."""
    rows: list[dict[str, str]] = []
    names = {k.unit + ".service": name for name, k in KNOWN.items()}
    for block in text.strip().split("\n\n"):
        found = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = names.get(found.get("Id", ""))
        if name is None:
            continue
        missing = found.get("LoadState") == "not-found"
        unit = "not-found" if missing else found.get("UnitFileState") or "unknown"
        description = KNOWN[name].description if missing else found.get("Description", "") or KNOWN[name].description
        state, active = found.get("SubState") or "unknown", found.get("ActiveState") or "unknown"
        rows.append(_row(name, description, state, active, unit))
    return sorted(rows, key=lambda r: r["service"])


def _processes(info: NodeInfo) -> set[str]:
    names: set[str] = set()
    for entry in os.scandir(info.path("/proc")):
        if not entry.name.isdigit():
            continue
        try:
            base = info.path("/proc") / entry.name
            names.add((base / "comm").read_text().strip())
            # ours are Python programs: their module says which
            argv = (base / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if b"panal.daemon.main" in argv:
            names.add("paneld")
        if b"panal.web_front.main" in argv:
            names.add("panal-web")
    return names


async def states(info: NodeInfo) -> list[dict[str, str]]:
    """All known services, with `service name desc state active-state unit-state`."""
    if info.systemd:
        argv = [
            "systemctl",
            "show",
            f"--property={','.join(_PROPERTIES)}",
            "--",
            *(f"{k.unit}.service" for k in KNOWN.values()),
        ]
        return parse((await info.run(argv, timeout_s=PROGRAM_TIMEOUT_S)).text)
    running = await asyncio.to_thread(_processes, info)
    return [
        _row(name, k.description, *(("running", "active") if k.process in running else ("dead", "inactive")), "unknown")
        for name, k in sorted(KNOWN.items())
        if k.ours or k.process in running
    ]


async def state(info: NodeInfo, service: str) -> dict[str, str]:
    """One of them. NotFound."""
    description = known(service).description
    rows = await states(info)
    return next(
        (r for r in rows if r["service"] == service), _row(service, description, "dead", "inactive", "not-found")
    )


async def act(info: NodeInfo, tasks: Tasks, service: str, action: Action, user: str) -> str:
    """Start, stop, restart or reload as a task; returns the UPID. Unsupported without systemd."""
    unit = known(service)
    if unit.ours and action == "stop":
        raise BadInput("service", f"'{service}' serves this very request; restart it, or stop it on the machine itself")
    if not info.systemd:
        raise Unsupported(
            f"this node is not run by systemd, so nothing here can {action} '{service}'; do it the way it was started"
        )

    async def body(task: Task) -> None:
        verb = "try-reload-or-restart" if action == "reload" else action
        # ours would be killed in the middle of waiting for itself
        waiting = ["--no-block"] if unit.ours else []
        task.log(f"systemctl {verb} {unit.unit}")
        await info.run(["systemctl", *waiting, verb, "--", f"{unit.unit}.service"], timeout_s=ACTION_TIMEOUT_S)

    return await tasks.spawn(f"srv{action}", service, user, body, queue=f"service/{service}")
