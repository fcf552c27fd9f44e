"""/etc/network/interfaces and the kernel's view, in one list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panal.network import Network
from panal.network.interfaces import Link, kernel_links, merge, parse, read_file

TEXT = """
# written by hand
auto lo
iface lo inet loopback

iface eno1 inet manual

auto bond0
iface bond0 inet manual
\tbond-slaves eno2 eno3
\tbond-miimon 100
\tbond-mode 1
\tbond_xmit_hash_policy layer2+3

auto vmbr0
iface vmbr0 inet static
\taddress 10.0.0.2/24
\tgateway 10.0.0.1
\tbridge-ports eno1
\tbridge-stp off
\tbridge_fd 0
\tbridge-vlan-aware yes
\tbridge-vids 2-4094
\tmtu 9000
#the main bridge

iface vmbr0 inet6 static
\taddress fd00::2/64
\tgateway fd00::1

auto vmbr1
iface vmbr1 inet static
\taddress 192.168.1.1
\tnetmask 255.255.255.0
\tbridge-ports none

iface bond0.5 inet manual
iface vlan7 inet manual
\tvlan-raw-device bond0
iface eno1:1 inet static
\taddress 10.9.9.9/32
"""


def rows(text: str = TEXT, links: tuple[Link, ...] = ()) -> dict[str, dict[str, Any]]:
    return {row["iface"]: row for row in merge(parse(text), links)}


def test_types_and_options():
    got = rows()
    assert {name: row["type"] for name, row in got.items()} == {
        "eno1": "eth", "bond0": "bond", "vmbr0": "bridge", "vmbr1": "bridge", "bond0.5": "vlan", "vlan7": "vlan",
        "eno1:1": "alias",
    }  # fmt: skip
    bridge = got["vmbr0"]
    assert (bridge["cidr"], bridge["address"], bridge["netmask"], bridge["gateway"]) == (
        "10.0.0.2/24", "10.0.0.2", "24", "10.0.0.1",
    )  # fmt: skip
    assert (bridge["cidr6"], bridge["netmask6"], bridge["gateway6"]) == ("fd00::2/64", 64, "fd00::1")
    assert bridge["families"] == ["inet", "inet6"] and bridge["method"] == bridge["method6"] == "static"
    assert (bridge["bridge_ports"], bridge["bridge_vlan_aware"], bridge["bridge_vids"]) == ("eno1", 1, "2-4094")
    assert bridge["options"] == ["bridge-stp off", "bridge-fd 0"]
    assert bridge["mtu"] == 9000 and bridge["autostart"] == 1 and bridge["comments"] == "the main bridge\n"
    assert "active" not in bridge
    assert got["vmbr1"]["cidr"] == "192.168.1.1/24" and got["vmbr1"]["bridge_ports"] == ""
    bond = got["bond0"]
    assert (bond["slaves"], bond["bond_mode"], bond["bond_xmit_hash_policy"]) == (
        "eno2 eno3",
        "active-backup",
        "layer2+3",
    )
    assert (got["bond0.5"]["vlan-id"], got["bond0.5"]["vlan-raw-device"]) == (5, "bond0")
    assert (got["vlan7"]["vlan-id"], got["vlan7"]["vlan-raw-device"]) == (7, "bond0")
    assert "autostart" not in got["eno1"]


def test_what_runs_is_shown_with_it_and_guests_taps_are_not():
    links = (
        Link("lo", True, addresses=("127.0.0.1/8",)),
        Link("eno1", True),
        Link("vmbr0", True, "bridge", ports=("eno1",)),
        Link("tap100i0", True, "tun"),
        Link("veth1", True, "veth"),
        Link("enp9s0", False, addresses=("fe80::1/64", "10.1.1.1/16")),
        Link("br-x", True, "bridge", ports=("enp9s0",), mtu=1400),
        Link("enp9s0.9", True, "vlan", lower="enp9s0", vlan=9),
    )
    got = rows(links=links)
    assert got["vmbr0"]["active"] == got["vmbr0"]["exists"] == 1
    assert "exists" not in got["vmbr1"]
    assert not {"lo", "tap100i0", "veth1"} & set(got)
    assert got["enp9s0"]["cidr"] == "10.1.1.1/16" and "active" not in got["enp9s0"] and got["enp9s0"]["type"] == "eth"
    assert (got["br-x"]["type"], got["br-x"]["bridge_ports"], got["br-x"]["mtu"]) == ("bridge", "enp9s0", 1400)
    assert (got["enp9s0.9"]["vlan-id"], got["enp9s0.9"]["vlan-raw-device"]) == (9, "enp9s0")
    assert all("kernel" not in row for row in got.values())


async def test_included_files_are_read(tmp_path):
    base = tmp_path / "etc/network"
    (base / "interfaces.d").mkdir(parents=True)
    (base / "interfaces").write_text("source /etc/network/interfaces.d/*\niface eno1 inet manual\n")
    (base / "interfaces.d/extra").write_text("iface vmbr9 inet manual\n bridge-ports none\n")
    assert "vmbr9" in read_file(tmp_path)
    network = Network(tmp_path, lambda: [Link("eno1", True)])
    assert {r["iface"] for r in await network.list()} == {"vmbr9", "eno1"}
    assert read_file(tmp_path / "nothing") == ""


@given(st.text(max_size=300))
def test_any_file_is_survived(text):
    """Attack row 11."""
    merge(parse(text), [])


BROKEN = (
    "iface a inet", "iface", "auto", "address", "address x/99", "netmask 999", "netmask", "mtu x", "gateway", "bond-mode 99",
    "vlan-id x", "iface a.5000 inet6 static", "netmask 255.0.255.0", "address 1.2.3.4", "\\",
)  # fmt: skip


@given(st.lists(st.sampled_from(BROKEN)))
def test_any_mix_of_broken_lines_is_survived(lines):
    merge(parse("\n".join(lines)), [])


@pytest.mark.kernel
def test_the_kernel_has_links():
    names = {link.name for link in kernel_links()}
    assert "lo" in names
