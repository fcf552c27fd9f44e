"""The audit chain: tampering shows, a crash is told from a hand, nothing answered is lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from panal.access.audit import AuditLog, files, verify
from tests.conftest import Soak
from tests.unit.access.conftest import FakeClock


async def fill(directory: Path, count: int, **more: int) -> AuditLog:
    log = AuditLog(directory, FakeClock(), **more)
    for number in range(count):
        await log.record("root@pam", "192.0.2.1", "PUT /x", {"n": number, "text": "ü\ud800\n"}, "OK")
    return log


async def test_records_are_lines_with_who_where_what_result(tmp_path: Path) -> None:
    log = await fill(tmp_path / "audit", 3)
    (path,) = files(tmp_path / "audit")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["params"]["n"] for r in rows] == [0, 1, 2]
    assert {k: rows[0][k] for k in ("who", "client", "what", "result", "time", "v")} == {
        "who": "root@pam", "client": "192.0.2.1", "what": "PUT /x", "result": "OK", "time": 1_800_000_000.0, "v": 1,
    }  # fmt: skip
    verdict = await log.verify()
    assert (verdict.records, verdict.problem, verdict.head) == (3, None, log.head)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    log.close()


def change(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b"root@pam", b"evil@pve")


def remove(lines: list[bytes]) -> None:
    del lines[2]


def swap(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def repeat(lines: list[bytes]) -> None:
    lines.insert(2, lines[1])


def spoil(lines: list[bytes]) -> None:
    lines[2] = b"garbage\n"


def rehash(lines: list[bytes]) -> None:
    from panal.access.audit import chain

    row = json.loads(lines[2])
    del row["hash"]
    prev = row.pop("prev")
    row["who"] = "evil@pve"
    lines[2] = json.dumps({**row, "prev": prev, "hash": chain(prev, row)}).encode() + b"\n"


@pytest.mark.parametrize("tamper", [change, remove, swap, repeat, spoil, rehash])
async def test_tampering_shows(tmp_path: Path, tamper: Callable[[list[bytes]], None]) -> None:
    """Planted faults: `verify` without the hash, without `prev`, without the look at the line before a torn mark."""
    (await fill(tmp_path, 6)).close()
    (path,) = files(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    tamper(lines)
    path.write_bytes(b"".join(lines))
    verdict = verify(tmp_path)
    assert verdict.problem is not None
    assert "line" in verdict.problem


@pytest.mark.parametrize("cut", [1, 10, 100])
async def test_a_torn_last_line_is_marked_and_the_chain_goes_on(tmp_path: Path, cut: int) -> None:
    """Planted fault: `_open` that appends without the mark."""
    (await fill(tmp_path, 3)).close()
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert verify(tmp_path).problem is None  # a torn end alone is no crime
    for _ in range(2):
        log = await fill(tmp_path, 2)
        verdict = await log.verify()
        assert verdict.problem is None
        assert verdict.torn == (cut > 1)
        log.close()
    if cut == 1:  # only the line's end was missing
        return
    lines = path.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[3])["what"] == "torn"
    lines[2] = b'{"another":"half line\n'
    path.write_bytes(b"".join(lines))
    assert verify(tmp_path).problem is not None


async def test_only_a_torn_mark_excuses_an_unreadable_line(tmp_path: Path) -> None:
    """A caller's own parameters cannot. Planted fault: `verify` that looks at the digest alone."""
    log = await fill(tmp_path, 1)
    await log.record("u", "", "PUT /x", {"sha256": hashlib.sha256(b"garbage").hexdigest()}, "OK")
    log.close()
    (path,) = files(tmp_path)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"garbage\n" + second)
    assert verify(tmp_path).problem is not None


async def test_files_rotate_chain_and_are_bounded(tmp_path: Path) -> None:
    log = await fill(tmp_path, 60, file_bytes=2000, total_bytes=10_000)
    kept = files(tmp_path)
    assert 3 < len(kept) < 9
    assert sum(p.stat().st_size for p in kept) < 10_000 + 2 * 2400
    assert (await log.verify()).problem is None
    log.close()
    again = await fill(tmp_path, 5, file_bytes=2000, total_bytes=10_000)
    assert (await again.verify()).problem is None
    again.close()
    kept = files(tmp_path)
    kept[1].unlink()
    assert verify(tmp_path).problem is not None


async def test_an_empty_or_wholly_torn_file(tmp_path: Path) -> None:
    assert verify(tmp_path).records == 0
    (tmp_path / "audit-00000001.jsonl").write_bytes(b'{"half')
    log = await fill(tmp_path, 1)
    verdict = await log.verify()
    assert (verdict.records, verdict.torn, verdict.problem) == (2, 1, None)
    log.close()


async def test_huge_parameters_are_cut(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, FakeClock())
    await log.record("u" * 9999, "c" * 999, "w" * 9999, {"big": "x" * 100_000}, "r" * 99_999)
    assert files(tmp_path)[0].stat().st_size < 8000
    assert (await log.verify()).problem is None
    log.close()


async def test_a_full_disk_is_an_error_and_no_gap_in_the_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await fill(tmp_path, 2)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:20]))
    with pytest.raises(OSError, match="disk full"):
        await log.record("u", "", "w", {}, "OK")
    monkeypatch.undo()
    await log.record("u", "", "w", {}, "OK")
    verdict = await log.verify()
    assert (verdict.records, verdict.torn, verdict.problem) == (4, 1, None)
    log.close()


async def test_many_at_once_stay_in_one_chain(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, FakeClock())
    await asyncio.gather(*(log.record("u", "", "w", {"n": n}, "OK") for n in range(200)))
    assert (await log.verify()).records == 200
    log.close()


def test_a_killed_writer_lost_nothing_it_answered_for(tmp_path: Path, soak: Soak) -> None:
    """SIGKILL after each answer line. Planted fault: `_write` that keeps lines and writes every eighth time."""
    for number in range(
        soak("SIGKILL of the audit log's writer: answered records lost, or chain broken", small=1, big=300)
    ):
        killed(tmp_path / str(number), number % 60)


def killed(directory: Path, after: int) -> None:
    """One round."""
    program = (
        "import asyncio,sys\nfrom pathlib import Path\nfrom panal.access.audit import AuditLog\n"
        "from panal.core.clock import SystemClock\n"
        "async def main():\n    log = AuditLog(Path(sys.argv[1]), SystemClock())\n    n = 0\n"
        "    while True:\n        await log.record('u', '', 'w', {'n': n}, 'OK')\n"
        "        print(n, flush=True)\n        n += 1\n"
        "asyncio.run(main())\n"
    )
    env = {**os.environ, "PYTHONPATH": "src"}
    with subprocess.Popen([sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE, env=env) as child:
        assert child.stdout is not None
        answered = -1
        while answered < after:
            text = child.stdout.readline().strip()
            answered = int(text) if text.isdigit() else answered
        child.send_signal(signal.SIGKILL)
        rest = [line for line in child.stdout.read().split(b"\n") if line.isdigit()]
        answered = max([answered, *map(int, rest)])
    (path,) = files(directory)
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    assert len(rows) > answered
    assert verify(directory).problem is None
