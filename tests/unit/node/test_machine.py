"""Services, log and power: through systemd, and truthfully without it."""

from __future__ import annotations

import json

import pytest

from panal.core.clock import SystemClock
from panal.core.errors import BadInput, NotFound, ProgramFailed, Unsupported
from panal.node import journal, power, services
from panal.node.journal import Window
from panal.tasks.runner import Tasks
from tests.unit.node.world import Machine


@pytest.fixture
async def tasks(tmp_path):
    made = Tasks("n1", tmp_path / "tasks", SystemClock(), lambda upid, error: None)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def plain(tmp_path):
    return Machine(tmp_path / "plain")


@pytest.fixture
def systemd(tmp_path):
    return Machine(tmp_path / "systemd", systemd=True)


SHOWN = b"""Id=ssh.service
Description=OpenBSD Secure Shell server
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled

Id=chrony.service
Description=chrony.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=

Id=evil.service
SubState=running
"""


async def test_states_by_systemd(systemd):
    systemd.programs.output = SHOWN
    rows = await services.states(systemd.info)
    assert rows == [
        {
            "service": "chrony", "name": "chrony", "desc": "Time synchronisation", "state": "dead",
            "active-state": "inactive", "unit-state": "not-found",
        },
        {
            "service": "sshd", "name": "sshd", "desc": "OpenBSD Secure Shell server", "state": "running",
            "active-state": "active", "unit-state": "enabled",
        },
    ]  # fmt: skip
    assert (await services.state(systemd.info, "sshd"))["state"] == "running"
    assert (await services.state(systemd.info, "cron"))["unit-state"] == "not-found"


async def test_states_without_systemd_are_what_runs(plain):
    plain.file("proc/1/comm", "init\n")
    plain.file("proc/7/comm", "python3\n")
    plain.file("proc/7/cmdline", "python\0-m\0panal.daemon.main\0--state\0/x\0")
    plain.file("proc/9/comm", "sshd\n")
    states = {r["service"]: r["state"] for r in await services.states(plain.info)}
    assert states == {"paneld": "running", "panal-web": "dead"} or states["sshd"] == "running"


async def test_actions_are_tasks(systemd, tasks):
    upid = await services.act(systemd.info, tasks, "sshd", "restart", "root@pam")
    assert (await tasks.wait(upid, 10)).status == "OK"
    assert upid.split(":")[5:7] == ["srvrestart", "sshd"]
    upid = await services.act(systemd.info, tasks, "paneld", "restart", "root@pam")
    await tasks.wait(upid, 10)
    assert systemd.programs.calls == [
        ["systemctl", "restart", "--", "ssh.service"],
        ["systemctl", "--no-block", "restart", "--", "paneld.service"],
    ]
    systemd.programs.status = 1
    upid = await services.act(systemd.info, tasks, "cron", "start", "root@pam")
    assert "it did not work" in str((await tasks.wait(upid, 10)).status)


async def test_actions_that_cannot_be(plain, systemd, tasks):
    with pytest.raises(Unsupported, match="not run by systemd"):
        await services.act(plain.info, tasks, "sshd", "start", "root@pam")
    with pytest.raises(BadInput, match="serves this very request"):
        await services.act(systemd.info, tasks, "paneld", "stop", "root@pam")
    for name in ("nope", "ssh.service", "../x", "--now", "sshd\n"):
        with pytest.raises(NotFound):
            await services.act(systemd.info, tasks, name, "start", "root@pam")
    assert systemd.programs.calls == []


def entry(n: int, message: object = "text") -> bytes:
    row = {
        "__CURSOR": f"s=a;i={n}", "__REALTIME_TIMESTAMP": str(1_700_000_000_000_000 + n), "MESSAGE": message,
        "SYSLOG_IDENTIFIER": "sshd", "_PID": "7", "_HOSTNAME": "h",
    }  # fmt: skip
    return json.dumps(row).encode() + b"\n"


async def test_journal_lines_stand_between_their_cursors(systemd):
    systemd.programs.output = entry(1, "one") + entry(2, [104, 105, 255]) + entry(3)
    got = await journal.entries(systemd.info, Window(since=5, until=9), None, None, None)
    assert got[0] == "s=a;i=1" and got[-1] == "s=a;i=3"
    assert got[1].endswith(" h sshd[7]: one") and got[2].endswith(": hi\ufffd")
    argv = systemd.programs.calls[0]
    assert {"--since=@5", "--until=@9", "--lines=5000"} <= set(argv)


async def test_journal_up_to_a_cursor(systemd):
    systemd.programs.output = b"".join(entry(n, f"m{n}") for n in range(1, 9))
    got = await journal.entries(systemd.info, Window(), 2, "s=a;i=0", "s=a;i=5")
    assert [line.rpartition(" ")[2] for line in got[1:-1]] == ["m3", "m4"]
    assert "--after-cursor=s=a;i=0" in systemd.programs.calls[0]


async def test_a_cursor_is_no_option(systemd):
    """Attack row 8."""
    for cursor in ("--output=cat", "a b", "", "x\n", "$(id)"):
        with pytest.raises(BadInput) as caught:
            await journal.entries(systemd.info, Window(), None, cursor + "\0", None)
        assert caught.value.field == "startcursor"
    with pytest.raises(BadInput):
        await journal.entries(systemd.info, Window(since=1), None, "a", None)
    with pytest.raises(BadInput):
        await journal.entries(systemd.info, Window(until=1), None, None, "a")
    with pytest.raises(BadInput):
        await journal.syslog(systemd.info, Window(), "--all", 0, 10)
    assert systemd.programs.calls == []


async def test_syslog_counts_all_and_keeps_a_page(systemd):
    systemd.programs.output = b"".join(b"line %d\n" % n for n in range(1, 101)) + b"cut off"
    rows, total = await journal.syslog(systemd.info, Window(), "ssh", 98, 2)
    assert (rows, total) == ([(99, "line 99"), (100, "line 100")], 101)
    assert "--unit=ssh" in systemd.programs.calls[0]
    with pytest.raises(ProgramFailed):
        systemd.programs.status = 1
        await journal.syslog(systemd.info, Window(), None, 0, 2)


async def test_without_a_journal_the_file_is_read(plain):
    assert await journal.entries(plain.info, Window(), None, None, None) == []
    plain.clock.now = 1_767_600_000.0  # 2026
    plain.file(
        "var/log/syslog",
        "2026-01-01T00:00:00+00:00 h cron[1]: old\n2026-01-02T00:00:00+00:00 h sshd[2]: new\n  goes on\n"
        "2026-01-03T00:00:00+00:00 h cron[1]: newest\n",
    )
    got = await journal.entries(plain.info, Window(), 2, None, None)
    assert got == ["line=3", "  goes on", "2026-01-03T00:00:00+00:00 h cron[1]: newest", "line=4"]
    assert len(await journal.entries(plain.info, Window(), None, "line=1", "line=4")) == 4
    window = Window(since=1_767_300_000, until=1_767_390_000)
    rows, total = await journal.syslog(plain.info, window, None, 0, 10)
    assert total == 2 and rows[0][1].endswith("new")
    rows, total = await journal.syslog(plain.info, Window(), "cron", 0, 10)
    assert total == 2
    with pytest.raises(BadInput, match="another log"):
        await journal.entries(plain.info, Window(), None, "s=a;i=5", None)


def test_classic_syslog_times():
    assert journal.stamp("Jan  2 03:04:05 host x: y", 2026) is not None
    assert journal.stamp('{"event": "x", "timestamp": "2026-01-02T00:00:00Z"}', 2026) == 1_767_312_000
    assert journal.stamp("no time", 2026) is None


async def test_power_is_real_only_where_it_would_work(plain, systemd):
    """Planted fault: no look at /run/systemd/container would let a lab node switch off its host."""
    await power.act(systemd.info, "reboot")
    await power.act(systemd.info, "shutdown")
    assert systemd.programs.calls == [["systemctl", "--no-block", "reboot"], ["systemctl", "--no-block", "poweroff"]]
    systemd.file("run/systemd/container", "lxc")
    with pytest.raises(Unsupported, match="container"):
        await power.act(systemd.info, "reboot")
    plain.file("proc/1/environ", "A=1")
    plain.file("proc/1/comm", "bash\n")
    with pytest.raises(Unsupported, match=r"process 1 of this node \('bash'\)"):
        await power.act(plain.info, "shutdown")
    plain.file("proc/1/comm", "init\n")
    await power.act(plain.info, "shutdown")
    assert plain.programs.calls == [["shutdown", "-h", "now"]]
    plain.file("proc/1/environ", "container=docker\0")
    with pytest.raises(Unsupported, match="container"):
        await power.act(plain.info, "shutdown")
