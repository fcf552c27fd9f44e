"""Spawned processes: without privileges, found again only as themselves."""

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from panal.core.errors import Busy
from panal.host import process, uids

SLEEP = shutil.which("sleep") or "/bin/sleep"


@pytest.fixture
def output(tmp_path):
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


async def _exec(p):
    """Wait until setpriv has become the program."""
    for _ in range(200):
        if Path(f"/proc/{p.pid}/exe").resolve().name.startswith(("sleep", "coreutils")):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never ran")


def _status(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


async def test_process_has_its_own_session_no_new_privileges_and_only_its_descriptors(output):
    """Planted fault: without --no-new-privs NoNewPrivs is 0."""
    p = process.spawn([SLEEP, "60"], fds=[output], output_fd=output)
    try:
        await _exec(p)
        status = _status(p.pid)
        assert status["NoNewPrivs"] == "1"
        assert status["Umask"] == "0077"
        assert os.getsid(p.pid) == p.pid
        assert sorted(int(f) for f in os.listdir(f"/proc/{p.pid}/fd")) == sorted({0, 1, 2, output})
    finally:
        await p.kill(5)
    assert not p.alive
    assert p.status() == "signal 9"
    p.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
async def test_uid_without_capabilities(output):
    """Planted fault: without --reuid the process is root."""
    p = process.spawn([SLEEP, "60"], fds=[], output_fd=output, uid=uids.BASE + 77)
    try:
        await _exec(p)
        status = _status(p.pid)
        assert status["Uid"].split() == [str(uids.BASE + 77)] * 4
        assert status["Gid"].split() == [str(uids.BASE + 77)] * 4
        assert status["Groups"].strip() == ""
        assert {int(status[c], 16) for c in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {0}
    finally:
        await p.kill(5)
        p.close()


async def test_found_only_with_the_right_start_time(output):
    """Planted fault: without the comparison of start times a reused pid is taken for ours (row 20)."""
    p = process.spawn([SLEEP, "60"], fds=[], output_fd=output)
    try:
        assert process.find(p.pid, p.started + 1) is None
        again = process.find(p.pid, p.started)
        assert again is not None
        assert again.alive
        waiting = asyncio.create_task(again.wait(20))
        await asyncio.sleep(0)
        p.signal(signal.SIGTERM)
        assert await waiting
        again.close()
    finally:
        await p.kill(5)
        p.close()
    assert process.find(p.pid, p.started) is None


async def test_wait_gives_up(output):
    p = process.spawn([SLEEP, "60"], fds=[], output_fd=output)
    assert not await p.wait(0.01)
    await p.kill(5)
    p.close()


def test_uid_is_free_again_when_the_last_descriptor_is_closed():
    """Planted fault: without flock both get the same uid."""
    directory = Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp"))
    try:
        first = uids.take(directory, 5000, 2)
        copy = os.dup(first.fd)
        second = uids.take(directory, 5000, 2)
        assert (first.uid, second.uid) == (5000, 5001)
        os.close(first.fd)
        with pytest.raises(Busy):
            uids.take(directory, 5000, 2)
        os.close(copy)
        third = uids.take(directory, 5000, 2, hint=1)
        assert third.uid == 5000
        uids.give_back(third.uid, directory)
        assert (directory / "5000").exists()
        os.close(second.fd)
        os.close(third.fd)
        uids.give_back(5000, directory)
        uids.give_back(5001, directory)
        assert list(directory.iterdir()) == []
    finally:
        shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lower it")
async def test_the_daemons_place_in_the_kernels_list_of_victims_is_not_passed_on(output):
    """Planted fault: without `_plain_target` the child has ours."""
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text()
    own.write_text("200")
    try:
        p = process.spawn([SLEEP, "60"], fds=[], output_fd=output)
    finally:
        own.write_text(before)
    try:
        assert Path(f"/proc/{p.pid}/oom_score_adj").read_text().strip() == "0"
    finally:
        await p.kill(5)
        p.close()
