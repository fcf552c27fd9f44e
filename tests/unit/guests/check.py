"""What must hold after everything: invariants 1, 3, 6 and 7 on one node."""

from __future__ import annotations

from panal.guests import claims
from panal.guests.config import read_drives
from panal.guests.config.drives import volume_owner
from tests.unit.guests.world import Node, World


def referenced(node: Node) -> set[str]:
    """Every file that configurations and snapshots account for."""
    guests = node.guests
    files: set[str] = set()
    for guest in guests.list():
        now = {d.volid for d in read_drives(guest.config, unused=True) if d.volid and volume_owner(d.volid)}
        files |= now
        for snap in guests.snapshots(guest.vmid):
            for drive in read_drives(snap.config):
                if drive.volid and volume_owner(drive.volid):
                    files |= {drive.volid, f"{drive.volid}@{snap.name}"}
            if snap.vmstate:
                files.add(snap.vmstate)
    return files


def assert_tidy(world: World, node: Node) -> None:
    """Files on storage == files of records; no lock, no half record; claims == processes; nothing ran twice."""
    guests = node.guests
    assert world.storages.files() == referenced(node)
    for guest in guests.list():
        assert guest.lock is None, guest
        assert "op" not in guest.raw
        assert all(s.state is None for s in guests.snapshots(guest.vmid))
        parents = {None, *(s.name for s in guests.snapshots(guest.vmid))}
        assert guest.parent in parents
        assert all(s.parent in parents for s in guests.snapshots(guest.vmid))
    known = {g.vmid for g in guests.list()}
    assert {int(item.key.split("/")[1]) for item in guests.store.list("guest/")} == known
    held = {v for v in known if not claims.read(guests.store, v).free}
    assert held == set(world.machine.guests)
    assert not world.machine.double_runs
    assert not guests.locks
    assert not guests.readers
