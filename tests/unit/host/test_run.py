"""host/run.py: programs end when the call ends, output and time are bounded."""

import asyncio
import os
import sys

import pytest
import uvloop

from panal.core import redact
from panal.core.errors import Failed, ProgramFailed, Unsupported
from panal.host.run import run


async def test_output_status_and_stdin():
    result = await run(["cat"], stdin=b"hello", timeout_s=10)
    assert (result.status, result.text, result.stderr) == (0, "hello", "")


async def test_environment_is_scrubbed(monkeypatch):
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    result = await run(["env"], timeout_s=10)
    assert sorted(line.split("=")[0] for line in result.text.split()) == ["LANG", "LC_ALL", "PATH"]


async def test_arguments_are_never_a_shell():
    result = await run(["echo", "$(id)", ";", "`id`"], timeout_s=10)
    assert result.text == "$(id) ; `id`\n"


async def test_failure_carries_redacted_stderr():
    redact.register("verysecretword")
    try:
        with pytest.raises(ProgramFailed) as caught:
            await run(["sh", "-c", "echo verysecretword is bad >&2; exit 3"], timeout_s=10)
    finally:
        redact.unregister("verysecretword")
    assert caught.value.status == 3 and "verysecretword" not in str(caught.value) + caught.value.stderr


async def test_missing_program_says_so():
    with pytest.raises(Unsupported, match="install"):
        await run(["/nonexistent/program"], timeout_s=10)


async def test_too_much_output_is_refused():
    with pytest.raises(Failed, match="more than"):
        await run(["sh", "-c", "while :; do echo x; done"], timeout_s=30, max_stdout_bytes=1000)


def _gone(pid: int) -> bool:
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_nothing_is_left_of_the_process_group(tmp_path, how):
    """Planted fault: killing the leader only (process.kill) leaves the sleeping grandchild."""
    note = tmp_path / "pid"
    argv = ["sh", "-c", f"sleep 600 & echo $! > {note}; wait"]
    if how == "timeout":
        with pytest.raises(Failed, match="did not end"):
            await run(argv, timeout_s=0.5)
    else:
        task = asyncio.create_task(run(argv, timeout_s=600))
        while not (note.exists() and note.read_text().strip()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    pid = int(note.read_text())
    for _ in range(200):
        if _gone(pid):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the grandchild lives")


async def test_descriptors_are_passed():
    read, write = os.pipe()
    os.write(write, b"through the pipe")
    os.close(write)
    try:
        result = await run(
            [sys.executable, "-c", f"import os; print(os.read({read}, 99))"], timeout_s=20, pass_fds=[read]
        )
    finally:
        os.close(read)
    assert "through the pipe" in result.text


def test_standard_input_can_be_opened_by_name():
    """nft reads /dev/stdin; a loop's own pipe is a socket, which cannot be opened. Planted fault: stdin=PIPE."""

    async def read() -> bytes:
        return (await run(["cat", "/dev/stdin"], stdin=b"x" * 300_000, timeout_s=10)).stdout

    assert uvloop.run(read()) == b"x" * 300_000


def test_a_program_that_does_not_read_is_no_error():
    """Planted fault: with a pipe, uvloop raises when the program ended before the first byte was written."""

    async def many() -> None:
        for _ in range(50):
            await run(["true"], stdin=b"unread", timeout_s=10)

    uvloop.run(many())
