"""A host-only bridge with a DHCP server (busybox) for the demo's guests. Root only; the host's own networks stay untouched.

Invariant: the subnet is one that no route of this machine reaches; what `remove` takes away is exactly what `make` made.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import subprocess
from pathlib import Path

from panal_demo.daemons import started_at
from panal_demo.place import DemoError, Place

NAME = "pnldemo0"
MAC = "fe:70:6e:6c:00:01"
"""pinned: a bridge without one takes the lowest of its ports and changes it under the guests"""
_CANDIDATES = [f"10.{second}.{third}" for second, third in ((86, 100), (186, 100), (86, 101), (213, 77), (91, 33))]


def _ip(*argv: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, timeout=20, check=False)
    if check and done.returncode:
        raise DemoError(f"ip {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def free_subnet() -> str:
    """First three numbers of a /24 that clashes with no route or address here."""
    taken = [
        ipaddress.ip_network(word, strict=False)
        for word in re.findall(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?", _ip("-4", "route"))
    ]
    for candidate in _CANDIDATES:
        wanted = ipaddress.ip_network(f"{candidate}.0/24")
        if not any(wanted.overlaps(network) for network in taken):
            return candidate
    raise DemoError("found no free subnet for the bridge; PANAL_DEMO_PLAIN=1 ./demo goes without one")


def possible() -> str | None:
    """Why there can be no bridge; None when there can."""
    if os.geteuid() != 0:
        return "not root"
    if subprocess.run(
        ["ip", "link", "add", "pnldemoprobe", "type", "bridge"], capture_output=True, check=False
    ).returncode:
        return "the kernel or the container gives no bridge"
    _ip("link", "delete", "pnldemoprobe", check=False)
    return None if Path("/dev/net/tun").exists() else "there is no /dev/net/tun"


def make(place: Place, subnet: str) -> None:
    """The bridge with its address and DHCP server; quick when all is there."""
    if not Path(f"/sys/class/net/{NAME}").exists():
        _ip("link", "add", NAME, "address", MAC, "type", "bridge", "stp_state", "0", "forward_delay", "0")
    _ip("address", "replace", f"{subnet}.1/24", "dev", NAME)
    _ip("link", "set", NAME, "up")
    if _server(place) is None:
        _serve(place, subnet)


def _record(place: Place) -> Path:
    return place.run / "udhcpd.json"


def _server(place: Place) -> int | None:
    try:
        record = json.loads(_record(place).read_text())
    except (FileNotFoundError, ValueError):
        return None
    pid = record["pid"]
    return pid if isinstance(pid, int) and started_at(pid) == record["started"] else None


def _serve(place: Place, subnet: str) -> None:
    config = place.run / "udhcpd.conf"
    config.write_text(
        f"start {subnet}.100\nend {subnet}.199\ninterface {NAME}\noption subnet 255.255.255.0\noption lease 3600\n"
        f"auto_time 2\nlease_file {place.run}/udhcpd.leases\npidfile {place.run}/udhcpd.pid\n"
    )
    (place.run / "udhcpd.leases").touch()
    with (place.log / "udhcpd.log").open("ab") as log:
        process = subprocess.Popen(
            ["busybox", "udhcpd", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _record(place).write_text(json.dumps({"pid": process.pid, "started": started_at(process.pid)}))


def remove(place: Place) -> None:
    """Server and bridge away; nothing happens when they are not there."""
    pid = _server(place)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    _record(place).unlink(missing_ok=True)
    _ip("link", "delete", NAME, check=False)


def pings(address: str) -> bool:
    """Whether a host answers within a few seconds."""
    argv = ["ping", "-c", "1", "-W", "2", address]
    return any(subprocess.run(argv, capture_output=True, check=False).returncode == 0 for _ in range(5))


def link_local(mac: str) -> str:
    """The IPv6 address that every Linux takes of its MAC, on the bridge."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    groups = [*octets[:3], 0xFF, 0xFE, *octets[3:]]
    text = ":".join(f"{groups[i] << 8 | groups[i + 1]:x}" for i in range(0, 8, 2))
    return f"fe80::{text}%{NAME}"
