"""What this machine is and how it does, read from /proc and /sys directly: a millisecond, no program.

Called by `api/node_system.py`, `api/nodes.py` and the series' sampler. Field names and types are those of the API.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from panal.node.context import NodeInfo


def _text(info: NodeInfo, path: str, default: str = "") -> str:
    try:
        return info.path(path).read_text(errors="replace").strip()
    except OSError:
        return default


def meminfo(info: NodeInfo) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    rows = (line.split() for line in _text(info, "/proc/meminfo").splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) >= 2}


def memory(info: NodeInfo) -> dict[str, int]:
    """Bytes. Used is what is not available to programs."""
    rows = meminfo(info)
    total = rows.get("MemTotal", 0)
    available = rows.get("MemAvailable", rows.get("MemFree", 0))
    return {"total": total, "used": total - available, "free": rows.get("MemFree", 0), "available": available}


def swap(info: NodeInfo) -> dict[str, int]:
    """Bytes."""
    rows = meminfo(info)
    total, free = rows.get("SwapTotal", 0), rows.get("SwapFree", 0)
    return {"total": total, "used": total - free, "free": free}


def root_usage(info: NodeInfo) -> dict[str, int]:
    """Bytes of the file system at the root."""
    st = os.statvfs(info.root)
    total, free, avail = (n * st.f_frsize for n in (st.f_blocks, st.f_bfree, st.f_bavail))
    return {"total": total, "used": total - free, "free": free, "avail": avail}


@lru_cache(maxsize=8)
def _cpuinfo(path: Path) -> Mapping[str, Any]:
    model, flags, mhz, places, cpus = "unknown", "", "0", set(), 0
    physical = "0"
    for line in path.read_text(errors="replace").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        match key:
            case "processor":
                cpus += 1
            case "model name" | "Model" | "cpu model":
                model = value
            case "flags" | "Features":
                flags = value
            case "cpu MHz":
                mhz = value
            case "physical id":
                physical = value
            case "core id":
                places.add((physical, value))
            case _:
                pass
    sockets = len({p for p, _ in places}) or 1
    return {
        "cpus": cpus or os.cpu_count() or 1,
        "cores": (len(places) // sockets) or cpus or 1,
        "sockets": sockets,
        "model": model,
        "mhz": mhz,
        "flags": flags,
        "hvm": "1" if {"vmx", "svm"} & set(flags.split()) else "0",
        "user_hz": os.sysconf("SC_CLK_TCK"),
    }


def cpuinfo(info: NodeInfo) -> dict[str, Any]:
    """The processors. `mhz` and `hvm` are strings on the wire."""
    return dict(_cpuinfo(info.path("/proc/cpuinfo")))


def uptime_s(info: NodeInfo) -> int:
    """Seconds since boot."""
    return int(float(_text(info, "/proc/uptime", "0").split()[0]))


def load(info: NodeInfo) -> list[str]:
    """Load of 1, 5 and 15 minutes: strings on the wire."""
    return _text(info, "/proc/loadavg", "0 0 0").split()[:3]


def kernel(info: NodeInfo) -> dict[str, str]:
    """As uname says."""
    return {
        "sysname": _text(info, "/proc/sys/kernel/ostype", "Linux"),
        "release": _text(info, "/proc/sys/kernel/osrelease"),
        "version": _text(info, "/proc/sys/kernel/version"),
        "machine": platform.machine(),
    }


def boot_info(info: NodeInfo) -> dict[str, Any]:
    """How the machine was booted."""
    if not info.path("/sys/firmware/efi").is_dir():
        return {"mode": "legacy-bios"}
    found = next(iter(info.path("/sys/firmware/efi/efivars").glob("SecureBoot-*")), None)
    try:
        secure = found is not None and found.read_bytes()[-1:] == b"\x01"
    except OSError:
        secure = False
    return {"mode": "efi", "secureboot": int(secure)}


def pressure(info: NodeInfo) -> dict[str, float]:
    """Stall shares of the last 10 s in percent, where the kernel keeps them."""
    out: dict[str, float] = {}
    for what in ("cpu", "io", "memory"):
        for line in _text(info, f"/proc/pressure/{what}").splitlines():
            kind, _, rest = line.partition(" avg10=")
            if rest and not (what == "cpu" and kind == "full"):
                out[f"pressure{what}{kind}"] = float(rest.split()[0])
    return out


def network_bytes(info: NodeInfo) -> tuple[int, int]:
    """Bytes received and sent by physical interfaces since boot."""
    received = sent = 0
    for line in _text(info, "/proc/net/dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        name = name.strip()
        # a bridge and its ports would count twice: only what has a device of its own
        if rest and info.path(f"/sys/class/net/{name}/device").exists():
            fields = rest.split()
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def arc_bytes(info: NodeInfo) -> int:
    """Size of ZFS' cache; 0 without ZFS."""
    for line in _text(info, "/proc/spl/kstat/zfs/arcstats").splitlines():
        row = line.split()
        if len(row) == 3 and row[0] == "size":
            return int(row[2])
    return 0


def status(info: NodeInfo) -> dict[str, Any]:
    """The whole answer of `GET /nodes/{node}/status` but for the version. Blocking, but short."""
    shares = info.meter.read()
    uname = kernel(info)
    shared = int(_text(info, "/sys/kernel/mm/ksm/pages_sharing", "0") or 0) * os.sysconf("SC_PAGESIZE")
    return {
        "uptime": uptime_s(info),
        "loadavg": load(info),
        "cpu": round(shares.busy, 6),
        "wait": round(shares.wait, 6),
        "idle": round(shares.idle, 6),
        "cpuinfo": cpuinfo(info),
        "memory": memory(info),
        "swap": swap(info),
        "rootfs": root_usage(info),
        "ksm": {"shared": shared},
        "kversion": " ".join((uname["sysname"], uname["release"], uname["version"])),
        "current-kernel": uname,
        "boot-info": boot_info(info),
    }


def sample(info: NodeInfo) -> dict[str, float]:
    """One sample for the series; `netin` and `netout` are counters."""
    shares, mem, swapped, root = info.meter.read(), memory(info), swap(info), root_usage(info)
    netin, netout = network_bytes(info)
    return {
        "uptime": uptime_s(info),
        "loadavg": float(load(info)[0]),
        "maxcpu": cpuinfo(info)["cpus"],
        "cpu": shares.busy,
        "iowait": shares.wait,
        "memtotal": mem["total"],
        "memused": mem["used"],
        "memavailable": mem["available"],
        "swaptotal": swapped["total"],
        "swapused": swapped["used"],
        "roottotal": root["total"],
        "rootused": root["used"],
        "arcsize": arc_bytes(info),
        "netin": netin,
        "netout": netout,
        **pressure(info),
    }
