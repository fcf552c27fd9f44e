"""Whether KVM truly works on this machine: decided once a boot.

Called by the QEMU driver before the first start and by `node/` for its status. A `/dev/kvm` that opens proves nothing: under
some hypervisors small real-mode guests run and a Linux kernel hangs. So first the CPU must offer it (without that it is an
emulation), then a real boot must say something. Invariant: the answer is kept in `<run>/kvm.json` with the boot id and does
not change while the machine is up, because a guest must not change its accelerator by chance.
"""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from panal.core.errors import PanalError
from panal.host.run import run

CONFIRM_S: Final = 5
_KERNELS: Final = ("/boot/vmlinuz-*", "/vmlinuz")


@dataclass(frozen=True, slots=True)
class Kvm:
    """The decision, and why in one sentence."""

    usable: bool
    reason: str


def boot_id() -> str:
    """This boot's id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def decide(directory: Path, qemu: str) -> Kvm:
    """The decision of this boot; looks (and takes up to 5 s, where the CPU offers KVM) only the first time."""
    cache = directory / "kvm.json"
    try:
        kept = json.loads(cache.read_text())
        if kept["boot"] == boot_id():
            return Kvm(kept["usable"], kept["reason"])
    except (OSError, ValueError, KeyError):
        pass
    decision = first_look() or await _confirm(qemu)
    temporary = cache.with_suffix(".new")
    temporary.write_text(json.dumps({"boot": boot_id(), **asdict(decision)}))
    temporary.chmod(0o600)
    temporary.replace(cache)
    return decision


def first_look(cpuinfo: str = "/proc/cpuinfo", modules: str = "/sys/module", device: str = "/dev/kvm") -> Kvm | None:
    """Stage 1: reasons against it that need no try; None when there is none."""
    if not Path(device).exists():
        return Kvm(False, f"KVM is not used: {device} does not exist")
    if not os.access(device, os.R_OK | os.W_OK):
        return Kvm(False, f"KVM is not used: {device} may not be opened by this user (group kvm)")
    if (Path(modules) / "kvm_pvm").exists():
        return Kvm(False, "KVM is not used: this machine is itself a guest without nested virtualisation (kvm_pvm)")
    if not re.search(r"^flags\s*:.*\b(svm|vmx)\b", Path(cpuinfo).read_text(), re.M):
        return Kvm(False, "KVM is not used: the CPU offers no hardware virtualisation (svm or vmx)")
    if os.geteuid() == 0 and groups(device) is None:
        return Kvm(
            False, f"KVM is not used: guests have users of their own and these may not open {device} (group kvm)"
        )
    return None


def groups(device: str = "/dev/kvm") -> list[int] | None:
    """Groups a guest's user must be in to open the device; None when no group helps (mode or owner)."""
    status = Path(device).stat()
    if status.st_mode & 0o006 == 0o006:
        return []
    return [status.st_gid] if status.st_mode & 0o060 == 0o060 and status.st_gid != 0 else None


class _SeenError(Exception):
    """The guest spoke."""


async def _confirm(qemu: str) -> Kvm:
    """Stage 2: boot the machine's own kernel (or the firmware, where no kernel can be read) and wait for its first line."""
    kernels = sorted(k for pattern in _KERNELS for k in glob.glob(pattern) if os.access(k, os.R_OK))  # noqa: PTH207
    wanted = b"Linux version" if kernels else b"SeaBIOS (version"
    text = bytearray()

    def look(piece: bytes) -> None:
        text.extend(piece[:4096])
        if wanted in text:
            raise _SeenError

    try:
        await run(_argv(qemu, kernels[-1] if kernels else None), timeout_s=CONFIRM_S, on_output=look, check=False)
    except _SeenError:
        return Kvm(True, "KVM is used: a test guest booted with it")
    except PanalError as exc:
        return Kvm(False, f"KVM is not used: the test guest said nothing in time ({exc})")
    return Kvm(False, "KVM is not used: the test guest ended without a word")


def _argv(qemu: str, kernel: str | None) -> list[str]:
    argv = [qemu, "-accel", "kvm", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    if kernel is None:
        return [*argv, "-chardev", "stdio,id=c", "-device", "isa-debugcon,iobase=0x402,chardev=c"]
    return [*argv, "-serial", "stdio", "-kernel", kernel, "-append", "earlyprintk=serial,ttyS0 console=ttyS0 panic=-1"]
