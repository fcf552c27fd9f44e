"""Completion of names from the live system: VM numbers, storages, users… Silent when the node does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from panal.cli.session import Session
from panal.core.errors import PanalError

_SOURCES: Final = {
    "vmid": ("/cluster/resources", {"type": "vm"}, "name"),
    "storage": ("/storage", {}, "type"),
    "userid": ("/access/users", {}, "comment"),
    "groupid": ("/access/groups", {}, "comment"),
    "roleid": ("/access/roles", {}, ""),
    "poolid": ("/pools", {}, "comment"),
    "realm": ("/access/domains", {}, "comment"),
}


def complete(name: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """A completer for parameters of this name."""
    path, params, note = _SOURCES[name]

    def items(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        session = ctx.find_object(Session) or Session()
        try:
            rows: list[dict[str, Any]] = session.connection.call("GET", path, params).data
        except PanalError:
            return []
        return [
            CompletionItem(str(row[name]), help=str(row.get(note) or ""))
            for row in rows
            if str(row.get(name, "")).startswith(begun)
        ]

    return items
