"""The one function that starts a guest, for every route: the API, onboot, rollback, and what comes later (design 3, 6.3).

    plan_start (pure) → claim + run record + pending configuration in one txn → driver.start → hardware pinned
                          └─ on any failure: the process is confirmed absent, then the claim is let go

`run_guest` must be called with the guest's queue held. No other code calls `driver.start`: a test sees to it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from panal.cluster.store import Op, Put, Unchanged
from panal.core.errors import BadInput, Conflict, Failed, PanalError
from panal.guests import claims, firewall
from panal.guests.config import Drive, read_drives
from panal.guests.config.change import apply_pending
from panal.guests.context import Guests, queue_of
from panal.guests.drivers.base import Disk, Running, StartSpec
from panal.guests.model import Guest, RunRecord, config_key, run_key
from panal.guests.volumes import split
from panal.tasks.model import Task

ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True)
class Problems:
    """Why it cannot start, each a sentence a person can act on."""

    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.sentences)


@dataclass(frozen=True, slots=True)
class StartPlan:
    """What start will do. `config` is what it runs with: pending changes applied."""

    vmid: int
    config: Mapping[str, str]
    hardware: Mapping[str, str]
    drives: tuple[Drive, ...]
    applies_pending: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """How rollback starts a guest: with the snapshot's own hardware, from its RAM. `volid` names the RAM stream."""

    hardware: Mapping[str, str] = field(default_factory=dict)
    volid: str | None = None


def plan_start(guest: Guest, hardware: Mapping[str, str], node: str) -> StartPlan | Problems:
    """Pure: what would be started, or why not."""
    problems: list[str] = []
    if guest.template:
        problems.append("you can't start a vm if it's a template; clone it and start the clone")
    if guest.node != node:
        problems.append(f"VM {guest.vmid} belongs to node '{guest.node}'; start it there")
    if guest.lock is not None:
        problems.append(f"VM is locked ({guest.lock}): wait for the task that does this; if it failed, run it again")
    config = apply_pending(guest.vmid, guest.config, guest.pending)
    return Problems(tuple(problems)) if problems else StartPlan(
        guest.vmid, config, hardware, tuple(read_drives(config)), bool(guest.pending)
    )  # fmt: skip


def open_disks(guests: Guests, plan: Sequence[Drive]) -> list[Disk]:
    """Descriptors of all drives; BadInput names the key of one that cannot be opened. Blocking, but only opens files."""
    disks: list[Disk] = []
    try:
        for drive in plan:
            if drive.volid is None:
                disks.append(Disk(drive.key, "raw", None, read_only=True, options=drive.options))
                continue
            try:
                storage, name = split(drive.volid)
                driver = guests.storages.driver(storage)
                fmt = driver.source(name).format
                fd = driver.open(name, write=not drive.read_only)
            except PanalError as exc:
                raise BadInput(drive.key, f"{drive.key}: volume '{drive.volid}' cannot be opened: {exc}") from exc
            disks.append(Disk(drive.key, fmt, fd, read_only=drive.read_only, options=drive.options))
    except BaseException:
        close_disks(disks)
        raise
    return disks


def close_disks(disks: Sequence[Disk]) -> None:
    """Close descriptors that no driver took."""
    for disk in disks:
        if disk.fd is not None:
            os.close(disk.fd)


async def run_guest(
    guests: Guests, vmid: int, log: Callable[[str], None], *, resume: Resume | None = None, paused: bool = False
) -> Running:
    """Take the claim and run the guest. Conflict when it runs already or may run elsewhere; BadInput, Failed."""
    live = await guests.driver.info(vmid)
    if live.status != "stopped":
        raise Conflict(f"VM {vmid} already running", vmid=vmid)
    plan, claim = await _claim(guests, vmid, resume)
    try:
        running = await _launch(guests, plan, claim, log, resume, paused)
    except BaseException as exc:
        # Shielded: a stopped task must not leave a process without a claim, nor a claim without a process.
        await asyncio.shield(_let_go(guests, vmid, claim.epoch, exc))
        raise
    if dict(running.hardware) != dict(plan.hardware):
        await guests.store.txn([], [Put(run_key(vmid), RunRecord(claim.epoch, running.hardware, plan.config).value())])
    await guests.live.refresh(vmid)
    return running


async def _claim(guests: Guests, vmid: int, resume: Resume | None) -> tuple[StartPlan, claims.Claim]:
    for _ in range(ATTEMPTS):
        guest = guests.get(vmid)
        hardware = resume.hardware if resume is not None else guests.run_record(vmid).hardware
        plan = plan_start(guest, hardware, guests.node)
        if isinstance(plan, Problems):
            raise Conflict(str(plan), vmid=vmid)
        old = claims.read(guests.store, vmid)
        record = RunRecord(old.epoch + 1, plan.hardware, plan.config).value()
        ops: list[Op] = [Put(run_key(vmid), record)]
        if plan.applies_pending:
            ops.append(Put(config_key(vmid), guest.changed(config=plan.config, pending={})))
        checks = [Unchanged(config_key(vmid), guest.revision)]
        claim = await claims.take(guests.store, vmid, guests.incarnation, checks, ops, claim=old)
        if claim is not None:
            return plan, claim
    raise Conflict(f"VM {vmid} is being changed by too many others; try again")


async def _launch(
    guests: Guests,
    plan: StartPlan,
    claim: claims.Claim,
    log: Callable[[str], None],
    resume: Resume | None,
    paused: bool,
) -> Running:
    incoming: int | None = None
    # before anything of the guest exists: no packet of it may be first
    await firewall.protect(guests, plan.vmid, plan.config)
    for storage in {d.storage for d in plan.drives if d.volid is not None and d.storage is not None}:
        await guests.storages.usable(storage)
    disks = open_disks(guests, plan.drives)
    try:
        if resume is not None and resume.volid is not None:
            storage, volume = split(resume.volid)
            incoming = guests.storages.driver(storage).open(volume, write=False)
        spec = StartSpec(
            plan.vmid, plan.config.get("name", f"VM{plan.vmid}"), plan.config, disks, claim.epoch,
            guests.incarnation.id, plan.hardware, incoming, paused,
        )  # fmt: skip
    except BaseException:
        close_disks(disks)
        raise
    return await guests.driver.start(spec, log)  # the driver owns the descriptors from here on


async def _let_go(guests: Guests, vmid: int, epoch: int, reason: BaseException) -> None:
    try:
        await guests.driver.stop(vmid)
    except PanalError as exc:
        # No word about the process: the claim stays, so that nobody else runs the guest; a later stop or boot frees it.
        raise Failed(
            f"{reason}; and whether its process has ended is not known: {exc}. Stop the guest again"
        ) from reason
    await claims.release(guests.store, vmid, guests.incarnation, epoch)
    guests.live.put(await guests.driver.info(vmid))


async def start(guests: Guests, vmid: int, user: str) -> str:
    """Start a guest as a task; returns its UPID. NotFound."""
    guests.get(vmid)

    async def body(task: Task) -> None:
        await run_guest(guests, vmid, task.log)

    return await guests.tasks.spawn("qmstart", str(vmid), user, body, queue=queue_of(vmid))
