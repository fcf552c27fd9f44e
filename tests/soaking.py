"""Whether this is `./test --soak`; for settings that are made when a module is imported. Tests take the `soak` fixture."""

from __future__ import annotations

import os

SOAK = os.environ.get("PANAL_SOAK") == "1"
MORE = 10


def examples(usual: int) -> int:
    """Of a property-based test: `usual` in every run, MORE times as many under soak."""
    return usual * MORE if SOAK else usual
