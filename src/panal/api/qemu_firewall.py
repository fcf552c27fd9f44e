"""The firewall of a virtual machine: options and rules. Aliases and sets are in `qemu_firewall_sets.py`.

Names, types and answers are those of the Proxmox VE API. What a value means and whether it is right is decided in
`panal.firewall`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from panal.api.call import Call
from panal.api.params import COMMENT, DIGEST, NODE, VMID
from panal.api.permission import AnyUser, perm
from panal.api.table import Param, Routes
from panal.firewall import edit
from panal.firewall.compile import LOG_PREFIX
from panal.firewall.model import ACTIONS, BOOLEANS, LOG_LEVELS, GuestFirewall, digest
from panal.firewall.rules import ip_version
from panal.firewall.spec import NAME
from panal.guests import firewall
from panal.node import journal

routes = Routes("firewall")

PATH: Final = "/nodes/{node}/qemu/{vmid}/firewall"
AUDIT: Final = perm("/vms/{vmid}", "VM.Audit")
CHANGE: Final = perm("/vms/{vmid}", "VM.Config.Network")
GUEST: Final = (NODE, VMID)
NOTE: Final = replace(COMMENT, max_length=1024)
_DELETE: Final = Param("delete", "string", "Settings to remove, divided by commas.", format="pve-configid-list")
_POS: Final = Param("pos", "integer", "Position of the rule, from 0.", required=True, minimum=0)
_LOG: Final = Param("log", "string", "Write matching packets (not all of many) into the kernel's log.", enum=LOG_LEVELS)
_RULE: Final = (
    Param("macro", "string", "A known service instead of protocol and ports, like SSH or HTTP.", max_length=128),
    Param("proto", "string", "Protocol: tcp, udp, icmp … or its number."),
    Param("source", "string", "Where it comes from: addresses, networks, ranges, an alias, or +SET.", max_length=512),
    Param("dest", "string", "Where it goes to; as source.", max_length=512),
    Param("sport", "string", "Ports it comes from: numbers, names, ranges like 80:85."),
    Param("dport", "string", "Ports it goes to; as sport."),
    Param("icmp-type", "string", "Type of ICMP; with proto icmp or ipv6-icmp."),
    Param("iface", "string", "Only this network card (net0).", min_length=2, max_length=20),
    _LOG,
    NOTE,
    DIGEST,
)
_RULE_ROW: Final = (
    "{action:string comment?:string dest?:string digest?:string dport?:string enable?:integer icmp-type?:string "
    "iface?:string ipversion?:integer log?:string=" + "|".join(LOG_LEVELS) + " macro?:string pos:integer proto?:string "
    "source?:string sport?:string type:string}"
)


def _type(required: bool) -> Param:
    return Param(
        "type", "string", "`in` or `out`, as the guest sees it (`forward` and `group` are refused).", required=required,
        enum=("in", "out", "forward", "group"),
    )  # fmt: skip


def _action(required: bool) -> Param:
    return Param(
        "action", "string", "ACCEPT, DROP or REJECT.", required=required, min_length=2, max_length=20, pattern=NAME
    )


def _enable() -> Param:
    return Param("enable", "integer", "1: the rule counts. A new one does not unless this is given.", minimum=0)


@routes.get(PATH, "What the firewall of a virtual machine consists of.", permission=AnyUser(), forward="node", params=GUEST,
            returns="[{name:string}]")  # fmt: skip
async def firewall_index(call: Call) -> list[dict[str, str]]:
    return [{"name": name} for name in ("aliases", "ipset", "log", "options", "refs", "rules")]


@routes.get(
    PATH + "/options", "Options of the firewall that are set.", permission=AUDIT, forward="node", params=GUEST,
    returns="{dhcp?:boolean digest?:string enable?:boolean ipfilter?:boolean log_level_in?:string=" + "|".join(LOG_LEVELS)
    + " log_level_out?:string=" + "|".join(LOG_LEVELS) + " macfilter?:boolean ndp?:boolean policy_in?:string="
    + "|".join(ACTIONS) + " policy_out?:string=" + "|".join(ACTIONS) + " radv?:boolean}",
)  # fmt: skip
async def get_options(call: Call) -> dict[str, Any]:
    row = edit.options_row(_read(call))
    shown = {name: int(value) if name in BOOLEANS else value for name, value in row.items()}
    return {**shown, "digest": digest(row)}


@routes.put(
    PATH + "/options",
    "Set options of the firewall; a running guest is filtered by them when this returns.",
    permission=CHANGE,
    forward="node",
    params=[
        *GUEST, _DELETE, DIGEST,
        Param("dhcp", "boolean", "Let the guest use DHCP whatever the rules say.", default=False),
        Param("enable", "boolean", "Filter the guest's network cards that have firewall=1.", default=False),
        Param("ipfilter", "boolean", "Only addresses in the sets ipfilter-netN may be used on a card.", default=False),
        Param("log_level_in", "string", "Log what the policy keeps from the guest.", enum=LOG_LEVELS),
        Param("log_level_out", "string", "Log what the policy and filters keep in the guest.", enum=LOG_LEVELS),
        Param("macfilter", "boolean", "Only the card's own MAC address may be used on it.", default=True),
        Param("ndp", "boolean", "Let IPv6 find neighbours and routers whatever the rules say.", default=True),
        Param("policy_in", "string", "What happens to incoming packets no rule speaks of (DROP).", enum=ACTIONS),
        Param("policy_out", "string", "What happens to outgoing packets no rule speaks of (ACCEPT).", enum=ACTIONS),
        Param("radv", "boolean", "Let the guest announce itself as an IPv6 router.", default=False),
    ],
    returns="null",
)  # fmt: skip
async def set_options(call: Call) -> None:
    await _change(call, lambda fw: edit.set_options(fw, call.params))


@routes.get(PATH + "/rules", "Rules of the firewall, in their order: the first that fits decides.", permission=AUDIT,
            forward="node", params=GUEST, returns=f"[{_RULE_ROW}]")  # fmt: skip
async def get_rules(call: Call) -> list[dict[str, Any]]:
    return _rule_rows(_read(call))


@routes.post(
    PATH + "/rules",
    "Add a rule before all others.",
    permission=CHANGE,
    forward="node",
    params=[
        *GUEST, _type(True), _action(True), _enable(), *_RULE,
        Param("pos", "integer", "Taken, but without meaning here: a new rule comes first (moveto moves it).", minimum=0),
    ],
    returns="null",
)  # fmt: skip
async def create_rule(call: Call) -> None:
    await _change(call, lambda fw: edit.add_rule(fw, call.params))


@routes.get(
    PATH + "/rules/{pos}", "One rule.", permission=AUDIT, forward="node", params=[*GUEST, _POS], returns=_RULE_ROW
)
async def get_rule(call: Call) -> dict[str, Any]:
    fw = _read(call)
    edit.rule_at(fw, call.params["pos"])
    rows = _rule_rows(fw)
    return rows[int(call.params["pos"])]


@routes.put(
    PATH + "/rules/{pos}",
    "Change a rule, or move it.",
    permission=CHANGE,
    forward="node",
    params=[
        *GUEST, _POS, _type(False), _action(False), _enable(), *_RULE, _DELETE,
        Param("moveto", "integer", "Put it before the rule at this position; other parameters do nothing then.", minimum=0),
    ],
    returns="null",
)  # fmt: skip
async def update_rule(call: Call) -> None:
    await _change(call, lambda fw: edit.change_rule(fw, call.params["pos"], call.params))


@routes.delete(PATH + "/rules/{pos}", "Remove a rule.", permission=CHANGE, forward="node", params=[*GUEST, _POS, DIGEST],
               returns="null")  # fmt: skip
async def delete_rule(call: Call) -> None:
    await _change(call, lambda fw: edit.delete_rule(fw, call.params["pos"], call.params))


@routes.get(
    PATH + "/log",
    "What the firewall wrote into the kernel's log about this guest.",
    permission=perm("/vms/{vmid}", "VM.Console"),
    forward="node",
    params=[
        *GUEST,
        Param("start", "integer", "Number of lines to leave out.", minimum=0),
        Param("limit", "integer", "At most so many lines (50).", minimum=0),
        Param("since", "integer", "Only what is not older: seconds since 1970.", minimum=0),
        Param("until", "integer", "Only what is not newer: seconds since 1970.", minimum=0),
    ],
    returns="[{n:integer t:string}]",
)  # fmt: skip
async def read_log(call: Call) -> list[dict[str, Any]]:
    params, services = call.params, call.services
    services.guests.get(params["vmid"])
    window = journal.Window(params.get("since"), params.get("until"))
    lines = await journal.kernel_lines(services.nodeinfo, window, f"{LOG_PREFIX} {params['vmid']} ")
    start = params.get("start", 0)
    call.extras["total"] = len(lines)
    shown = lines[start : start + params.get("limit", 50)]
    return [{"n": n, "t": line} for n, line in enumerate(shown, start=start + 1)]


def _read(call: Call) -> GuestFirewall:
    return firewall.read(call.services.guests, call.params["vmid"])


async def _change(call: Call, change: Callable[[GuestFirewall], GuestFirewall]) -> None:
    await firewall.change(call.services.guests, call.params["vmid"], change)


def _rule_rows(fw: GuestFirewall) -> list[dict[str, Any]]:
    rows = edit.rule_rows(fw)
    version = digest(rows)
    shown = []
    for row, rule in zip(rows, fw.rules, strict=True):
        family = ip_version(fw, rule)
        shown.append({**row, **({"ipversion": family} if family else {}), "digest": version})
    return shown
