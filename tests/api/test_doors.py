"""Attack row 20: paneld believes the kernel about who knocks, not the mode of a socket file."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket

import pytest

from panal.core.frames import BadFrame, exchange
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
