"""`/cluster/options`: settings of the whole installation."""

from __future__ import annotations

from typing import Any, Final

from panal.api.call import Call
from panal.api.permission import AnyUser, perm
from panal.api.table import Param, Routes
from panal.cluster import options
from panal.core.errors import BadInput
from panal.core.formats import split_list

routes = Routes("cluster")

_KEYBOARDS: Final = (
    "de", "de-ch", "da", "en-gb", "en-us", "es", "fi", "fr", "fr-be", "fr-ca", "fr-ch", "hu", "is", "it", "ja", "lt", "mk",
    "nl", "no", "pl", "pt", "pt-br", "sv", "sl", "tr",
)  # fmt: skip
_LANGUAGES: Final = (
    "ar", "ca", "da", "de", "en", "es", "eu", "fa", "fr", "hr", "he", "it", "ja", "ka", "kr", "nb", "nl", "nn", "pl",
    "pt_BR", "ru", "sl", "sv", "tr", "ukr", "zh_CN", "zh_TW",
)  # fmt: skip
_TAG: Final = r"[a-zA-Z0-9_][a-zA-Z0-9_\-+.]*"


def _props(name: str, description: str) -> Param:
    return Param(name, "string", description, format=options.SCHEMAS[name])


PARAMS: Final = (
    _props("bwlimit", "Limits of bandwidth for work on disks, in KiB a second."),
    Param("consent-text", "string", "Text that users must agree to before they log in.", max_length=65536),
    Param("console", "string", "Console viewer that is opened by default.", enum=("applet", "vv", "html5", "xtermjs")),
    _props("crs", "How guests are spread over nodes."),
    Param("description", "string", "Notes about the installation.", max_length=65536),
    Param("email_from", "string", "Sender of mails.", format="email-opt"),
    Param("fencing", "string", "How nodes are fenced.", default="watchdog", enum=("watchdog", "hardware", "both")),
    _props("ha", "What happens to highly available guests when a node is shut down."),
    Param("http_proxy", "string", "Proxy for downloads.", pattern=r"http://.*"),
    Param("keyboard", "string", "Keyboard layout of consoles.", enum=_KEYBOARDS),
    Param("language", "string", "Language of the console's pages.", enum=_LANGUAGES),
    _props("location", "Where the installation stands."),
    Param("mac_prefix", "string", "Begin of generated network addresses.", default="BC:24:11", format="mac-prefix"),
    Param("max_workers", "integer", "How many guests are handled at once in work on all of them.", minimum=1),
    _props("migration", "How guests migrate, and over which network."),
    Param("migration_unsecure", "boolean", "Old form of 'migration'."),
    _props("next-id", "Where free guest numbers are looked for."),
    _props("notify", "Which events are told."),
    Param("registered-tags", "string", "Tags that only administrators may set.", pattern=rf"(?:{_TAG};)*{_TAG}"),
    _props("replication", "How replication runs, and over which network."),
    _props("tag-style", "How tags look."),
    _props("u2f", "Settings of U2F."),
    _props("user-tag-access", "Which tags users may set."),
    _props("webauthn", "Settings of WebAuthn."),
)
NAMES: Final = frozenset(p.name for p in PARAMS)
# PVE shows these taken apart, the others as they are written
_NESTED: Final = frozenset(options.SCHEMAS) - {"bwlimit"}
# what the pages of a user without rights need
_FOR_ALL: Final = ("console", "keyboard", "language", "tag-style", "registered-tags", "user-tag-access", "allowed-tags")


def shown(call: Call) -> dict[str, Any]:
    """All options as they are on the wire."""
    out: dict[str, Any] = {}
    for name, value in options.stored(call.services.store).items():
        if name in _NESTED:
            out[name] = options.parsed(call.services.store, name)
        elif name == "registered-tags":
            out[name] = str(value).split(";")
        else:
            out[name] = value
    allowed = str(out.get("user-tag-access", {}).get("user-allow-list", "")).split(";")
    out["allowed-tags"] = sorted({*out.get("registered-tags", ()), *allowed} - {""})
    out.setdefault("mac_prefix", options.DEFAULT_MAC_PREFIX)
    return out


@routes.get(
    "/cluster/options",
    "Settings of the whole installation.",
    permission=AnyUser("Any login sees what pages need; Sys.Audit on / shows all."),
    returns="{}",
)
async def read_options(call: Call) -> dict[str, Any]:
    """What is set."""
    out = shown(call)
    return out if call.has("/", "Sys.Audit") else {k: out[k] for k in _FOR_ALL if k in out}


@routes.put(
    "/cluster/options",
    "Change settings of the whole installation.",
    permission=perm("/", "Sys.Modify"),
    params=[
        *PARAMS,
        Param("delete", "string", "Settings to take back to their defaults.", format="pve-configid-list"),
    ],
    returns="null",
)
async def change_options(call: Call) -> None:
    """Set and delete by key."""
    delete = split_list(str(call.params.get("delete", "")))
    unknown = sorted(set(delete) - NAMES)
    if unknown:
        raise BadInput("delete", f"unknown option '{unknown[0][:64]}'")
    new = {k: int(v) if isinstance(v, bool) else v for k, v in call.params.items() if k != "delete"}
    await options.change(call.services.store, new, delete)
