"""Attack row 20: paneld believes the kernel about who knocks, not the mode of a socket file."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import socket
import time

import pytest

from panal.core.frames import BadFrame, exchange
from panal.daemon.server import MAX_CONNECTIONS
from tests.daemon_under_test import WEB_USER, NodeUnderTest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can knock as somebody else")
STRANGER = 65_500


def knock(node: NodeUnderTest, door: str, uid: int) -> str:
    """The status that this user gets there, with nothing in the file system in the way."""
    path = node.run / door
    mode = path.stat().st_mode
    path.chmod(0o666)
    reader, writer = os.pipe()
    child = os.fork()  # not another program: Python may lie where only root reads
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writer, _ask(str(path)).encode())
        os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader) as answer:
            return answer.read()
    finally:
        os.waitpid(child, 0)
        path.chmod(mode)


def _ask(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(30)
        sock.connect(path)
        try:
            return str(exchange(sock, {"verb": "GET", "path": "/access/users"}, b"{}")[0]["status"])
        except (OSError, BadFrame):
            return "closed"


def test_who_may_knock_where(node: NodeUnderTest) -> None:
    """Planted fault: `_accept` without the comparison of the peer's uid."""
    web = pwd.getpwnam(WEB_USER).pw_uid
    assert knock(node, "admin.sock", 0) == "200"
    assert knock(node, "admin.sock", web) == knock(node, "admin.sock", STRANGER) == "closed"
    assert knock(node, "paneld.sock", STRANGER) == "closed"
    assert knock(node, "paneld.sock", web) == knock(node, "paneld.sock", 0) == "401", "whoever knocks is nobody yet"


def test_a_full_door_of_web_does_not_shut_the_administrators(node: NodeUnderTest) -> None:
    """Planted fault, as found: one bound for both doors."""
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(MAX_CONNECTIONS):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(str(node.run / "paneld.sock"))  # without a time limit: it waits for a place in the queue
            held.append(sock)
        assert exchange(held[-1], {"verb": "GET", "path": "/version"}, b"{}")[0]["status"] == 401
        assert _ask(str(node.run / "paneld.sock")) == "closed", "this door is full"
        assert _ask(str(node.run / "admin.sock")) == "200"


def test_a_daemon_that_was_out_of_descriptors_answers_again(node: NodeUnderTest) -> None:
    """Planted fault, as found: an error of accept() ended the door's loop for good."""
    assert node.daemon is not None
    pid = node.daemon.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(node.run / "admin.sock"))
            for _ in range(200):
                if "cannot accept" in node.log():
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("the daemon never said that it cannot accept")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert _ask(str(node.run / "admin.sock")) == "200"


@pytest.mark.parametrize(
    "junk",
    [
        b"", b"\0" * 8, b"\xff" * 8, b"\xff" * 4096, b"\0\0\0\2\0\0\0\0{}", b"\0\0\0\4\0\0\0\0null",
        b"\0\0\0\x10\xff\xff\xff\xff{}", b'\0\0\0\x1f\0\0\0\0{"verb":"GET","path":["/version"]}'[:39],
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
def test_junk_at_the_door_ends_that_connection_only(node: NodeUnderTest, junk: bytes) -> None:
    """Attack row 11. Planted fault: `_serve` that lets DecodeError out."""
    before = node.daemon.pid if node.daemon else 0
    for door in ("paneld.sock", "admin.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(30)
            sock.connect(str(node.run / door))
            with contextlib.suppress(OSError):
                socket.send_fds(sock, [junk or b"\0"], [0, 1, 2])
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1 << 16)
    assert node.daemon is not None and node.daemon.poll() is None and node.daemon.pid == before
    assert _ask(str(node.run / "admin.sock")) == "200"
    assert "Traceback" not in node.log() and "never retrieved" not in node.log()
