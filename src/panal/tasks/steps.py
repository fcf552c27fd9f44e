"""Steps with undo, journalled: what a guest verb is made of, so that a killed daemon leaves nothing half-done.

An *operation* is a function `build(args) -> list[Step]`, registered under a kind. `args` is JSON, decided by the verb's pure
plan before anything happens (names of volumes included), so the same steps can be built again by another process.

    do 1 ─ do 2 ─ … ─ do k (point_of_no_return) ─ do k+1 … ─ end
    a failure, a stop or a restart before k's success: undo of k, k-1, … 1 (all that may have begun)
    after it: roll forward, do k+1 … to the end; a stop no longer stops it, a failure is retried at the daemon's next start

Rules for a step: `do` and `undo` are idempotent; `undo` works when `do` never ran, ran half, or ran whole. Either may come
again at a later start of the daemon, when names (of guests, snapshots, volumes) belong to somebody else: a step makes sure that
what it touches is still what was meant. Without a `point_of_no_return` the last step's success is it.

Journal: one row per operation (`Journal`), written before a step begins and after it succeeded; removed at the end.
Called by `guests` verbs; `recover` by the daemon before it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol

from panal.core.errors import Failed

Args = Mapping[str, Any]
Log = Callable[[str], None]


_LOG: Final[ContextVar[Log | None]] = ContextVar("log of the operation that runs", default=None)


def note(line: str) -> None:
    """A line into the log of the task whose step calls this; nothing outside of one."""
    log = _LOG.get()
    if log is not None:
        log(line)


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `name` is what the task log and the crash tests call it."""

    name: str
    do: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]] | None = None
    point_of_no_return: bool = False
    untouched: tuple[type[Exception], ...] = ()
    """`do` raises one of these when it has done nothing, so that there is nothing to undo; the journal is told at once"""


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

    Past the point of no return nothing is undone and a cancellation waits: the caller's names (of volumes, say) may be taken
    again by others as soon as the task has ended, so the rest must not come later than that. When it fails nevertheless, the
    log says so and the next start of the daemon tries again.
    """
    _LOG.set(log)
    await journal.open(upid, kind, args)
    point = _point(steps)
    begun = 0
    try:
        for number, step in enumerate(steps[:point], start=1):
            begun = number
            await journal.mark(upid, begun, False)
            try:
                await step.do()
            except step.untouched:
                begun -= 1
                raise
        late = await _unstoppable(journal.mark(upid, point, True))
    except BaseException:
        await _unstoppable(_give_up(journal, upid, steps[:begun], log))
        raise
    late |= await _unstoppable(_roll_forward(journal, upid, steps, point, log))
    if late:
        log("asked to stop after the point of no return: the work was finished instead")


def _point(steps: Sequence[Step]) -> int:
    """Number of the step whose success is the point of no return."""
    return next((n for n, step in enumerate(steps, start=1) if step.point_of_no_return), len(steps))


async def _unstoppable(work: Coroutine[Any, Any, None]) -> bool:
    """Wait for `work` to its end whatever comes; True when a cancellation came meanwhile. Raises what `work` raises."""
    running = asyncio.ensure_future(work)
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled = True
    running.result()
    return cancelled


async def _give_up(journal: Journal, upid: str, begun: Sequence[Step], log: Log) -> None:
    # a step that did nothing is not to be undone by the next start either
    await _noted(journal.mark(upid, len(begun), False), log)
    if await _undo(begun, log):
        await _noted(journal.close(upid), log)
    else:
        log("what could not be undone is tried again at the daemon's next start")


async def _noted(write: Coroutine[Any, Any, None], log: Log) -> None:
    try:
        await write
    except Exception as exc:  # what went wrong before this is what the caller must hear
        log(f"the journal could not be written: {exc}")


async def _roll_forward(journal: Journal, upid: str, steps: Sequence[Step], point: int, log: Log) -> None:
    try:
        for number, step in enumerate(steps[point:], start=point + 1):
            await journal.mark(upid, number, True)
            await step.do()
    except Exception:
        log("this cannot be undone any more: what is left is done at the daemon's next start")
        raise
    await journal.close(upid)


async def recover(journal: Journal, builders: Mapping[str, Build], log: Callable[[Entry, str], None]) -> list[Entry]:
    """Bring every open operation to an end after a restart; returns those found.

    One that cannot be brought to an end now stays in the journal for the next start.
    """
    found = await journal.entries()
    for entry in found:
        try:
            steps = list(builders[entry.kind](entry.args))
            if entry.committed:
                # the step last begun may not have succeeded; the point of no return itself has
                for step in steps[max(_point(steps), entry.begun - 1) :]:
                    await step.do()
            elif not await _undo(steps[: entry.begun], lambda line, e=entry: log(e, line)):  # type: ignore[misc]
                raise Failed("an undo failed")
        except Exception as exc:  # the daemon must start whatever one operation does
            log(entry, f"could not be brought to an end, will be tried at the next start: {exc}")
            continue
        await journal.close(entry.upid)
        log(entry, "finished what was begun" if entry.committed else "undid what was begun")
    return found


async def _undo(begun: Sequence[Step], log: Log) -> bool:
    whole = True
    for step in reversed(begun):
        if step.undo is None:
            continue
        try:
            await step.undo()
        except Exception as exc:  # the other undos matter more than this one
            log(f"undo of '{step.name}' failed: {exc}")
            whole = False
    return whole
