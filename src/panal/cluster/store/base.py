"""The store's interface; every engine passes `tests/contract/store`.

Callers never see an engine: they get a `Mirror` over one. Keys are `/`-separated words (`guest/100/config`), values JSON
objects with a version field `v`. One revision counter for the whole store; a txn moves it by one, whatever its size.

Invariants: a txn happens whole or not at all; `watch` delivers every event after its revision, once, in order, the events
of one txn together; a txn that returned is on disk. Limits are the same in every engine, so that what works on one node
works in a cluster: MAX_OPERATIONS checks, as many operations, MAX_TXN_BYTES together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

MAX_OPERATIONS: Final = 100
MAX_TXN_BYTES: Final = 1024 * 1024

# Any JSON object: engines do not look inside.
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A key with its value and the revision of its last change."""

    key: str
    value: Json
    revision: int
    created: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All items under a prefix, sorted by key, as of one revision."""

    items: tuple[Item, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Holds while the key's last change is exactly this revision."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Absent:
    """Holds while there is no such key."""

    key: str


Check = Unchanged | Absent


@dataclass(frozen=True, slots=True)
class Put:
    """Write the value."""

    key: str
    value: Json


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key; no error if it is not there."""

    key: str


Op = Put | Delete


@dataclass(frozen=True, slots=True)
class TxnResult:
    """`ok` False: a check did not hold, nothing was written, `revision` is the store's at that moment."""

    ok: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """One change; `item` is None for a removal."""

    key: str
    item: Item | None
    revision: int


class Store(Protocol):
    """Errors: BadInput over a limit or a malformed key; NoQuorum; OutcomeUnknown; Failed for a full disk."""

    async def get(self, key: str) -> Item | None:
        """The newest committed value."""

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with `prefix`, in order, at one revision."""

    async def txn(self, checks: Sequence[Check], ops: Sequence[Op]) -> TxnResult:
        """If every check holds, do all operations; else nothing. The same key twice in `ops` is BadInput."""

    def watch(self, prefix: str, revision: int) -> AsyncIterator[tuple[Event, ...]]:
        """Events of keys under `prefix` after `revision`, a tuple per txn; never ends by itself.

        Raises NotFound when `revision` is older than the history kept: list again and watch from there.
        """

    async def close(self) -> None:
        """Stop; watches end."""
