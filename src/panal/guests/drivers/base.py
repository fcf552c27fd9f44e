"""The interface of a hypervisor on this node. Every driver passes `tests/contract/guest_driver`.

Called by the verbs in `guests/` only. A driver knows processes and devices; it never reads or writes the store, never
chooses names or ids, and never takes a claim: by the time it is called, the verb holds it (guests/start.py).

Invariants: `start` either leaves a running guest or nothing (no process, tap, cgroup, socket); a guest survives the daemon;
`adopt` finds every guest that runs here, also those nobody remembers. State changes come as events through `watch`.
Driver objects never leave a driver: results are the frozen types below.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Status = Literal["running", "paused", "stopped"]


@dataclass(frozen=True, slots=True)
class Disk:
    """A drive as the driver gets it. `key` is the configuration's (`scsi0`); `fd` an open descriptor or None for no medium.

    The driver owns the descriptor from the call on and closes its copy.
    """

    key: str
    fmt: str
    fd: int | None
    read_only: bool = False
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CopyTarget:
    """An empty image that a drive is copied into: at least as big as the drive, open for reading and writing."""

    fmt: str
    fd: int


@dataclass(frozen=True, slots=True)
class StartSpec:
    """All a driver needs to run a guest. `config` is the effective configuration (strings as stored, defaults left out).

    `hardware` is what was pinned at the first start (machine type, PCI addresses): empty then; the driver returns it.
    `incoming` is a descriptor to load RAM from (raw QEMU migration stream), `paused` leaves the guest stopped.
    `epoch` is the claim's: kept with the run record, so that adoption can tell an old run from the present one.
    """

    vmid: int
    name: str
    config: Mapping[str, str]
    disks: Sequence[Disk]
    epoch: int
    incarnation: str
    hardware: Mapping[str, str] = field(default_factory=dict)
    incoming: int | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A guest that runs here. `hardware` is pinned with its run state and given back at the next start."""

    vmid: int
    pid: int
    epoch: int
    incarnation: str
    hardware: Mapping[str, str]
    config: Mapping[str, str]
    """the configuration it was started with: what differs now is `pending`"""


@dataclass(frozen=True, slots=True)
class Live:
    """A sample. Bytes and seconds; `cpu` is the used share of all its vCPUs (0..1). Counters are since start."""

    vmid: int
    status: Status
    qmpstatus: str = "stopped"
    pid: int | None = None
    uptime_s: int = 0
    cpu: float = 0.0
    mem: int = 0
    memhost: int = 0
    netin: int = 0
    netout: int = 0
    diskread: int = 0
    diskwrite: int = 0
    balloon: int | None = None
    machine: str | None = None
    qemu: str | None = None


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """A state change seen by the driver: `kind` is started, stopped, paused, resumed, shutdown, reset, crashed, io-error."""

    vmid: int
    kind: str
    detail: str = ""


class GuestDriver(Protocol):
    """One hypervisor on this node. Errors: Failed, Unsupported, Unavailable (does not answer), NotFound (does not run)."""

    async def start(self, spec: StartSpec, log: Callable[[str], None]) -> Running:
        """Run the guest; returns when it runs (or is paused, if asked)."""

    async def stop(self, vmid: int, timeout_s: float = 10) -> None:
        """Power off at once; returns when the process is reaped, its tap, cgroup and sockets gone. No error when absent."""

    async def shutdown(self, vmid: int) -> None:
        """Press the power button; does not wait."""

    async def reset(self, vmid: int) -> None:
        """Hard reset."""

    async def pause(self, vmid: int) -> None:
        """Stop the vCPUs."""

    async def resume(self, vmid: int) -> None:
        """Let the vCPUs go on."""

    async def wait_stopped(self, vmid: int, timeout_s: float) -> bool:
        """True when it has ended within the time."""

    async def resize_disk(self, vmid: int, key: str, size: int) -> None:
        """Grow an attached drive to `size` bytes and tell the guest."""

    async def snapshot_disks(self, vmid: int, keys: Sequence[str], name: str) -> None:
        """Snapshot these drives of a running (or paused) guest at one instant: all or none."""

    async def delete_disk_snapshot(self, vmid: int, key: str, name: str) -> None:
        """Remove a snapshot of an attached drive; nothing happens when it is not there."""

    async def copy_disks(
        self, vmid: int, targets: Mapping[str, CopyTarget], progress: Callable[[int, int], None], *,
        limit_bytes_s: int = 0,
    ) -> None:  # fmt: skip
        """Copy these drives of a running (or paused) guest, all as of one instant before this returns.

        The guest runs meanwhile, and is as it was afterwards, whatever happens; only at the instant it stands still. Its
        file systems are quiet then if its agent can do that. `progress(done, total)` in bytes; the total may grow. The driver
        owns the descriptors from the call on and closes its copies. Failed (full disk…), NotFound; then the targets are
        worth nothing. A copy that a dead daemon left behind ends when the guest is adopted.
        """

    async def save_ram(self, vmid: int, fd: int, progress: Callable[[int, int], None]) -> None:
        """Write the RAM and device state into the descriptor; the guest is paused before and stays paused."""

    async def screenshot(self, vmid: int) -> bytes:
        """A PNG of the guest's screen."""

    async def send_keys(self, vmid: int, keys: Sequence[str]) -> None:
        """Press the keys (QEMU key names) together."""

    def serial(self, vmid: int, port: int) -> int:
        """A connected stream socket of serial port `port`; an earlier session on it is closed. The caller closes it."""

    async def sample(self) -> Sequence[Live]:
        """One sample of every guest that runs here."""

    async def info(self, vmid: int) -> Live:
        """A fresh sample of one guest; status stopped when it does not run."""

    async def adopt(self) -> Sequence[Running]:
        """After a restart: reconnect to every guest that still runs here, clean up after those that died."""

    def watch(self, callback: Callable[[GuestEvent], Awaitable[None]]) -> None:
        """Call back on every state change, in order per guest."""

    async def close(self) -> None:
        """Let go of all guests; they run on."""
