"""Who this node is, this time: node + boot id (design, section 6).

Called once by `daemon/` before anything else uses the store. Invariant: two boots never have the same incarnation, two runs
of the daemon within one boot always have (guests survive the daemon, so their claims must too).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from panal.cluster.store import Json, Mirror
from panal.core.errors import Failed

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
OVERRIDE: Final = "incarnation"
"""name of the file in the run directory that stands for the boot id in the lab, where many nodes share one kernel"""


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One boot of one node. `fresh`: what is wanted at boot was not started yet in this one (`mark_started`)."""

    node: str
    boot: str
    fresh: bool = True

    @property
    def id(self) -> str:
        """`node:boot id`: what claims name."""
        return f"{self.node}:{self.boot}"


def read_boot_id(run: Path, source: Path = BOOT_ID) -> str:
    """The boot id, or the lab's. Failed when there is neither."""
    override = run / OVERRIDE
    try:
        text = (override if override.exists() else source).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise Failed(f"the boot id cannot be read ({exc}); without it no guest may be started here") from exc
    if not text or not text.replace("-", "").isalnum():
        raise Failed(f"malformed boot id {text!r}")
    return text


async def register(store: Mirror, node: str, boot: str) -> Incarnation:
    """Write `incarnation/<node>`; tells whether its guests still wait to be started."""
    fresh = True

    def change(old: Json | None) -> Json | None:
        nonlocal fresh
        known = old is not None and old.get("boot") == boot
        fresh = old is None or not known or not old.get("started")
        return None if known else {"v": 1, "node": node, "boot": boot}

    await store.update(f"incarnation/{node}", change)
    return Incarnation(node, boot, fresh)


async def mark_started(store: Mirror, me: Incarnation) -> None:
    """Everything that is wanted at boot was started: a mere restart of the daemon does not do it again."""

    def change(old: Json | None) -> Json | None:
        return {**old, "started": True} if old is not None and old.get("boot") == me.boot else None

    await store.update(f"incarnation/{me.node}", change)
