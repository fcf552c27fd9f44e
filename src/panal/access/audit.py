"""The audit log: who, from where, what, with what result; append-only, hash-chained, one JSON line a record.

Called by the dispatcher after every change and by login. `record` returns when the line is handed to the kernel, so a
killed daemon loses nothing it answered for; fsync follows within SYNC_AFTER_S (only a power cut can take that second).

Chain: `hash` = SHA-256 over the previous record's hash and this record without `hash`. A line torn by a crash stays where
it is and the next record names its digest, so the chain goes on and `verify` can tell a crash from a hand. Files rotate at
FILE_BYTES; they are kept for KEEP_S, and never more than TOTAL_BYTES (the oldest file goes, which is logged). What a chain
cannot show is that its newest end was cut off: the head is logged at every start and rotation, to compare with.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from panal.core.errors import Busy

if TYPE_CHECKING:
    from panal.core.clock import Clock

FILE_BYTES: Final = 16 * 1024 * 1024
TOTAL_BYTES: Final = 2 * 1024 * 1024 * 1024
KEEP_S: Final = 400 * 86400
PARAMS_LIMIT: Final = 4096
SYNC_AFTER_S: Final = 1.0
BEGINNING: Final = "0" * 64
_log = structlog.get_logger("audit")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a check of the chain: `problem` is None or names file and line. `torn`: lines cut off by crashes."""

    records: int
    head: str
    torn: int = 0
    problem: str | None = None


class AuditLog:
    """The log of one node, under `directory` (mode 0700, files 0600). One thread writes."""

    def __init__(
        self, directory: Path, clock: Clock, *, file_bytes: int = FILE_BYTES, total_bytes: int = TOTAL_BYTES
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._file_bytes = file_bytes
        self._total_bytes = total_bytes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._fd = -1
        self._size = 0
        self._number = 0
        self._head = BEGINNING
        self._sync_planned = False
        self._walking = False

    @property
    def head(self) -> str:
        """Hash of the newest record."""
        return self._head

    async def record(
        self, who: str, client: str, what: str, params_redacted: Mapping[str, object], result: str
    ) -> None:
        """Append one record. Raises OSError when the disk does not take it (the caller logs it and goes on)."""
        params = json.dumps(dict(params_redacted), separators=(",", ":"), default=str)
        shown: object = json.loads(params) if len(params) <= PARAMS_LIMIT else {"cut": params[:PARAMS_LIMIT]}
        body = {
            "v": 1, "time": round(self._clock.wall_s(), 3), "who": who[:256], "client": client[:64],
            "what": what[:512], "params": shown, "result": result[:1024],
        }  # fmt: skip
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._append, body)
        if not self._sync_planned:
            self._sync_planned = True
            loop.call_later(SYNC_AFTER_S, self._plan_sync)

    def _plan_sync(self) -> None:
        self._sync_planned = False
        if self._fd >= 0:
            self._pool.submit(self._sync)

    def _sync(self) -> None:
        if self._fd >= 0:
            os.fsync(self._fd)

    def _append(self, body: dict[str, object]) -> None:
        if self._fd < 0:
            self._open()
        if self._size >= self._file_bytes:
            self._rotate()
        self._write(body)

    def _write(self, body: dict[str, object]) -> None:
        digest = chain(self._head, body)
        line = json.dumps({**body, "prev": self._head, "hash": digest}, separators=(",", ":")).encode() + b"\n"
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                raise OSError(28, "audit line written in part: disk full?")
        except OSError:
            # what is there now is a torn line: opening again marks it
            os.close(self._fd)
            self._fd = -1
            raise
        self._size += len(line)
        self._head = digest

    def _path(self, number: int) -> Path:
        return self._directory / f"audit-{number:08d}.jsonl"

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = files(self._directory)
        self._number = int(found[-1].stem.rpartition("-")[2]) if found else 1
        self._fd = os.open(self._path(self._number), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._head, torn = _last(found)
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._size += os.write(self._fd, b"\n")
        if torn is not None:
            self._write(self._mark("torn", {"sha256": hashlib.sha256(torn.rstrip(b"\n")).hexdigest()}))
            _log.warning("the audit log's last line was torn by a crash; marked", file=str(self._path(self._number)))
        _log.info("audit log open", head=self._head, file=str(self._path(self._number)))

    def _mark(self, what: str, params: dict[str, object]) -> dict[str, object]:
        return {
            "v": 1, "time": round(self._clock.wall_s(), 3), "who": "", "client": "", "what": what, "params": params,
            "result": "",
        }  # fmt: skip

    def _rotate(self) -> None:
        os.fsync(self._fd)
        os.close(self._fd)
        self._number += 1
        self._fd = os.open(self._path(self._number), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = 0
        _log.info("audit log continues in a new file", head=self._head, file=str(self._path(self._number)))
        older = files(self._directory)[:-1]
        total = sum(path.stat().st_size for path in older)
        for path in older:
            old = self._clock.wall_s() - path.stat().st_mtime > KEEP_S
            if not old and total <= self._total_bytes:
                break
            total -= path.stat().st_size
            path.unlink()
            _log.warning("audit file removed", file=str(path), reason="older than kept" if old else "size limit")

    async def verify(self) -> Verdict:
        """Walk the whole chain in a thread, one walk at a time (Busy): it may be gigabytes."""
        if self._walking:
            raise Busy("the audit log is being checked already; try again later")
        self._walking = True
        try:
            return await asyncio.to_thread(verify, self._directory)
        finally:
            self._walking = False

    def close(self) -> None:
        """Sync and close. Later records open it again."""
        self._pool.submit(self._close).result(timeout=30)

    def _close(self) -> None:
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1


def chain(head: str, body: Mapping[str, Any]) -> str:
    """Hash of a record (its dict without `prev` and `hash`) after `head`."""
    text = json.dumps(body, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(f"{head}\n{text}".encode()).hexdigest()


def files(directory: Path) -> list[Path]:
    """All files, oldest first."""
    return sorted(directory.glob("audit-*.jsonl"))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("hash"), str) else None


def _last(found: list[Path]) -> tuple[str, bytes | None]:
    """Hash of the last whole record, and what stands torn after it."""
    for path in reversed(found):
        lines = path.read_bytes().splitlines(keepends=True)
        torn = None
        for line in reversed(lines):
            record = _parse(line)
            if record is not None:
                return record["hash"], torn
            torn = line if torn is None else torn
        if torn is not None:
            return (_last(found[: found.index(path)])[0], torn)
    return BEGINNING, None


def _lines(directory: Path) -> Iterator[tuple[Path, int, bytes]]:
    for path in files(directory):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield path, number, line


def verify(directory: Path) -> Verdict:
    """Check every record that is kept. The first file's beginning is taken as it is: older files may be gone."""
    head: str | None = None
    records = torn = 0
    pending: bytes | None = None
    for path, number, line in _lines(directory):
        where = f"{path.name} line {number}"
        record = _parse(line)
        if record is None:
            if pending is not None:
                return Verdict(records, head or "", torn, f"{where}: two unreadable lines in a row")
            pending = line.rstrip(b"\n")
            continue
        digest, prev = record.pop("hash"), record.pop("prev", None)
        if chain(str(prev), record) != digest:
            return Verdict(records, head or "", torn, f"{where}: the record was changed")
        if head is not None and prev != head:
            return Verdict(records, head, torn, f"{where}: records before it are missing or in another order")
        if pending is not None:
            if record["what"] != "torn" or record["params"].get("sha256") != hashlib.sha256(pending).hexdigest():
                return Verdict(records, head or "", torn, f"{where}: the line before it was changed")
            torn += 1
            pending = None
        head = digest
        records += 1
    return Verdict(records, head or BEGINNING, torn + (pending is not None))
