"""Every key of a virtual machine's configuration, by the name it has in a configuration.

Used by `change.py` (validation, rights), `show.py` (types on the wire) and `api/qemu_params.py` (parameters). The tables are in
the files named below; to add a key, add a row to the fitting one.

Invariant: a name that `find` does not know is never stored by a caller's wish: `INTERNAL` keys are written by verbs alone
(attack row 12).
"""

from __future__ import annotations

from typing import Final

from panal.guests.config.cloudinit import CLOUDINIT_KEYS
from panal.guests.config.drives import DRIVE_KEYS
from panal.guests.config.hardware import HARDWARE
from panal.guests.config.key import Key
from panal.guests.config.nics import NIC_KEYS
from panal.guests.config.options import OPTION_KEYS

KEYS: Final[tuple[Key, ...]] = tuple(
    sorted((*HARDWARE, *DRIVE_KEYS, *NIC_KEYS, *CLOUDINIT_KEYS, *OPTION_KEYS), key=lambda k: k.shown)
)

INTERNAL: Final = frozenset(
    {"meta", "parent", "snaptime", "vmstate", "runningmachine", "runningcpu", "running-nets-host-mtu", "digest"}
)
"""keys that snapshots and verbs write; shown, never taken from a caller"""

_BY_NAME: Final = {name: key for key in KEYS for name in key.names()}


def find(name: str) -> Key | None:
    """The key that a name like `net0` or `memory` belongs to; None when there is none."""
    return _BY_NAME.get(name)


def all_names() -> frozenset[str]:
    """Every name that a caller may set."""
    return frozenset(_BY_NAME)
