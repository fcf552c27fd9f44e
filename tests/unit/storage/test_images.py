"""Headers of images: hostile ones are refused, broken ones are errors, nothing hangs or dies (attack rows 11, 14, 15)."""

import os
import random
import struct
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from panal.core.errors import BadInput
from panal.storage import image_header, images
from tests.soaking import examples
from tests.unit.storage.hostile import qcow2


@pytest.fixture
def opened(tmp_path):
    fds: list[int] = []

    def write(data):
        path = tmp_path / f"image{len(fds)}"
        path.write_bytes(data)
        fds.append(os.open(path, os.O_RDONLY))
        return fds[-1]

    yield write
    for fd in fds:
        os.close(fd)


REFUSED = {
    "backing": qcow2(backing=b"/etc/shadow"),
    "backing v2": qcow2(version=2, backing=b"/etc/shadow"),
    "data file by bit": qcow2(incompatible=4),
    "data file by name only": qcow2(extensions=[(0x44415441, b"/etc/shadow")]),
    "data file behind others": qcow2(extensions=[(1, b"x" * 100), (2, b""), (0x44415441, b"a")]),
    "unknown feature": qcow2(incompatible=1 << 40),
    "corrupt": qcow2(incompatible=2),
    "encrypted": qcow2(crypt=2),
    "version 9": qcow2(version=9),
    "cluster bits 63": qcow2(cluster_bits=63),
    "cluster bits 0": qcow2(cluster_bits=0),
    "huge": qcow2(size=1 << 63),
    "header too short": qcow2(header_length=8),
    "header too long": qcow2(header_length=1 << 31),
    "extension too long": qcow2(extensions=[(5, b"")])[:104] + struct.pack(">II", 5, 0xFFFFFFF0) + bytes(1 << 17),
    "snapshots without end": qcow2(snapshots=0xFFFFFFFF, snapshots_at=0),
    "snapshots in the header": qcow2(snapshots=65000, snapshots_at=0),
    "snapshots behind the end": qcow2(snapshots=1, snapshots_at=1 << 60),
    "snapshots at an odd end": qcow2(snapshots=1, snapshots_at=(1 << 64) - 1),
    "vmdk": b"KDMV" + bytes(1000),
    "vmdk descriptor": b"# Disk DescriptorFile\nRW 100 FLAT \"/etc/shadow\" 0\n",
    "qed": b"QED\0" + bytes(1000),
    "vhdx": b"vhdxfile" + bytes(1000),
    "raw": bytes(1000),
    "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(opened, name):
    """Planted fault: dropping the test of bit 2 lets "data file by bit" through; of the extension, the two by name."""
    with pytest.raises(BadInput):
        await images.require_plain(opened(REFUSED[name]), "qcow2", "it")


@pytest.mark.parametrize("start", [b"KDMV", b"COWD", b"# Disk DescriptorFile\n"])
async def test_vmdk_names_other_files_whatever_format_is_wanted(opened, start):
    """Planted fault: a vmdk that is only of the wrong format would be taken where vmdk is the right one."""
    fd = opened(start + bytes(1000))
    (header,) = await images.inspect([fd])
    assert (header.format, header.names_other) == ("vmdk", "extents")
    for fmt in ("qcow2", "vmdk"):
        with pytest.raises(BadInput, match="refers to extents"):
            await images.require_plain(fd, fmt, "it")


@pytest.mark.parametrize(("extra", "why"), [(16, None), (1024, None), (1025, "longer than"), (1 << 17, "longer than")])
async def test_extra_data_of_a_snapshot_is_bounded(opened, extra, why):
    """The entry is whole, only too long. Planted fault: no limit, so that one entry is as long as the file."""
    at = 1 << 17
    data = bytearray(qcow2(snapshots=1, snapshots_at=at)) + bytes(1 << 17)
    entry = struct.pack(">QIHHIIQII", 0, 0, 1, 3, 0, 0, 0, 0, extra) + struct.pack(">QQ", 0, 5 << 20).ljust(
        extra, b"\0"
    )
    entry += b"1one"
    data[at : at + len(entry)] = entry
    (header,) = await images.inspect([opened(bytes(data))])
    if why is None:
        assert (header.broken, header.snapshots) == (None, (("one", 5 << 20),))
    else:
        assert header.broken and f"a snapshot entry is {why}" in header.broken


@pytest.mark.parametrize("length", [*range(0, 140, 7), 65535])
async def test_truncated(opened, length):
    (header,) = await images.inspect([opened(qcow2(snapshots=1, snapshots_at=1 << 17)[:length])])
    assert header.broken or header.format == "raw"


async def test_good_ones_are_described_as_qemu_made_them(tmp_path):
    path = tmp_path / "x.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "10M"], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "one", path], check=True)
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", path, "20M"], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "two", path], check=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        header = await images.require_plain(fd, "qcow2", "it")
    finally:
        os.close(fd)
    assert (header.format, header.size) == ("qcow2", 20 << 20)
    assert header.snapshots == (("one", 10 << 20), ("two", 20 << 20))


@pytest.mark.parametrize("option", ["backing", "data_file"])
async def test_what_qemu_makes_is_recognised_too(tmp_path, option):
    path, other = tmp_path / "x.qcow2", tmp_path / "other.raw"
    other.write_bytes(bytes(1 << 20))
    more = ["-b", other, "-F", "raw"] if option == "backing" else ["-o", f"data_file={other}"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *more, path, "1M"], check=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(BadInput, match="refers to"):
            await images.require_plain(fd, "qcow2", "it")
    finally:
        os.close(fd)


async def test_raw_is_never_looked_at(opened):
    header = await images.require_plain(opened(qcow2(backing=b"/etc/shadow", size=1 << 40)), "raw", "it")
    assert header.names_other is None and header.size == 0


def _describe(path, data):
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return image_header.describe(fd)
    finally:
        os.close(fd)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 200), junk=st.binary(min_size=1, max_size=64), cut=st.integers(0, 4096))
def test_parser_never_dies(tmp_path, at, junk, cut):
    """The parser itself, without the jail: whatever the bytes, a description."""
    data = bytearray(qcow2(snapshots=1, snapshots_at=1 << 16)[: 1 << 17])
    data[at : at + len(junk)] = junk
    out = _describe(tmp_path / "x", bytes(data[: cut or None]))
    assert set(out) == {"format", "size", "version", "names_other", "broken", "snapshots"}


def test_parser_on_noise(tmp_path):
    dice = random.Random(2)
    for _ in range(300):
        _describe(tmp_path / "x", b"QFI\xfb" * dice.randint(0, 1) + dice.randbytes(dice.randint(0, 5000)))
