"""What a handler gets: checked parameters, the caller's rights, the services of this node.

Made by `api/dispatch.py`, given to handlers in `api/*.py`. `services` is the object graph the daemon built; handlers call
verbs on it and never keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from panal.api.permission import Permission, Rights, denied

if TYPE_CHECKING:
    from panal.api.services import Services


@dataclass(slots=True)
class Call:
    """One request after authentication, validation and the declared permission check."""

    params: Mapping[str, Any]
    """checked and typed: int, float, bool, str; only what was sent"""
    rights: Rights
    services: Services
    client: str = ""
    """address of the caller, for audit and login delays"""
    ticket: str | None = None
    csrf: str | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    """extra top-level keys of a successful answer: `total`, `changes`"""
    upload: tuple[int, str] | None = None
    """descriptor and token of a finished upload (methods with `upload=True`)"""

    def has(self, path: str, *privs: str, any_of: bool = False) -> bool:
        """Whether the caller has all (or any) of the privileges there."""
        have = self.rights.privileges(path)
        return (any if any_of else all)(p in have for p in privs)

    def require(self, path: str, *privs: str, any_of: bool = False) -> None:
        """Raise Forbidden unless `has`."""
        if not self.has(path, *privs, any_of=any_of):
            raise denied(path, *privs, any_of=any_of)

    def require_form(self, form: Permission, params: Mapping[str, Any] | None = None) -> None:
        """Check another permission form, with other parameters if given."""
        form.check(self.rights, self.params if params is None else params)
