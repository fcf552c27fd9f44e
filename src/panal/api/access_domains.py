"""/access/domains: realms. Directories and OpenID come later: their settings are known here, so that errors name `type`."""

from __future__ import annotations

from typing import Any

from panal.access import domains
from panal.api.call import Call
from panal.api.params import DIGEST
from panal.api.permission import World, all_of, perm
from panal.api.table import Param, ParamType, Routes
from panal.core.formats import split_list

routes = Routes("access")
_REALM = Param("realm", "string", "Name of the realm.", required=True, format="pve-realm", max_length=32)
_ALLOCATE = perm("/access/realm", "Realm.Allocate")
_SECRET = ("password", "client-key", "certkey")
_OWN = [
    Param("comment", "string", "A note for people.", format="comment", max_length=4096),
    Param("default", "boolean", "Chosen when a login names no realm."),
]
# settings of realm types that this version does not have: name, type, what it is
_LATER: tuple[tuple[str, ParamType, str], ...] = (
    ("acr-values", "string", "Authentication context classes to ask the provider for."),
    ("audiences", "string", "Audiences a token may be for."),
    ("autocreate", "boolean", "Create users at their first login."),
    ("base_dn", "string", "Where users stand in the directory."),
    ("bind_dn", "string", "Account to search the directory with."),
    ("capath", "string", "Trusted certificates: file or directory."),
    ("case-sensitive", "boolean", "Names differ by case."),
    ("cert", "string", "Client certificate."),
    ("certkey", "string", "Key of the client certificate."),
    ("check-connection", "boolean", "Try the connection first."),
    ("client-id", "string", "Name of this client at the provider."),
    ("client-key", "string", "Secret of this client at the provider."),
    ("domain", "string", "Active Directory domain."),
    ("filter", "string", "Filter for users."),
    ("group_classes", "string", "Object classes of groups."),
    ("group_dn", "string", "Where groups stand in the directory."),
    ("group_filter", "string", "Filter for groups."),
    ("group_name_attr", "string", "Attribute with the name of a group."),
    ("groups-autocreate", "boolean", "Create groups the provider names."),
    ("groups-claim", "string", "Claim that holds the groups."),
    ("groups-overwrite", "boolean", "Set groups anew at every login."),
    ("issuer-url", "string", "Address of the provider."),
    ("mode", "string", "Transport."),
    ("password", "string", "Password to search the directory with."),
    ("port", "integer", "Port."),
    ("prompt", "string", "Whether the provider shall ask again."),
    ("query-userinfo", "boolean", "Ask the provider for more about the user."),
    ("scopes", "string", "Scopes to ask for."),
    ("secure", "boolean", "Use TLS."),
    ("server1", "string", "First server."),
    ("server2", "string", "Second server."),
    ("sslversion", "string", "Version of TLS."),
    ("sync-defaults-options", "string", "Defaults of a synchronisation."),
    ("sync_attributes", "string", "Attributes that become fields of users."),
    ("tfa", "string", "Second factor of the whole realm."),
    ("user_attr", "string", "Attribute with the name of a user."),
    ("user_classes", "string", "Object classes of users."),
    ("username-claim", "string", "Claim that becomes the name of the user."),
    ("verify", "boolean", "Check the certificate of the server."),
)
_DIRECTORY = [Param(name, kind, text, secret=name in _SECRET) for name, kind, text in _LATER]


@routes.get(
    "/access/domains",
    "All realms: what a login page offers.",
    permission=World(),
    returns="[{comment?:string realm:string tfa?:string=yubico|oath type:string}]",
)
async def list_realms(call: Call) -> list[dict[str, Any]]:
    return [
        {"realm": name, **{k: value[k] for k in ("type", "comment", "default") if value.get(k)}}
        for name, value in domains.every(call.services.access)
    ]


@routes.post(
    "/access/domains",
    "Add a realm. Only pam and pve exist in this version, and both are there from the beginning.",
    permission=_ALLOCATE,
    params=[
        _REALM,
        Param("type", "string", "Type.", required=True, enum=("ad", "ldap", "openid", "pam", "pve")),
        *_OWN,
        *_DIRECTORY,
    ],
    returns="null",
)
async def create_realm(call: Call) -> None:
    await domains.create_realm(call.services.access, call.params["realm"], call.params["type"])


@routes.get(
    "/access/domains/{realm}",
    "One realm.",
    permission=perm("/access/realm", "Realm.Allocate", "Sys.Audit", any_of=True),
    params=[_REALM],
    returns="{comment?:string default?:boolean digest:string type:string}",
)
async def read_realm(call: Call) -> dict[str, Any]:
    context = call.services.access
    value = domains.find(context, call.params["realm"])
    return {**{k: v for k, v in value.items() if k != "v"}, "digest": domains.digest(context)}


@routes.put(
    "/access/domains/{realm}",
    "Change a realm.",
    permission=_ALLOCATE,
    params=[
        _REALM,
        *_OWN,
        *(p for p in _DIRECTORY if p.name != "username-claim"),
        DIGEST,
        Param("delete", "string", "Settings to remove.", format="pve-configid-list", max_length=4096),
    ],
    returns="null",
)
async def update_realm(call: Call) -> None:
    fields = {k: v for k, v in call.params.items() if k not in ("realm", "digest", "delete")}
    delete = tuple(split_list(call.params.get("delete", "")))
    await domains.update_realm(call.services.access, call.params["realm"], fields, delete, call.params.get("digest"))


@routes.delete("/access/domains/{realm}", "Remove a realm.", permission=_ALLOCATE, params=[_REALM], returns="null")
async def delete_realm(call: Call) -> None:
    await domains.delete_realm(call.services.access, call.params["realm"])


@routes.post(
    "/access/domains/{realm}/sync",
    "Take over users and groups from a directory. No realm type of this version is one.",
    permission=all_of(perm("/access/realm/{realm}", "Realm.AllocateUser"), perm("/access/groups", "User.Modify")),
    params=[
        _REALM,
        Param("dry-run", "boolean", "Only say what would change.", default=False),
        Param("enable-new", "boolean", "New users may log in.", default=True),
        Param("full", "boolean", "Older name of remove-vanished."),
        Param("purge", "boolean", "Older name of remove-vanished."),
        Param("remove-vanished", "string", "What to remove of users who are gone.", default="none", max_length=64),
        Param("scope", "string", "What to take over.", enum=("users", "groups", "both")),
    ],
    returns="string",
)
async def sync_realm(call: Call) -> str:
    await domains.sync_realm(call.services.access, call.params["realm"])
    return ""
