"""What a handler may return besides JSON values (`api/call.py` tells when)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Encoded:
    """The value of `data` as JSON bytes: for big lists that are encoded once and served often."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG: as it is in format `png`, base64 in the others."""

    data: bytes
