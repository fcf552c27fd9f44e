"""`POST …/panal/volume`: a guest's disk out of an uploaded image.

Planted fault: the handler without its check of VM.Config.Disk, and without that of the source's content; each seen red.
"""

from __future__ import annotations

import struct

import pytest

AT = "/nodes/n1/storage/local"
# a qcow2 header, version 2, 1 MiB, that names a backing file at offset 104
BACKED = (
    struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 104, 11, 16, 1 << 20, 0, 1, 65536, 131072, 1, 0, 0).ljust(104, b"\0")
    + b"/etc/shadow"
)


@pytest.fixture
async def uploaded(api):
    await api.ended(await api.upload(f"{AT}/upload", b"\x01" * 1_048_576, content="import", filename="tiny.raw"))
    return "local:import/tiny.raw"


async def test_it_becomes_a_disk_of_the_guest_in_the_wanted_format(api, uploaded):
    upid = await api.post(f"{AT}/panal/volume", vmid=100, filename="vm-100-disk-0.qcow2", source=uploaded)
    assert await api.ended(upid) == "OK"
    (row,) = await api.get(f"{AT}/content", vmid=100)
    assert (row["volid"], row["format"], row["size"]) == ("local:100/vm-100-disk-0.qcow2", "qcow2", 1_048_576)


async def test_a_name_of_another_guest_or_format_is_refused(api, uploaded):
    for filename in ("vm-101-disk-0.qcow2", "vm-100-disk-0.vmdk", "vm-100-disk-0", "../vm-100-x.raw", "vm-100-a/b.raw"):
        status, errors = await api.fails("POST", f"{AT}/panal/volume", vmid=100, filename=filename, source=uploaded)
        assert status == 400, (filename, errors)


async def test_only_uploaded_images_are_taken(api):
    await api.post(f"{AT}/content", vmid=101, filename="vm-101-disk-0.raw", size="1M")
    for source in ("local:101/vm-101-disk-0.raw", "local:iso/a.iso", "/etc/shadow", "nowhere:import/a.raw"):
        status, _ = await api.fails("POST", f"{AT}/panal/volume", vmid=100, filename="vm-100-disk-0.raw", source=source)
        assert status in (400, 500), source
    assert await api.get(f"{AT}/content", vmid=100) == []


async def test_an_image_that_names_another_file_never_gets_there(api):
    status = await api.ended(await api.upload(f"{AT}/upload", BACKED, content="import", filename="evil.qcow2"))
    assert status != "OK"
    await api.fails(
        "POST", f"{AT}/panal/volume", vmid=100, filename="vm-100-disk-0.qcow2", source="local:import/evil.qcow2"
    )
    assert await api.get(f"{AT}/content", vmid=100) == []


@pytest.mark.parametrize(
    "have",
    [
        {},
        {"/storage/local": ["Datastore.AllocateSpace"]},
        {"/vms/100": ["VM.Config.Disk"]},
        {"/storage/local": ["Datastore.Audit"], "/vms/100": ["VM.Config.Disk"]},
    ],
)
async def test_it_takes_rights_on_the_storage_and_on_the_guest(api, uploaded, have):
    api.act_as(have)
    status, _ = await api.fails("POST", f"{AT}/panal/volume", vmid=100, filename="vm-100-disk-0.raw", source=uploaded)
    assert status == 403
