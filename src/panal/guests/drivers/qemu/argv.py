"""The command line of one guest while it grows, and the descriptors it names.

Called by the builders in this folder. Values of the configuration reach QEMU as JSON wherever it takes JSON; the few older
options go through `option`, which doubles commas. Together they are the answer to attack row 8 (option injection).
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from panal.core.errors import BadInput

Props = Mapping[str, object]


def option(first: str, values: Mapping[str, object]) -> str:
    """`first,key=value,…` with commas doubled. BadInput naming the key for control characters."""
    parts = [first] if first else []
    for key, value in values.items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        if any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise BadInput(key, f"{key} must not contain control characters")
        parts.append(f"{key}={text.replace(',', ',,')}")
    return ",".join(parts)


@dataclass(frozen=True, slots=True)
class Companion:
    """A program that runs beside QEMU; it gets `fds`, and is made the owner of `state_fd`'s file."""

    argv: tuple[str, ...]
    fds: tuple[int, ...]
    state_fd: int


@dataclass(slots=True)
class Argv:
    """Arguments in order, descriptors that QEMU inherits, and commands to run before the vCPUs do.

    `fds` are closed by `close` (our copies), after the process has its own or when the start failed.
    """

    args: list[str] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    after: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """sentences for the task log"""
    pins: dict[str, str] = field(default_factory=dict)
    taps: dict[str, str] = field(default_factory=dict)
    """network key → name of its tap"""
    taken: set[int] = field(default_factory=set)
    """numbers of descriptors that were given to `fdset`, whatever became of them"""
    companions: list[Companion] = field(default_factory=list)
    _sets: int = 0

    def add(self, *args: str) -> None:
        """Plain arguments: constants only, or built by `option`."""
        self.args += args

    def json(self, flag: str, props: Props) -> None:
        """An argument whose value is JSON."""
        self.args += [flag, json.dumps(props, separators=(",", ":"))]

    def device(self, props: Props) -> None:
        """`-device`."""
        self.json("-device", props)

    def object(self, props: Props) -> None:
        """`-object`."""
        self.json("-object", props)

    def blockdev(self, props: Props) -> None:
        """`-blockdev`."""
        self.json("-blockdev", props)

    def inherit(self, fd: int) -> int:
        """Give QEMU this descriptor under its own number; it is ours to close from here on."""
        self.fds.append(fd)
        return fd

    def fdset(self, fd: int, *, write: bool, direct: bool = False) -> str:
        """Put a descriptor into a set of its own; returns the path QEMU opens. Access mode and O_DIRECT are made to match.

        QEMU takes a descriptor of a set only for exactly the mode it opens with; since version 9.1 O_DIRECT counts too.
        """
        wanted = (os.O_RDWR if write else os.O_RDONLY) | (os.O_DIRECT if direct else 0)
        self.taken.add(fd)
        if fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_DIRECT) != wanted:
            other = os.open(f"/proc/self/fd/{fd}", wanted | os.O_CLOEXEC)
            os.close(fd)
            fd = other
        self.inherit(fd)
        self._sets += 1
        self.args += ["-add-fd", f"fd={fd},set={self._sets}"]
        return f"/dev/fdset/{self._sets}"

    def close(self) -> None:
        """Close our copies."""
        while self.fds:
            os.close(self.fds.pop())
        while self.companions:
            for fd in self.companions.pop().fds:
                os.close(fd)


def is_block_device(fd: int) -> bool:
    """Whether the descriptor is a block device."""
    return stat.S_ISBLK(os.fstat(fd).st_mode)
