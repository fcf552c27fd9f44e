"""Create a guest: plan (pure but for looking at storages), then number → volumes → unlock; start it if asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from panal.cluster.options import mac_prefix
from panal.core.errors import BadInput, Conflict, PanalError
from panal.guests.cipassword import without_password
from panal.guests.config.change import State, plan_change
from panal.guests.config.generate import identity, with_boot, with_macs
from panal.guests.config.wish import Wish
from panal.guests.context import Guests, queue_of
from panal.guests.disks import plan_disks
from panal.guests.making import reserve_step, unlock_step
from panal.guests.start import run_guest
from panal.guests.volumes import Planned, allocate_step
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "create"


def finished_config(guests: Guests, config: Mapping[str, str]) -> dict[str, str]:
    """With what is made once: addresses of network cards, the machine's UUID, a boot order."""
    out = identity(with_macs(with_boot(config), guests.rng.randbytes, mac_prefix(guests.store)), guests.rng.randbytes)
    return {**out, "meta": f"ctime={int(guests.clock.wall_s())}"}


async def plan_create(guests: Guests, vmid: int, config: Mapping[str, str]) -> Args:
    """What create will do, as JSON. BadInput naming the key, Conflict when the number is taken."""
    if guests.catalog.get(vmid) is not None:
        raise Conflict(f"unable to create VM {vmid} - VM {vmid} already exists on node '{guests.node}'", vmid=vmid)
    if config.get("template") == "1":
        raise BadInput("template", "a new VM cannot be a template at once: create it, then convert it")
    placed, volumes = await plan_disks(guests, vmid, finished_config(guests, config))
    plan_change(
        State(vmid, {}, {}), Wish(set={k: v for k, v in placed.items() if k != "meta"})
    )  # what only the whole tells
    return {"vmid": vmid, "config": placed, "birth": guests.word(), "volumes": [v.json() for v in volumes]}


def build_create(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, birth = int(args["vmid"]), str(args["birth"])
    volumes = [Planned(**v) for v in args["volumes"]]
    return [
        reserve_step(guests, vmid, args["config"], birth, "create"),
        *(allocate_step(guests, vmid, v, birth=birth) for v in volumes),
        unlock_step(guests, vmid, birth),
    ]


async def create(
    guests: Guests, vmid: int, config: Mapping[str, str], user: str, *, pool: str | None = None, start: bool = False
) -> str:
    """Create as a task; returns its UPID. `config` is canonical (guests/config); what is wrong is told before the task."""
    config = await without_password(config, guests.rng.randbytes)
    await plan_create(guests, vmid, config)

    async def body(task: Task) -> None:
        # planned again in the guest's turn: names chosen before may be taken by now
        await guests.tasks.operate(task, KIND, await plan_create(guests, vmid, config))
        task.log(f"VM {vmid} is created")  # who left the number out reads it here
        await join_pool(guests, vmid, pool, user)
        if start:
            try:
                await run_guest(guests, vmid, task.log)
            except PanalError as exc:  # the guest exists and is whole: that is what was asked first
                task.warn(f"VM {vmid} was created but not started: {exc}")

    return await guests.tasks.spawn("qmcreate", str(vmid), user, body, queue=queue_of(vmid))


async def join_pool(guests: Guests, vmid: int, pool: str | None, user: str) -> None:
    """Put a new guest into its pool."""
    if pool:
        for told in guests.on_created:
            await told(vmid, pool, user)
