"""Cloud-init keys: stored and shown, used when cloud-init drives exist (a later issue). Joined in `keys.py`; pure data."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import unquote

from panal.core.props import PropertyError, Schema
from panal.guests.config.drives import split_volid
from panal.guests.config.key import CLOUDINIT, NETWORK, Key

CICUSTOM_SCHEMA: Final = Schema.of("meta:string network:string user:string vendor:string")
IPCONFIG_SCHEMA: Final = Schema.of("ip:string ip6:string gw:string gw6:string")


def _cicustom(text: str) -> None:
    for name, value in CICUSTOM_SCHEMA.parse(text).items():
        try:
            split_volid(str(value))
        except ValueError as exc:
            raise PropertyError(str(exc), name) from None


def _ipconfig(text: str) -> None:
    values = {name: str(value) for name, value in IPCONFIG_SCHEMA.parse(text).items()}
    for ip, gw, version, words in (("ip", "gw", 4, ("dhcp",)), ("ip6", "gw6", 6, ("dhcp", "auto"))):
        try:
            fixed = values.get(ip) if values.get(ip) not in words else None
            if fixed is not None and ("/" not in fixed or ipaddress.ip_interface(fixed).version != version):
                raise ValueError
            if gw in values and ipaddress.ip_address(values[gw]).version != version:
                raise ValueError
        except ValueError:
            raise PropertyError(f"is not an IPv{version} address (with prefix length for {ip})", ip) from None
        if gw in values and fixed is None:
            raise PropertyError(f"a gateway needs a fixed address in {ip}", gw)


def _sshkeys(text: str) -> None:
    clear = unquote(text, errors="strict") if "%" in text else text
    if any(ord(c) < 32 and c not in "\r\n\t" for c in clear):
        raise ValueError("value must not contain control characters, also not URL-encoded ones")


CLOUDINIT_KEYS: Final = (
    Key("cicustom", "string", "Files that replace the generated ones, as volumes of snippets.", (CLOUDINIT, NETWORK),
        schema=CICUSTOM_SCHEMA, check=_cicustom, status="stored"),
    Key("cipassword", "string", "Password of the first user. Never shown back.", (CLOUDINIT, NETWORK), max_length=1024,
        status="stored", secret=True),
    Key("citype", "string", "Kind of configuration drive.", (CLOUDINIT, NETWORK), status="stored",
        enum=("configdrive2", "nocloud", "opennebula")),
    Key("ciupgrade", "boolean", "Upgrade packages at the first start.", (CLOUDINIT, NETWORK), default=True, status="stored"),
    Key("ciuser", "string", "Name of the first user.", (CLOUDINIT, NETWORK), max_length=64, status="stored",
        pattern=r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?"),
    Key("ipconfig", "string", "Addresses of the network card with the same number.", (CLOUDINIT, NETWORK), count=32,
        schema=IPCONFIG_SCHEMA, check=_ipconfig, status="stored"),
    Key("nameserver", "string", "Addresses of name servers.", (CLOUDINIT, NETWORK), format="address-list", status="stored"),
    Key("searchdomain", "string", "Search domains of the resolver.", (CLOUDINIT, NETWORK), status="stored", max_length=1024,
        pattern=r"[A-Za-z0-9._-]+([ ,;]+[A-Za-z0-9._-]+)*"),
    Key("sshkeys", "string", "Public keys of the first user, URL-encoded, one a line.", (CLOUDINIT, NETWORK), check=_sshkeys,
        max_length=131072, status="stored"),
)  # fmt: skip
