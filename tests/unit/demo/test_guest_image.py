"""The formats the builder writes itself: cpio and MBR, and the order of modules."""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess

import pytest

from panal_demo.guest_image import ImageError, _cpio, _mbr, _modules


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_is_read_by_cpio(tmp_path):
    archive = b"".join(
        [
            _cpio("d", 0o40755),
            _cpio("d/odd", 0o100644, b"12345"),
            _cpio("d/link", 0o120777, b"odd"),
            _cpio("TRAILER!!!", 0),
        ]
    )
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "d/link").read_bytes() == b"12345"
    assert (tmp_path / "d/odd").stat().st_mode & 0o777 == 0o644


def test_modules_come_after_what_they_need_and_unknown_ones_are_left_out(tmp_path):
    (tmp_path / "virtio_net.ko.xz").write_bytes(lzma.compress(b"\x7fELF\0depends=net-failover,virtio_ring\0"))
    (tmp_path / "net_failover.ko").write_bytes(b"\x7fELF\0depends=\0")
    (tmp_path / "virtio_ring.ko").write_bytes(b"\x7fELF\0depends=virtio\0")
    assert [name for name, _ in _modules(tmp_path)] == ["net_failover", "virtio_ring", "virtio_net"]


def test_a_module_packed_in_an_unknown_way_is_refused(tmp_path):
    (tmp_path / "ext4.ko.zst").write_bytes(b"zz")
    with pytest.raises(ImageError, match=r"\.zst"):
        _modules(tmp_path)


def test_mbr_has_its_table(monkeypatch, tmp_path):
    monkeypatch.setattr("panal_demo.guest_image.Path.read_bytes", lambda self: b"\x90" * 440)
    sector = _mbr([(0x80, 0x0E, 2048, 81920), (0, 0x83, 83968, 4096)])
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert struct.unpack_from("<B3sB3sII", sector, 446 + 16)[-2:] == (83968, 4096)
