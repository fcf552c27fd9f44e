"""Checks that several calls on virtual machines share: what only root may give, what is not supported."""

from __future__ import annotations

from panal.api.call import Call
from panal.core.errors import BadInput, BadParameters


def root_only(call: Call, *names: str) -> None:
    """BadParameters, in PVE's words, when somebody else than root gives one of these."""
    given = [name for name in names if call.params.get(name) not in (None, False)]
    if given and not call.rights.is_root:
        raise BadParameters(dict.fromkeys(given, "Only root may use this option."))


def unsupported(call: Call, why: str, *names: str) -> None:
    """BadInput naming the parameter."""
    for name in names:
        if call.params.get(name) not in (None, False, ""):
            raise BadInput(name, why)
