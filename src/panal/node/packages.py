"""Debian packages of this machine: versions of those a node is made of, and what could be upgraded. Reads only.

`updates` asks apt to simulate; it takes no lock and changes nothing, and is as new as the package lists are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from panal.core.errors import Unsupported
from panal.node.context import NodeInfo

TIMEOUT_S: Final = 60.0
# what a node is made of; shown in this order
OURS: Final = (
    "panal", "panal-lab", "qemu-system-x86", "qemu-system-arm", "qemu-utils", "ovmf", "swtpm", "lxc", "corosync", "pacemaker",
    "etcd-server", "zfsutils-linux", "lvm2", "open-iscsi", "nfs-common", "ceph-common", "python3", "systemd", "openssl",
)  # fmt: skip
_FIELDS: Final = ("Package", "Version", "Arch", "Status", "Section", "Priority", "Title")
_FORMAT: Final = (
    r"${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\t${Section}\t${Priority}\t${binary:Summary}\n"
)
_STATES: Final = {
    "installed": "Installed", "not-installed": "NotInstalled", "unpacked": "UnPacked", "half-configured": "HalfConfigured",
    "half-installed": "HalfInstalled", "config-files": "ConfigFiles", "triggers-awaited": "Installed",
    "triggers-pending": "Installed",
}  # fmt: skip
_INST = re.compile(r"Inst (?P<name>\S+) (?:\[(?P<old>[^\]]+)\] )?\((?P<new>\S+) (?P<origin>.+?) \[(?P<arch>[^\]]+)\]\)")


def _row(name: str, version: str, arch: str, section: str, priority: str, title: str) -> dict[str, Any]:
    return {
        "Package": name, "Title": title or name, "Description": title or name, "Version": version, "Arch": arch,
        "Section": section or "unknown", "Priority": priority or "optional", "Origin": "Debian",
    }  # fmt: skip


def parse_installed(text: str) -> dict[str, dict[str, Any]]:
    """dpkg-query's lines: package → row."""
    out: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        parts = line.split("\t")
        if len(parts) == len(_FIELDS):
            found = dict(zip(_FIELDS, parts, strict=True))
            row = _row(parts[0], parts[1], parts[2], found["Section"], found["Priority"], found["Title"])
            out[parts[0]] = row | {"CurrentState": _STATES.get(found["Status"], "NotInstalled")}
    return out


def parse_updates(text: str, installed: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines `Inst name [old] (new origin [arch])` of a simulated upgrade."""
    rows = []
    for line in text.splitlines():
        m = _INST.match(line)
        if m is None or m["old"] is None:
            continue
        known = installed.get(m["name"].partition(":")[0], {})
        row = _row(
            m["name"], m["new"], m["arch"], known.get("Section", ""), known.get("Priority", ""), known.get("Title", "")
        )
        rows.append(row | {"OldVersion": m["old"], "Origin": m["origin"].split(":")[0]})
    return rows


async def _installed(info: NodeInfo, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    if not info.path("/var/lib/dpkg/status").is_file():
        raise Unsupported("this node has no Debian packages; update it the way it was installed")
    # unknown names are a status of 1, and no reason to leave out the others
    argv = ["dpkg-query", "--show", f"--showformat={_FORMAT}", *(["--", *names] if names else [])]
    return parse_installed((await info.run(argv, timeout_s=TIMEOUT_S, check=False)).text)


async def versions(info: NodeInfo) -> list[dict[str, Any]]:
    """Versions of what a node is made of, as far as it is installed."""
    found = await _installed(info, OURS)
    rows = [found[name] for name in OURS if name in found and found[name]["CurrentState"] != "NotInstalled"]
    return [row | {"OldVersion": row["Version"]} for row in rows]


async def updates(info: NodeInfo) -> list[dict[str, Any]]:
    """What an upgrade would install, by the package lists of this moment."""
    installed = await _installed(info, ())
    argv = ["apt-get", "--simulate", "-o", "Debug::NoLocking=true", "dist-upgrade"]
    return parse_updates((await info.run(argv, timeout_s=TIMEOUT_S)).text, installed)
