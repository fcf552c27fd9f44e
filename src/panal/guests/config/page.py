"""Writes the reference page of keys: `python -m panal.guests.config.page > docs/reference/vm-keys.md`.

A test compares the page with the tables, so it cannot go stale.
"""

from __future__ import annotations

from typing import Final

from panal.guests.config.key import Key
from panal.guests.config.keys import KEYS

_WORDS: Final = {
    "done": "yes",
    "stored": "kept and shown, no effect yet",
    "refused": "kept and shown; the machine does not start with it",
    "ignored": "obsolete, no effect",
}
_HEAD: Final = """# Keys of a virtual machine's configuration

Made from `src/panal/guests/config`; do not edit. Names, types and limits are those of the Proxmox VE API. *Needs* is the
privilege on `/vms/{vmid}` (one of them is enough); "root" means root@pam alone. New volumes also need
`Datastore.AllocateSpace` on their storage, bridges `SDN.Use`. *Changes* says when a change reaches a machine that runs: at
once, or with its next start (until then it is `pending`).

| key | type | default | what it is | needs | done at start | changes |
|---|---|---|---|---|---|---|
"""


def text() -> str:
    """The page."""
    return _HEAD + "\n".join(_row(key) for key in KEYS) + "\n"


def _row(key: Key) -> str:
    name = f"{key.name}0 … {key.name}{key.count - 1}" if key.count else key.name
    default = {True: "1", False: "0", None: ""}.get(key.default, str(key.default))  # type: ignore[arg-type]
    done = _WORDS[key.status] + (f" ({key.note})" if key.note else "")
    needs = "root" if key.root else " ".join(p.removeprefix("VM.Config.") for p in key.privileges)
    cells = [f"`{name}`", _type(key), default, key.text, needs, done, "at once" if key.live else "next start"]
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _type(key: Key) -> str:
    if key.schema is not None:
        names = [f"**{k.name}**" if k.required else k.name for k in key.schema.keys.values()]
        shown = names[:8] + (["…"] if len(names) > 8 else [])
        return "property string: " + ", ".join(shown)
    if key.enum:
        return ", ".join(key.enum)
    lo, hi = (None if b is None else f"{b:g}" for b in (key.minimum, key.maximum))
    bounds = f" {lo or ''}…{hi or ''}" if lo or hi else ""
    return key.type + bounds


if __name__ == "__main__":
    print(text(), end="")
