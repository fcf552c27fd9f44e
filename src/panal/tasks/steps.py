"""Steps with undo, journalled: what a guest verb is made of, so that a killed daemon leaves nothing half-done.

An *operation* is a function `build(args) -> list[Step]`, registered under a kind. `args` is JSON, decided by the verb's pure
plan before anything happens (names of volumes included), so the same steps can be built again by another process.

    do 1 ─ do 2 ─ … ─ do k (point_of_no_return) ─ do k+1 … ─ end
    a failure, a stop or a restart before k's success: undo of k, k-1, … 1 (all that may have begun)
    after it: roll forward, do k+1 … to the end, retried at the next start of the daemon

Rules for a step: `do` and `undo` are idempotent; `undo` works when `do` never ran, ran half, or ran whole. Without a
`point_of_no_return` the last step's success is it.

Journal: one row per operation (`Journal`), written before a step begins and after it succeeded; removed at the end.
Called by `guests` verbs; `recover` by the daemon before it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Args = Mapping[str, Any]
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `name` is what the task log and the crash tests call it."""

    name: str
    do: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]] | None = None
    point_of_no_return: bool = False


Build = Callable[[Args], Sequence[Step]]


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation that has not ended. `begun` steps were started; `committed`: past the point of no return."""

    upid: str
    kind: str
    args: Args
    begun: int
    committed: bool


class Journal(Protocol):
    """Where open operations are kept (tasks/index.py); every call is on disk when it returns."""

    async def open(self, upid: str, kind: str, args: Args) -> None:
        """A new operation, no step begun."""

    async def mark(self, upid: str, begun: int, committed: bool) -> None:
        """Step number `begun` (from 1) is about to run; or `committed` became true."""

    async def close(self, upid: str) -> None:
        """It ended, forwards or backwards."""

    async def entries(self) -> list[Entry]:
        """All open ones, oldest first."""


async def run(journal: Journal, kind: str, upid: str, args: Args, steps: Sequence[Step], log: Log) -> None:
    """Run the steps; on any failure or cancellation undo them, then raise what happened.

    Past the point of no return nothing is undone: the error says that the rest is done at the next start.
    """
    await journal.open(upid, kind, args)
    committed = False
    begun = 0
    try:
        for begun, step in enumerate(steps, start=1):
            await journal.mark(upid, begun, committed)
            await step.do()
            if step.point_of_no_return or begun == len(steps):
                committed = True
                await asyncio.shield(journal.mark(upid, begun, committed))
    except BaseException:
        if not committed:
            await asyncio.shield(_undo(steps[:begun], log))
            await asyncio.shield(journal.close(upid))
        raise
    await journal.close(upid)


async def recover(journal: Journal, builders: Mapping[str, Build], log: Callable[[Entry, str], None]) -> list[Entry]:
    """Bring every open operation to an end after a restart; returns those found.

    One that cannot be brought to an end now stays in the journal for the next start.
    """
    found = await journal.entries()
    for entry in found:
        steps = list(builders[entry.kind](entry.args))
        try:
            if entry.committed:
                for step in steps[entry.begun :]:
                    await step.do()
            else:
                await _undo(steps[: entry.begun], lambda line, e=entry: log(e, line))  # type: ignore[misc]
        except Exception as exc:  # the daemon must start whatever one operation does
            log(entry, f"could not be brought to an end, will be tried at the next start: {exc}")
            continue
        await journal.close(entry.upid)
        log(entry, "finished what was begun" if entry.committed else "undid what was begun")
    return found


async def _undo(begun: Sequence[Step], log: Log) -> None:
    for step in reversed(begun):
        if step.undo is None:
            continue
        try:
            await step.undo()
        except Exception as exc:  # the other undos matter more than this one
            log(f"undo of '{step.name}' failed: {exc}")
