"""The frames on our Unix sockets: u32 header length, u32 body length (big endian), JSON header, raw body.

Used by `api/wire` (asynchronous) and by `client` (blocking, `exchange`). One request at a time per connection, so a frame
needs no number. Descriptors travel beside the first byte of a frame (SCM_RIGHTS). What the JSON holds: `api/wire/model.py`.
Invariant: a peer that announces more than the limits is cut off before anything is kept of it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any, Final

from panal.core.errors import Unavailable

MAX_HEADER_BYTES: Final = 256 * 1024
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_DESCRIPTORS: Final = 4
_LENGTHS = struct.Struct("!II")
LENGTHS_BYTES: Final = _LENGTHS.size


class BadFrame(Unavailable):
    """The peer does not speak this protocol, or went away in the middle of a frame."""

    code = "bad-frame"


def pack(header: bytes, body: bytes = b"") -> bytes:
    """One frame. Raises BadFrame over the limits."""
    if len(header) > MAX_HEADER_BYTES or len(body) > MAX_BODY_BYTES:
        raise BadFrame(f"message too long ({len(header)} and {len(body)} bytes)")
    return _LENGTHS.pack(len(header), len(body)) + header + body


def lengths(first: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Header and body length out of the first eight bytes. Raises BadFrame over the limits."""
    header, body = _LENGTHS.unpack(first[:LENGTHS_BYTES])
    if header > MAX_HEADER_BYTES or body > MAX_BODY_BYTES:
        raise BadFrame(f"the peer announces a message that is too long ({header} and {body} bytes)")
    return header, body


def exchange(sock: socket.socket, header: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
    """Send one request over a connected blocking socket and read its answer: (header, body).

    For the command line (`<run>/admin.sock`). The caller sets the socket's timeout. Raises BadFrame, OSError.
    """
    answer, content, descriptors = exchange_descriptors(sock, header, body)
    for descriptor in descriptors:  # came unasked
        os.close(descriptor)
    return answer, content


def exchange_descriptors(
    sock: socket.socket, header: dict[str, Any], body: bytes = b""
) -> tuple[dict[str, Any], bytes, list[int]]:
    """The same for requests that are answered with descriptors (uploads, consoles); the caller closes them."""
    sock.sendall(pack(json.dumps(header).encode(), body))
    # descriptors come beside the first byte of the answer
    first, descriptors, _, _ = socket.recv_fds(sock, LENGTHS_BYTES, MAX_DESCRIPTORS)
    if not first:
        raise BadFrame("the daemon closed the connection without an answer")
    header_length, body_length = lengths(first + _read(sock, LENGTHS_BYTES - len(first)))
    answer = json.loads(_read(sock, header_length))
    return answer, _read(sock, body_length), descriptors


def _read(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(min(count - len(data), 1 << 20))
        if not part:
            raise BadFrame("the daemon closed the connection in the middle of an answer")
        data += part
    return bytes(data)
