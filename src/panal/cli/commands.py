"""Which noun and verb stand for which method of the API: the only thing about a command that the method table cannot tell.

Everything else (parameters, types, help) comes from the packaged table (`client/methods.py`). A test holds the two together:
each row names a method, each method has a row or is listed in API_ONLY.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_VM: Final = "/nodes/{node}/qemu/{vmid}"


@dataclass(frozen=True, slots=True)
class Command:
    """`panal NOUN VERB`. `args` are positional; `fixed` is always sent; `columns` of a table; `confirm` asks first."""

    noun: str
    verb: str
    method: str
    path: str
    args: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    confirm: str | None = None


def _vm(verb: str, method: str, path: str, *args: str, **rest: object) -> Command:
    return Command("vm", verb, method, _VM + path, ("vmid", *args), **rest)  # type: ignore[arg-type]


def _fw(verb: str, method: str, path: str, *args: str, **rest: object) -> Command:
    return Command("firewall", verb, method, _VM + "/firewall" + path, ("vmid", *args), **rest)  # type: ignore[arg-type]


_VM_COLUMNS = ("vmid", "name", "status", "node", "cpu", "maxcpu", "mem", "maxmem", "uptime", "pool", "tags")
_TASK_COLUMNS = ("upid", "status", "starttime", "endtime", "user")

COMMANDS: Final[tuple[Command, ...]] = (
    Command("vm", "list", "GET", "/cluster/resources", columns=_VM_COLUMNS, fixed={"type": "vm"}),
    _vm("show", "GET", "/status/current"),
    Command("vm", "create", "POST", "/nodes/{node}/qemu"),
    _vm("config", "GET", "/config"),
    _vm("set", "PUT", "/config"),
    _vm("pending", "GET", "/pending", columns=("key", "value", "pending", "delete")),
    _vm("start", "POST", "/status/start"),
    _vm("stop", "POST", "/status/stop", confirm="Cut the power of VM {vmid}? Unsaved data in the guest is lost."),
    _vm("shutdown", "POST", "/status/shutdown"),
    _vm("reboot", "POST", "/status/reboot"),
    _vm("reset", "POST", "/status/reset", confirm="Reset VM {vmid}? Unsaved data in the guest is lost."),
    _vm("suspend", "POST", "/status/suspend"),
    _vm("resume", "POST", "/status/resume"),
    _vm("delete", "DELETE", "", confirm="Delete VM {vmid} with all its disks and snapshots?"),
    _vm("clone", "POST", "/clone"),
    _vm("template", "POST", "/template", confirm="Turn VM {vmid} into a template? It cannot be started afterwards."),
    _vm("resize", "PUT", "/resize", "disk", "size"),
    _vm("unlink", "PUT", "/unlink"),
    _vm("move-disk", "POST", "/move_disk", "disk"),
    _vm("migrate", "POST", "/migrate", "target"),
    _vm("send-key", "PUT", "/sendkey", "key"),
    _vm("metrics", "GET", "/rrddata"),
    _vm("snapshot", "POST", "/snapshot", "snapname"),
    _vm("snapshots", "GET", "/snapshot", columns=("name", "parent", "snaptime", "vmstate", "description")),
    _vm("snapshot-show", "GET", "/snapshot/{snapname}/config", "snapname"),
    _vm("snapshot-set", "PUT", "/snapshot/{snapname}/config", "snapname"),
    _vm(
        "snapshot-delete", "DELETE", "/snapshot/{snapname}", "snapname",
        confirm="Delete snapshot {snapname} of VM {vmid}?",
    ),
    _vm(
        "rollback", "POST", "/snapshot/{snapname}/rollback", "snapname",
        confirm="Take VM {vmid} back to {snapname}? What was written since is lost.",
    ),
    Command("vm", "next-id", "GET", "/cluster/nextid"),
    _fw("options", "GET", "/options"),
    _fw("set-options", "PUT", "/options"),
    _fw(
        "rules", "GET", "/rules",
        columns=("pos", "enable", "type", "action", "macro", "proto", "source", "dest", "dport", "iface", "comment"),
    ),
    _fw("rule", "GET", "/rules/{pos}", "pos"),
    _fw("add-rule", "POST", "/rules", "type", "action"),
    _fw("set-rule", "PUT", "/rules/{pos}", "pos"),
    _fw("delete-rule", "DELETE", "/rules/{pos}", "pos", confirm="Delete rule {pos} of VM {vmid}'s firewall?"),
    _fw("aliases", "GET", "/aliases", columns=("name", "cidr", "comment")),
    _fw("alias", "GET", "/aliases/{name}", "name"),
    _fw("add-alias", "POST", "/aliases", "name", "cidr"),
    _fw("set-alias", "PUT", "/aliases/{name}", "name", "cidr"),
    _fw("delete-alias", "DELETE", "/aliases/{name}", "name", confirm="Delete alias {name} of VM {vmid}'s firewall?"),
    _fw("sets", "GET", "/ipset", columns=("name", "comment")),
    _fw("add-set", "POST", "/ipset", "name"),
    _fw("delete-set", "DELETE", "/ipset/{name}", "name", confirm="Delete set {name} of VM {vmid}'s firewall?"),
    _fw("entries", "GET", "/ipset/{name}", "name", columns=("cidr", "nomatch", "comment")),
    _fw("entry", "GET", "/ipset/{name}/{cidr}", "name", "cidr"),
    _fw("add-entry", "POST", "/ipset/{name}", "name", "cidr"),
    _fw("set-entry", "PUT", "/ipset/{name}/{cidr}", "name", "cidr"),
    _fw(
        "delete-entry", "DELETE", "/ipset/{name}/{cidr}", "name", "cidr",
        confirm="Take {cidr} out of set {name} of VM {vmid}'s firewall?",
    ),
    _fw("names", "GET", "/refs", columns=("type", "ref", "comment")),
    _fw("log", "GET", "/log", columns=("t",)),
    Command("storage", "list", "GET", "/storage", columns=("storage", "type", "content", "shared", "disable", "path")),
    Command(
        "storage", "status", "GET", "/nodes/{node}/storage",
        columns=("storage", "type", "status", "active", "total", "used", "avail", "content"),
    ),
    Command("storage", "show", "GET", "/storage/{storage}", ("storage",)),
    Command("storage", "usage", "GET", "/nodes/{node}/storage/{storage}/status", ("storage",)),
    Command("storage", "create", "POST", "/storage", ("type", "storage")),
    Command("storage", "set", "PUT", "/storage/{storage}", ("storage",)),
    Command(
        "storage", "delete", "DELETE", "/storage/{storage}", ("storage",),
        confirm="Forget storage {storage}? Its files stay where they are.",
    ),
    Command(
        "storage", "content", "GET", "/nodes/{node}/storage/{storage}/content", ("storage",),
        columns=("volid", "content", "format", "size", "used", "vmid", "ctime"),
    ),
    Command("storage", "allocate", "POST", "/nodes/{node}/storage/{storage}/content", ("storage",)),
    Command("storage", "volume", "GET", "/nodes/{node}/storage/{storage}/content/{volume}", ("storage", "volume")),
    Command(
        "storage", "delete-volume", "DELETE", "/nodes/{node}/storage/{storage}/content/{volume}", ("storage", "volume"),
        confirm="Delete volume {volume}?",
    ),
    Command("storage", "download", "POST", "/nodes/{node}/storage/{storage}/download-url", ("storage", "url")),
    Command("storage", "set-volume", "PUT", "/nodes/{node}/storage/{storage}/content/{volume}", ("storage", "volume")),
    Command("storage", "look-up-url", "GET", "/nodes/{node}/query-url-metadata", ("url",)),
    Command(
        "storage", "prunable", "GET", "/nodes/{node}/storage/{storage}/prunebackups", ("storage",),
        columns=("volid", "type", "vmid", "ctime", "mark"),
    ),
    Command(
        "storage", "prune", "DELETE", "/nodes/{node}/storage/{storage}/prunebackups", ("storage",),
        confirm="Delete the backups that `panal storage prunable {storage}` marks?",
    ),
    Command("storage", "metrics", "GET", "/nodes/{node}/storage/{storage}/rrddata", ("storage",)),
    Command(
        "user", "list", "GET", "/access/users",
        columns=("userid", "enable", "expire", "firstname", "lastname", "email", "comment"),
    ),
    Command("user", "show", "GET", "/access/users/{userid}", ("userid",)),
    Command("user", "create", "POST", "/access/users", ("userid",)),
    Command("user", "set", "PUT", "/access/users/{userid}", ("userid",)),
    Command("user", "delete", "DELETE", "/access/users/{userid}", ("userid",), confirm="Delete user {userid}?"),
    Command("user", "password", "PUT", "/access/password", ("userid",)),
    Command(
        "user", "end-sessions", "DELETE", "/panal/sessions/{userid}", ("userid",),
        confirm="End all sessions of {userid}?",
    ),
    Command("user", "permissions", "GET", "/access/permissions"),
    Command(
        "token", "list", "GET", "/access/users/{userid}/token", ("userid",),
        columns=("tokenid", "privsep", "expire", "comment"),
    ),
    Command("token", "show", "GET", "/access/users/{userid}/token/{tokenid}", ("userid", "tokenid")),
    Command("token", "create", "POST", "/access/users/{userid}/token/{tokenid}", ("userid", "tokenid")),
    Command("token", "set", "PUT", "/access/users/{userid}/token/{tokenid}", ("userid", "tokenid")),
    Command(
        "token", "delete", "DELETE", "/access/users/{userid}/token/{tokenid}", ("userid", "tokenid"),
        confirm="Delete token {tokenid} of {userid}? Programs that use it lose access.",
    ),
    Command("group", "list", "GET", "/access/groups", columns=("groupid", "users", "comment")),
    Command("group", "show", "GET", "/access/groups/{groupid}", ("groupid",)),
    Command("group", "create", "POST", "/access/groups", ("groupid",)),
    Command("group", "set", "PUT", "/access/groups/{groupid}", ("groupid",)),
    Command("group", "delete", "DELETE", "/access/groups/{groupid}", ("groupid",), confirm="Delete group {groupid}?"),
    Command("role", "list", "GET", "/access/roles", columns=("roleid", "special", "privs")),
    Command("role", "show", "GET", "/access/roles/{roleid}", ("roleid",)),
    Command("role", "create", "POST", "/access/roles", ("roleid",)),
    Command("role", "set", "PUT", "/access/roles/{roleid}", ("roleid",)),
    Command("role", "delete", "DELETE", "/access/roles/{roleid}", ("roleid",), confirm="Delete role {roleid}?"),
    Command("acl", "list", "GET", "/access/acl", columns=("path", "type", "ugid", "roleid", "propagate")),
    Command("acl", "set", "PUT", "/access/acl", ("path",)),
    Command("realm", "list", "GET", "/access/domains", columns=("realm", "type", "comment")),
    Command("realm", "show", "GET", "/access/domains/{realm}", ("realm",)),
    Command("realm", "create", "POST", "/access/domains", ("type", "realm")),
    Command("realm", "set", "PUT", "/access/domains/{realm}", ("realm",)),
    Command("realm", "delete", "DELETE", "/access/domains/{realm}", ("realm",), confirm="Delete realm {realm}?"),
    Command("realm", "sync", "POST", "/access/domains/{realm}/sync", ("realm",)),
    Command("pool", "list", "GET", "/pools", columns=("poolid", "comment")),
    Command("pool", "show", "GET", "/pools/{poolid}", ("poolid",)),
    Command("pool", "create", "POST", "/pools", ("poolid",)),
    Command("pool", "set", "PUT", "/pools", ("poolid",)),
    Command("pool", "delete", "DELETE", "/pools", ("poolid",), confirm="Delete pool {poolid}? Its members stay."),
    Command("task", "list", "GET", "/nodes/{node}/tasks", columns=_TASK_COLUMNS),
    Command("task", "show", "GET", "/nodes/{node}/tasks/{upid}/status", ("upid",)),
    Command("task", "log", "GET", "/nodes/{node}/tasks/{upid}/log", ("upid",), columns=("t",)),
    Command("task", "stop", "DELETE", "/nodes/{node}/tasks/{upid}", ("upid",)),
    Command(
        "node", "list", "GET", "/nodes",
        columns=("node", "status", "cpu", "maxcpu", "mem", "maxmem", "disk", "maxdisk", "uptime"),
    ),
    Command("node", "show", "GET", "/nodes/{node}/status"),
    Command("node", "version", "GET", "/nodes/{node}/version"),
    Command("node", "time", "GET", "/nodes/{node}/time"),
    Command("node", "set-time", "PUT", "/nodes/{node}/time", ("timezone",)),
    Command("node", "dns", "GET", "/nodes/{node}/dns"),
    Command("node", "set-dns", "PUT", "/nodes/{node}/dns"),
    Command("node", "hosts", "GET", "/nodes/{node}/hosts"),
    Command("node", "set-hosts", "POST", "/nodes/{node}/hosts"),
    Command(
        "node", "network", "GET", "/nodes/{node}/network",
        columns=("iface", "type", "active", "autostart", "cidr", "bridge_ports", "comments"),
    ),
    Command("node", "interface", "GET", "/nodes/{node}/network/{iface}", ("iface",)),
    Command("node", "services", "GET", "/nodes/{node}/services", columns=("service", "name", "state", "desc")),
    *(
        Command("node", f"service-{verb}", "POST", f"/nodes/{{node}}/services/{{service}}/{verb}", ("service",))
        for verb in ("start", "stop", "restart", "reload")
    ),
    Command("node", "service-state", "GET", "/nodes/{node}/services/{service}/state", ("service",)),
    Command("node", "audit", "GET", "/nodes/{node}/panal/audit"),
    Command("node", "syslog", "GET", "/nodes/{node}/syslog", columns=("t",)),
    Command("node", "journal", "GET", "/nodes/{node}/journal"),
    Command("node", "metrics", "GET", "/nodes/{node}/rrddata"),
    Command(
        "node", "power", "POST", "/nodes/{node}/status", ("command",),
        confirm="Really {command} the node? Its guests are shut down first; those that do not switch off in time are stopped.",
    ),
    Command("node", "start-guests", "POST", "/nodes/{node}/startall"),
    Command("node", "stop-guests", "POST", "/nodes/{node}/stopall", confirm="Shut down the guests of the node?"),
    Command("cluster", "status", "GET", "/cluster/status", columns=("name", "type", "online", "local", "ip", "id")),
    Command(
        "cluster", "resources", "GET", "/cluster/resources",
        columns=("id", "type", "name", "status", "node", "cpu", "mem", "maxmem"),
    ),
    Command("cluster", "tasks", "GET", "/cluster/tasks", columns=_TASK_COLUMNS),
    Command("cluster", "log", "GET", "/cluster/log", columns=("time", "node", "user", "tag", "msg")),
    Command("cluster", "options", "GET", "/cluster/options"),
    Command("cluster", "set-options", "PUT", "/cluster/options"),
)  # fmt: skip

API_ONLY: Final[frozenset[tuple[str, str]]] = frozenset(
    {
        ("GET", "/version"),
        ("GET", "/nodes/{node}/lxc"),
        ("GET", "/access/ticket"),
        ("POST", "/access/ticket"),
        ("DELETE", "/panal/session"),
        ("PUT", "/pools/{poolid}"),
        ("DELETE", "/pools/{poolid}"),
        ("GET", "/nodes/{node}/qemu"),
        ("POST", "/nodes/{node}/qemu/{vmid}/config"),
        ("POST", "/nodes/{node}/qemu/{vmid}/termproxy"),
        ("GET", "/nodes/{node}/qemu/{vmid}/vncwebsocket"),
        ("POST", "/nodes/{node}/storage/{storage}/panal/volume"),
        ("PUT", "/nodes/{node}/config"),
        ("GET", "/nodes/{node}/config"),
        ("GET", "/nodes/{node}/apt/versions"),
        ("GET", "/nodes/{node}/apt/update"),
        ("GET", "/nodes/{node}/qemu/{vmid}/panal/screenshot"),
        ("POST", "/nodes/{node}/storage/{storage}/upload"),
        ("POST", "/nodes/{node}/panal/noop"),
    }
)
"""Methods left to `panal api`, to other programs, or to the hand-made commands (login, console, upload)."""

NOUNS: Final[Mapping[str, str]] = {
    "vm": "Virtual machines.",
    "firewall": "Firewalls of virtual machines.",
    "storage": "Storages and the volumes in them.",
    "user": "People and programs that may log in.",
    "token": "API tokens.",
    "group": "Groups of users.",
    "role": "Roles: named sets of privileges.",
    "acl": "Permissions: who has which role where.",
    "realm": "Realms: where logins are checked.",
    "pool": "Pools of guests and storages.",
    "task": "Long work and its log.",
    "node": "Nodes of the cluster.",
    "cluster": "The cluster as a whole.",
}
