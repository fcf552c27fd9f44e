"""Every key: accepted and refused values, and no way for a value to carry a second key, line or argument."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from panal.core.errors import BadInput, BadParameters
from panal.guests.config import read, read_drives, read_nics
from panal.guests.config.change import apply_pending
from panal.guests.config.keys import INTERNAL, KEYS, all_names, find
from panal.guests.config.rights import needs
from panal.guests.config.show import show_config
from panal.guests.config.wish import Wish, canonical_all, read_wish
from tests.soaking import examples

# name → values that must be taken as they are (or as the second of a pair)
GOOD: dict[str, list[object]] = {
    "acpi": [(False, "0"), ("1", "1")],
    "affinity": ["0,5,8-11"],
    "agent": ["1", "enabled=1,fstrim_cloned_disks=1", "0"],
    "allow-ksm": ["0"],
    "amd-sev": ["type=std"],
    "arch": ["x86_64"],
    "args": ["-cpu host,+aes -device x=y"],
    "audio0": ["device=ich9-intel-hda,driver=none"],
    "autostart": ["0"],
    "balloon": [(0, "0"), ("1024", "1024")],
    "bios": ["ovmf"],
    "boot": ["order=scsi0;net0", "cdn", "order="],
    "bootdisk": ["scsi0"],
    "cdrom": [],
    "cicustom": ["user=local:snippets/u.yaml"],
    "cipassword": ["geheim"],
    "citype": ["nocloud"],
    "ciupgrade": ["0"],
    "ciuser": ["debian"],
    "cores": [(4, "4"), ("2", "2")],
    "cpu": ["host", "cputype=host,flags=+aes;-pcid", "x86-64-v2-AES", "host,hidden=1"],
    "cpulimit": [(1.5, "1.5"), ("2", "2"), ("2.0", "2")],
    "cpuunits": ["100"],
    "description": ["a\nb, c = d"],
    "efidisk0": ["local:100/vm-100-disk-1.raw,efitype=4m,size=528K"],
    "freeze": ["1"],
    "hookscript": ["local:snippets/hook.pl"],
    "hostpci": ["0000:01:00.0,pcie=1", "mapping=gpu"],
    "hotplug": ["1", "network,disk"],
    "hugepages": ["2"],
    "ide": ["none,media=cdrom", "local:iso/x.iso,media=cdrom"],
    "intel-tdx": ["type=tdx"],
    "ipconfig": ["ip=dhcp", "ip=10.0.0.2/24,gw=10.0.0.1,ip6=auto"],
    "ivshmem": ["size=32,name=foo"],
    "keephugepages": ["1"],
    "keyboard": ["de"],
    "kvm": ["0"],
    "localtime": ["1"],
    "lock": ["backup"],
    "machine": ["q35", "pc-q35-7.2", "pc-i440fx-8.1+pve0", "q35,viommu=intel"],
    "memory": [(1024, "1024"), "current=2048"],
    "migrate_downtime": ["0.3"],
    "migrate_speed": ["10"],
    "name": ["web-1.example.com"],
    "nameserver": ["10.0.0.1 2001:db8::1"],
    "net": ["virtio=BC:24:11:00:00:01,bridge=vmbr0"],
    "numa": ["cpus=0-1,memory=512", "1"],
    "onboot": ["1"],
    "ostype": ["l26"],
    "parallel": ["/dev/parport0"],
    "protection": ["1"],
    "reboot": ["0"],
    "rng0": ["source=/dev/urandom,max_bytes=1024"],
    "sata": ["local:100/vm-100-disk-0.raw"],
    "scsi": ["local:32", "local:100/vm-100-disk-0.qcow2,iothread=1,size=32G"],
    "scsihw": ["virtio-scsi-single"],
    "searchdomain": ["example.com"],
    "serial": ["socket", "/dev/ttyS0"],
    "shares": ["2000"],
    "smbios1": ["uuid=6f6c0a0e-3a4c-4a4e-8d5b-0a5f4c1d2e3f", "base64=1,product=QQ=="],
    "smp": ["2"],
    "sockets": ["2"],
    "spice_enhancements": ["foldersharing=1"],
    "sshkeys": ["ssh-ed25519%20AAAA%20me%0A"],
    "startdate": ["now", "2026-01-02T03:04:05"],
    "startup": ["order=1,up=30,down=60", "3"],
    "tablet": ["0"],
    "tags": ["web;prod", ("A,b a", "a;b")],
    "tdf": ["1"],
    "template": ["0"],
    "tpmstate0": ["local:100/vm-100-disk-2.raw,size=4M,version=v2.0"],
    "unused": ["local:100/vm-100-disk-3.qcow2"],
    "usb": ["spice", "host=1234:abcd,usb3=1", "mapping=stick"],
    "vcpus": ["1"],
    "vga": ["std", "virtio,memory=64", "serial0"],
    "virtio": ["local:8,cache=writeback"],
    "virtiofs": ["dirid=share,cache=auto"],
    "vmgenid": ["1", "0", "6f6c0a0e-3a4c-4a4e-8d5b-0a5f4c1d2e3f"],
    "vmstatestorage": ["local-lvm"],
    "watchdog": ["i6300esb,action=reset"],
}

BAD: list[tuple[str, object]] = [
    ("acpi", "yes"), ("acpi", 2), ("affinity", "0;rm"), ("agent", "maybe"), ("arch", "arm"), ("balloon", -1),
    ("bios", "coreboot"), ("boot", "order=floppy0"), ("boot", "order=scsi0;-x"), ("boot", "xyz"),
    ("cicustom", "user=/etc/passwd"),
    ("cores", 0), ("cores", "1e3"), ("cores", "1.5"), ("cpu", "host,flags=+a,b"), ("cpu", "-x"), ("cpu", "host,phys-bits=all"),
    ("cpulimit", 129), ("cpulimit", "nan"), ("cpulimit", "inf"), ("cpuunits", 0), ("hookscript", "/root/x"),
    ("hostpci0", "../../x"), ("hostpci0", "pcie=1"), ("hostpci0", "00:01.0,romfile=../x"), ("hotplug", "everything"),
    ("ipconfig0", "ip=10.0.0.1"), ("ipconfig0", "gw=10.0.0.1"), ("ipconfig0", "ip6=10.0.0.1/8"), ("machine", "microvm"),
    ("machine", "q35 -x"), ("memory", "8"), ("memory", "max"), ("name", "-x"), ("name", "a_b"), ("name", "a" * 254),
    ("name", "<img>"), ("nameserver", "1.2.3,-x"), ("numa0", "cpus=a"), ("parallel0", "/dev/sda"),
    ("rng0", "source=/dev/sda"),
    ("serial0", "/dev/../etc/passwd"), ("serial0", "/etc/passwd"), ("serial0", "/dev/a,b"), ("smbios1", "uuid=x"),
    ("smbios1", "base64=1,product=%"), ("smbios1", "base64=1,product=YQpi"), ("startup", "up=-1"), ("tags", "a b;-c"),
    ("usb0", "host=/dev/sda"),
    ("usb0", "host=spice,mapping=ab"), ("usb0", "usb3=1"), ("vga", "matrox"), ("vga", "std,memory=1"),
    ("vmgenid", "2"), ("watchdog", "ib700,action=explode"), ("description", "x" * 8193), ("sshkeys", "a%00b"),
]  # fmt: skip


def test_the_tables_above_speak_of_every_key():
    assert {k.name for k in KEYS} == set(GOOD)


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in GOOD.items() for v in vs])
def test_taken(name: str, value: object):
    given, stored = value if isinstance(value, tuple) else (value, value)
    key_name = name if find(name) and not (name == "numa" and stored != "1") else f"{name}0"
    assert canonical_all({key_name: given}) == {key_name: stored}
    # and what was stored is taken again, unchanged
    assert canonical_all({key_name: stored}) == {key_name: stored}


@pytest.mark.parametrize(("name", "value"), BAD)
def test_refused_by_name(name: str, value: object):
    with pytest.raises(BadParameters) as caught:
        canonical_all({name: value})
    assert set(caught.value.errors) == {name}


EVERY_NAME = sorted({names[0] for k in KEYS for names in [k.names()]} | {"numa0"})
PAYLOADS = ["\n", "\r", "\0", "\x1b", "\x7f"]


@pytest.mark.parametrize("name", EVERY_NAME)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_control_character_in_any_value(name: str, payload: str):
    """Attack row 8. Seen to fail with the control checks of `Schema.parse` and `canonical` removed."""
    base = name.rstrip("0123456789") if name not in GOOD else name
    for value in GOOD[base if base in GOOD else name]:
        text = str(value[0] if isinstance(value, tuple) else value)
        for bad in (text + payload, payload + text, f"{text[:2]}{payload}scsi9: x{text[2:]}"):
            if name == "description" and payload in "\n":
                continue
            with pytest.raises(BadParameters):
                canonical_all({name: bad})


@pytest.mark.parametrize("name", [n for n in EVERY_NAME if find(n) is not None and find(n).schema is not None])  # type: ignore[union-attr]
def test_no_unknown_sub_key_rides_along(name: str):
    """Attack row 8. Seen to fail with `_put`'s refusal of unknown keys removed."""
    base = name if name in GOOD else name[:-1]
    for value in GOOD[base]:
        text = str(value[0] if isinstance(value, tuple) else value)
        if name == "numa" or (name == "numa0" and text == "1"):
            continue
        for extra in (",-device=x", ",nosuch=1", ",readonly", ",id=x"):
            with pytest.raises(BadParameters):
                canonical_all({name: text + extra})


@pytest.mark.parametrize(
    "name", [*sorted(INTERNAL), "v", "node", "pending", "snapshots", "net32", "scsi31", "NAME", "scsi00", ""]
)
def test_nothing_but_keys_is_stored(name: str):
    """Attack row 12, mass assignment. Seen to fail with `find(name) is None` ignored in `_canonical`."""
    with pytest.raises(BadParameters):
        canonical_all({name: "x"})


def test_cdrom_is_ide2():
    assert canonical_all({"cdrom": "none"}) == {"ide2": "none,media=cdrom"}
    with pytest.raises(BadParameters):
        canonical_all({"cdrom": "none", "ide2": "none,media=cdrom"})


def test_all_wrong_fields_are_named_at_once():
    with pytest.raises(BadParameters) as caught:
        read_wish({"cores": 0, "nosuch": "1", "name": "_", "delete": "what", "digest": "a"})
    assert set(caught.value.errors) == {"cores", "nosuch", "name", "delete"}


def test_set_and_delete_exclude_each_other():
    with pytest.raises(BadParameters):
        read_wish({"name": "a", "delete": "name"})
    with pytest.raises(BadParameters):
        read_wish({"delete": "name", "revert": "name"})
    assert read_wish({"delete": "cdrom;tags tags"}).delete == ("ide2", "tags")


def test_bad_input_names_the_numbered_key():
    with pytest.raises(BadInput) as caught:
        canonical_all({"net7": "virtio,tag=9999"})
    assert caught.value.field == "net7"


@settings(max_examples=examples(400))
@given(
    st.sampled_from(sorted(all_names())),
    st.text(max_size=60) | st.from_regex(r"[a-z0-9:,=;/.+-]{0,40}", fullmatch=True),
)
@example(name="watchdog", text="")  # found by a soak
def test_no_text_breaks_a_reader(name: str, text: str):
    """Row 11: whatever is sent, it is taken or refused by name; what was taken reads back and is taken again unchanged."""
    try:
        stored = canonical_all({name: text})
    except BadParameters as exc:
        assert set(exc.errors) == {name}
        return
    assert canonical_all(stored) == stored
    read_drives(stored, unused=True)
    read_nics(stored)
    for reader in READERS:
        reader(stored)
    needs(100, stored, {}, Wish(stored, tuple(stored)))
    show_config(stored, {})
    apply_pending(100, {}, dict(stored))


READERS = (
    read.topology, read.cpu_model, read.memory_mib, read.balloon_mib, read.machine, read.vga, read.serials, read.smbios,
    read.vmgenid, read.boot_order, read.agent, read.startup, read.watchdog, read.rng, read.tags, read.cpulimit, read.localtime,
)  # fmt: skip
