"""Hosts, name servers, time zone: read, replaced whole, never by somebody who saw something else."""

from __future__ import annotations

import asyncio

import pytest

from panal.core.errors import BadInput, Conflict, Failed
from panal.node import dns, files, hosts, timezone
from tests.unit.node.world import Machine


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


async def test_hosts_round_trip_with_digest(machine):
    path = machine.file("etc/hosts", "127.0.0.1 localhost\n")
    path.chmod(0o640)
    seen = await hosts.read(machine.info)
    assert seen["data"] == "127.0.0.1 localhost\n" and len(seen["digest"]) == 40
    await hosts.write(machine.info, "127.0.0.1 localhost\r\n::1 localhost", seen["digest"])
    assert path.read_text() == "127.0.0.1 localhost\n::1 localhost\n"
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(Conflict, match="detected modified configuration"):
        await hosts.write(machine.info, "x", seen["digest"])
    assert path.read_text().startswith("127.0.0.1")
    assert [p.name for p in path.parent.iterdir()] == ["hosts"]


async def test_of_two_writers_who_saw_the_same_one_wins(machine):
    """Planted fault: without the lock both compare before either writes."""
    machine.file("etc/hosts", "a\n")
    digest = (await hosts.read(machine.info))["digest"]
    done = await asyncio.gather(
        *(hosts.write(machine.info, f"{n}\n", digest) for n in range(8)), return_exceptions=True
    )
    assert sum(r is None for r in done) == 1 and sum(isinstance(r, Conflict) for r in done) == 7


@pytest.mark.parametrize("text", ["a\0b", "x" * (hosts.MAX_BYTES + 1)])
async def test_hosts_is_text_of_bounded_size(machine, text):
    with pytest.raises(BadInput) as caught:
        await hosts.write(machine.info, text, None)
    assert caught.value.field == "data" and not (machine.root / "etc/hosts").exists()


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_text("old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("panal.node.files.os.fsync", full)
    with pytest.raises(Failed, match="No space left"):
        files.replace(path, b"new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_link_is_replaced_not_followed(tmp_path):
    """Attack row 9. Planted fault: `os.path.realpath` before writing."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    link = tmp_path / "etc"
    link.symlink_to(outside)
    files.replace(link, b"new")
    assert outside.read_text() == "precious" and link.read_text() == "new"


async def test_name_servers(machine):
    path = machine.file(
        "etc/resolv.conf", "# kept\nnameserver 1.1.1.1 # one\ndomain old\noptions edns0\nnameserver fe80::1\n"
    )
    assert await dns.read(machine.info) == {"search": "old", "dns1": "1.1.1.1", "dns2": "fe80::1"}
    await dns.write(machine.info, "a.example b.example", ["9.9.9.9"])
    assert path.read_text() == "search a.example b.example\nnameserver 9.9.9.9\n# kept\noptions edns0\n"
    await dns.write(machine.info, "c.example", [])
    assert await dns.read(machine.info) == {"search": "c.example", "dns1": "9.9.9.9"}


@pytest.mark.parametrize("search", ["", " ", "-x", "a;b", "a b$(id)", "a\0"])
async def test_a_search_domain_smuggles_nothing_in(machine, search):
    """Attack row 8. Planted fault: no check of each word."""
    path = machine.file("etc/resolv.conf", "nameserver 1.1.1.1\n")
    with pytest.raises(BadInput) as caught:
        await dns.write(machine.info, search, [])
    assert caught.value.field == "search" and path.read_text() == "nameserver 1.1.1.1\n"


async def test_a_line_break_in_the_search_domain_makes_no_line(machine):
    """Planted fault: writing `search` as it came."""
    machine.file("etc/resolv.conf", "nameserver 1.1.1.1\n")
    await dns.write(machine.info, "a\nnameserver 6.6.6.6", [])
    assert (await dns.read(machine.info))["dns1"] == "1.1.1.1"


async def test_where_resolved_owns_the_file_it_is_told(machine):
    machine.file("run/systemd/resolve/resolv.conf", "nameserver 8.8.8.8\nsearch lan\n")
    (machine.root / "etc").mkdir()
    link = machine.root / "etc/resolv.conf"
    link.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert await dns.read(machine.info) == {"search": "lan", "dns1": "8.8.8.8"}
    await dns.write(machine.info, "example", [])
    written = (machine.root / "etc/systemd/resolved.conf.d/panal.conf").read_text()
    assert written == "[Resolve]\nDNS=8.8.8.8\nDomains=example\n"
    assert link.is_symlink()
    assert machine.programs.calls == [["systemctl", "try-reload-or-restart", "systemd-resolved.service"]]


def zone(machine: Machine, name: str) -> None:
    from pathlib import Path

    target = machine.root / "usr/share/zoneinfo" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes((Path("/usr/share/zoneinfo") / name).read_bytes())


async def test_time_zone(machine):
    zone(machine, "Europe/Vienna")
    (machine.root / "etc").mkdir()
    assert timezone.read(machine.info)["timezone"] == "UTC"
    await timezone.write(machine.info, "Europe/Vienna")
    got = timezone.read(machine.info)
    assert got == {"timezone": "Europe/Vienna", "time": 1_700_000_000, "localtime": 1_700_003_600}
    assert (machine.root / "etc/timezone").read_text() == "Europe/Vienna\n"
    assert str((machine.root / "etc/localtime").readlink()) == "/usr/share/zoneinfo/Europe/Vienna"
    assert machine.programs.calls == []


async def test_time_zone_through_systemd(tmp_path):
    machine = Machine(tmp_path, systemd=True)
    zone(machine, "Europe/Vienna")
    await timezone.write(machine.info, "Europe/Vienna")
    assert machine.programs.calls == [["timedatectl", "set-timezone", "--", "Europe/Vienna"]]


@pytest.mark.parametrize(
    "name", ["", "Nowhere/City", "../../../etc/passwd", "/etc/passwd", "Europe", "Europe/Vienna\n", "-x"]
)
async def test_an_unknown_zone_names_the_field(machine, name):
    """Attack row 16. Planted fault: no pattern before the path is joined."""
    zone(machine, "Europe/Vienna")
    machine.file("etc/passwd", "x")
    with pytest.raises(BadInput) as caught:
        await timezone.write(machine.info, name)
    assert caught.value.field == "timezone" and not (machine.root / "etc/localtime").exists()
