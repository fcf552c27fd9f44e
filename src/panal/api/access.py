"""/access: login and logout, permissions, passwords, the audit log's state."""

from __future__ import annotations

from typing import Any

from panal import access
from panal.access import acl, effective, guard
from panal.access.login import Request
from panal.access.model import split_token
from panal.api.call import Call
from panal.api.params import NODE, USERID
from panal.api.permission import AnyUser, PermModify, RealmPriv, Self, UserGroup, World, all_of, one_of, perm
from panal.api.table import Param, Routes
from panal.core.errors import BadInput, NotAuthenticated, NotFound
from panal.core.formats import split_list

routes = Routes("access")
_INDEX = ("acl", "domains", "groups", "password", "permissions", "roles", "ticket", "users")


@routes.get("/access", "What stands below /access.", permission=AnyUser(), returns="[{subdir:string}]")
async def index(call: Call) -> list[dict[str, str]]:
    return [{"subdir": name} for name in _INDEX]


@routes.get(
    "/access/ticket", "Answers nothing: a place for user interfaces to look at.", permission=World(), returns="null"
)
async def get_ticket(call: Call) -> None:
    return None


@routes.post(
    "/access/ticket",
    "Log in: a ticket for two hours and the token that protects changes. A valid ticket as password renews it.",
    permission=World(),
    allow_token=False,
    csrf=False,
    params=[
        Param(
            "username", "string", "User: name@realm, or the name alone beside `realm`.", required=True, max_length=64
        ),
        Param(
            "password",
            "string",
            "The password, or a ticket of the same user.",
            required=True,
            secret=True,
            max_length=1024,
        ),
        Param("realm", "string", "Appended to the name.", format="pve-realm", max_length=32),
        Param(
            "otp",
            "string",
            "Answer of a second factor; not looked at while none is set up.",
            secret=True,
            max_length=1024,
        ),
        Param("tfa-challenge", "string", "The ticket that asked for a second factor.", secret=True, max_length=1024),
        Param(
            "path", "string", "Only check whether the user holds `privs` on this path.", requires="privs", max_length=64
        ),
        Param("privs", "string", "Privileges to check.", format="pve-priv-list", requires="path", max_length=64),
        Param("new-format", "boolean", "How a second factor is asked for; makes no difference yet.", default=True),
    ],
    returns="{CSRFPreventionToken?:string clustername?:string ticket?:string username:string}",
)
async def create_ticket(call: Call) -> dict[str, Any]:
    p, realm = call.params, call.params.get("realm")
    userid = f"{p['username']}@{realm}" if realm else p["username"]
    request = Request(
        userid, p["password"], call.client, p.get("tfa-challenge"), p.get("path"), tuple(split_list(p.get("privs", ""))),
    )  # fmt: skip
    admitted = await access.login(call.services.access, request)
    if not admitted.ticket:
        return {"username": admitted.userid}
    return {
        "username": admitted.userid, "ticket": admitted.ticket, "CSRFPreventionToken": admitted.csrf,
        "cap": effective.cap(call.services.access, admitted.userid),
    }  # fmt: skip


@routes.delete(
    "/panal/session", "Log out: end the session of the ticket that asks.", permission=AnyUser(), returns="null",
    allow_token=False,
)  # fmt: skip
async def log_out(call: Call) -> None:
    if call.ticket is None:
        raise BadInput("ticket", "log out with the ticket of the session that shall end")
    await access.log_out(call.services.access, call.ticket)


_OF_USER = one_of(Self(), all_of(RealmPriv(), UserGroup(("User.Modify",))))


@routes.delete(
    "/panal/sessions/{userid}", "End all sessions of a user, on every node.", permission=_OF_USER, params=[USERID],
    returns="null", allow_token=False,
)  # fmt: skip
async def end_all(call: Call) -> None:
    guard.may_change_user(call.services.access, call.rights.userid, call.params["userid"])
    await access.end_all(call.services.access, call.params["userid"])


@routes.put(
    "/access/password",
    "Change a password. Every ticket of the user ends.",
    permission=_OF_USER,
    allow_token=False,
    params=[
        USERID,
        Param("password", "string", "The new password.", required=True, min_length=8, max_length=64, secret=True),
        Param(
            "confirmation-password", "string", "Present password of who asks; everybody but root@pam must give it.",
            min_length=5, max_length=64, secret=True,
        ),
    ],
    returns="null",
)  # fmt: skip
async def change_password(call: Call) -> None:
    confirmation = call.params.get("confirmation-password")
    if confirmation is None and not call.rights.is_root:
        raise BadInput("confirmation-password", "give your own present password to change a password")
    if confirmation is not None:
        try:
            await access.login(call.services.access, Request(call.rights.owner, confirmation, call.client))
        except NotAuthenticated:
            raise BadInput("confirmation-password", "this is not your present password") from None
    await access.set_password(
        call.services.access, call.params["userid"], call.params["password"], by=call.rights.userid
    )


@routes.get(
    "/access/acl",
    "Permissions: all with Sys.Audit on /access, else those the caller may change.",
    permission=AnyUser("Shows only what the caller may change, or all with Sys.Audit on /access."),
    returns="[{path:string propagate?:boolean roleid:string type:string=user|group|token ugid:string}]",
)
async def read_acl(call: Call) -> list[dict[str, Any]]:
    return [
        {"path": g.path, "type": g.kind, "ugid": g.ugid, "roleid": role, "propagate": propagates}
        for g in acl.visible(call.services.access, call.rights.userid)
        for role, propagates in g.roles.items()
    ]


@routes.put(
    "/access/acl",
    "Give roles to users, groups and tokens on a path, or take them away.",
    permission=PermModify(),
    params=[
        Param(
            "path", "string", "Where: /, /vms/100, /storage/local, /pool/web and so on.", required=True, max_length=256
        ),
        Param("roles", "string", "Roles.", required=True, format="pve-roleid-list"),
        Param("users", "string", "Users.", format="pve-userid-list"),
        Param("groups", "string", "Groups.", format="pve-groupid-list"),
        Param("tokens", "string", "API tokens: USER@REALM!TOKENID."),
        Param("propagate", "boolean", "Counts below the path, too.", default=True),
        Param("delete", "boolean", "Take the roles away instead."),
    ],
    returns="null",
)
async def update_acl(call: Call) -> None:
    p = call.params
    await access.change_acl(
        call.services.access, p["path"], split_list(p["roles"]), by=call.rights.userid,
        users=split_list(p.get("users", "")), groups=split_list(p.get("groups", "")),
        tokens=split_list(p.get("tokens", "")), propagate=p.get("propagate", True), delete=p.get("delete", False),
    )  # fmt: skip


@routes.get(
    "/access/permissions",
    "Effective privileges, by path: 1 where they count below the path, too.",
    permission=AnyUser("One's own; those of others with Sys.Audit on /access."),
    params=[
        Param("path", "string", "Only this path.", max_length=256),
        Param("userid", "string", "User or API token; the caller when not given.", max_length=130),
    ],
    returns="{}",
)
async def permissions(call: Call) -> dict[str, Any]:
    context = call.services.access
    userid, path = call.params.get("userid", call.rights.userid), call.params.get("path")
    if path is not None and not path.startswith("/"):
        raise BadInput("path", "a permission path begins with /")
    if userid != call.rights.userid and split_token(userid)[0] != call.rights.owner:
        call.require("/access", "Sys.Audit")
        if userid not in context.policy.users and userid not in context.policy.tokens:
            raise NotFound(f"no such user ('{userid}')")
    return effective.tree(context, userid, path)


@routes.get(
    "/nodes/{node}/panal/audit",
    "Check the chain of this node's audit log: how many records, the newest one's hash, what is wrong.",
    permission=perm("/nodes/{node}", "Sys.Audit"),
    forward="node",
    params=[NODE],
    returns="{head:string problem?:string records:integer torn:integer}",
)
async def check_audit(call: Call) -> dict[str, Any]:
    found = await call.services.access.audit.verify()
    answer = {"records": found.records, "head": found.head, "torn": found.torn}
    return answer if found.problem is None else {**answer, "problem": found.problem}
