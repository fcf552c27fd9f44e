"""/access/groups and /access/roles."""

from __future__ import annotations

from typing import Any

from panal import access
from panal.access import privileges
from panal.api.call import Call
from panal.api.params import COMMENT
from panal.api.permission import AnyUser, perm
from panal.api.table import Param, Routes
from panal.core.errors import NotFound
from panal.core.formats import split_list

routes = Routes("access")
_GROUPID = Param("groupid", "string", "Name of the group.", required=True, format="pve-groupid", max_length=64)
_ROLEID = Param("roleid", "string", "Name of the role.", required=True, format="pve-roleid", max_length=64)
_PRIVS = Param("privs", "string", "Privileges.", format="pve-priv-list")
_ALLOCATE = perm("/access/groups", "Group.Allocate")
_ROLES = perm("/access", "Sys.Modify")


@routes.get(
    "/access/groups",
    "Groups that the caller may see.",
    permission=AnyUser("Shows groups with User.Modify, Sys.Audit or Group.Allocate on /access/groups/GROUP."),
    returns="[{comment?:string groupid:string users?:string}]",
)
async def list_groups(call: Call) -> list[dict[str, Any]]:
    policy = call.services.access.policy
    members: dict[str, list[str]] = {}
    for user in policy.users.values():
        for name in user.groups:
            members.setdefault(name, []).append(user.userid)
    rows = []
    for name, group in sorted(policy.groups.items()):
        if call.has(f"/access/groups/{name}", "User.Modify", "Sys.Audit", "Group.Allocate", any_of=True):
            row: dict[str, Any] = {"groupid": name, "users": ",".join(sorted(members.get(name, [])))}
            rows.append({**row, "comment": group.comment} if group.comment else row)
    return rows


@routes.post("/access/groups", "Create a group.", permission=_ALLOCATE, params=[_GROUPID, COMMENT], returns="null")
async def create_group(call: Call) -> None:
    await access.create_group(call.services.access, call.params["groupid"], call.params.get("comment", ""))


@routes.get(
    "/access/groups/{groupid}",
    "One group and its users.",
    permission=perm("/access/groups", "Sys.Audit", "Group.Allocate", any_of=True),
    params=[_GROUPID],
    returns="{comment?:string members:[string]}",
)
async def read_group(call: Call) -> dict[str, Any]:
    policy = call.services.access.policy
    group = policy.groups.get(call.params["groupid"])
    if group is None:
        raise NotFound(f"group '{call.params['groupid']}' does not exist")
    row: dict[str, Any] = {"members": policy.members_of(group.groupid)}
    return {**row, "comment": group.comment} if group.comment else row


@routes.put(
    "/access/groups/{groupid}", "Change a group.", permission=_ALLOCATE, params=[_GROUPID, COMMENT], returns="null"
)
async def update_group(call: Call) -> None:
    await access.update_group(call.services.access, call.params["groupid"], call.params.get("comment"))


@routes.delete("/access/groups/{groupid}", "Delete a group.", permission=_ALLOCATE, params=[_GROUPID], returns="null")
async def delete_group(call: Call) -> None:
    await access.delete_group(call.services.access, call.params["groupid"])


@routes.get(
    "/access/roles", "All roles.", permission=AnyUser(), returns="[{privs?:string roleid:string special?:boolean}]"
)
async def list_roles(call: Call) -> list[dict[str, Any]]:
    return [
        {"roleid": name, "privs": ",".join(sorted(role.privs)), "special": role.special}
        for name, role in sorted(call.services.access.policy.roles.items())
    ]


@routes.post("/access/roles", "Create a role.", permission=_ROLES, params=[_ROLEID, _PRIVS], returns="null")
async def create_role(call: Call) -> None:
    await access.create_role(call.services.access, call.params["roleid"], split_list(call.params.get("privs", "")))


@routes.get(
    "/access/roles/{roleid}",
    "The privileges of a role.",
    permission=AnyUser(),
    params=[_ROLEID],
    returns="{" + " ".join(f"{priv}?:boolean" for priv in sorted(privileges.ALL)) + "}",
)
async def read_role(call: Call) -> dict[str, bool]:
    role = call.services.access.policy.roles.get(call.params["roleid"])
    if role is None:
        raise NotFound(f"role '{call.params['roleid']}' does not exist")
    return dict.fromkeys(sorted(role.privs), True)


@routes.put(
    "/access/roles/{roleid}",
    "Change the privileges of a role.",
    permission=_ROLES,
    params=[_ROLEID, _PRIVS, Param("append", "boolean", "Add instead of replace.", requires="privs")],
    returns="null",
)
async def update_role(call: Call) -> None:
    await access.update_role(
        call.services.access, call.params["roleid"], split_list(call.params.get("privs", "")), by=call.rights.userid,
        append=call.params.get("append", False),
    )  # fmt: skip


@routes.delete("/access/roles/{roleid}", "Delete a role.", permission=_ROLES, params=[_ROLEID], returns="null")
async def delete_role(call: Call) -> None:
    await access.delete_role(call.services.access, call.params["roleid"])
