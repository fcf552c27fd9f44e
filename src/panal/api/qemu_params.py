"""Parameters of the calls that set a virtual machine's configuration, made from `guests/config/keys.py`.

Used by create (`api/qemu*.py`) and `api/qemu_config.py`. Names, types, enumerations and bounds are those of the Proxmox VE API;
whatever else a value must fulfil, `guests/config` checks again for every route (`read_wish`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from panal.api.params import DIGEST
from panal.api.table import Param
from panal.guests.config.key import Key
from panal.guests.config.keys import KEYS


def key_param(key: Key) -> Param:
    """The parameter of one key."""
    return Param(
        key.name, key.type, key.text, default=key.default, minimum=key.minimum, maximum=key.maximum, max_length=key.max_length,
        format=key.schema if key.schema is not None else key.format, pattern=key.pattern, enum=key.enum, count=key.count,
        secret=key.secret,
    )  # fmt: skip


CONFIG_PARAMS: Final[tuple[Param, ...]] = tuple(key_param(key) for key in KEYS)
"""one for every key"""

CHANGE_PARAMS: Final = (
    Param("delete", "string", "Keys to remove, divided by commas.", format="pve-configid-list"),
    Param("revert", "string", "Keys whose pending change is forgotten.", format="pve-configid-list"),
    Param(
        "force",
        "boolean",
        "Remove the volumes of deleted drives too, instead of keeping them unused.",
        requires="delete",
    ),
)
"""what configure takes beside the keys (and CONFIG_DIGEST, SKIPLOCK)"""

CONFIG_DIGEST: Final = replace(DIGEST, max_length=40)

IMPORT_STORAGE: Final = Param(
    "import-working-storage", "string", "Storage for what importing a disk unpacks (imports come later).",
    format="pve-storage-id",
)  # fmt: skip

DRIVE_NAMES: Final = tuple(
    name
    for kind in ("ide", "scsi", "virtio", "sata", "efidisk0", "tpmstate0")
    for key in KEYS if key.name == kind
    for name in key.names()
)  # fmt: skip
"""drives in use, in the order of the API's enumeration"""

UNUSED_NAMES: Final = tuple(f"unused{n}" for n in range(256))
