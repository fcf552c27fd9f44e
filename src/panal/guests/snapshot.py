"""Take a snapshot of a guest: configuration, disks at one instant, and its RAM if asked.

    record (prepare) → state volume → pause → RAM → disks → resume → record whole, guest descends from it

The RAM is saved while the guest is paused, then the disks, so both are of the same moment. Undo works also after a restart of
the daemon: whether the guest runs is asked, not remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from panal.cluster.store import Absent, Delete, Json, Put
from panal.core import formats
from panal.core.errors import BadInput, Conflict, PanalError
from panal.guests.config import Drive, read_drives
from panal.guests.config.drives import drive_bus, volume_owner
from panal.guests.config.read import memory_mib
from panal.guests.context import Guests, queue_of
from panal.guests.making import image_driver
from panal.guests.model import Guest, Snapshot, config_key, snapshot_key
from panal.guests.volumes import Namer, Planned, allocate_step, split
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "snapshot"
MAX_SNAPSHOTS: Final = 200
RESERVED: Final = frozenset({"current", "pending"})
_MIB: Final = 1024 * 1024
_STATE_EXTRA_MIB: Final = 512


def snapshot_drives(config: dict[str, str] | Guest, vmid: int) -> list[Drive]:
    """The drives that a snapshot covers: the guest's own disks."""
    source = config.config if isinstance(config, Guest) else config
    return [d for d in read_drives(source) if d.volid and not d.cdrom and volume_owner(d.volid) == vmid]


def unable(guests: Guests, drives: Sequence[Drive]) -> list[str]:
    """Sentences about the disks that cannot be snapshotted."""
    found = []
    for drive in drives:
        storage, name = split(drive.volid or "")
        driver = guests.storages.driver(storage)
        fmt = driver.source(name).format
        if fmt not in driver.capabilities.snapshot_formats:
            can = ", ".join(sorted(driver.capabilities.snapshot_formats)) or "none"
            found.append(f"{drive.key} ({drive.volid}) is {fmt}; formats that can on this storage: {can}")
    return found


async def plan_snapshot(
    guests: Guests, vmid: int, name: str, description: str | None = None, *, vmstate: bool = False
) -> Args:
    """What it will do, as JSON. BadInput on `snapname`, Conflict."""
    guest = guests.get(vmid)
    try:
        formats.check("pve-snapshot", name)
    except ValueError as exc:
        raise BadInput("snapname", str(exc)) from None
    if name in RESERVED:
        raise BadInput("snapname", f"'{name}' cannot be the name of a snapshot")
    present = guests.snapshots(vmid)
    if any(s.name == name for s in present):
        raise Conflict(f"snapshot name '{name}' already used", vmid=vmid)
    if len(present) >= MAX_SNAPSHOTS:
        raise Conflict(f"VM {vmid} has {MAX_SNAPSHOTS} snapshots already; delete some first")
    if guest.template:
        raise Conflict("snapshots of a template are not possible; clone it", vmid=vmid)
    if guest.lock is not None:
        raise Conflict(f"VM is locked ({guest.lock}): wait for the task that does this; if it failed, run it again")
    drives = snapshot_drives(guest, vmid)
    problems = unable(guests, drives)
    if problems:
        raise Conflict("snapshot feature is not available: " + "; ".join(problems), vmid=vmid)
    await _require_unused(guests, drives, name)
    live = await guests.driver.info(vmid)
    state = await _plan_state(guests, guest, name, drives) if vmstate and live.status != "stopped" else None
    return {
        "vmid": vmid, "name": name, "birth": guests.word(), "running": live.status != "stopped",
        "resume": live.status == "running", "state": None if state is None else state.json(),
        "disks": {d.key: d.volid for d in drives}, "record": _record(guests, guest, description, state, live.machine),
    }  # fmt: skip


async def _require_unused(guests: Guests, drives: Sequence[Drive], name: str) -> None:
    """No image has a snapshot of this name that came with it: undoing ours would remove it. Conflict."""
    for drive in drives:
        storage, volume = split(drive.volid or "")
        if name in await (await guests.storages.usable(storage)).snapshots(volume):
            raise Conflict(f"{drive.volid} of {drive.key} has a snapshot '{name}' inside already; choose another name")


def _record(guests: Guests, guest: Guest, description: str | None, state: Planned | None, machine: str | None) -> Json:
    # what is unused has no snapshot of its own: it stays with the guest, whatever it is rolled back to
    config = {k: v for k, v in guest.config.items() if drive_bus(k) != "unused"}
    record: Json = {
        "v": 1, "config": config, "snaptime": int(guests.clock.wall_s()), "state": "prepare",
        "description": description, "parent": guest.parent,
    }  # fmt: skip
    if state is not None:
        record["vmstate"] = state.volid
        record["hardware"] = dict(guests.run_record(guest.vmid).hardware)
        record["runningmachine"] = machine
    return {k: v for k, v in record.items() if v is not None}


async def _plan_state(guests: Guests, guest: Guest, name: str, drives: Sequence[Drive]) -> Planned:
    storage = guest.config.get("vmstatestorage") or next((d.storage for d in drives if d.storage), None)
    storage = storage or next(iter(guests.storages.image_storages()), None)
    if storage is None:
        raise BadInput("vmstate", "there is no storage for the RAM; set 'vmstatestorage' to one that holds images")
    driver = image_driver(guests, storage, "vmstate")
    volume = await Namer(guests, guest.vmid).fixed(storage, "raw", f"vm-{guest.vmid}-state-{name}")
    if volume is None:
        raise Conflict(f"storage '{storage}' has a state volume of a snapshot '{name}' already; remove it first")
    memory = memory_mib(guest.config)
    return Planned("vmstate", driver.id, volume, "raw", (memory + memory // 2 + _STATE_EXTRA_MIB) * _MIB)


def build_snapshot(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, name, birth = int(args["vmid"]), str(args["name"]), str(args["birth"])
    key = snapshot_key(vmid, name)
    state = None if args["state"] is None else Planned(**args["state"])

    def ours() -> Snapshot | None:
        item = guests.store.get(key)
        found = None if item is None else Snapshot.of(vmid, item)
        return found if found is not None and found.birth == birth else None

    async def write() -> None:
        result = await guests.store.txn([Absent(key)], [Put(key, {**args["record"], "birth": birth})])
        if not result.ok and ours() is None:
            raise Conflict(f"snapshot name '{name}' already used", vmid=vmid)

    async def unwrite() -> None:
        if ours() is not None:
            await guests.store.txn([], [Delete(key)])

    async def pause() -> None:
        if args["resume"]:
            await guests.driver.pause(vmid)

    async def resume() -> None:
        # not ours: it was paused by somebody after this snapshot had failed
        if args["resume"] and ours() is not None and (await guests.driver.info(vmid)).status == "paused":
            await guests.driver.resume(vmid)

    async def commit() -> None:
        def whole(old: Json | None) -> Json | None:
            return None if old is None else {k: v for k, v in old.items() if k != "state"}

        await guests.store.update(key, whole)
        await guests.store.update(config_key(vmid), lambda old: None if old is None else {**old, "parent": name})

    async def uncommit() -> None:
        parent = args["record"].get("parent")

        def back(old: Json | None) -> Json | None:
            if old is None or old.get("parent") != name:
                return None
            rest = {k: v for k, v in old.items() if k != "parent"}
            return {**rest, "parent": parent} if parent else rest

        if ours() is not None:
            await guests.store.update(config_key(vmid), back)

    steps = [Step("write the snapshot down", write, unwrite)]
    if state is not None:
        steps.append(allocate_step(guests, vmid, state, birth=birth))
    steps.append(Step("pause the guest", pause, resume))
    if state is not None:
        steps.append(Step("save the RAM", lambda: _save_ram(guests, vmid, state)))
    foreign = lambda: guests.store.get(key) is not None and ours() is None  # noqa: E731
    disks = _DiskSnapshots(guests, vmid, name, args["disks"], bool(args["running"]), foreign)
    return [
        *steps,
        Step("snapshot the disks", disks.do, disks.undo),
        Step("resume the guest", resume),
        Step("finish the snapshot", commit, uncommit),
    ]


async def _save_ram(guests: Guests, vmid: int, state: Planned) -> None:
    import os

    fd = guests.storages.driver(state.storage).open(state.name, write=True)
    try:
        await guests.driver.save_ram(vmid, fd, lambda done, total: None)
    finally:
        os.close(fd)


class _DiskSnapshots:
    """All disks or none; remembers which of them had a snapshot of this name that is not ours.

    `foreign()`: the name is another snapshot's by now.
    """

    def __init__(
        self, guests: Guests, vmid: int, name: str, disks: dict[str, str], running: bool, foreign: Callable[[], bool]
    ) -> None:
        self._guests = guests
        self._vmid = vmid
        self._name = name
        self._disks = disks
        self._running = running
        self._other = foreign
        self._foreign: set[str] = set()

    async def do(self) -> None:
        if not self._disks:
            return
        if self._running:
            try:
                await self._guests.driver.snapshot_disks(self._vmid, list(self._disks), self._name)
            except PanalError:
                self._foreign = set(self._disks)  # all or none: the driver left none of ours
                raise
            return
        for key, volid in self._disks.items():
            storage, volume = split(volid)
            try:
                await (await self._guests.storages.usable(storage)).snapshot(volume, self._name)
            except Conflict:
                self._foreign.add(key)
                raise

    async def undo(self) -> None:
        if self._other():
            return
        for key, volid in self._disks.items():
            if key not in self._foreign:
                await delete_disk_snapshot(self._guests, self._vmid, volid, self._name)


async def delete_disk_snapshot(guests: Guests, vmid: int, volid: str, name: str) -> None:
    """Remove a disk's snapshot through whoever has the disk open."""
    if (await guests.driver.info(vmid)).status != "stopped":
        running = guests.run_record(vmid).config
        key = next((d.key for d in read_drives(running) if d.volid == volid), None)
        if key is not None:
            await guests.driver.delete_disk_snapshot(vmid, key, name)
            return
    storage, volume = split(volid)
    await (await guests.storages.usable(storage)).delete_snapshot(volume, name)


async def snapshot(
    guests: Guests, vmid: int, name: str, user: str, *, description: str | None = None, vmstate: bool = False
) -> str:
    """Take a snapshot as a task; returns its UPID. What is wrong is told before the task begins."""
    await plan_snapshot(guests, vmid, name, description, vmstate=vmstate)

    async def body(task: Task) -> None:
        with guests.locked(vmid, "snapshot"):
            plan = await plan_snapshot(guests, vmid, name, description, vmstate=vmstate)
            await guests.tasks.operate(task, KIND, plan)
            await guests.live.refresh(vmid)

    return await guests.tasks.spawn("qmsnapshot", str(vmid), user, body, queue=queue_of(vmid))


async def describe(guests: Guests, vmid: int, name: str, description: str | None) -> None:
    """Change the note of a snapshot. NotFound."""
    guests.get(vmid)

    def change(old: Json | None) -> Json | None:
        if old is None:
            guests.snapshot(vmid, name)  # raises
            return None
        return {**old, "description": description or ""}

    await guests.store.update(snapshot_key(vmid, name), change)
