"""Transient scopes of systemd: where it runs, each guest gets one, so that a restart of the daemon's service spares it.

Called by the guest drivers. systemd then owns the control group and its limits. Invariant: a scope holds exactly the processes
we gave it and vanishes with the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from panal.core.errors import Failed
from panal.host.cgroups import Limits

if TYPE_CHECKING:
    from dbus_fast import Variant

_TIMEOUT_S: Final = 5
_SLICE: Final = "panal.slice"


def running() -> bool:
    """Whether systemd manages this machine and we may ask it (the test of sd_booted)."""
    return os.geteuid() == 0 and Path("/run/systemd/system").is_dir()


def properties(pids: Sequence[int], description: str, limits: Limits) -> list[tuple[str, Variant]]:
    """The scope's properties as the D-Bus call takes them."""
    from dbus_fast import Variant

    out = [
        ("Description", Variant("s", description)),
        ("Slice", Variant("s", _SLICE)),
        ("PIDs", Variant("au", list(pids))),
        # at shutdown of the machine: QEMU first (it then writes its caches), what is left later
        ("KillMode", Variant("s", "mixed")),
        # at shutdown of the machine stopped after the daemon, and that after panal-guests.service, which has it shut the
        # guests down in order. An order only: a restart of the daemon does not touch the scope
        ("Before", Variant("as", ["paneld.service"])),
        ("CollectMode", Variant("s", "inactive-or-failed")),
    ]
    if limits.cpus:
        out.append(("CPUQuotaPerSecUSec", Variant("t", round(limits.cpus * 1_000_000))))
    if limits.weight is not None:
        out.append(("CPUWeight", Variant("t", min(max(limits.weight, 1), 10_000))))
    if limits.memory:
        out.append(("MemoryMax", Variant("t", limits.memory)))
    if limits.pids:
        out.append(("TasksMax", Variant("t", limits.pids)))
    return out


async def start_scope(name: str, pids: Sequence[int], description: str, limits: Limits) -> None:
    """Put the processes into the new scope `name` (ends with `.scope`). Raises Failed when systemd refuses or is silent."""
    from dbus_fast import BusType, Message, MessageType
    from dbus_fast.aio import MessageBus

    message = Message(
        destination="org.freedesktop.systemd1",
        path="/org/freedesktop/systemd1",
        interface="org.freedesktop.systemd1.Manager",
        member="StartTransientUnit",
        signature="ssa(sv)a(sa(sv))",
        body=[name, "fail", [list(p) for p in properties(pids, description, limits)], []],
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            try:
                answer = await bus.call(message)
            finally:
                with contextlib.suppress(Exception):
                    bus.disconnect()
    except (OSError, TimeoutError) as exc:
        raise Failed(f"systemd does not answer ({exc!r}); look at `systemctl status`") from exc
    if answer is None or answer.message_type is MessageType.ERROR:
        raise Failed(f"systemd refused the scope {name}: {answer.body if answer else 'no answer'}", scope=name)
