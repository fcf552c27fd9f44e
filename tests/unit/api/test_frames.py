"""Frames and channels: whole messages, descriptors, limits, peers that leave."""

import asyncio
import os
import socket
import struct

import pytest

from panal.api.wire.channel import Channel
from panal.core import frames


async def pair():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(a), Channel(b)


async def test_big_messages_and_descriptors():
    a, b = await pair()
    r, w = os.pipe()
    body = os.urandom(5_000_000)
    _, frame = await asyncio.gather(a.send(b'{"x":1}', body, [w]), b.receive())
    header, data, (fd,) = frame
    assert (header, data) == (b'{"x":1}', body)
    os.write(fd, b"hello")
    assert os.read(r, 5) == b"hello"
    for d in (r, w, fd):
        os.close(d)
    a.close()
    assert await b.receive() is None
    b.close()


async def test_cut_message():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    a.sendall(frames.pack(b"{}", b"body")[:-1])
    a.close()
    channel = Channel(b)
    with pytest.raises(frames.BadFrame):
        await channel.receive()
    channel.close()


@pytest.mark.parametrize(
    "lengths", [(frames.MAX_HEADER_BYTES + 1, 0), (0, frames.MAX_BODY_BYTES + 1), (2**32 - 1,) * 2]
)
async def test_announced_too_long(lengths):
    """Planted fault: no check in `lengths` makes this wait for 4 GiB."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    a.sendall(struct.pack("!II", *lengths))
    channel = Channel(b)
    async with asyncio.timeout(10):
        with pytest.raises(frames.BadFrame):
            await channel.receive()
    a.close()
    channel.close()


async def test_a_dead_idle_connection_is_seen():
    a, b = await pair()
    assert a.alive()
    b.close()
    assert not a.alive()
    a.close()
