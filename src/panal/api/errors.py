"""HTTP status and text of every error: the only place that knows both (core/errors.py draws the tree).

The numbers are those that clients of the Proxmox VE API expect: what PVE answers with a plain `die` is a 500 with the text.
Invariant: nothing of an error that is not ours gets out; it is logged once, with the request's id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from panal.core import errors as e
from panal.core.redact import redact

VERIFICATION: Final = "Parameter verification failed."
RETRY_AFTER_S: Final = 2
HOLD_401_S: Final = 3.0

_STATUS: tuple[tuple[type[e.PanalError], int], ...] = (
    (e.BadInput, 400),
    (e.NotAuthenticated, 401),
    (e.Forbidden, 403),
    (e.Busy, 429),
    (e.Unsupported, 501),
    (e.Unavailable, 503),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What goes onto the wire. `fields` is the `errors` map; `code` and `params` are for translation."""

    status: int
    message: str
    fields: dict[str, str] = field(default_factory=dict)
    code: str = "internal"
    params: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def hold_s(self) -> float:
        """Every 401 is late: password guessing is slow whatever the guesser asks."""
        return HOLD_401_S if self.status == 401 else 0


def failure(error: BaseException, request_id: str) -> Failure:
    """The wire's view of an error; one that is not ours tells its request id and nothing else."""
    if not isinstance(error, e.PanalError):
        return Failure(500, f"internal error, see the log of paneld for request {request_id}")
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    params = {k: v for k, v in error.params.items() if isinstance(v, (str, int, float))}
    if isinstance(error, e.BadInput):
        fields = {name: redact(text) for name, text in error.fields.items()}
        return Failure(status, VERIFICATION, fields, error.code, {})
    params = {k: redact(v) if isinstance(v, str) else v for k, v in params.items()}
    return Failure(status, redact(str(error)), {}, error.code, params)


def not_implemented(verb: str, path: str) -> Failure:
    """No such method."""
    return Failure(501, f"Method '{verb} {path}' not implemented", code="no-such-method")
