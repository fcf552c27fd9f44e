"""Guests' firewalls with everything a kernel has for them: in a small virtual machine with the distribution's own kernel.

The machine that runs the tests may lack connection tracking on bridges; this one has it. firewall_vm.sh runs inside, with the
rules that we compiled, and prints a line a check. Planted faults, each seen red: no `established` in the chain to the guest
(out-and-reply), no macfilter (foreign-mac), no ipfilter for IPv4 (foreign-address), the kernel's own answers not let through
(out-rejected).
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from panal.core.errors import Failed
from panal.firewall import Card, GuestFirewall, NftBackend, Protected, compile_table, edit, remove_table
from panal_demo.guest_image import ImageError, _cpio, kernel
from tests.guests.conftest import CACHE
from tests.guests.firewall_modules import MODULES

HERE = Path(__file__).parent
CHECKS = len(re.findall(r"^(?:yes|no)_ ", (HERE / "firewall_vm.sh").read_text(), re.M))


def rules() -> list[dict]:  # type: ignore[type-arg]
    fw = edit.set_options(
        GuestFirewall(), {"enable": True, "ipfilter": True, "log_level_in": "info", "log_level_out": "warning"}
    )
    for name, entries in (("admins", ("10.0.0.3", "fd00::33")), ("ipfilter-net0", ("10.0.0.2", "fd00::2"))):
        fw = edit.add_ipset(fw, {"name": name})
        for cidr in entries:
            fw = edit.add_entry(fw, name, {"cidr": cidr})
    for rule in (
        {"type": "in", "action": "ACCEPT", "macro": "SSH", "source": "+admins", "log": "info"},
        {"type": "in", "action": "ACCEPT", "proto": "ipv6-icmp", "icmp-type": "echo-request", "source": "+admins"},
        {"type": "out", "action": "REJECT", "macro": "SMTP"},
        {"type": "out", "action": "REJECT", "proto": "udp", "dport": "33434:33534"},
    ):
        fw = edit.add_rule(fw, {**rule, "enable": 1})
    return compile_table("panal-n1", [Protected(100, fw, (Card("net0", "tap100i0", "BC:24:11:00:00:01"),))])


async def probes() -> list[dict]:  # type: ignore[type-arg]
    """What NftBackend asks a kernel for, each question in the same words."""
    asked: list[dict] = []  # type: ignore[type-arg]

    async def runner(argv, *, timeout_s, stdin=None, check=True):
        asked.extend(json.loads(stdin)["nftables"])
        from panal.host.run import Result

        return Result(0, b"", "")

    able = await NftBackend(runner).abilities()
    assert able.missing is None and able.reject
    return asked


def with_libraries(program: str) -> dict[str, bytes]:
    path = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    files = {f"sbin/{program}": Path(path).read_bytes()}
    return files | {found.lstrip("/"): Path(found).read_bytes() for found in re.findall(r"(/\S+) \(0x", listed)}


def initrd(modules: Path, probe: list[dict]) -> bytes:  # type: ignore[type-arg]
    busybox = next((p for p in (Path("/bin/busybox"), Path("/usr/bin/busybox")) if p.exists()), None)
    if busybox is None:
        pytest.skip("busybox-static is not installed")
    files = {
        "bin/busybox": busybox.read_bytes(), "init": (HERE / "firewall_vm.sh").read_bytes(),
        **with_libraries("nft"), **with_libraries("ip"),
        **{f"modules/{p.name}": p.read_bytes() for p in modules.iterdir() if p.name != "vmlinuz"},
    }  # fmt: skip
    for name, commands in (("rules", rules()), ("probe", probe), ("remove", remove_table("panal-n1"))):
        files[f"{name}.json"] = json.dumps({"nftables": commands}).encode()
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    folders |= {"dev", "proc", "sys", "tmp", "run", "etc"}
    entries = [_cpio(name, 0o40755) for name in sorted(folders)]
    entries.append(_cpio("dev/console", 0o20600, device=(5, 1)))
    entries += [_cpio(name, 0o100755, data) for name, data in files.items()]
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    entries += [_cpio(f"bin/{a}", 0o120777, b"busybox") for a in applets if a not in ("busybox", "ip")]
    return gzip.compress(b"".join((*entries, _cpio("TRAILER!!!", 0))), 1, mtime=0)


@pytest.mark.real
async def test_the_whole_firewall_in_a_virtual_machine(tmp_path):
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    try:
        vmlinuz, modules = kernel(CACHE, "firewall", MODULES)
    except ImageError as error:
        pytest.skip(f"no kernel: {error}")
    (tmp_path / "initrd.gz").write_bytes(initrd(modules, await probes()))
    argv = [
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-m",
        "512",
        "-nodefaults",
        "-nographic",
        "-no-reboot",
    ]
    argv += ["-kernel", str(vmlinuz), "-initrd", str(tmp_path / "initrd.gz"), "-serial", "stdio"]
    argv += ["-append", "console=ttyS0 loglevel=3 panic=-1 mitigations=off no_timer_check"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False, stdin=subprocess.DEVNULL)
    said = done.stdout
    assert "checks done" in said, said[-3000:]
    results = dict(re.findall(r"check (\S+) (ok|WRONG)", said))
    assert set(results.values()) == {"ok"}, (results, said[-3000:])
    assert len(results) == CHECKS


async def test_a_kernel_that_cannot_is_told_apart():
    async def runner(argv, *, timeout_s, stdin=None, check=True):
        if b'"ct"' in stdin:
            raise Failed("Protocol error")

    able = await NftBackend(runner).abilities()
    assert able.missing is not None and "nf_conntrack_bridge" in able.missing and "Protocol error" in able.missing
