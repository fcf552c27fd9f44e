"""The engines that the store's contract is run against: add a new one here, nothing else changes.

An engine is opened on a directory; `kill` in `OPEN` code is what a child process runs to open the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from panal.cluster.store import SealedStore, SqliteStore, Store

Open = Callable[[Path, int], Store]


def sqlite(directory: Path, history: int) -> Store:
    """The engine of a single node."""
    return SqliteStore(directory / "store.db", history)


def sealed(directory: Path, history: int) -> Store:
    """The wrapper that encrypts keeps the contract, too."""
    return SealedStore(SqliteStore(directory / "store.db", history), b"k" * 32)


ENGINES: dict[str, Open] = {"sqlite": sqlite, "sealed": sealed}
