"""A bootable disk with a tiny real Linux, made of the distribution's own kernel and busybox: for `./demo` and the tests.

Callers: `panal_demo.main`, `tests/guests`. Needs no root and mounts nothing: the kernel package is downloaded by apt and
unpacked (never installed), file systems are written into plain files by mtools and mke2fs, syslinux boots it from SeaBIOS.

Invariant: a finished image is named after everything it was made of and appears by rename, so a killed build leaves nothing
that a later one would take for whole, and two builds at once do no harm.

Layout, in 64 MiB: an MBR; partition 1 FAT16 (syslinux, kernel, initrd); partition 2 ext4 labelled `panal-data`, mounted at
/data. An executable `/data/autostart` is run at boot.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

DEBIAN_PACKAGES = ("busybox-static", "syslinux", "syslinux-common", "mtools", "dosfstools", "e2fsprogs", "qemu-utils")
"""what a build needs installed, beside apt itself"""

SIZE_MIB = 64
BOOT_MIB = 40
_KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
_GUEST = Path(__file__).parent / "guest"
_ENV = {
    **os.environ,
    "LC_ALL": "C",
    "MTOOLS_SKIP_CHECK": "1",
    "PATH": "/usr/local/sbin:/usr/sbin:/sbin:" + os.environ["PATH"],
}
_MODULES = (
    "virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_balloon", "virtio_console", "virtio_rng",
    "sd_mod", "sr_mod", "ahci", "ata_piix", "e1000", "8139cp", "vmxnet3", "isofs", "ext4", "button", "evdev",
)  # fmt: skip
"""asked for in this order; those that a kernel has built in or does not ship (cloud: no ahci, e1000) are left out"""

Say = Callable[[str], None]


class ImageError(Exception):
    """The guest disk cannot be made here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What all images of one cache key share."""

    kernel: Path
    initrd: Path


def build(cache: Path, say: Say = lambda _: None, autostart: str = "") -> Path:
    """The qcow2 disk, built unless it is in the cache. `autostart` is a script the guest runs at boot. Seconds, once."""
    package, version = _kernel_package()
    key = _key(package, version, autostart)
    target = cache / "guest" / f"disk-{key}.qcow2"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as name:
        work = Path(name)
        parts = _parts(target.parent, work, package, version, say)
        say("writing the guest's disk")
        raw = _raw_disk(work, parts, autostart)
        _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(work / "disk.qcow2"))
        (work / "disk.qcow2").rename(target)
    return target


def boot_files(cache: Path, say: Say = lambda _: None) -> tuple[Path, Path]:
    """Kernel and initrd alone, for tests that boot QEMU directly."""
    package, version = _kernel_package()
    directory = cache / "guest"
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=directory) as name:
        parts = _parts(directory, Path(name), package, version, say)
    return parts.kernel, parts.initrd


def _key(package: str, version: str, autostart: str) -> str:
    """Names everything that goes in: a new kernel, busybox or init gives a new image."""
    digest = hashlib.sha256()
    for text in (package, version, _installed("busybox-static"), _installed("syslinux"), autostart):
        digest.update(text.encode() + b"\0")
    for path in sorted((*_GUEST.iterdir(), Path(__file__))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _run(*argv: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, env=_ENV, capture_output=True, text=True, timeout=300, check=False)
    except FileNotFoundError as error:
        raise ImageError(f"{argv[0]} is missing; install: {' '.join(DEBIAN_PACKAGES)}") from error
    if done.returncode:
        raise ImageError(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def _installed(package: str) -> str:
    """Version of an installed package."""
    return _run("dpkg-query", "-W", "-f", "${Version}", package)


def _kernel_package() -> tuple[str, str]:
    """Name and version of the real package behind the metapackage, as apt knows them now."""
    depends = _run("apt-cache", "depends", "--important", _KERNEL_METAPACKAGE)
    found = re.search(r"Depends: <?(linux-image-[0-9][^\s>]*)", depends)
    if found is None:
        raise ImageError(f"apt knows no {_KERNEL_METAPACKAGE}: run apt-get update (this demo guest is amd64 only)")
    policy = _run("apt-cache", "policy", found[1])
    version = re.search(r"Candidate: (\S+)", policy)
    if version is None or version[1] == "(none)":
        raise ImageError(f"apt offers no {found[1]}: run apt-get update")
    return found[1], version[1]


def _parts(directory: Path, work: Path, package: str, version: str, say: Say) -> Parts:
    """Kernel and initrd, from the cache or freshly made."""
    key = _key(package, version, "")
    kernel, initrd = directory / f"vmlinuz-{key}", directory / f"initrd-{key}.gz"
    if not (kernel.exists() and initrd.exists()):
        say(f"fetching the distribution's kernel ({package}, about 30 MB) to unpack, not to install")
        unpacked = _unpack(work, package, version)
        say("packing kernel modules and busybox into an initrd")
        (work / "initrd.gz").write_bytes(gzip.compress(_initrd(unpacked), 6, mtime=0))
        shutil.copyfile(next(unpacked.glob("boot/vmlinuz-*")), work / "vmlinuz")
        (work / "vmlinuz").rename(kernel)
        (work / "initrd.gz").rename(initrd)
    return Parts(kernel, initrd)


def _unpack(work: Path, package: str, version: str) -> Path:
    """The kernel package's files, below `work`."""
    _run("apt-get", "-q", "download", f"{package}={version}", cwd=work)
    debs = list(work.glob("linux-image-*.deb"))
    if len(debs) != 1:
        raise ImageError(f"apt-get download gave no {package}; see if the package mirror answers")
    unpacked = work / "kernel"
    _run("dpkg-deb", "-x", str(debs[0]), str(unpacked))
    return unpacked


def kernel(cache: Path, name: str, wanted: Iterable[str]) -> tuple[Path, Path]:
    """The kernel, and a directory with these modules and what they need, `order` of loading; for tests of features."""
    package, version = _kernel_package()
    target = cache / "guest" / f"kernel-{name}-{version}"
    if not (target / "vmlinuz").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as made:
            unpacked = _unpack(Path(made), package, version)
            whole = Path(made) / "whole"
            whole.mkdir()
            modules = _modules(unpacked, wanted)
            for module, data in modules:
                (whole / f"{module}.ko").write_bytes(data)
            (whole / "order").write_text("".join(f"{module}\n" for module, _ in modules))
            shutil.copyfile(next(unpacked.glob("boot/vmlinuz-*")), whole / "vmlinuz")
            shutil.rmtree(target, ignore_errors=True)
            whole.rename(target)
    return target / "vmlinuz", target


def _modules(unpacked: Path, wanted: Iterable[str] = _MODULES) -> list[tuple[str, bytes]]:
    """The wanted modules that the kernel has as files, uncompressed, each after those it depends on."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in unpacked.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        path = files.get(name)
        if path is None or name in ordered:
            return
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        elif path.suffix != ".ko":
            raise ImageError(f"kernel modules are packed as {path.suffix}, which this builder cannot read")
        for field in re.findall(rb"\0depends=([^\0]*)", data):
            for needed in filter(None, field.decode().split(",")):
                add(needed.replace("-", "_"))
        ordered[name] = data

    for name in wanted:
        add(name)
    return list(ordered.items())


def _initrd(unpacked: Path) -> bytes:
    """The guest's root: busybox, our scripts, modules; a cpio archive (newc), which needs no root to write."""
    modules = _modules(unpacked)
    directories = (
        "bin",
        "sbin",
        "dev",
        "proc",
        "sys",
        "tmp",
        "data",
        "etc",
        "etc/acpi",
        "etc/acpi/PWRF",
        "lib",
        "lib/modules",
    )
    busybox = next((p for p in (Path("/bin/busybox"), Path("/usr/bin/busybox")) if p.exists()), None)
    if busybox is None:
        raise ImageError("busybox-static is missing; install it")
    entries = [_cpio(name, 0o40755) for name in directories]
    entries.append(_cpio("dev/console", 0o20600, device=(5, 1)))
    entries.append(_cpio("bin/busybox", 0o100755, busybox.read_bytes()))
    applets = _run(str(busybox), "--list").split()
    entries += [_cpio(f"bin/{name}", 0o120777, b"busybox") for name in applets if name != "busybox"]
    entries += [_cpio(f"sbin/{name}", 0o120777, b"../bin/busybox") for name in ("init", "poweroff", "reboot", "halt")]
    entries.append(_cpio("init", 0o120777, b"bin/busybox"))
    scripts = {"etc/rcS": "rcS", "sbin/address": "address", "etc/udhcpc": "udhcpc", "bin/counter": "counter"}
    entries += [_cpio(name, 0o100755, (_GUEST / source).read_bytes()) for name, source in scripts.items()]
    entries += [_cpio(f"etc/{name}", 0o100644, (_GUEST / name).read_bytes()) for name in ("inittab", "profile")]
    entries.append(_cpio("etc/acpi/PWRF/00000080", 0o100755, b"#!/bin/sh\npoweroff\n"))
    entries.append(_cpio("etc/passwd", 0o100644, b"root::0:0:root:/:/bin/sh\n"))
    entries.append(_cpio("etc/modules", 0o100644, "".join(f"{name}\n" for name, _ in modules).encode()))
    entries += [_cpio(f"lib/modules/{name}.ko", 0o100644, data) for name, data in modules]
    return b"".join((*entries, _cpio("TRAILER!!!", 0)))


def _cpio(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One entry of a newc archive; headers and data are padded to 4 bytes."""
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + path
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _raw_disk(work: Path, parts: Parts, autostart: str) -> Path:
    boot, data, disk = work / "boot.img", work / "data.img", work / "disk.raw"
    first = 2048  # sectors of 512 bytes: 1 MiB, as every partitioning tool aligns
    boot_sectors, data_first = BOOT_MIB * 2048, 2048 + BOOT_MIB * 2048
    data_sectors = SIZE_MIB * 2048 - data_first
    _write_boot(boot, boot_sectors, first, parts, work)
    _write_data(data, data_sectors, autostart, work)
    with disk.open("wb") as out:
        out.write(_mbr([(0x80, 0x0E, first, boot_sectors), (0, 0x83, data_first, data_sectors)]))
        for start, part in ((first, boot), (data_first, data)):
            out.seek(start * 512)
            with part.open("rb") as source:
                shutil.copyfileobj(source, out)
        out.truncate(SIZE_MIB << 20)
    return disk


def _write_boot(path: Path, sectors: int, hidden: int, parts: Parts, work: Path) -> None:
    path.touch()
    os.truncate(path, sectors * 512)
    _run("mkfs.vfat", "-F", "16", "-n", "PANALBOOT", "-h", str(hidden), str(path))
    config = work / "syslinux.cfg"
    config.write_text(
        "DEFAULT panal\nPROMPT 0\nLABEL panal\n  KERNEL vmlinuz\n  INITRD initrd.gz\n"
        "  APPEND console=tty0 console=ttyS0,115200 quiet panic=5 mitigations=off no_timer_check net.ifnames=0\n"
    )
    for source, name in ((parts.kernel, "vmlinuz"), (parts.initrd, "initrd.gz"), (config, "syslinux.cfg")):
        _run("mcopy", "-i", str(path), str(source), f"::{name}")
    _run("syslinux", "--install", str(path))


def _write_data(path: Path, sectors: int, autostart: str, work: Path) -> None:
    root = work / "data"
    root.mkdir()
    if autostart:
        (root / "autostart").write_text(autostart)
        (root / "autostart").chmod(0o755)
    path.touch()
    os.truncate(path, sectors * 512)
    _run("mke2fs", "-q", "-t", "ext4", "-L", "panal-data", "-E", "root_owner=0:0", "-d", str(root), str(path))


def _mbr(partitions: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Boot code of syslinux and a table of (flag, type, first sector, sectors)."""
    code = Path("/usr/lib/syslinux/mbr/mbr.bin").read_bytes()[:440]
    rows = b"".join(
        struct.pack("<B3sB3sII", flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", first, count)
        for flag, kind, first, count in partitions
    )
    return code.ljust(440, b"\0") + b"PANL\0\0" + rows.ljust(64, b"\0") + b"\x55\xaa"
