"""/access/users: users and their API tokens."""

from __future__ import annotations

from typing import Any

from panal import access
from panal.access import tokens, users
from panal.access.model import Token, User
from panal.api.call import Call
from panal.api.params import COMMENT, USERID
from panal.api.permission import AnyUser, RealmPriv, Self, UserGroup, all_of, one_of
from panal.api.table import Param, Routes
from panal.core.errors import BadInput, NotFound
from panal.core.formats import split_list

routes = Routes("access")
_TOKENID = Param("tokenid", "string", "Name of the token.", required=True, format="pve-tokenid", max_length=64)
_SEES = ("User.Modify", "Sys.Audit")
_FIELDS = [
    Param("comment", "string", "A note for people.", format="comment", max_length=2048),
    Param("email", "string", "E-mail address.", format="email-opt", max_length=254),
    Param("enable", "boolean", "May log in.", default=True),
    Param("expire", "integer", "Ends at this time (seconds since 1970); 0: never.", minimum=0),
    Param("firstname", "string", "First name.", format="comment", max_length=1024),
    Param("lastname", "string", "Last name.", format="comment", max_length=1024),
    Param(
        "keys",
        "string",
        "Keys of second factors; none can be set here yet.",
        pattern="[0-9a-zA-Z!=]{0,4096}",
        secret=True,
    ),
]
_GROUPS = Param("groups", "string", "Groups the user is in.", format="pve-groupid-list")
_OWN = one_of(Self(), UserGroup(("User.Modify",)))


def _no_keys(call: Call) -> None:
    if call.params.get("keys"):
        raise BadInput("keys", "second factors cannot be set up in this version; leave `keys` away")


def _row(user: User, realm_type: str | None) -> dict[str, Any]:
    texts = {"firstname": user.firstname, "lastname": user.lastname, "email": user.email, "comment": user.comment}
    row: dict[str, Any] = {"enable": user.enable, "expire": user.expire, **{k: v for k, v in texts.items() if v}}
    return {**row, "realm-type": realm_type} if realm_type else row


def _token(token: Token) -> dict[str, Any]:
    row: dict[str, Any] = {"expire": token.expire, "privsep": token.privsep}
    return {**row, "comment": token.comment} if token.comment else row


@routes.get(
    "/access/users",
    "All users that the caller may see.",
    permission=AnyUser("Shows the caller, and users whose groups he may see (User.Modify or Sys.Audit)."),
    params=[
        Param("enabled", "boolean", "Only enabled ones, or only disabled ones."),
        Param("full", "boolean", "With groups and tokens.", default=False),
    ],
    returns="[{comment?:string email?:string enable?:boolean expire?:integer firstname?:string groups?:string keys?:string "
    "lastname?:string realm-type?:string tfa-locked-until?:integer tokens?:[{comment?:string expire?:integer "
    "privsep?:boolean tokenid:string}] totp-locked?:boolean userid:string}]",
)
async def list_users(call: Call) -> list[dict[str, Any]]:
    context = call.services.access
    everybody = call.has("/access/groups", *_SEES, any_of=True)
    mine = {g for g in context.policy.groups if call.has(f"/access/groups/{g}", *_SEES, any_of=True)}
    rows = []
    for userid, user in sorted(context.policy.users.items()):
        if not (everybody or userid == call.rights.owner or mine & user.groups.keys()):
            continue
        if "enabled" in call.params and user.enable != call.params["enabled"]:
            continue
        row = {"userid": userid, **_row(user, context.realm_type(user.realm))}
        if call.params.get("full"):
            row["groups"] = ",".join(sorted(user.groups))
            row["tokens"] = [{"tokenid": t.tokenid, **_token(t)} for t in context.policy.tokens_of(userid)]
        rows.append(row)
    return rows


@routes.post(
    "/access/users",
    "Create a user.",
    permission=all_of(RealmPriv(), UserGroup(("User.Modify",), groups_param="create")),
    params=[
        USERID, _GROUPS, *_FIELDS,
        Param("password", "string", "The first password.", min_length=8, max_length=64, secret=True),
    ],
    returns="null",
)  # fmt: skip
async def create_user(call: Call) -> None:
    _no_keys(call)
    await access.create_user(
        call.services.access, call.params["userid"], by=call.rights.userid,
        fields={k: v for k, v in call.params.items() if k in users.FIELDS},
        groups=split_list(call.params.get("groups", "")), password=call.params.get("password"),
    )  # fmt: skip


@routes.get(
    "/access/users/{userid}",
    "One user.",
    permission=UserGroup(_SEES),
    params=[USERID],
    returns="{comment?:string email?:string enable?:boolean expire?:integer firstname?:string groups?:[string] keys?:string "
    "lastname?:string tokens?:{}}",
)
async def read_user(call: Call) -> dict[str, Any]:
    context = call.services.access
    user = context.policy.users.get(call.params["userid"])
    if user is None:
        raise NotFound(f"no such user ('{call.params['userid']}')")
    held = {t.tokenid: _token(t) for t in context.policy.tokens_of(user.userid)}
    return {**_row(user, None), "groups": sorted(user.groups), "tokens": held}


@routes.put(
    "/access/users/{userid}",
    "Change a user. Disabling ends all sessions.",
    permission=UserGroup(("User.Modify",), groups_param="update"),
    params=[USERID, _GROUPS, Param("append", "boolean", "Add to the groups.", requires="groups"), *_FIELDS],
    returns="null",
)
async def update_user(call: Call) -> None:
    _no_keys(call)
    groups = call.params.get("groups")
    await access.update_user(
        call.services.access, call.params["userid"], by=call.rights.userid,
        fields={k: v for k, v in call.params.items() if k in users.FIELDS},
        groups=None if groups is None else split_list(groups), append=call.params.get("append", False),
    )  # fmt: skip


@routes.delete(
    "/access/users/{userid}",
    "Delete a user with tokens and permissions.",
    permission=all_of(RealmPriv(), UserGroup(("User.Modify",))),
    params=[USERID],
    returns="null",
)
async def delete_user(call: Call) -> None:
    await access.delete_user(call.services.access, call.params["userid"], by=call.rights.userid)


_TOKEN_SHAPE = "comment?:string expire?:integer privsep?:boolean"  # noqa: S105
_TOKEN_FIELDS = [
    COMMENT,
    Param("expire", "integer", "Ends at this time (seconds since 1970); 0: never.", minimum=0),
    Param("privsep", "boolean", "Has only what both its own permissions and its user's give.", default=True),
]


@routes.get(
    "/access/users/{userid}/token",
    "A user's API tokens.",
    permission=_OWN,
    params=[USERID],
    returns="[{" + _TOKEN_SHAPE + " tokenid:string}]",
)
async def list_tokens(call: Call) -> list[dict[str, Any]]:
    return [{"tokenid": t.tokenid, **_token(t)} for t in call.services.access.policy.tokens_of(call.params["userid"])]


@routes.get(
    "/access/users/{userid}/token/{tokenid}", "One API token.", permission=_OWN, params=[USERID, _TOKENID],
    returns="{" + _TOKEN_SHAPE + "}",
)  # fmt: skip
async def read_token(call: Call) -> dict[str, Any]:
    return _token(tokens.find(call.services.access, call.params["userid"], call.params["tokenid"]))


@routes.post(
    "/access/users/{userid}/token/{tokenid}",
    "Make an API token. The answer holds its secret, which is never shown again.",
    permission=_OWN,
    params=[USERID, _TOKENID, *_TOKEN_FIELDS],
    secret_answer=True,
    returns="{full-tokenid:string info:{" + _TOKEN_SHAPE + "} value:string}",
)
async def create_token(call: Call) -> dict[str, Any]:
    token, secret = await access.create_token(
        call.services.access, call.params["userid"], call.params["tokenid"], by=call.rights.userid, fields=call.params
    )
    return {"full-tokenid": token.full, "info": _token(token), "value": secret}


@routes.put(
    "/access/users/{userid}/token/{tokenid}",
    "Change an API token, or give it a new secret, which makes the old one worthless.",
    permission=_OWN,
    params=[
        USERID, _TOKENID, *_TOKEN_FIELDS,
        Param("delete", "string", "Settings to put back to their default.", format="pve-configid-list"),
        Param("regenerate", "boolean", "Make a new secret; the answer holds it.", default=False),
    ],
    returns="{" + _TOKEN_SHAPE + "}",
)  # fmt: skip
async def update_token(call: Call) -> dict[str, Any]:
    fields = dict(call.params)
    defaults: dict[str, Any] = {"comment": "", "expire": 0, "privsep": True}
    for name in split_list(call.params.get("delete", "")):
        if name not in defaults or name in call.params:
            raise BadInput("delete", f"'{name}' cannot be put back here; there are: {', '.join(defaults)}")
        fields[name] = defaults[name]
    token, secret = await access.update_token(
        call.services.access, call.params["userid"], call.params["tokenid"], by=call.rights.userid, fields=fields,
        regenerate=call.params.get("regenerate", False),
    )  # fmt: skip
    return _token(token) if secret is None else {**_token(token), "full-tokenid": token.full, "value": secret}


@routes.delete(
    "/access/users/{userid}/token/{tokenid}", "Delete an API token.", permission=_OWN, params=[USERID, _TOKENID],
    returns="null",
)  # fmt: skip
async def delete_token(call: Call) -> None:
    await access.delete_token(
        call.services.access, call.params["userid"], call.params["tokenid"], by=call.rights.userid
    )
