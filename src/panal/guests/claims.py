"""Right to run: who may run a guest (design, section 6.3). Pure decisions, and the txns that make them true.

    free ──take──▶ held by (incarnation, epoch+1) ──release, after the process is reaped──▶ free
                        │                                     ▲
                        └──the same node's next incarnation, at its boot, once nothing runs──┘

Called by start.py, stop.py, boot.py. Invariant: a guest's process is begun only while the store says that this incarnation
holds this epoch; the claim is let go only when no process is left. Hence never two runners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from panal.cluster.incarnation import Incarnation
from panal.cluster.store import Absent, Check, Json, Mirror, Op, Put, Unchanged
from panal.core.errors import Conflict
from panal.guests.model import claim_key


@dataclass(frozen=True, slots=True)
class Claim:
    """The record. `incarnation` None: free. `revision` None: there is no record yet."""

    node: str | None = None
    incarnation: str | None = None
    epoch: int = 0
    revision: int | None = None

    @property
    def free(self) -> bool:
        """Nobody may run it."""
        return self.incarnation is None

    def value(self) -> Json:
        """As stored."""
        return {"v": 1, "node": self.node, "incarnation": self.incarnation, "epoch": self.epoch}

    def check(self, vmid: int) -> Check:
        """Holds while nobody changed it."""
        key = claim_key(vmid)
        return Absent(key) if self.revision is None else Unchanged(key, self.revision)

    def held_by(self, me: Incarnation, epoch: int | None = None) -> bool:
        """Whether this incarnation holds it (at exactly this epoch)."""
        return self.incarnation == me.id and (epoch is None or self.epoch == epoch)


def read(store: Mirror, vmid: int) -> Claim:
    """The claim as the mirror shows it."""
    item = store.get(claim_key(vmid))
    if item is None:
        return Claim()
    v = item.value
    return Claim(v.get("node"), v.get("incarnation"), int(v.get("epoch", 0)), item.revision)


def decide_take(claim: Claim, me: Incarnation) -> Claim | None:
    """What to write to hold it, or None when somebody else does."""
    if claim.free or claim.incarnation == me.id:
        return Claim(me.node, me.id, claim.epoch + 1)
    return None


def decide_takeover(claim: Claim, me: Incarnation) -> Claim | None:
    """What to write at boot for a claim of this node's earlier boot, when nothing of it runs; None: not ours to touch."""
    if claim.free or claim.node != me.node or claim.incarnation == me.id:
        return None
    return Claim(None, None, claim.epoch)


def decide_release(claim: Claim, me: Incarnation, epoch: int) -> Claim | None:
    """What to write when the process of `epoch` is reaped; None: already let go, or a later run's."""
    return Claim(None, None, claim.epoch) if claim.held_by(me, epoch) else None


async def take(
    store: Mirror, vmid: int, me: Incarnation, checks: Sequence[Check] = (), ops: Sequence[Op] = (),
    *, claim: Claim | None = None,
) -> Claim | None:  # fmt: skip
    """Commit the claim together with `ops` (run record, configuration).

    None when the claim or one of `checks` changed in between: read again. Conflict when somebody else holds it.
    """
    old = read(store, vmid) if claim is None else claim
    new = decide_take(old, me)
    if new is None:
        raise Conflict(
            f"VM {vmid} may be running on node '{old.node}': it can be started here only after that node released it",
            node=old.node,
        )
    result = await store.txn([old.check(vmid), *checks], [Put(claim_key(vmid), new.value()), *ops])
    return Claim(new.node, new.incarnation, new.epoch, result.revision) if result.ok else None


async def release(store: Mirror, vmid: int, me: Incarnation, epoch: int) -> bool:
    """Let it go; only after the process was reaped. False when it was not ours (any more)."""
    while True:
        old = read(store, vmid)
        new = decide_release(old, me, epoch)
        if new is None:
            return False
        if (await store.txn([old.check(vmid)], [Put(claim_key(vmid), new.value())])).ok:
            return True
