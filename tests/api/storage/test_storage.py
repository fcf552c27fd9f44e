"""`/storage`: configuration as clients of PVE write and read it."""

import pytest


async def test_create_read_update_delete(api, tmp_path):
    path = str(tmp_path / "two")
    made = await api.post(
        "/storage", storage="two", type="dir", path=path, content="iso,images", shared=0, nodes="n1,n2"
    )
    assert made == {"storage": "two", "type": "dir"}
    row = await api.get("/storage/two")
    assert row["content"] == "images,iso" and row["shared"] == 0 and row["nodes"] == "n1,n2" and row["path"] == path
    stale = row["digest"]
    await api.put(
        "/storage/two", content="iso", disable=1, **{"prune-backups": "keep-last=3"}, digest=stale, delete="nodes"
    )
    row = await api.get("/storage/two")
    assert row["content"] == "iso" and row["disable"] == 1 and "nodes" not in row and row["digest"] != stale
    assert await api.fails("PUT", "/storage/two", content="images", digest=stale) == (
        500,
        "detected modified configuration - file changed by other user? Try again.",
    )
    assert [r["storage"] for r in await api.get("/storage")] == ["local", "two"]
    assert [r["storage"] for r in await api.get("/storage", type="nfs")] == []
    assert await api.delete("/storage/two") is None
    assert await api.fails("GET", "/storage/two") == (500, "storage 'two' does not exist")


@pytest.mark.parametrize(
    ("field", "params"),
    [
        ("type", {"type": "nfs"}),
        ("path", {"path": None}),
        ("path", {"path": "relative"}),
        ("path", {"path": "/"}),
        ("path", {"path": "/etc/panal"}),
        ("path", {"path": "/srv/../etc"}),
        ("content", {"content": "images,nonsense"}),
        ("content", {"content": "none,iso"}),
        ("content-dirs", {"content-dirs": "iso=../../etc"}),
        ("content-dirs", {"content-dirs": "iso=snippets"}),
        ("prune-backups", {"prune-backups": "keep-sometimes=1"}),
        ("prune-backups", {"prune-backups": "keep-all=1,keep-last=2"}),
        ("bwlimit", {"bwlimit": "fast"}),
        ("nodes", {"nodes": "n1,-x"}),
        ("format", {"format": "vmdk"}),
        ("preallocation", {"preallocation": "some"}),
        ("is_mountpoint", {"is_mountpoint": "perhaps"}),
        ("max-protected-backups", {"max-protected-backups": -2}),
        ("snapshot-as-volume-chain", {"snapshot-as-volume-chain": 1}),
        ("server", {"server": "10.0.0.1"}),
        ("storage", {"storage": "1a"}),
    ],
)
async def test_wrong_parameters_are_named_and_change_nothing(api, field, params):
    given = {"storage": "two", "type": "dir", "path": "/srv/two", **params}
    status, errors = await api.fails("POST", "/storage", **{k: v for k, v in given.items() if v is not None})
    assert status == 400 and field in errors, errors
    assert [c.id for c in api.storages.configs()] == ["local"]


async def test_our_own_state_is_no_storage(api):
    """Planted fault: without the check the store's file could be listed and attached as content."""
    for path in (api.storages.state, api.storages.state / "tasks", api.storages.state.parent):
        status, errors = await api.fails("POST", "/storage", storage="two", type="dir", path=str(path))
        assert status == 400 and "path" in errors


async def test_type_and_path_are_fixed(api):
    status, errors = await api.fails("PUT", "/storage/local", path="/srv/x")
    assert status == 400 and "path" in errors
    status, errors = await api.fails("PUT", "/storage/local", delete="path")
    assert status == 400 and "path" in errors


async def test_used_storage_is_not_removed(api):
    api.storages.storage_in_use = lambda storage: "VM 100" if storage == "local" else None
    status, message = await api.fails("DELETE", "/storage/local")
    assert status == 500 and "VM 100" in message and [c.id for c in api.storages.configs()] == ["local"]


async def test_rights(api):
    api.act_as({})
    assert await api.get("/storage") == []
    absent, present = await api.fails("GET", "/storage/none"), await api.fails("GET", "/storage/local")
    assert absent[0] == present[0] == 403 and absent[1].replace("none", "local") == present[1]
    assert (await api.fails("POST", "/storage", storage="xx", type="dir", path="/srv/x"))[0] == 403
    api.act_as({"/storage/local": ["Datastore.Audit"]})
    assert [r["storage"] for r in await api.get("/storage")] == ["local"]
    assert (await api.fails("GET", "/storage/local"))[0] == 403


async def test_node_storages(api):
    (row,) = await api.get("/nodes/n1/storage", format=1)
    assert (row["storage"], row["active"], row["enabled"], row["shared"]) == ("local", 1, 1, 0)
    assert all(type(row[key]) is int for key in ("total", "used", "avail")) and 0 <= row["used_fraction"] <= 1
    assert row["formats"] == {"supported": ["raw", "qcow2"], "default": "raw"}
    status = await api.get("/nodes/n1/storage/local/status")
    assert status["active"] == 1 and status["type"] == "dir" and status["total"] == row["total"]
    assert await api.get("/nodes/n1/storage", content="none") == []
    assert {"subdir": "content"} in await api.get("/nodes/n1/storage/local")


async def test_storage_off_or_elsewhere(api):
    await api.put("/storage/local", disable=1)
    (row,) = await api.get("/nodes/n1/storage")
    assert (row["active"], row["enabled"], row["total"]) == (0, 0, 0)
    assert await api.get("/nodes/n1/storage", enabled=1) == []
    status, message = await api.fails("GET", "/nodes/n1/storage/local/content")
    assert status == 503 and "disabled" in message
    await api.put("/storage/local", delete="disable", nodes="other")
    assert await api.get("/nodes/n1/storage") == []


async def test_missing_mount_is_inactive_and_never_written(api, tmp_path):
    """Planted fault: without the guard in DirDriver the image lands on the disk below the mount point."""
    path = tmp_path / "mnt"
    path.mkdir()
    await api.post("/storage", storage="mnt", type="dir", path=str(path), content="images", is_mountpoint="yes")
    assert (await api.get("/nodes/n1/storage/mnt/status"))["active"] == 0
    new = {"vmid": 100, "filename": "vm-100-disk-0.raw", "size": "1M"}
    status, message = await api.fails("POST", "/nodes/n1/storage/mnt/content", **new)
    assert status == 503 and "not a mount point" in message
    driver = api.storages.driver("mnt")
    with pytest.raises(Exception, match="not a mount point"):
        await driver.allocate(100, "100/vm-100-disk-0.raw", "raw", 1024)
    assert list(path.iterdir()) == []
