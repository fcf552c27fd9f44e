"""host/jail.py: what runs in there has its descriptors and nothing else."""

import os
import platform
from pathlib import Path

import pytest

from panal.core.errors import Failed
from panal.host import jail

SCRIPT = """
import os, socket, subprocess, sys

def attempt(work):
    try:
        work()
    except Exception as exc:
        return type(exc).__name__
    return "did it"

def fork():
    if os.fork() == 0:
        os._exit(0)

def main(args):
    kind = args.get("kind")
    if kind == "loop":
        while True: pass
    if kind == "memory":
        b = [bytes(1 << 28) for _ in range(64)]
    if kind == "die":
        os._exit(7)
    if kind == "lie":
        os.write(1, b"not json at all")
        os._exit(0)
    if kind == "much":
        while True: os.write(1, bytes(1 << 16))
    if kind == "read":
        return os.pread(args["fd"], 100, 0).decode()
    return {
        "open": attempt(lambda: open("/etc/hostname")),
        "write": attempt(lambda: open("/tmp/pnl-jail-escape", "w")),
        "socket": attempt(lambda: socket.socket()),
        "fork": attempt(fork),
        "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
        "kill": attempt(lambda: os.kill(os.getppid(), 0)),
    }
"""


@pytest.fixture
def script(tmp_path) -> Path:
    path: Path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no filter for this machine")
async def test_nothing_but_descriptors(script):
    """Planted fault: without the seccomp filter `socket` and `fork` are "did it"."""
    found = await jail.call(script, {}, timeout_s=30)
    assert "did it" not in found.values(), found


async def test_descriptors_work(script, tmp_path):
    (tmp_path / "file").write_text("content")
    os.chmod(tmp_path / "file", 0o600)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert await jail.call(script, {"kind": "read", "fd": fd}, fds=[fd], timeout_s=30) == "content"
    finally:
        os.close(fd)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_another_uid(tmp_path):
    """Planted fault: without setresuid the child is root."""
    script = tmp_path / "script.py"
    script.write_text("import os\ndef main(args):\n    return [os.getuid(), os.getgid(), os.getgroups()]\n")
    assert await jail.call(script, {}, timeout_s=30, network=True) == [65534, 65534, []]


@pytest.mark.parametrize("kind", ["loop", "memory", "die", "lie", "much"])
async def test_whatever_it_does_we_get_an_error_in_time(script, kind):
    with pytest.raises(Failed):
        await jail.call(script, {"kind": kind}, timeout_s=5, cpu_s=1)
