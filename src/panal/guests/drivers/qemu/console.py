"""Serial ports and the screen: what a person sees and types. Called by the driver's verbs."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import zlib
from collections.abc import Sequence
from typing import Final

from panal.core.errors import BadInput, Failed, NotFound, Unavailable
from panal.guests.drivers.qemu.guest import Guest
from panal.guests.drivers.qemu.qmp import CommandFailed
from panal.guests.drivers.qemu.records import Places

_SCREEN_S: Final = 10
_MAX_SCREEN: Final = 64 << 20


def serial(places: Places, guest: Guest, port: int) -> int:
    """A connected socket of the port. QEMU serves one at a time, so an earlier session is shut down first. NotFound."""
    if f"serial{port}" not in guest.record.config:
        raise NotFound(f"VM {guest.vmid} has no serial port {port}; set serial{port} to socket and start it again")
    earlier = guest.sessions.pop(port, None)
    if earlier is not None:
        with contextlib.suppress(OSError):
            earlier.shutdown(socket.SHUT_RDWR)
        earlier.close()
    session = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        session.setblocking(False)  # a QEMU that hangs with a full queue must not hold the loop
        session.connect(str(places.directory(guest.vmid) / f"serial{port}"))
    except OSError as exc:
        session.close()
        raise Unavailable(f"the serial port {port} of VM {guest.vmid} does not answer: {exc.strerror or exc}") from exc
    guest.sessions[port] = session  # our copy ends the session when the next one comes
    return os.dup(session.fileno())


async def free_ports(places: Places, guest: Guest) -> None:
    """After a restart of the daemon: end sessions whose sockets an earlier one gave away, by new listeners for their ports."""
    for device in await guest.call("query-chardev"):
        name = str(device["label"])
        if not name.startswith("serial") or device["filename"].startswith("disconnected"):
            continue
        (places.directory(guest.vmid) / name).unlink(missing_ok=True)
        fd = places.listen(guest.vmid, name)
        try:
            await guest.speaking().call_with_fd(fd, "getfd", {"fdname": name})
        finally:
            os.close(fd)
        address = {"type": "fd", "data": {"str": name}}
        backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
        await guest.call("chardev-change", {"id": name, "backend": backend})


async def screenshot(guest: Guest) -> bytes:
    """A PNG. Failed when the guest has no screen."""
    async with guest.busy:
        memory = os.memfd_create("screen", os.MFD_CLOEXEC)
        # QEMU takes a descriptor of a set only for the exact mode it opens with: write only
        writing = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            added = await guest.speaking().call_with_fd(writing, "add-fd")
            number = int(added["fdset-id"])
            try:
                target: dict[str, object] = {"filename": f"/dev/fdset/{number}"}
                try:
                    await guest.call("screendump", {**target, "format": "png"}, _SCREEN_S)
                except CommandFailed as exc:
                    if "format" not in exc.text and "png" not in exc.text.lower():
                        raise Failed(f"VM {guest.vmid} has no screen to show: {exc.text}") from exc
                    os.ftruncate(memory, 0)
                    await guest.call("screendump", target, _SCREEN_S)
            finally:
                with contextlib.suppress(CommandFailed, Unavailable):
                    await guest.call("remove-fd", {"fdset-id": number})
            size = os.fstat(memory).st_size
            if size > _MAX_SCREEN:
                raise Failed(f"the screen of VM {guest.vmid} is larger than can be shown")
            data = os.pread(memory, size, 0)
        finally:
            os.close(writing)
            os.close(memory)
    return data if data.startswith(b"\x89PNG") else png_of_ppm(data)


def png_of_ppm(data: bytes) -> bytes:
    """A binary PPM (8 bits a colour) as a PNG. Failed when it is none."""
    try:
        magic, width_text, height_text, depth = data.split(maxsplit=4)[:4]
        width, height = int(width_text), int(height_text)
    except ValueError:
        raise Failed("QEMU sent no picture") from None
    if magic != b"P6" or depth != b"255" or len(data) < width * height * 3:
        raise Failed("QEMU sent a picture of an unknown kind")
    pixels = data[-width * height * 3 :]
    rows = b"".join(b"\0" + pixels[n : n + width * 3] for n in range(0, len(pixels), width * 3))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


async def send_keys(guest: Guest, keys: Sequence[str]) -> None:
    """Press the keys together. BadInput naming `key` for one that QEMU does not know."""
    try:
        await guest.call("send-key", {"keys": [{"type": "qcode", "data": key} for key in keys]})
    except CommandFailed as exc:
        raise BadInput("key", f"key: {exc.text}; take QEMU's names, joined by -, like ctrl-alt-delete") from exc
