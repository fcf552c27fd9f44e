"""Facts of the Proxmox VE API for the part that is in scope, from the tables beside this file (interface facts only)."""

from __future__ import annotations

import csv
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = dict[str, str]


def read(name: str) -> list[Row]:
    with (HERE / f"{name}.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@cache
def endpoints() -> dict[tuple[str, str], Row]:
    return {(r["method"], r["path"]): r for r in read("endpoints")}


@cache
def params() -> dict[tuple[str, str], dict[str, Row]]:
    out: dict[tuple[str, str], dict[str, Row]] = {}
    for r in read("params"):
        out.setdefault((r["method"], r["path"]), {})[r["param"]] = r
    return out


@cache
def returns() -> dict[tuple[str, str], str]:
    return {(r["method"], r["path"]): r["returns"] for r in read("returns")}


@cache
def used() -> set[tuple[str, str]]:
    """Methods that two or more client projects use."""
    return {(r["method"], r["path"]) for r in read("clients")}


@cache
def roles() -> dict[str, frozenset[str]]:
    return {r["role"]: frozenset((r["privileges"] or "").split()) for r in read("roles")}


def permission(text: str) -> Any:
    """A fact as nested tuples; strings for user:all, user:world, root-only."""
    if text in ("user:all", "user:world", "root-only"):
        return text
    found = json.loads(text)
    return canonical(found["check"] if isinstance(found, dict) else found)


def canonical(form: list[Any]) -> Any:
    kind, *rest = form
    if kind in ("and", "or"):
        return (kind, *sorted((canonical(f) for f in rest), key=repr))
    if kind == "perm":
        path, privs, *options = rest
        given = dict(zip(options[::2], options[1::2], strict=True))
        privs = sorted(set(privs))
        any_of = bool(given.get("any")) and len(privs) > 1
        return ("perm", path, tuple(privs), any_of, given.get("require_param"))
    if kind == "userid-group":
        given = dict(zip(rest[1::2], rest[2::2], strict=True))
        return ("userid-group", tuple(sorted(rest[0])), given.get("groups_param"))
    return (kind, *rest)


def enum(text: str) -> set[str]:
    return {part.strip() for part in re.split(r"[|]", text) if part.strip()}
