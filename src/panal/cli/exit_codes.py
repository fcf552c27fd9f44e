"""Exit codes of `panal`; they live only here.

0 done · 1 the node could not do it (or the task failed) · 2 wrong use: a parameter is wrong · 3 not logged in, or not allowed ·
4 no such thing · 5 the node does not answer · 6 done with warnings · 130 interrupted at the keyboard
"""

from __future__ import annotations

from typing import Final

from panal.client.connection import ApiError
from panal.core.errors import NotFound, PanalError, Unavailable

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
DENIED: Final = 3
NOT_FOUND: Final = 4
UNREACHABLE: Final = 5
WARNINGS: Final = 6
INTERRUPTED: Final = 130


def of(error: PanalError) -> int:
    """The code for an error."""
    if isinstance(error, ApiError):
        if error.status == 400:
            return USAGE
        if error.status in (401, 403):
            return DENIED
        if error.status == 404 or "does not exist" in error.message:
            return NOT_FOUND
        return UNREACHABLE if error.status in (503, 595, 596, 599) else FAILED
    if isinstance(error, NotFound):
        return NOT_FOUND
    return UNREACHABLE if isinstance(error, Unavailable) else FAILED
