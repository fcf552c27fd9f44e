"""A local copy of the whole store, kept by watch: what ordinary reads come from; decisions are txns.

Everybody above gets this object. Reads are plain calls (no await), a prefix of history, monotonic, and read-your-writes:
`txn` returns after the mirror has seen its own revision. Values are shared: never change one, make a new dict.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Sequence
from typing import Final

from panal.cluster.store.base import Absent, Check, Event, Item, Json, Op, Put, Store, TxnResult, Unchanged
from panal.core.errors import Conflict, NotFound, Unavailable

CATCH_UP_TIMEOUT_S: Final = 10.0
ATTEMPTS: Final = 50

Listener = Callable[[tuple[Event, ...]], None]


class Mirror:
    """The configuration as this node sees it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._items: dict[str, Item] = {}
        self._keys: list[str] = []
        self._listeners: list[tuple[str, Listener]] = []
        self._rooms: dict[str, int] = {}
        self._floor = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.revision = 0

    async def start(self) -> None:
        """Read everything, then follow. Returns when the copy is complete."""
        await self._load()
        self._task = asyncio.create_task(self._follow(), name="store mirror")

    async def _load(self) -> None:
        listing = await self._store.list("")
        self._items = {item.key: item for item in listing.items}
        self._keys = sorted(self._items)
        # removals leave no trace in a listing: every room may have changed as late as this revision
        self._rooms.clear()
        self._floor = self.revision = listing.revision

    async def _follow(self) -> None:
        while True:
            try:
                async for events in self._store.watch("", self.revision):
                    self._apply(events)
                return
            except NotFound:  # the history was compacted under us
                before = set(self._keys)
                await self._load()
                gone = tuple(Event(key, None, self.revision) for key in sorted(before - set(self._keys)))
                self._announce(gone + tuple(Event(i.key, i, i.revision) for i in self._items.values()))

    def _apply(self, events: tuple[Event, ...]) -> None:
        for event in events:
            if event.item is None:
                if self._items.pop(event.key, None) is not None:
                    del self._keys[bisect.bisect_left(self._keys, event.key)]
            else:
                if event.key not in self._items:
                    bisect.insort(self._keys, event.key)
                self._items[event.key] = event.item
            self._rooms[event.key.partition("/")[0]] = event.revision
            self.revision = event.revision
        self._announce(events)

    def _announce(self, events: tuple[Event, ...]) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()
        for prefix, listener in self._listeners:
            mine = tuple(e for e in events if e.key.startswith(prefix))
            if mine:
                listener(mine)

    def get(self, key: str) -> Item | None:
        """The item, or None."""
        return self._items.get(key)

    def value(self, key: str) -> Json | None:
        """The value alone."""
        item = self._items.get(key)
        return None if item is None else item.value

    def list(self, prefix: str) -> list[Item]:
        """All items under the prefix, sorted by key."""
        lo = bisect.bisect_left(self._keys, prefix)
        hi = bisect.bisect_left(self._keys, prefix + "\U0010ffff", lo)
        return [self._items[key] for key in self._keys[lo:hi]]

    def room_revision(self, room: str) -> int:
        """Revision of the last change under the first path word (`access`, `guest`): what caches are keyed by."""
        return self._rooms.get(room, self._floor)

    async def wait(self, revision: int, timeout_s: float = CATCH_UP_TIMEOUT_S) -> None:
        """Until the mirror has seen `revision`; Unavailable after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.revision < revision:
                    await self._arrived.wait()
        except TimeoutError:
            raise Unavailable("this node's copy of the configuration is behind; try again") from None

    async def txn(self, checks: Sequence[Check], ops: Sequence[Op]) -> TxnResult:
        """Compare and set; on return the mirror shows the outcome (also of a txn that lost)."""
        result = await self._store.txn(checks, ops)
        await self.wait(result.revision)
        return result

    async def create(self, key: str, value: Json, message: str) -> int:
        """Put a new key; Conflict(message) when it exists. Returns the revision."""
        result = await self.txn([Absent(key)], [Put(key, value)])
        if not result.ok:
            raise Conflict(message, key=key)
        return result.revision

    async def update(self, key: str, change: Callable[[Json | None], Json | Op | None]) -> Json | None:
        """Read, change, compare and set, retried inside when somebody else was faster (design D8).

        `change` gets the present value (None: absent) and returns the new one, an operation (`Delete`), or None for
        nothing to do; it may raise to give up. It may run several times. Returns the value written.
        """
        for _ in range(ATTEMPTS):
            item = self.get(key)
            new = change(None if item is None else item.value)
            if new is None:
                return None if item is None else item.value
            op = Put(key, new) if isinstance(new, dict) else new
            check = Absent(key) if item is None else Unchanged(key, item.revision)
            if (await self.txn([check], [op])).ok:
                return op.value if isinstance(op, Put) else None
        raise Conflict(f"{key} is being changed by too many others; try again")

    def listen(self, prefix: str, listener: Listener) -> None:
        """Call `listener` with the events of every txn that touches the prefix, after the mirror shows them."""
        self._listeners.append((prefix, listener))

    async def close(self) -> None:
        """Stop following and close the engine."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._store.close()
