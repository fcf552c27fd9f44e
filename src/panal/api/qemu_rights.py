"""Asks the caller's rights for what `guests/config/rights.py` says a wish needs. Used by create, configure, clone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from panal.api.call import Call
from panal.api.permission import denied
from panal.core.errors import Forbidden
from panal.guests.config.rights import Need


def authorizer(call: Call) -> Callable[[Sequence[Need]], None]:
    """A function that raises Forbidden, with PVE's sentence, for the first need the caller does not have."""

    def authorize(needs: Sequence[Need]) -> None:
        for need in needs:
            if need.root:
                if not call.rights.is_root:
                    raise Forbidden(need.why)
            elif not any(
                call.has(path, *need.privileges, any_of=need.any_of) for path in (need.path, need.or_path) if path
            ):
                raise denied(need.path, *need.privileges, any_of=need.any_of)

    return authorize
