"""The versioned key-value store that holds all configuration (design D2)."""

from panal.cluster.store.base import (
    MAX_OPERATIONS,
    MAX_TXN_BYTES,
    Absent,
    Check,
    Delete,
    Event,
    Item,
    Json,
    Listing,
    Op,
    Put,
    Store,
    TxnResult,
    Unchanged,
)
from panal.cluster.store.mirror import Mirror
from panal.cluster.store.sealed import SealedStore
from panal.cluster.store.sqlite import SqliteStore

__all__ = [
    "MAX_OPERATIONS", "MAX_TXN_BYTES", "Absent", "Check", "Delete", "Event", "Item", "Json", "Listing", "Mirror", "Op",
    "Put", "SealedStore", "SqliteStore", "Store", "TxnResult", "Unchanged",
]  # fmt: skip
