"""Keeps secrets out of logs, task logs, errors and audit records.

`register` is told of values that must never appear (generated secrets, passwords while they are in use); `redact` removes
them and everything that looks like one (tickets, token secrets, `password=…`). `redact_params` does it for a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

HIDDEN: Final = "********"
_PATTERNS = (
    re.compile(r"(PVE(?:VNC|ADM|TFA)?:[^\s:]+:[0-9A-F]{8}::)[A-Za-z0-9+/=%_-]+"),
    re.compile(r"(PVEAPIToken[= ][^\s=!]+![^\s=]+=)[^\s;,]+"),
    re.compile(
        r"((?:password|passwd|passphrase|secret|cipassword|encryption-key)[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;&]+)",
        re.I,
    ),
)
SECRET_NAMES: Final = frozenset(
    {
        "password",
        "cipassword",
        "otp",
        "secret",
        "confirmation-password",
        "tfa-challenge",
        "encryption-key",
        "client-key",
        "keyring",
    }
)
_values: dict[str, int] = {}


def register(value: str) -> None:
    """Never show this value again (in this process). Short ones are left alone: they would blank ordinary words."""
    if len(value) >= 8:
        _values[value] = _values.get(value, 0) + 1


def unregister(value: str) -> None:
    """The other end of `register`."""
    if value in _values:
        _values[value] -= 1
        if not _values[value]:
            del _values[value]


def redact(text: str) -> str:
    """The text without secrets."""
    for value in _values:
        text = text.replace(value, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(lambda m: m[1] + HIDDEN, text)
    return text


def redact_params(params: Mapping[str, object], secret_names: Iterable[str] = ()) -> dict[str, object]:
    """A request's parameters for logs and audit."""
    hidden = SECRET_NAMES | set(secret_names)
    return {k: HIDDEN if k in hidden else (redact(v) if isinstance(v, str) else v) for k, v in params.items()}
