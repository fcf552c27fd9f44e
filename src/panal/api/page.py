"""Writes the reference page of methods: `python -m panal.api.page > docs/reference/api.md`.

A test compares the page with the method table, so it cannot go stale.
"""

from __future__ import annotations

from typing import Final

from panal.api.all_routes import table
from panal.api.table import Method

_NAMES_SHOWN: Final = 12
_AREAS: Final = (
    ("/access", "Users and permissions"),
    ("/panal", "Sessions"),
    ("/pools", "Pools"),
    ("/cluster", "Cluster"),
    ("/storage", "Storages"),
    ("/nodes/{node}/storage", "Content of storages"),
    ("/nodes/{node}/qemu", "Virtual machines"),
    ("/nodes/{node}/tasks", "Tasks"),
    ("/nodes", "Nodes"),
    ("/", "Version and index"),
)
_HEAD: Final = """# Methods of the API

Made from the method table; do not edit. Paths stand below `/api2/json`. *Needs* is checked before the method runs; "x" marks
what Panal adds to the API of Proxmox VE. Types, limits and meanings of the parameters: `/api2/openapi.json` of a node, or
`panal NOUN VERB --help`; those of a machine's configuration: [Keys of a virtual machine](vm-keys.md).
"""


def text() -> str:
    """The page."""
    rows: dict[str, list[Method]] = {title: [] for _, title in _AREAS}
    for method in sorted(table().methods, key=lambda m: (m.path, m.verb)):
        rows[_area(method.path)].append(method)
    parts = [_HEAD]
    for title, methods in rows.items():
        lines = "\n".join(_row(m) for m in methods)
        parts.append(
            f"\n## {title}\n| | method | what it does | needs | parameters |\n|---|---|---|---|---|\n{lines}\n"
        )
    return "".join(parts)


def _area(path: str) -> str:
    return next(title for prefix, title in _AREAS if path == prefix or path.startswith(prefix.rstrip("/") + "/"))


def _row(method: Method) -> str:
    inside = set(method.path_params)
    names = [f"**{p.shown}**" if p.required else p.shown for p in method.params if p.name not in inside]
    shown = names[:_NAMES_SHOWN] + ([f"… ({len(names)})"] if len(names) > _NAMES_SHOWN else [])
    cells = [
        "x" if method.ours else "", f"{method.verb} `{method.path}`", method.description, method.permission.describe(),
        ", ".join(shown),
    ]  # fmt: skip
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


if __name__ == "__main__":
    print(text(), end="")
