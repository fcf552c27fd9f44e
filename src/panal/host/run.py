"""The one place that starts programs: by argv, never through a shell, bounded in time and output.

Called by drivers and services of this machine; long-lived processes (QEMU) have their own place in `host/`. Invariant: when
`run` returns or raises, for whatever reason (timeout, cancellation), neither the program nor anything in its process group
is left. The environment is LANG=C and PATH, plus what the caller gives; secrets go through `stdin` or a descriptor.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from panal.core.errors import Failed, ProgramFailed, Unsupported
from panal.core.redact import redact

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_STDOUT: Final = 4 * 1024 * 1024
MAX_STDERR: Final = 64 * 1024
_CHUNK: Final = 64 * 1024
_REAP_S: Final = 10


@dataclass(frozen=True, slots=True)
class Result:
    """How it ended. `status` is negative for a signal; `stderr` holds its last MAX_STDERR bytes, without secrets."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """`stdout` as text."""
        return self.stdout.decode(errors="replace")


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes | None = None,
    stdout_fd: int | None = None,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    check: bool = True,
    max_stdout_bytes: int = MAX_STDOUT,
    on_output: Callable[[bytes], None] | None = None,
) -> Result:
    """Run a program to its end.

    `stdout_fd` takes its output (then `Result.stdout` is empty); `on_output` sees each piece of output as it comes and
    nothing is kept. Raises ProgramFailed for a status other than 0 (with `check`), Failed when it takes longer than
    `timeout_s` or says more than `max_stdout_bytes`, Unsupported when it is not installed.
    """
    program = Path(argv[0]).name
    process = await _start(argv, stdin, stdout_fd, pass_fds, env, cwd)
    out, err = bytearray(), bytearray()

    def keep_out(data: bytes) -> None:
        if on_output is not None:
            on_output(data)
            return
        if len(out) + len(data) > max_stdout_bytes:
            raise Failed(f"{program} said more than {max_stdout_bytes} bytes and was stopped", program=program)
        out.extend(data)

    def keep_err(data: bytes) -> None:
        err.extend(data)
        del err[:-MAX_STDERR]

    try:
        async with asyncio.timeout(timeout_s):
            async with asyncio.TaskGroup() as group:
                group.create_task(_drain(process.stdout, keep_out))
                group.create_task(_drain(process.stderr, keep_err))
            status = await process.wait()
    except TimeoutError:
        raise Failed(f"{program} did not end within {timeout_s:g} s and was stopped", program=program) from None
    except BaseExceptionGroup as group_exc:
        raise group_exc.exceptions[0] from None
    finally:
        await asyncio.shield(_end(process))
    stderr = redact(bytes(err).decode(errors="replace"))
    if check and status != 0:
        raise ProgramFailed(program, status, stderr)
    return Result(status, bytes(out), stderr)


async def _start(
    argv: Sequence[str], stdin: bytes | None, stdout_fd: int | None, pass_fds: Sequence[int],
    env: Mapping[str, str] | None, cwd: str,
) -> asyncio.subprocess.Process:  # fmt: skip
    given = asyncio.subprocess.DEVNULL if stdin is None else _memory_file(stdin)
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=given,
            stdout=asyncio.subprocess.PIPE if stdout_fd is None else stdout_fd,
            stderr=asyncio.subprocess.PIPE,
            env={"LANG": "C", "LC_ALL": "C", "PATH": PATH, **(env or {})},
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    )
    if stdin is not None:
        starting.add_done_callback(lambda _: os.close(given))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_end_started)  # a program that is just being started must not be forgotten
        raise
    except (FileNotFoundError, PermissionError) as exc:
        raise Unsupported(f"{argv[0]} cannot be run ({exc.strerror}); install it", program=Path(argv[0]).name) from exc


def _end_started(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(starting.result().pid, signal.SIGKILL)


def _memory_file(data: bytes) -> int:
    """Standard input as a file in memory: a loop's own pipe is a socket, which programs that open /dev/stdin (nft) cannot."""
    fd = os.memfd_create("stdin")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def _drain(pipe: asyncio.StreamReader | None, keep: Callable[[bytes], None]) -> None:
    while pipe is not None and (data := await pipe.read(_CHUNK)):
        keep(data)


async def _end(process: asyncio.subprocess.Process) -> None:
    # The group, also when the leader has ended: its own children must not outlive the call.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):  # a process in uninterruptible sleep (dead NFS) must not hold the caller for ever
        async with asyncio.timeout(_REAP_S):
            # asyncio calls a process ended when its pipes are read to their end, too
            await _drain(process.stdout, lambda data: None)
            await _drain(process.stderr, lambda data: None)
            await process.wait()
