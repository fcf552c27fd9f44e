"""Files below one directory, with no way out: what storages are read and written through (attack rows 9, 16, 17).

Every path given is relative, and the *kernel* resolves it (`openat2` with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS): a
symbolic link anywhere on the way, also one that appears between two calls, is an error and never followed. Where the kernel
lacks openat2 (before 5.6) or a sandbox forbids it, each component is opened with O_NOFOLLOW instead.

Invariant: checked and used are the same descriptor. Files are made 0600, directories 0700. All calls block: use a thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from panal.core.errors import BadInput, Conflict, Failed, NotFound

_OPENAT2: Final = 437  # the same number on every architecture
_RESOLVE: Final = 0x08 | 0x04 | 0x02  # BENEATH, NO_SYMLINKS, NO_MAGICLINKS
_RENAME_NOREPLACE: Final = 1
_FS_IOC_GETFLAGS: Final = 0x80086601
_FS_IOC_SETFLAGS: Final = 0x40086602
_FS_IMMUTABLE_FL: Final = 0x10
_TRIES: Final = 100
_libc = ctypes.CDLL(None, use_errno=True)
_have_openat2 = True


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory; sizes in bytes, `used` is what it occupies, times in seconds since the epoch."""

    name: str
    is_dir: bool
    size: int
    used: int
    mtime_s: float
    inode: int


def _openat2(directory: int, path: str, flags: int, mode: int) -> int:
    how = _How(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, _RESOLVE)
    for _ in range(_TRIES):
        fd = int(_libc.syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        # EAGAIN: something on the way was renamed meanwhile, the kernel could not be sure
        if code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.EAGAIN, "renamed again and again while it was opened", path)


def _walk(directory: int, path: str, flags: int, mode: int) -> int:
    at = os.dup(directory)
    try:
        parts = path.split("/")
        for part in parts[:-1]:
            deeper = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = deeper
        fd = os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)
    finally:
        os.close(at)
    if stat.S_ISLNK(os.fstat(fd).st_mode):  # O_PATH with O_NOFOLLOW opens the link itself
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return fd


def _open(directory: int, path: str, flags: int, mode: int) -> int:
    global _have_openat2  # noqa: PLW0603  learned once a process
    if _have_openat2:
        try:
            return _openat2(directory, path, flags, mode)
        except OSError as exc:
            if exc.errno not in (errno.ENOSYS, errno.EPERM):
                raise
            _have_openat2 = False
    return _walk(directory, path, flags, mode)


def check_relative(path: str) -> str:
    """The path, or BadInput when it is absolute, empty, has `..`, empty or NUL-holding components."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") or "\x00" in part or len(os.fsencode(part)) > 255 for part in parts):
        raise BadInput("volume", "the name must be relative, without '..' and empty parts")
    return path


class Root:
    """A directory. It is opened anew for every call, so that a mount that comes or goes is seen."""

    def __init__(self, path: Path, guard: Callable[[], None] | None = None) -> None:
        """`guard` runs before every access and raises when the directory is not what it should be (not mounted)."""
        self.path = path
        self._guard = guard

    @contextmanager
    def _at(self, path: str = "") -> Iterator[int]:
        """Descriptor (O_PATH) of a directory below."""
        if self._guard is not None:
            self._guard()
        with _translated(str(self.path)):
            at = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if path:
                with _translated(path):
                    deeper = _open(at, check_relative(path), os.O_PATH | os.O_DIRECTORY, 0)
                os.close(at)
                at = deeper
            yield at
        finally:
            os.close(at)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        directory, _, name = check_relative(path).rpartition("/")
        with self._at(directory) as at, _translated(path):
            yield at, name

    def open(self, path: str, *, write: bool = False) -> int:
        """A descriptor of a regular file that exists. NotFound; Failed for a link, device or pipe."""
        with self._at() as at, _translated(path):
            # O_NONBLOCK: a pipe put there by somebody must not hang us
            fd = _open(at, check_relative(path), (os.O_RDWR if write else os.O_RDONLY) | os.O_NONBLOCK | os.O_NOCTTY, 0)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Failed(f"{path} is not a regular file; remove it from the storage's directory")
        os.set_blocking(fd, True)
        return fd

    def create(self, path: str) -> int:
        """A read-write descriptor of a new file (0600). Conflict when the name is taken, whatever holds it."""
        with self._at() as at, _translated(path):
            return _open(at, check_relative(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def make_dirs(self, path: str) -> None:
        """Create the directory and those above it (0700); quick when they are there."""
        done = ""
        for part in check_relative(path).split("/"):
            with self._at(done) as at, suppress(Conflict), _translated(path):
                os.mkdir(part, 0o700, dir_fd=at)
            done = f"{done}/{part}" if done else part
        with self._at(done):
            pass

    def exists(self, path: str) -> bool:
        """Whether anything has that name."""
        try:
            with self._parent(path) as (at, name):
                os.stat(name, dir_fd=at, follow_symlinks=False)
        except NotFound:
            return False
        return True

    def entry(self, path: str) -> Entry:
        """What has that name. NotFound; links count as not there."""
        with self._parent(path) as (at, name):
            info = os.stat(name, dir_fd=at, follow_symlinks=False)
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            raise NotFound(f"{path} is neither a file nor a directory")
        return _entry(name, info)

    def list(self, path: str = "") -> list[Entry]:
        """Files and directories (no links, devices) in a directory, sorted by name; empty when there is none."""
        found = []
        try:
            with self._at(path) as at:
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
                try:
                    for name in os.listdir(fd):  # noqa: PTH208  a descriptor has no path
                        with suppress(FileNotFoundError):
                            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                            if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
                                found.append(_entry(name, info))
                finally:
                    os.close(fd)
        except NotFound:
            return []
        return sorted(found, key=lambda e: e.name)

    def remove(self, path: str) -> bool:
        """Remove a file (or link); False when it was not there."""
        try:
            with self._parent(path) as (at, name):
                os.unlink(name, dir_fd=at)
        except NotFound:
            return False
        return True

    def remove_empty_dir(self, path: str) -> None:
        """Remove a directory if it is there and empty."""
        with suppress(NotFound, Failed, Conflict), self._parent(path) as (at, name):
            os.rmdir(name, dir_fd=at)

    def rename(self, old: str, new: str, *, replace: bool = False) -> None:
        """Move a file. Conflict when `new` is taken and `replace` is not given; NotFound."""
        with self._parent(old) as (from_at, from_name), self._parent(new) as (to_at, to_name):
            if replace:
                os.rename(from_name, to_name, src_dir_fd=from_at, dst_dir_fd=to_at)
                return
            names = os.fsencode(from_name), os.fsencode(to_name)
            if _libc.renameat2(from_at, names[0], to_at, names[1], _RENAME_NOREPLACE) == 0:
                return
            code = ctypes.get_errno()
            if code not in (errno.EINVAL, errno.ENOSYS):
                raise OSError(code, os.strerror(code), new)
            # a file system without the flag (some FUSE): link refuses to replace, too
            os.link(from_name, to_name, src_dir_fd=from_at, dst_dir_fd=to_at, follow_symlinks=False)
            os.unlink(from_name, dir_fd=from_at)

    def read(self, path: str, limit: int = 64 * 1024) -> bytes:
        """Content of a small file. NotFound; Failed when it is bigger than `limit`."""
        fd = self.open(path)
        try:
            data = os.read(fd, limit + 1)
        finally:
            os.close(fd)
        if len(data) > limit:
            raise Failed(f"{path} is bigger than {limit} bytes")
        return data

    def write(self, path: str, data: bytes) -> None:
        """Create or replace a small file, at once or not at all."""
        directory, _, name = check_relative(path).rpartition("/")
        temporary = f"{directory}/.{name[:200]}.new" if directory else f".{name[:200]}.new"
        self.remove(temporary)
        fd = self.create(temporary)
        try:
            try:
                with _translated(path):
                    os.write(fd, data)
                    os.fsync(fd)
            finally:
                os.close(fd)
            self.rename(temporary, path, replace=True)
        except BaseException:
            self.remove(temporary)
            raise

    def is_mount_point(self) -> bool:
        """Whether the directory is on another file system than the one above it."""
        try:
            here, above = self.path.stat(), self.path.parent.stat()
        except OSError:
            return False
        return here.st_dev != above.st_dev or here.st_ino == above.st_ino

    def space(self) -> os.statvfs_result:
        """The file system's figures. May hang with the file system (NFS)."""
        with self._at() as at, _translated(str(self.path)):
            return os.statvfs(f"/proc/self/fd/{at}")


def set_immutable(fd: int, immutable: bool) -> bool:
    """Set or clear the immutable flag of an open file; False where the file system (or our rights) cannot."""
    import fcntl

    flags = ctypes.c_long()
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
        wanted = flags.value | _FS_IMMUTABLE_FL if immutable else flags.value & ~_FS_IMMUTABLE_FL
        if wanted != flags.value:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, ctypes.c_long(wanted))
    except OSError:
        return False
    return True


def _entry(name: str, info: os.stat_result) -> Entry:
    is_dir = stat.S_ISDIR(info.st_mode)
    return Entry(name, is_dir, info.st_size, info.st_blocks * 512, info.st_mtime, info.st_ino)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """OSError → our tree."""
    try:
        yield
    except FileNotFoundError as exc:
        raise NotFound(f"{path} does not exist") from exc
    except FileExistsError as exc:
        raise Conflict(f"{path} exists already; choose another name") from exc
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
            raise Failed(f"{path} leads through a symbolic link or out of the storage; that is not followed") from exc
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Failed(f"{path}: no space left; free some or choose another storage") from exc
        raise Failed(f"{path}: {exc.strerror}") from exc
