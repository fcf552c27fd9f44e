"""The guest disk itself, under plain QEMU: it boots, answers on its serial port, counts on its disk, obeys the power button."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.real


@dataclass
class Machine:
    process: subprocess.Popen[bytes]
    directory: Path

    def connect(self, name: str) -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(str(self.directory / name))
            except (FileNotFoundError, ConnectionRefusedError):
                link.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                link.settimeout(60)
                return link


@contextlib.contextmanager
def machine(disk: Path, *devices: str) -> Iterator[Machine]:
    directory = Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp"))
    process = None
    try:
        shutil.copyfile(disk, directory / "disk.qcow2")
        process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-accel", "tcg", "-m", "128", "-nodefaults", "-display", "none", "-vga", "std",
                "-drive", f"file={directory}/disk.qcow2,if=none,id=d0,format=qcow2", *devices,
                "-chardev", f"socket,id=s,path={directory}/serial,server=on,wait=off", "-serial", "chardev:s",
                "-qmp", f"unix:{directory}/qmp,server=on,wait=off",
            ]
        )  # fmt: skip
        yield Machine(process, directory)
    finally:
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(directory)


def read_until(link: socket.socket, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        data = link.recv(4096)
        assert data, seen
        seen += data
    return seen


@pytest.mark.parametrize(
    "devices",
    [
        ("-device", "virtio-blk-pci,drive=d0"),
        ("-M", "q35", "-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=d0"),
    ],
    ids=["pc-virtio", "q35-scsi"],
)
def test_it_boots_answers_and_obeys_the_power_button(guest_disk, devices):
    with machine(guest_disk, *devices) as guest, guest.connect("serial") as serial:
        read_until(serial, b"guest# ")
        serial.sendall(b"counter & sleep 1; echo count-$(($(cat /data/counter) > 0))-end\r")
        assert b"count-1-end" in read_until(serial, b"-1-end")
        with guest.connect("qmp") as link, link.makefile("rwb") as qmp:
            qmp.readline()
            for command in ("qmp_capabilities", "system_powerdown"):
                qmp.write(json.dumps({"execute": command}).encode() + b"\n")
                qmp.flush()
                qmp.readline()
            assert guest.process.wait(60) == 0
