"""Giving up what a process does not need: capabilities and root itself. Called once, early, by `daemon/` and `web_front/`.

Invariant: what was given up cannot come back, not even by running a set-uid program.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from dataclasses import dataclass
from typing import Final

from panal.core.errors import Failed

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_VERSION_3: Final = 0x20080522
_LAST_CAPABILITY: Final = 63

# Numbers of linux/capability.h. What paneld keeps, and what for:
DAEMON_CAPABILITIES: Final[dict[str, int]] = {
    "CHOWN": 0,  # images to a guest's uid
    "DAC_OVERRIDE": 1,  # storages of other owners
    "DAC_READ_SEARCH": 2,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,  # guests run as other users
    "SETGID": 6,  # guests and jailed readers take their own uid
    "SETUID": 7,
    "SETPCAP": 8,  # the children give up theirs
    "NET_ADMIN": 12,  # taps, bridges
    "NET_RAW": 13,
    "IPC_LOCK": 14,  # huge pages, locked RAM
    "SYS_CHROOT": 18,  # jailed readers
    "SYS_PTRACE": 19,  # descriptors and namespaces of guests
    "SYS_ADMIN": 21,  # mounts, namespaces, cgroups
    "SYS_NICE": 23,  # guests' affinity
    "SYS_RESOURCE": 24,  # limits of guests
    "SYS_TIME": 25,  # PUT /nodes/{node}/time
    "MKNOD": 27,
    "AUDIT_WRITE": 29,  # PAM
}


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the machine."""

    name: str
    uid: int
    gid: int


def account(name: str) -> Account | None:
    """The user, or None."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)


def keep_capabilities(numbers: frozenset[int], *, children: bool = True) -> None:
    """Give up every other capability, now and for all children. Nothing to do when not root. Raises Failed.

    `children` False: programs run from here on get none at all. Call before threads are made: the kernel does this per thread.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(_LAST_CAPABILITY + 1):
        # numbers that this kernel does not know answer EINVAL, those a container took away already EPERM: both are fine
        if not children or number not in numbers:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    have = (ctypes.c_uint32 * 6)()
    if libc.capget(ctypes.byref(header), ctypes.byref(have)) != 0:
        raise Failed(f"cannot read the process's capabilities: {os.strerror(ctypes.get_errno())}")
    keep = sum(1 << n for n in numbers)
    words = [keep & 0xFFFFFFFF, keep >> 32]
    data = (ctypes.c_uint32 * 6)()
    for half in (0, 1):  # effective, permitted, inheritable
        data[half * 3] = data[half * 3 + 1] = have[half * 3 + 1] & words[half]
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise Failed(f"cannot give up capabilities: {os.strerror(ctypes.get_errno())}")


def become(user: Account) -> None:
    """From root to an ordinary user without any capability, for good. Raises Failed.

    Who started the process may have asked that it ends with him (tests do, by PR_SET_PDEATHSIG): that stays so.
    """
    parent, signal = os.getppid(), _death_signal()
    keep_capabilities(frozenset({DAEMON_CAPABILITIES["SETGID"], DAEMON_CAPABILITIES["SETUID"]}), children=False)
    try:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as exc:
        raise Failed(f"cannot become user {user.name}: {exc}") from exc
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Failed(f"cannot set no_new_privs: {os.strerror(ctypes.get_errno())}")
    if os.getresuid() != (user.uid,) * 3:
        raise Failed(f"the process still has other rights than those of {user.name}")
    if signal:  # the change of uid cleared it
        libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal)


def _death_signal() -> int:
    found = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(found), 0, 0, 0)
    return found.value
