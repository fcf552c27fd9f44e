"""Named formats of strings on the wire and in the store (`pve-vmid`, `pve-node`, …).

A format is a function that raises ValueError with a sentence. A name ending in `-list` splits at `,`, `;` and blanks and
checks each item. Facts: reference of the Proxmox VE API; names are theirs because clients see them in error texts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

VMID_MIN: Final = 100
VMID_MAX: Final = 999_999_999

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"


def _regex(pattern: str, what: str) -> Callable[[str], None]:
    compiled = re.compile(pattern)

    def check(value: str) -> None:
        # fullmatch, because `$` would let a trailing line break through
        if not compiled.fullmatch(value):
            raise ValueError(f"value does not look like {what}")

    return check


def _vmid(value: str) -> None:
    if not re.fullmatch(r"[1-9]\d{2,8}", value):
        raise ValueError(f"value does not look like a valid VM ID ({VMID_MIN} to {VMID_MAX})")


def _ip(value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("value is not a valid IP address") from None


def _cidr(value: str) -> None:
    if "/" not in value:
        raise ValueError("value is not an address with a prefix length, like 10.0.0.1/24")
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError("value is not a valid CIDR network") from None


def _address(value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        FORMATS["dns-name"](value)


def _mac(value: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", value):
        raise ValueError("value does not look like a valid unicast MAC address")
    if int(value[:2], 16) & 1:
        raise ValueError("value is a multicast MAC address; take a unicast one (even first byte)")


def _userid(value: str) -> None:
    if len(value) > 64 or not re.fullmatch(r"[^\s:/\x00-\x1f\x7f]+@[A-Za-z][A-Za-z0-9.\-_]+", value):
        raise ValueError("value does not look like a valid user name (name@realm, at most 64 characters)")


def _acl_path(value: str) -> None:
    if not re.fullmatch(r"/|(/[A-Za-z0-9.\-_]+)+", value):
        raise ValueError("value does not look like a permission path, like /vms/100")


def _comment(value: str) -> None:
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", value):
        raise ValueError("value must not contain control characters")


FORMATS: Final[dict[str, Callable[[str], None]]] = {
    "pve-vmid": _vmid,
    "pve-node": _regex(_LABEL, "a valid node name"),
    "pve-configid": _regex(r"[a-zA-Z][a-zA-Z0-9_-]+", "a valid configuration ID"),
    "pve-storage-id": _regex(r"[a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]", "a valid storage ID"),
    "pve-poolid": _regex(r"[A-Za-z0-9.\-_]+(/[A-Za-z0-9.\-_]+){0,2}", "a valid pool name"),
    "pve-groupid": _regex(r"[A-Za-z0-9.\-_]{1,64}", "a valid group name"),
    "pve-roleid": _regex(r"[A-Za-z0-9.\-_]{1,64}", "a valid role name"),
    "pve-realm": _regex(r"[A-Za-z][A-Za-z0-9.\-_]{1,31}", "a valid realm name"),
    "pve-userid": _userid,
    "pve-tokenid": _regex(r"[A-Za-z][A-Za-z0-9.\-_]{1,63}", "a valid token name"),
    "pve-priv": _regex(r"[A-Za-z]+(\.[A-Za-z]+){1,3}", "a privilege"),
    "pve-acl-path": _acl_path,
    "pve-iface": _regex(r"[a-zA-Z][a-zA-Z0-9_]{1,20}([:.]\d+)?", "a valid network interface name"),
    "pve-tag": _regex(r"[a-zA-Z0-9_][a-zA-Z0-9_\-+.]{0,63}", "a valid tag"),
    "pve-storage-content": _regex(
        "images|rootdir|vztmpl|iso|backup|snippets|import|none",
        "a content type (images, rootdir, vztmpl, iso, backup, snippets, import, none)",
    ),
    "pve-storage-path": _regex(r"/[^\x00-\x1f\x7f,\"]*", "an absolute path"),
    "pve-dir-override": _regex(r"[a-z]+=.+", "CONTENT=RELATIVE/PATH"),
    "pve-snapshot": _regex(r"[a-zA-Z][a-zA-Z0-9_-]{1,39}", "a valid snapshot name (a letter first, at most 40)"),
    "dns-name": _regex(rf"{_LABEL}(\.{_LABEL})*", "a valid DNS name"),
    "mac-addr": _mac,
    # the first byte is even: a unicast address
    "mac-prefix": _regex(r"[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){0,2}:?", "a MAC address prefix, like BC:24:11"),
    "pve-task-status-type": _regex(r"ok|warning|error|unknown", "one of ok, warning, error, unknown"),
    "ip": _ip,
    "CIDR": _cidr,
    "address": _address,
    "email-opt": _regex(r"|[^\s@,:/\x00-\x1f]+@[^\s@,:/\x00-\x1f]+", "an e-mail address"),
    "comment": _comment,
}


def split_list(value: str) -> list[str]:
    """Split as the API's `-list` formats do: at commas, semicolons and blanks."""
    return [part for part in re.split(r"[\s,;]+", value) if part]


def check(name: str, value: str) -> None:
    """Raise ValueError when `value` is not of format `name`; KeyError for an unknown format (a programmer's error)."""
    if name in FORMATS:
        FORMATS[name](value)
        return
    if name.endswith("-list"):
        item = FORMATS[name.removesuffix("-list")]
        for part in split_list(value):
            item(part)
        return
    raise KeyError(name)


def known(name: str) -> bool:
    """Whether `check` knows the format."""
    return name in FORMATS or (name.endswith("-list") and name.removesuffix("-list") in FORMATS)
