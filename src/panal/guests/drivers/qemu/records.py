"""What this driver remembers about a running guest, in a file of its run directory: enough to find it again after a restart.

Called by `launch.py` and `adopt.py`. `<run>/guests/<vmid>/` (0700) holds `run.json`, the sockets and QEMU's messages (`log`).
Invariant: the record is written before the vCPUs run, so that there is no running guest without one; it is `begun` when the
start has come to its end, so that one that was cut off can be told from a guest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from panal.guests.drivers.base import Running

MONITORS = ("qmp0", "qmp1")
"""two, because one monitor serves one client; the second is for a daemon that finds the first one held"""
MAX_LOG = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One run. `started` is the process's start time in ticks; `scope` and `uid` are what has to be given back."""

    vmid: int
    pid: int
    started: int
    uid: int | None
    epoch: int
    incarnation: str
    hardware: Mapping[str, str]
    config: Mapping[str, str]
    taps: Mapping[str, str]
    kvm: bool
    qemu: str = ""
    begun: bool = True

    def running(self) -> Running:
        """As the interface gives it."""
        return Running(self.vmid, self.pid, self.epoch, self.incarnation, self.hardware, self.config)


class Places:
    """Files of all guests below the run directory."""

    def __init__(self, run: Path) -> None:
        self.base = run / "guests"
        self.base.mkdir(parents=True, exist_ok=True, mode=0o700)

    def directory(self, vmid: int) -> Path:
        """The guest's directory."""
        return self.base / str(vmid)

    def prepare(self, vmid: int) -> Path:
        """A new, empty directory."""
        self.remove(vmid)
        path = self.directory(vmid)
        path.mkdir(mode=0o700)
        return path

    def remove(self, vmid: int) -> None:
        """Remove the directory with its sockets."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory(vmid))

    def vmids(self) -> list[int]:
        """Guests that have a directory."""
        return sorted(int(p.name) for p in self.base.iterdir() if p.name.isdigit())

    def listen(self, vmid: int, name: str) -> int:
        """A listening stream socket in the guest's directory, its mode 0600; QEMU gets only the descriptor."""
        # not Path.touch and chmod afterwards: fchmod before bind gives the mode to the file (no moment of 0777)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(str(self.directory(vmid) / name))
            listener.listen(4)
            return listener.detach()

    def log_fd(self, vmid: int) -> int:
        """Where QEMU's messages go."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.directory(vmid) / "log", flags, 0o600)

    def trim_log(self, vmid: int) -> None:
        """Keep QEMU's messages bounded: a guest can make it complain for ever. It appends, so emptying is safe."""
        with contextlib.suppress(OSError):
            path = self.directory(vmid) / "log"
            if path.stat().st_size > MAX_LOG:
                os.truncate(path, 0)

    def last_words(self, vmid: int) -> str:
        """The end of QEMU's messages, for an error."""
        try:
            with (self.directory(vmid) / "log").open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 4096))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "; ".join(line.removeprefix("qemu-system-x86_64: ") for line in lines[-3:])

    def write(self, record: Record) -> None:
        """Keep the record; whole or not at all."""
        path = self.directory(record.vmid) / "run.json"
        temporary = path.with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump({"v": 1, **asdict(record)}, file)
        temporary.replace(path)

    def read(self, vmid: int) -> Record | None:
        """The record; None when there is none that can be read."""
        try:
            values = json.loads((self.directory(vmid) / "run.json").read_text())
            if values.pop("v") != 1:
                return None
            return Record(**values)
        except (OSError, ValueError, KeyError, TypeError):
            return None
