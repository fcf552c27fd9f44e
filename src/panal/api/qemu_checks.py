"""Checks that several calls on virtual machines share: what only root may give, what is not supported, what a wish needs."""

from __future__ import annotations

from collections.abc import Iterable

from panal.api.call import Call
from panal.core.errors import BadInput, BadParameters, Forbidden
from panal.guests.config.rights import Need


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


def require_needs(call: Call, needs: Iterable[Need]) -> None:
    """Forbidden unless the caller has all of them."""
    for need in needs:
        if need.root:
            if not call.rights.is_root:
                raise Forbidden(need.why)
        elif not (need.or_path and call.has(need.or_path, *need.privileges, any_of=need.any_of)):
            call.require(need.path, *need.privileges, any_of=need.any_of)
