"""Index methods: what stands below a path (`[{subdir}]`), generated for every level that has no GET of its own."""

from __future__ import annotations

from collections.abc import Iterable

from panal.api.call import Call
from panal.api.permission import AnyUser
from panal.api.table import Handler, Param, Routes


def generate(declared: Iterable[Routes]) -> Routes:
    """Routes for the levels in between. The path parameters are those of the methods below."""
    routes = Routes("index")
    methods = [m for r in declared for m in r.methods]
    have = {m.path for m in methods if m.verb == "GET"}
    children: dict[str, set[str]] = {}
    params: dict[str, dict[str, Param]] = {}
    for method in methods:
        parts = method.path.strip("/").split("/")
        for depth in range(len(parts)):
            level = "/" + "/".join(parts[:depth])
            children.setdefault(level, set()).add(parts[depth])
            known = params.setdefault(level, {})
            for part in parts[:depth]:
                if part.startswith("{"):
                    known.setdefault(part[1:-1], method.by_name[part[1:-1]])
    for level in sorted(set(children) - have):
        names = sorted(name for name in children[level] if not name.startswith("{"))
        if names:
            routes.get(
                level,
                "What stands below this path.",
                permission=AnyUser(),
                forward="node" if "{node}" in level else None,
                params=list(params[level].values()),
                returns="[{name?:string subdir:string}]",
            )(_handler(names))
    return routes


def _handler(names: list[str]) -> Handler:
    # both spellings: PVE's indexes say `name` in some places and `subdir` in others
    rows = [{"name": name, "subdir": name} for name in names]

    async def index(call: Call) -> list[dict[str, str]]:
        return rows

    return index
