"""Processes that outlive us: how a guest's hypervisor is born without privileges, found again, watched and killed.

Called by the guest drivers. A process is known by pid *and* start time and held by a pidfd, so a reused pid is never taken
for ours (attack row 20). Invariants: a spawned process has its own session, umask 077, no new privileges, and only the
descriptors it was given; with a uid it holds no capability.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from panal.core.errors import Failed, Unavailable
from panal.host.run import PATH

SETPRIV: Final = "/usr/bin/setpriv"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """What a process used: seconds of CPU, bytes of RAM."""

    cpu_s: float
    rss: int


@dataclass(eq=False, slots=True)
class Process:
    """A process held by its pidfd; `started` is its start time in clock ticks since boot."""

    pid: int
    started: int
    _pidfd: int
    _child: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process; nothing happens when it has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait(self, timeout_s: float) -> bool:
        """True when it has ended (and is reaped, if it is our child) within the time."""
        if self.alive:
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            # a descriptor of its own: add_reader keeps one reader a descriptor, and several may wait
            fd = os.dup(self._pidfd)
            loop.add_reader(fd, _resolve, ended)
            try:
                async with asyncio.timeout(timeout_s):
                    await ended
            except TimeoutError:
                return False
            finally:
                loop.remove_reader(fd)
                os.close(fd)
        self._reap()
        return True

    async def kill(self, timeout_s: float) -> None:
        """SIGKILL, and wait for the end. Raises Failed when it does not go (stuck in the kernel)."""
        self.signal(signal.SIGKILL)
        if not await self.wait(timeout_s):
            raise Failed(f"process {self.pid} does not end after SIGKILL: it hangs in the kernel, look at its storage")

    def status(self) -> str:
        """How it ended, for people: `exit status 1`, `signal 9`; empty when unknown (not our child)."""
        self._reap()
        code = self._child.returncode if self._child else None
        if code is None:
            return ""
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def times(self) -> ProcessTimes | None:
        """CPU and RAM so far; None when it has ended."""
        fields = _stat(self.pid)
        if fields is None or int(fields[19]) != self.started:
            return None
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        return ProcessTimes(cpu, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))

    def close(self) -> None:
        """Let go of it; it runs on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _reap(self) -> None:
        if self._child is not None:
            self._child.poll()


def spawn(
    argv: Sequence[str],
    *,
    fds: Sequence[int],
    output_fd: int,
    uid: int | None = None,
    groups: Sequence[int] = (),
    cwd: str = "/",
) -> Process:
    """Start a program in its own session with the descriptors `fds` under their own numbers; does not wait for it.

    `output_fd` gets standard output and error. With `uid` it runs as that user and group (and in
    `groups`), without capabilities. The way
    there is `setpriv`: a change of user in the child would make Python fork (slow in a big process) instead of vfork.
    Raises Unavailable when the program is missing, Failed when it cannot be started.
    """
    privileges = ["--no-new-privs"]
    if uid is not None:
        who = ["--reuid", str(uid), "--regid", str(uid)]
        who += ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
        privileges += [*who, "--inh-caps=-all", "--bounding-set=-all"]
    if not os.access(argv[0], os.X_OK):
        raise Unavailable(f"the program {argv[0]} is not installed; install it and try again", program=argv[0])
    try:
        child = subprocess.Popen(
            [SETPRIV, *privileges, "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=tuple(fds),
            cwd=cwd,
            env={"PATH": PATH, "LANG": "C", "LC_ALL": "C"},
            start_new_session=True,
            umask=0o077,
        )
    except FileNotFoundError:
        raise Unavailable(f"{SETPRIV} is missing; install the package util-linux", program=SETPRIV) from None
    except OSError as exc:
        raise Failed(f"cannot run {argv[0]}: {exc}") from exc
    _plain_target(child.pid)
    pidfd = os.pidfd_open(child.pid)  # our child, not reaped yet: the pid cannot have been reused
    fields = _stat(child.pid)
    return Process(child.pid, int(fields[19]) if fields else 0, pidfd, child)


def _plain_target(pid: int) -> None:
    """The daemon is spared when memory is short (OOMScoreAdjust of its unit); what it starts is not, or all else went first."""
    with contextlib.suppress(OSError):  # without root it has the value of who started us, which is fine
        Path(f"/proc/{pid}/oom_score_adj").write_text("0")


def find(pid: int, started: int) -> Process | None:
    """The process that had this pid and start time, if it still runs: for adoption after our own restart."""
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return None
    fields = _stat(pid)  # read after the pidfd is held: from here on the pid is pinned to that process
    if fields is None or int(fields[19]) != started or fields[0] == "Z":
        os.close(pidfd)
        return None
    return Process(pid, started, pidfd)


def age_s(process: Process) -> float:
    """Age of the process in seconds."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return max(0.0, uptime - process.started / _TICKS)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (`state`) on: the second may hold blanks and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()
