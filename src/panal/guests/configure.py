"""Change a guest's configuration: checked, authorised and planned in the guest's turn, then written in one step.

    wish → rights → volumes named (disks.py) → plan_change (pure) ─┬─ no volume made or removed: one write by key, retried
                                                                   └─ else: make volumes → write (no way back) → remove volumes

Called by the API, synchronously (`configure`) or as a task (`configure_task`). Invariant: whatever ends the operation (an
error, a stop, a killed daemon), the volumes on storage are exactly those that records name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from panal.cluster.options import mac_prefix
from panal.cluster.store import Json
from panal.core.errors import Conflict, Failed, NotFound
from panal.guests.cipassword import without_password
from panal.guests.config.change import Change, check_digest, check_lock, plan_change, volumes
from panal.guests.config.generate import new_uuid, with_macs
from panal.guests.config.nics import format_nic, nic_index, parse_nic
from panal.guests.config.rights import Need, needs
from panal.guests.config.wish import Wish
from panal.guests.context import Guests, queue_of
from panal.guests.disks import plan_disks
from panal.guests.model import Guest, config_key
from panal.guests.record import diff, fields, state_of, store_step, unnamed
from panal.guests.volumes import Planned, allocate_step, free_step
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "configure"
WAIT_S: Final = 3600.0

Authorize = Callable[[Sequence[Need]], None]
"""raises Forbidden for the first need that the caller does not have"""


@dataclass(frozen=True, slots=True)
class _Plan:
    guest: Guest
    wish: Wish
    change: Change
    made: tuple[Planned, ...]

    @property
    def quick(self) -> bool:
        """No volume is made or removed."""
        return not self.made and not self.change.free


async def configure(guests: Guests, vmid: int, wish: Wish, user: str, authorize: Authorize) -> None:
    """Change it now. BadInput naming the key, Forbidden, Conflict (digest, lock), NotFound, Failed (full disk…).

    A change that makes or removes volumes runs as a task that is waited for, so that its log and its end are kept.
    """
    _check(guests, vmid, wish, authorize)
    wish = await _hidden(guests, wish)
    if not _touches_volumes(guests.get(vmid), wish):
        async with guests.turn(vmid, f"configuration of VM {vmid}"):
            await _run(guests, vmid, wish, authorize, None)
        return
    problem: list[BaseException] = []

    async def body(task: Task) -> None:
        try:
            await _run(guests, vmid, wish, authorize, task)
        except BaseException as exc:
            problem.append(exc)
            raise

    upid = await guests.tasks.spawn("qmconfig", str(vmid), user, body, queue=queue_of(vmid))
    record = await guests.tasks.wait(upid, WAIT_S)
    if problem and isinstance(problem[0], Exception):
        raise problem[0]
    if problem or record.status != "OK":
        raise Failed(f"the configuration was not changed: {record.status}", vmid=vmid)


async def configure_task(guests: Guests, vmid: int, wish: Wish, user: str, authorize: Authorize) -> str:
    """Change it as a task; returns its UPID. What can be seen at once to be wrong is told before."""
    _check(guests, vmid, wish, authorize)
    hidden = await _hidden(guests, wish)

    async def body(task: Task) -> None:
        await _run(guests, vmid, hidden, authorize, task)

    return await guests.tasks.spawn("qmconfig", str(vmid), user, body, queue=queue_of(vmid))


def build_configure(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps of a change that makes or removes volumes."""
    vmid, birth = int(args["vmid"]), str(args["birth"])
    return [
        *(allocate_step(guests, vmid, Planned(**v)) for v in args["volumes"]),
        store_step(guests, vmid, birth, args["diff"]),
        *(free_step(guests, volid, unnamed(guests, vmid, birth, volid)) for volid in args["free"]),
    ]


def _check(guests: Guests, vmid: int, wish: Wish, authorize: Authorize) -> None:
    guest = guests.get(vmid)
    authorize(needs(vmid, guest.config, guest.pending, wish))
    check_digest(wish.digest, guest.config, guest.pending)
    check_lock(guest.lock, skiplock=wish.skiplock)


async def _hidden(guests: Guests, wish: Wish) -> Wish:
    return replace(wish, set=await without_password(wish.set, guests.rng.randbytes))


def _touches_volumes(guest: Guest, wish: Wish) -> bool:
    # a guess that may err towards yes: then a task runs which makes and removes nothing
    return any(
        ":" in text for key, text in wish.set.items() if key[-1:].isdigit() and not key.startswith("net")
    ) or any(key.startswith("unused") or (wish.force and key in guest.config) for key in wish.delete)


async def _run(guests: Guests, vmid: int, wish: Wish, authorize: Authorize, task: Task | None) -> None:
    plan = await _plan(guests, vmid, wish, authorize)
    if plan.quick:
        await _write(guests, vmid, plan.wish)
        return
    if task is None:
        raise Conflict(f"VM {vmid} was changed by somebody else in between; try again", vmid=vmid)
    for volume in plan.made:
        task.log(f"{volume.key}: making {volume.volid} ({volume.fmt}, {volume.size // 1024} KiB)")
    for volid in plan.change.free:
        task.log(f"removing {volid}")
    await guests.tasks.operate(task, KIND, {
        "vmid": vmid, "birth": plan.guest.birth, "volumes": [v.json() for v in plan.made],
        "diff": diff(plan.guest, plan.change), "free": list(plan.change.free),
    })  # fmt: skip


async def _plan(guests: Guests, vmid: int, wish: Wish, authorize: Authorize) -> _Plan:
    guest = guests.get(vmid)
    authorize(needs(vmid, guest.config, guest.pending, wish))
    # before anything is looked up on storages
    check_digest(wish.digest, guest.config, guest.pending)
    check_lock(guest.lock, skiplock=wish.skiplock)
    texts, made = await plan_disks(guests, vmid, wish.set, volumes(guest.config, guest.pending))
    named = replace(wish, set=_generated(guests, guest, texts))
    change = plan_change(state_of(guests, guest), named)
    if change.free and guests.readers[vmid]:
        raise Conflict(f"VM {vmid} is being cloned; remove its volumes when that has ended", vmid=vmid)
    return _Plan(guest, named, change, tuple(made))


async def _write(guests: Guests, vmid: int, wish: Wish) -> None:
    def change(old: Json | None) -> Json | None:
        if old is None:
            raise NotFound(f"VM {vmid} was removed meanwhile", vmid=vmid)
        # not the record the plan was made from, but the newest one: other people's keys stay
        newest = replace(
            guests.get(vmid), config=old.get("config", {}), pending=old.get("pending", {}), lock=old.get("lock")
        )
        planned = plan_change(state_of(guests, newest), wish)
        if planned.free:
            raise Conflict(f"VM {vmid} was changed by somebody else in between; try again", vmid=vmid)
        new = {k: v for k, v in {**old, **fields(planned)}.items() if v is not None}
        return None if new == old else new

    await guests.store.update(config_key(vmid), change)


def _generated(guests: Guests, guest: Guest, texts: dict[str, str]) -> dict[str, str]:
    out = dict(texts)
    for key, text in texts.items():
        if nic_index(key) is None or parse_nic(key, text).mac is not None:
            continue
        before = guest.pending.get(key) or guest.config.get(key)
        # a card that had an address keeps it: another one would be a new card to the guest
        mac = parse_nic(key, before).mac if before is not None else None
        out[key] = format_nic(replace(parse_nic(key, text), mac=mac))
    if out.get("vmgenid") == "1":
        out["vmgenid"] = new_uuid(guests.rng.randbytes)
    return with_macs(out, guests.rng.randbytes, mac_prefix(guests.store))
