"""Options of the whole installation (PVE's datacenter.cfg): one record under the key `options`.

Written by `api/cluster_options.py`, read wherever one of them matters. Values are kept as they were sent (strings, numbers);
those that are property strings are checked against `SCHEMAS` before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from panal.cluster.store import Json, Mirror
from panal.core.errors import BadInput
from panal.core.props import PropertyError, Schema

KEY: Final = "options"
VMID_RANGE: Final = (100, 1_000_000)
DEFAULT_MAC_PREFIX: Final = "BC:24:11"
SCHEMAS: Final[Mapping[str, Schema]] = {
    "bwlimit": Schema.of(
        "clone:number[0..] default:number[0..] migration:number[0..] move:number[0..] restore:number[0..]"
    ),
    "crs": Schema.of(
        "ha:string=basic|static|dynamic ha-auto-rebalance:boolean ha-auto-rebalance-hold-duration:number "
        "ha-auto-rebalance-margin:number ha-auto-rebalance-method:string=bruteforce|topsis "
        "ha-auto-rebalance-threshold:number ha-rebalance-on-start:boolean"
    ),
    "ha": Schema.of("shutdown_policy:string*=freeze|failover|conditional|migrate"),
    "location": Schema.of("latitude:number[-90..90]* longitude:number[-180..180]* name:string"),
    "migration": Schema.of("type:string^*=secure|insecure network:string"),
    "next-id": Schema.of("lower:integer[100..999999999] upper:integer[100..1000000000]"),
    "notify": Schema.of(
        "fencing:string=always|never package-updates:string=auto|always|never replication:string=always|never "
        "target-fencing:string target-package-updates:string target-replication:string"
    ),
    "replication": Schema.of("type:string^*=secure|insecure network:string"),
    "tag-style": Schema.of(
        "case-sensitive:boolean color-map:string ordering:string=config|alphabetical shape:string=full|circle|dense|none"
    ),
    "u2f": Schema.of("appid:string origin:string"),
    "user-tag-access": Schema.of("user-allow:string=none|list|existing|free user-allow-list:string"),
    "webauthn": Schema.of("allow-subdomains:boolean id:string origin:string rp:string"),
}


def stored(store: Mirror) -> dict[str, Any]:
    """Name → value as it was set; {} when nothing was."""
    value = store.value(KEY)
    return dict(value["options"]) if value else {}


def parsed(store: Mirror, name: str) -> dict[str, Any]:
    """The parts of a property string; {} when it is not set."""
    value = stored(store).get(name)
    return dict(SCHEMAS[name].parse(str(value))) if value else {}


def vmid_range(store: Mirror) -> tuple[int, int]:
    """Where free guest numbers are looked for: from the first up to, without, the second."""
    found = parsed(store, "next-id")
    return int(found.get("lower", VMID_RANGE[0])), int(found.get("upper", VMID_RANGE[1]))


def mac_prefix(store: Mirror) -> str:
    """Begin of the network addresses that are made here."""
    return str(stored(store).get("mac_prefix", DEFAULT_MAC_PREFIX))


def check(name: str, value: str | int | bool) -> None:
    """BadInput when a property string is wrong, or its parts do not fit together."""
    if name not in SCHEMAS:
        return
    try:
        found = SCHEMAS[name].parse(str(value))
    except PropertyError as exc:
        raise BadInput(name, f"invalid format - {exc}") from None
    lower, upper = (int(found.get(key, default)) for key, default in zip(("lower", "upper"), VMID_RANGE, strict=True))
    if name == "next-id" and lower >= upper:
        raise BadInput(name, f"invalid format - lower ({lower}) must be below upper ({upper})")


async def change(store: Mirror, new: Mapping[str, str | int | bool], delete: Iterable[str]) -> None:
    """Set some, remove others, keep the rest. BadInput names the option that is wrong."""
    for name, value in new.items():
        check(name, value)
    removed = set(delete)
    both = removed & set(new)
    if both:
        raise BadInput("delete", f"'{min(both)}' cannot be set and deleted at once")

    def apply(old: Json | None) -> Json | None:
        before = old["options"] if old else {}
        after = {k: v for k, v in before.items() if k not in removed} | dict(new)
        return None if after == before else {"v": 1, "options": after}

    await store.update(KEY, apply)
