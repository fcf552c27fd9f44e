"""The inside of the jail: run as a program by `host/jail.py`, never imported. Only the standard library.

Started with the script to run as its only argument; the order of things on stdin (JSON): `uid` (or null), `network`, `limits`,
`args`. It loads the script, gives everything up (see `confine`), then calls its `main(args)` and writes what that returns to
stdout as JSON. From `confine` on nothing can be opened, no program started, no network used (unless `network`).
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys
from typing import Any

_CLONE_NEWNET, _CLONE_NEWIPC, _CLONE_NEWUTS = 0x40000000, 0x08000000, 0x04000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# What a parser needs that was given its files as descriptors: read, seek, memory, signals, time, the end.
_PARSER = {
    "x86_64": (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 24, 25, 28, 39, 60, 131, 186, 202, 219, 228, 231, 234, 262, 318),
    "aarch64": (57, 62, 63, 64, 67, 79, 80, 93, 94, 98, 113, 124, 128, 131, 132, 134, 135, 139, 172, 178, 214, 215, 216, 222,
                226, 233, 278),
}  # fmt: skip
# What a network client never needs: programs, other processes, mounts, namespaces, keys, io_uring.
_CLIENT_DENIED = {
    "x86_64": (59, 101, 165, 166, 248, 250, 272, 298, 304, 308, 310, 311, 321, 322, 323, 425),
    "aarch64": (39, 40, 97, 117, 217, 219, 221, 241, 265, 268, 270, 271, 280, 281, 282, 425),
}


def _filter(network: bool) -> bytes:
    machine = platform.machine()
    listed = (_CLIENT_DENIED if network else _PARSER).get(machine)
    if listed is None:
        return b""
    hit, miss = (_EPERM, _ALLOW) if network else (_ALLOW, _EPERM)
    code = [(0x20, 0, 0, 4), (0x15, 1, 0, _ARCH[machine]), (0x06, 0, 0, _EPERM), (0x20, 0, 0, 0)]
    for at, number in enumerate(listed):
        code.append((0x15, len(listed) - at, 0, number))
    code += [(0x06, 0, 0, miss), (0x06, 0, 0, hit)]
    return b"".join(struct.pack("HBBI", *row) for row in code)


def confine(uid: int | None, network: bool, limits: dict[str, int]) -> None:
    """Give everything up, strongest last. What this machine cannot do is left out, except the change of uid."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if not network:
        libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)  # the change of uid cleared it
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    code = _filter(network)
    if code:
        buffer = ctypes.create_string_buffer(code, len(code))

        class Program(ctypes.Structure):
            _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

        program = Program(len(code) // 8, ctypes.addressof(buffer))
        libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0)


def run() -> None:
    """Read the order, jail ourselves, work, answer."""
    order = json.loads(sys.stdin.buffer.read())
    with open(sys.argv[1], "rb") as file:
        source = file.read()
    room: dict[str, Any] = {"__name__": "jailed_script"}
    exec(compile(source, sys.argv[1], "exec"), room)  # noqa: S102  our own file, chosen by host/jail.py's caller
    if "prepare" in room:
        room["prepare"]()
    confine(order["uid"], order["network"], order["limits"])
    answer = memoryview(json.dumps(room["main"](order["args"])).encode())
    while answer:
        answer = answer[os.write(1, answer) :]


if __name__ == "__main__":
    run()
    os._exit(0)
