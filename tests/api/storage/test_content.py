"""Content of a storage through the API: allocate, list, upload, download, remove, prune."""

import asyncio
import hashlib
import http.server
import os
import threading

import pytest

from tests.api.storage.conftest import ALL

LOCAL = "/nodes/n1/storage/local"
ISO = os.urandom(100_000)


async def test_allocate_list_read_delete(api):
    volid = await api.post(f"{LOCAL}/content", vmid=100, filename="vm-100-disk-0.qcow2", size="1G")
    assert volid == "local:100/vm-100-disk-0.qcow2"
    assert await api.post(f"{LOCAL}/content", vmid=100, filename="vm-100-disk-1", size="2048", format="raw")
    first, second = await api.get(f"{LOCAL}/content", vmid=100)
    assert (first["volid"], first["size"], first["format"], first["content"], first["vmid"]) == (
        volid, 1 << 30, "qcow2", "images", 100,
    )  # fmt: skip
    assert second["size"] == 2 << 20
    row = await api.get(f"{LOCAL}/content/{volid}")
    assert row["size"] == 1 << 30 and row["path"].endswith("/images/100/vm-100-disk-0.qcow2")
    assert (await api.get(f"{LOCAL}/content/local%3A100%2Fvm-100-disk-0.qcow2")) == row
    api.storages.in_use = lambda volid: "VM 100" if volid.endswith("0.qcow2") else None
    status, message = await api.fails("DELETE", f"{LOCAL}/content/{volid}")
    assert status == 500 and "in use by VM 100" in message
    assert await api.ended(await api.delete(f"{LOCAL}/content/{second['volid']}")) == "OK"
    api.storages.in_use = lambda volid: None
    assert await api.delete(f"{LOCAL}/content/{volid}", delay=30) is None
    assert await api.get(f"{LOCAL}/content") == []


async def test_volumes_of_a_guest_come_and_go_in_its_turn(api):
    """A clone that has made a disk and not named it yet must find it there; a name it has chosen stays free.

    Planted fault, as found: neither waited for the guest's queue.
    """
    volid = await api.post(f"{LOCAL}/content", vmid=100, filename="vm-100-disk-0.raw", size="1M")
    async with api.tasks.queues.turn("guest/100", "a clone", timeout_s=5):
        removal = await api.delete(f"{LOCAL}/content/{volid}")
        allocation = asyncio.create_task(
            api.post(f"{LOCAL}/content", vmid=100, filename="vm-100-disk-1.raw", size="1M")
        )
        await api.post(f"{LOCAL}/content", vmid=101, filename="vm-101-disk-0.raw", size="1M")
        await asyncio.sleep(0.1)
        assert [row["volid"] for row in await api.get(f"{LOCAL}/content", vmid=100)] == [volid]
    assert await api.ended(removal) == "OK"
    made = await allocation
    assert [row["volid"] for row in await api.get(f"{LOCAL}/content", vmid=100)] == [made]


@pytest.mark.parametrize(
    ("field", "params"),
    [
        ("filename", {"filename": "../../x.raw"}),
        ("filename", {"filename": "vm-101-disk-0.raw"}),
        ("filename", {"filename": "vm-100-a,b.raw"}),
        ("format", {"format": "vmdk"}),
        ("format", {"format": "qcow2"}),
        ("size", {"size": "0"}),
        ("size", {"size": "99999999999999G"}),
        ("size", {"size": "1T"}),
        ("vmid", {"vmid": 5}),
    ],
)
async def test_wrong_allocation_leaves_nothing(api, field, params):
    given = {"vmid": 100, "filename": "vm-100-disk-0.raw", "size": "1M", **params}
    status, errors = await api.fails("POST", f"{LOCAL}/content", **given)
    assert status == 400 and field in errors, errors
    assert await api.get(f"{LOCAL}/content") == []


@pytest.mark.parametrize(
    "volume", ["local:iso/../../../etc/passwd", "other:iso/a.iso", "local:nonsense", "..%2F..%2Fetc%2Fpasswd"]
)
async def test_odd_volume_ids(api, volume):
    for verb in ("GET", "PUT", "DELETE"):
        status, _ = await api.fails(verb, f"{LOCAL}/content/{volume}")
        assert status in (400, 500)


async def test_upload(api):
    digest = hashlib.sha256(ISO).hexdigest()
    upid = await api.upload(
        f"{LOCAL}/upload", ISO, content="iso", filename="a b.iso", checksum=digest, **{"checksum-algorithm": "sha256"}
    )
    assert ":imgcopy:local:" in upid and await api.ended(upid) == "OK"
    (row,) = await api.get(f"{LOCAL}/content", content="iso")
    assert (row["volid"], row["size"], row["format"]) == ("local:iso/a_b.iso", len(ISO), "iso")
    assert (
        await api.ended(await api.upload(f"{LOCAL}/upload", b"#cloud-config", content="snippets", filename="u.yaml"))
        == "OK"
    )
    assert [r["volid"] for r in await api.get(f"{LOCAL}/content", content="snippets")] == ["local:snippets/u.yaml"]


def hidden_files(api):
    return [p for p in api.storages.state.rglob("*") if p.name.startswith(".upload")]


async def test_bad_uploads_leave_nothing(api):
    """Planted fault: without `abort` in upload.finish the hidden file stays."""
    wrong = {"checksum": "0" * 64, "checksum-algorithm": "sha256"}
    upid = await api.upload(f"{LOCAL}/upload", ISO, content="iso", filename="a.iso", **wrong)
    assert "checksum mismatch" in await api.ended(upid)
    for field, params in (
        ("filename", {"content": "iso", "filename": "a.txt"}),
        ("filename", {"content": "import", "filename": "a.vmdk"}),
        ("content", {"content": "images", "filename": "a.iso"}),
        ("checksum", {"content": "iso", "filename": "a.iso", "checksum": "zz", "checksum-algorithm": "md5"}),
        ("checksum-algorithm", {"content": "iso", "filename": "a.iso", "checksum": "0" * 32}),
    ):
        status, errors = await api.fails("POST", f"{LOCAL}/upload", file=ISO, **params)
        assert status == 400 and field in errors, errors
    assert await api.get(f"{LOCAL}/content") == [] and hidden_files(api) == []


async def test_hostile_image_is_refused(api, tmp_path):
    from tests.unit.storage.hostile import qcow2

    good = qcow2()
    upid = await api.upload(f"{LOCAL}/upload", good, content="import", filename="good.qcow2")
    assert await api.ended(upid) == "OK"
    for data in (qcow2(backing=b"/etc/shadow"), qcow2(data_file=b"/etc/shadow"), b"KDMV" + bytes(600), good[:60], b""):
        upid = await api.upload(f"{LOCAL}/upload", data, content="import", filename="bad.qcow2")
        assert "OK" not in await api.ended(upid)
    assert [r["volid"] for r in await api.get(f"{LOCAL}/content")] == ["local:import/good.qcow2"]


async def test_notes_and_protection(api):
    await api.ended(await api.upload(f"{LOCAL}/upload", ISO, content="iso", filename="a.iso"))
    await api.put(f"{LOCAL}/content/local:iso/a.iso", notes="two\nlines", protected=1)
    (row,) = await api.get(f"{LOCAL}/content")
    assert row["notes"] == "two\nlines" and row["protected"] == 1
    assert "protected" in await api.ended(await api.delete(f"{LOCAL}/content/local:iso/a.iso"))
    await api.put(f"{LOCAL}/content/iso/a.iso", protected=0)
    assert await api.ended(await api.delete(f"{LOCAL}/content/local:iso/a.iso")) == "OK"


async def test_rights_on_volumes(api):
    await api.post(f"{LOCAL}/content", vmid=100, filename="vm-100-disk-0.raw", size="1M")
    await api.ended(await api.upload(f"{LOCAL}/upload", ISO, content="iso", filename="a.iso"))
    api.act_as({"/storage/local": ["Datastore.Audit"]})
    assert [r["volid"] for r in await api.get(f"{LOCAL}/content")] == ["local:iso/a.iso"]
    assert (await api.fails("GET", f"{LOCAL}/content/local:100/vm-100-disk-0.raw"))[0] == 403
    assert (await api.fails("DELETE", f"{LOCAL}/content/local:iso/a.iso"))[0] == 403
    assert (await api.fails("PUT", f"{LOCAL}/content/local:iso/a.iso", protected=1))[0] == 403
    api.act_as({"/storage/local": ["Datastore.Audit"], "/vms/100": ["VM.Config.Disk"]})
    assert len(await api.get(f"{LOCAL}/content")) == 2
    api.act_as({"/storage/other": list(ALL)})
    absent = await api.fails("GET", "/nodes/n1/storage/none/content/none:iso/a.iso")
    present = await api.fails("GET", f"{LOCAL}/content/local:iso/a.iso")
    assert absent[0] == present[0] == 403 and absent[1].replace("none", "local") == present[1]


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/redirect-to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif self.path.endswith("a.iso"):
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(ISO) * (2 if "short" in self.path else 1)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(ISO)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    thread.join()
    found.server_close()


async def test_download(api, server):
    digest = hashlib.sha512(ISO).hexdigest()
    params = {
        "content": "iso",
        "filename": "a.iso",
        "url": f"{server}/a.iso",
        "checksum": digest,
        "checksum-algorithm": "sha512",
    }
    upid = await api.post(f"{LOCAL}/download-url", **params)
    assert ":download:a.iso:" in upid and await api.ended(upid) == "OK"
    (row,) = await api.get(f"{LOCAL}/content")
    assert row["size"] == len(ISO)
    upid = await api.post(f"{LOCAL}/download-url", **params)
    assert await api.ended(upid) == "OK", "the same file is there already"
    params |= {"checksum": "0" * 128}
    assert "refusing to override" in await api.ended(await api.post(f"{LOCAL}/download-url", **params))
    found = await api.get("/nodes/n1/query-url-metadata", url=f"{server}/a.iso")
    assert found == {"size": len(ISO), "mimetype": "application/octet-stream", "filename": "a.iso"}


@pytest.mark.parametrize("path", ["/nothing", "/redirect-to-file", "/loop", "/short/a.iso"])
async def test_failed_downloads_leave_nothing(api, server, path):
    upid = await api.post(f"{LOCAL}/download-url", content="iso", filename="a.iso", url=f"{server}{path}")
    assert (await api.ended(upid)).startswith("download failed: ")
    assert await api.get(f"{LOCAL}/content") == [] and hidden_files(api) == []


async def test_download_refusals(api):
    for field, params in (
        ("url", {"url": "file:///etc/passwd"}),
        ("url", {"url": "ftp://x/a.iso"}),
        ("compression", {"compression": "zst"}),
        ("content", {"content": "backup"}),
        ("filename", {"filename": "a.txt"}),
    ):
        given = {"content": "iso", "filename": "a.iso", "url": "http://127.0.0.1:1/a.iso", **params}
        status, errors = await api.fails("POST", f"{LOCAL}/download-url", **given)
        assert status == 400 and field in errors, errors
    api.act_as({"/storage/local": ["Datastore.AllocateTemplate"]})
    status, _ = await api.fails(
        "POST", f"{LOCAL}/download-url", content="iso", filename="a.iso", url="http://127.0.0.1:1/a.iso"
    )
    assert status == 403, "without a network right nobody makes the node open connections"


async def test_stopped_download_leaves_nothing(api):
    async def trickle(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upid = await api.post(
        f"{LOCAL}/download-url", content="iso", filename="a.iso", url=f"http://127.0.0.1:{port}/a.iso"
    )
    while not any(p.stat().st_size for p in hidden_files(api)):
        await asyncio.sleep(0.02)
    await api.tasks.stop(upid)
    assert "stopped" in await api.ended(upid)
    assert hidden_files(api) == []
    server.close()
    await server.wait_closed()


async def test_prune(api):
    dump = api.storages.state / "storage/local/dump"
    await api.get(f"{LOCAL}/content")
    for day in range(1, 6):
        (dump / f"vzdump-qemu-100-2026_01_0{day}-12_00_00.vma.zst").write_bytes(b"x")
    (dump / "vzdump-qemu-101-2026_01_01-12_00_00.vma.zst").write_bytes(b"x")
    await api.put(f"{LOCAL}/content/local:backup/vzdump-qemu-100-2026_01_01-12_00_00.vma.zst", protected=1)
    await api.put("/storage/local", **{"max-protected-backups": 1})
    second = f"{LOCAL}/content/local:backup/vzdump-qemu-100-2026_01_02-12_00_00.vma.zst"
    status, message = await api.fails("PUT", second, protected=1)
    assert status == 500 and "limit" in message
    rows = await api.get(f"{LOCAL}/prunebackups", **{"prune-backups": "keep-last=2"}, vmid=100)
    assert [r["mark"] for r in rows] == ["protected", "remove", "remove", "keep", "keep"]
    assert len(await api.get(f"{LOCAL}/content", content="backup")) == 6
    upid = await api.delete(f"{LOCAL}/prunebackups", **{"prune-backups": "keep-last=2"})
    assert await api.ended(upid) == "OK"
    left = [r["volid"][-28:-8] for r in await api.get(f"{LOCAL}/content", content="backup")]
    assert len(left) == 4
    status, errors = await api.fails("GET", f"{LOCAL}/prunebackups", **{"prune-backups": "keep-none=1"})
    assert status == 400 and "prune-backups" in errors
