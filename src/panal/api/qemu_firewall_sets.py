"""Aliases and sets of addresses of a virtual machine's firewall, and the list of names that rules can use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from panal.api.call import Call
from panal.api.params import DIGEST
from panal.api.qemu_firewall import AUDIT, CHANGE, GUEST, NOTE, PATH
from panal.api.table import Param, Routes
from panal.firewall import edit
from panal.firewall.model import GuestFirewall, digest
from panal.firewall.spec import NAME
from panal.guests import Guests, firewall

routes = Routes("firewall")

_NAME: Final = Param("name", "string", "Its name.", required=True, min_length=2, max_length=64, pattern=NAME)
_RENAME: Final = Param(
    "rename", "string", "Another name for it; rules follow.", min_length=2, max_length=64, pattern=NAME
)
_CIDR: Final = Param("cidr", "string", "An IPv4 or IPv6 address or network.", required=True, max_length=128)
_ENTRY: Final = replace(_CIDR, description="An IPv4 or IPv6 address or network, or an alias.")
_NOMATCH: Final = Param("nomatch", "boolean", "Take these addresses out of the set again.")


@routes.get(PATH + "/aliases", "Aliases: names for addresses and networks.", permission=AUDIT, forward="node", params=GUEST,
            returns="[{cidr:string comment?:string digest:string name:string}]")  # fmt: skip
async def get_aliases(call: Call) -> list[dict[str, Any]]:
    return _with_digest(edit.alias_rows(_read(call)))


@routes.post(PATH + "/aliases", "Make an alias.", permission=CHANGE, forward="node", params=[*GUEST, _NAME, _CIDR, NOTE],
             returns="null")  # fmt: skip
async def create_alias(call: Call) -> None:
    await firewall.change(_guests(call), _vmid(call), lambda fw: edit.add_alias(fw, call.params))


@routes.get(PATH + "/aliases/{name}", "One alias.", permission=AUDIT, forward="node", params=[*GUEST, _NAME],
            returns="{cidr:string comment?:string digest:string name:string}")  # fmt: skip
async def read_alias(call: Call) -> dict[str, Any]:
    fw = _read(call)
    return {**edit.alias_named(fw, call.params["name"]).value(), "digest": digest(edit.alias_rows(fw))}


@routes.put(PATH + "/aliases/{name}", "Change an alias.", permission=CHANGE, forward="node",
            params=[*GUEST, _NAME, _CIDR, _RENAME, NOTE, DIGEST], returns="null")  # fmt: skip
async def update_alias(call: Call) -> None:
    await firewall.change(
        _guests(call), _vmid(call), lambda fw: edit.change_alias(fw, call.params["name"], call.params)
    )


@routes.delete(PATH + "/aliases/{name}", "Remove an alias that nothing uses.", permission=CHANGE, forward="node",
               params=[*GUEST, _NAME, DIGEST], returns="null")  # fmt: skip
async def delete_alias(call: Call) -> None:
    await firewall.change(
        _guests(call), _vmid(call), lambda fw: edit.delete_alias(fw, call.params["name"], call.params)
    )


@routes.get(PATH + "/ipset", "Sets of addresses.", permission=AUDIT, forward="node", params=GUEST,
            returns="[{comment?:string digest:string name:string}]")  # fmt: skip
async def get_ipsets(call: Call) -> list[dict[str, Any]]:
    return _with_digest(edit.ipset_rows(_read(call)))


@routes.post(
    PATH + "/ipset",
    "Make a set, or give an existing one another name or note.",
    permission=CHANGE,
    forward="node",
    params=[*GUEST, _NAME, replace(_RENAME, description="The set that gets the new name; rules follow."), NOTE, DIGEST],
    returns="null",
)
async def create_ipset(call: Call) -> None:
    await firewall.change(_guests(call), _vmid(call), lambda fw: edit.add_ipset(fw, call.params))


@routes.get(PATH + "/ipset/{name}", "Entries of a set.", permission=AUDIT, forward="node", params=[*GUEST, _NAME],
            returns="[{cidr:string comment?:string digest:string nomatch?:boolean}]")  # fmt: skip
async def get_ipset(call: Call) -> list[dict[str, Any]]:
    return _with_digest(edit.entry_rows(edit.ipset_named(_read(call), call.params["name"])))


@routes.post(PATH + "/ipset/{name}", "Add an entry to a set.", permission=CHANGE, forward="node",
             params=[*GUEST, _NAME, _ENTRY, _NOMATCH, NOTE], returns="null")  # fmt: skip
async def create_entry(call: Call) -> None:
    await firewall.change(_guests(call), _vmid(call), lambda fw: edit.add_entry(fw, call.params["name"], call.params))


@routes.delete(PATH + "/ipset/{name}", "Remove a set that no rule uses.", permission=CHANGE, forward="node",
               params=[*GUEST, _NAME, Param("force", "boolean", "Also when it has entries.")], returns="null")  # fmt: skip
async def delete_ipset(call: Call) -> None:
    force = bool(call.params.get("force"))
    await firewall.change(
        _guests(call), _vmid(call), lambda fw: edit.delete_ipset(fw, call.params["name"], force=force)
    )


@routes.get(PATH + "/ipset/{name}/{cidr}", "One entry of a set.", permission=AUDIT, forward="node",
            params=[*GUEST, _NAME, _ENTRY], returns="{cidr:string comment?:string digest:string nomatch?:boolean}")  # fmt: skip
async def read_entry(call: Call) -> dict[str, Any]:
    found = edit.ipset_named(_read(call), call.params["name"])
    return {**edit.entry_named(found, call.params["cidr"]).value(), "digest": digest(edit.entry_rows(found))}


@routes.put(PATH + "/ipset/{name}/{cidr}", "Change an entry of a set.", permission=CHANGE, forward="node",
            params=[*GUEST, _NAME, _ENTRY, _NOMATCH, NOTE, DIGEST], returns="null")  # fmt: skip
async def update_entry(call: Call) -> None:
    name, cidr = call.params["name"], call.params["cidr"]
    await firewall.change(_guests(call), _vmid(call), lambda fw: edit.change_entry(fw, name, cidr, call.params))


@routes.delete(PATH + "/ipset/{name}/{cidr}", "Remove an entry from a set.", permission=CHANGE, forward="node",
               params=[*GUEST, _NAME, _ENTRY, DIGEST], returns="null")  # fmt: skip
async def delete_entry(call: Call) -> None:
    name, cidr = call.params["name"], call.params["cidr"]
    await firewall.change(_guests(call), _vmid(call), lambda fw: edit.delete_entry(fw, name, cidr, call.params))


@routes.get(
    PATH + "/refs",
    "Names that source and dest of a rule can use.",
    permission=AUDIT,
    forward="node",
    params=[*GUEST, Param("type", "string", "Only these.", enum=("alias", "ipset"))],
    returns="[{comment?:string name:string ref:string scope:string type:string=alias|ipset}]",
)
async def get_refs(call: Call) -> list[dict[str, Any]]:
    fw, kind = _read(call), call.params.get("type")
    rows = [("alias", "guest/", row) for row in edit.alias_rows(fw)]
    rows += [("ipset", "+guest/", row) for row in edit.ipset_rows(fw)]
    return [
        {
            "type": found, "name": row["name"], "ref": prefix + row["name"], "scope": "guest",
            **({"comment": row["comment"]} if "comment" in row else {}),
        }
        for found, prefix, row in rows if kind in (None, found)
    ]  # fmt: skip


def _guests(call: Call) -> Guests:
    return call.services.guests


def _vmid(call: Call) -> int:
    return int(call.params["vmid"])


def _read(call: Call) -> GuestFirewall:
    return firewall.read(call.services.guests, call.params["vmid"])


def _with_digest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "digest": digest(rows)} for row in rows]
