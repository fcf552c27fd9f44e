"""Runs tasks: names them, queues them, writes their logs, ends every one of them truthfully.

Called by `guests`, `storage` and `api`. `Tasks.start` must have run before anything is spawned: it ends what a crash left
open. Invariant: every task that got a UPID ends, exactly once, also when the daemon is killed (then at the next start).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from panal.core.clock import Clock
from panal.core.errors import Busy, NotFound, PanalError
from panal.core.redact import redact
from panal.tasks import log, steps
from panal.tasks.index import Filter, Index, StepJournal
from panal.tasks.model import Task, TaskRecord, Upid
from panal.tasks.queues import Queues

MAX_RUNNING: Final = 1000
KEEP_TASKS: Final = 10_000
CLOSE_TIMEOUT_S: Final = 60.0
KEEP_S: Final = 90 * 24 * 3600
STOPPED: Final = "stopped by a person"
RESTARTED: Final = "interrupted: the daemon was stopped or restarted while the task ran"

Body = Callable[[Task], Awaitable[None]]


class _Task:
    """The Task protocol, and what the runner keeps of it."""

    def __init__(self, upid: Upid, writer: log.LogWriter) -> None:
        self.upid = upid
        self.warnings = 0
        self._writer = writer
        self.stop_reason: str | None = None
        self.running: asyncio.Task[None] | None = None
        self.phase: Literal["new", "running", "ending"] = "new"

    def cancel(self, reason: str) -> None:
        """Ask it to end. One that has not begun must not be cancelled by asyncio: its code, and so its end, would never run."""
        if self.phase == "ending":
            return
        self.stop_reason = self.stop_reason or reason
        if self.phase == "running" and self.running is not None:
            self.running.cancel()

    def log(self, line: str) -> None:
        self._writer.write(line)

    def warn(self, line: str) -> None:
        self.warnings += 1
        self._writer.write(f"WARN: {line}")

    def close(self, status: str) -> None:
        last = "TASK OK" if status == "OK" else f"TASK {status}" if self.warnings else f"TASK ERROR: {status}"
        self._writer.write(last, last=True)
        self._writer.close()


class Tasks:
    """All tasks of this node."""

    def __init__(
        self, node: str, directory: Path, clock: Clock, on_error: Callable[[str, BaseException], None]
    ) -> None:
        """`on_error(upid, error)` is told of every failure that is not one of ours: the edge logs it once."""
        self.node = node
        self.queues = Queues()
        self._clock = clock
        self._logs = directory / "log"
        self._index = Index(directory / "index.db")
        self.journal = StepJournal(directory / "journal.db")
        self._builders: dict[str, steps.Build] = {}
        self._open: dict[str, _Task] = {}
        self._counter = 0
        self._on_error = on_error

    def register(self, kind: str, build: steps.Build) -> None:
        """Make an operation known (tasks/steps.py)."""
        self._builders[kind] = build

    async def start(self) -> list[steps.Entry]:
        """End what an earlier daemon left open: steps first, then the tasks. Returns the operations found."""

        def note(entry: steps.Entry, line: str) -> None:
            writer = log.LogWriter(log.path_of(self._logs, entry.upid))
            writer.write(line)
            writer.close()

        found = await steps.recover(self.journal, self._builders, note)
        finished = {e.upid for e in found if e.committed} - {e.upid for e in await self.journal.entries()}
        orphans, _ = await self._index.list(Filter(running=True), limit=MAX_RUNNING * 10)
        for record in orphans:
            upid = str(record.upid)
            status = "OK" if upid in finished else RESTARTED
            writer = log.LogWriter(log.path_of(self._logs, upid))
            writer.write("TASK OK" if status == "OK" else f"TASK ERROR: {status}", last=True)
            writer.close()
            await self._index.end(upid, self._clock.wall_s(), status)
        await self.trim()
        return found

    async def trim(self) -> None:
        """Forget what is older than 90 days or beyond 10,000 tasks, logs included."""
        for upid in await self._index.trim(self._clock.wall_s() - KEEP_S, KEEP_TASKS):
            log.path_of(self._logs, upid).unlink(missing_ok=True)

    async def spawn(self, kind: str, subject: str, user: str, body: Body, *, queue: str | None = None) -> str:
        """Run `body` as a task of type `kind` on `subject` (a guest's number, a storage…); returns the UPID at once.

        With `queue`, waits its turn there; the log says for whom. Busy when MAX_RUNNING tasks are open.
        """
        if len(self._open) >= MAX_RUNNING:
            raise Busy(f"{MAX_RUNNING} tasks are running on this node already; try again later")
        now = int(self._clock.wall_s())
        # unique within this process; the pid makes it unique between two runs of the daemon within a second
        self._counter = (self._counter + 1) & 0xFFFFFFFF
        upid = Upid(self.node, os.getpid() & 0xFFFFFFFF, self._counter, now, kind, Upid.escape(subject), user)
        task = _Task(upid, log.LogWriter(log.path_of(self._logs, str(upid))))
        self._open[str(upid)] = task
        try:
            await self._index.add(TaskRecord(upid, self._clock.wall_s()))
        except BaseException:
            # cancelled or failed: the row may be there or come yet; the file's thread works in order, so this comes after it
            await asyncio.shield(self._finish(task, "could not be begun"))
            raise
        task.running = asyncio.create_task(self._run(task, body, queue), name=str(upid))
        return str(upid)

    async def _run(self, task: _Task, body: Body, queue: str | None) -> None:
        status = "OK"
        task.phase = "running"
        try:
            if task.stop_reason is not None:
                raise asyncio.CancelledError
            if queue is None:
                await body(task)
            else:
                waiting: Callable[[str], None] = lambda who: task.log(f"waiting for {who}")  # noqa: E731
                async with self.queues.turn(queue, str(task.upid), waiting):
                    await body(task)
            if task.warnings:
                status = f"WARNINGS: {task.warnings}"
        except asyncio.CancelledError:
            status = task.stop_reason or RESTARTED
        except PanalError as exc:
            status = str(exc)
        except Exception as exc:
            status = f"internal error: {type(exc).__name__}: {exc}"
            self._on_error(str(task.upid), exc)
        status = " ".join(redact(status).split()) or "failed without a message"
        if status not in ("OK", f"WARNINGS: {task.warnings}"):
            task.warnings = 0
        task.phase = "ending"
        await self._finish(task, status)

    async def _finish(self, task: _Task, status: str) -> None:
        task.close(status)
        try:
            await self._index.end(str(task.upid), self._clock.wall_s(), status)
        except PanalError as exc:  # a full disk: the next start ends it, the log has the truth
            self._on_error(str(task.upid), exc)
        finally:
            del self._open[str(task.upid)]

    async def operate(self, task: Task, kind: str, args: steps.Args) -> None:
        """Run a registered operation inside a task, journalled."""
        await steps.run(self.journal, kind, str(task.upid), args, self._builders[kind](args), task.log)

    async def stop(self, upid: str) -> None:
        """Ask a task to end; it undoes what it began. NotFound when it does not run."""
        task = self._open.get(upid)
        if task is None or task.running is None:
            raise NotFound(f"no running task {upid} on this node")
        task.cancel(STOPPED)

    async def get(self, upid: str) -> TaskRecord:
        """One task, running or ended. NotFound."""
        record = await self._index.get(upid)
        if record is None:
            raise NotFound(f"no such task: {upid}")
        return record

    async def list(self, want: Filter, start: int = 0, limit: int = 50) -> tuple[Sequence[TaskRecord], int]:
        """Tasks newest first, and how many match."""
        return await self._index.list(want, start, limit)

    async def read_log(self, upid: str, start: int = 0, limit: int = 50) -> tuple[Sequence[tuple[int, str]], int]:
        """Numbered lines and their total number. NotFound."""
        await self.get(upid)
        return await asyncio.to_thread(log.read, log.path_of(self._logs, upid), start, limit)

    async def wait(self, upid: str, timeout_s: float | None = None) -> TaskRecord:
        """Until it has ended; TimeoutError."""
        task = self._open.get(upid)
        if task is not None and task.running is not None:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait([task.running])
        return await self.get(upid)

    @property
    def running(self) -> int:
        """How many tasks are open."""
        return len(self._open)

    async def close(self) -> None:
        """Stop all tasks (they undo), end them, close the files."""
        for task in list(self._open.values()):
            task.cancel(RESTARTED)
        open_tasks = [t.running for t in self._open.values() if t.running is not None]
        if open_tasks:
            # what does not end in time is killed with the process and brought to its end by the journal
            await asyncio.wait(open_tasks, timeout=CLOSE_TIMEOUT_S)
        self._index.close()
        self.journal.shut()
