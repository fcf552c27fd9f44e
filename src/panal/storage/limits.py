"""How fast disks may be copied: what the caller asks for and what is configured (`bwlimit`). Called by the API's handlers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from panal.cluster import options
from panal.core.errors import NotFound
from panal.storage.config import BWLIMIT
from panal.storage.storages import Storages

KIB: Final = 1024
Kind = Literal["clone", "move", "restore", "migration"]


def copy_limit_bytes_s(
    storages: Storages, ids: Iterable[str], kind: Kind, asked_kib_s: int | None, *, override: bool
) -> int:
    """Bytes a second between these storages; 0 is no limit. Storages that are not there are for others to complain about.

    Configured is the storage's own `bwlimit`, else that of the whole installation, in each the value for `kind`, else its
    `default`; of several storages the slowest counts. What is asked for only makes it slower, unless the caller may
    `override`.
    """
    if asked_kib_s is not None and override:
        return asked_kib_s * KIB
    limits = [float(asked_kib_s or 0), *(_configured(storages, storage, kind) for storage in ids)]
    return int(min((limit for limit in limits if limit > 0), default=0) * KIB)


def _configured(storages: Storages, storage: str, kind: Kind) -> float:
    try:
        text = storages.config(storage).options.get("bwlimit")
    except NotFound:
        return 0.0
    own: Mapping[str, Any] = {} if text is None else BWLIMIT.parse(str(text))
    for values in (own, options.parsed(storages.store, "bwlimit")):
        for name in (kind, "default"):
            if name in values:
                return float(values[name])
    return 0.0
