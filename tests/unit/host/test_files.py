"""host/files.py: no way out of the root, whoever swaps what in between (attack rows 9, 16, 17)."""

import os
import stat
import threading

import pytest

from panal.core.errors import BadInput, Conflict, Failed, NotFound, PanalError
from panal.host import files
from panal.host.files import Root


@pytest.fixture(params=["openat2", "walk"])
def root(request, tmp_path, monkeypatch):
    """Both ways of opening: the kernel's, and the one for kernels without it."""
    monkeypatch.setattr(files, "_have_openat2", request.param == "openat2")
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b" / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    return Root(tmp_path / "root")


def content(fd):
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_ordinary_use(root):
    assert content(root.open("a/b/file")) == b"inside"
    os.close(root.create("a/new"))
    with pytest.raises(Conflict):
        root.create("a/new")
    root.write("a/small", b"one")
    root.write("a/small", b"two")
    assert root.read("a/small") == b"two"
    with pytest.raises(Conflict):
        root.rename("a/new", "a/small")
    root.rename("a/new", "a/small", replace=True)
    assert [e.name for e in root.list("a")] == ["b", "small"] and root.list("nothing") == []
    assert root.remove("a/small") and not root.remove("a/small")
    with pytest.raises(NotFound):
        root.open("a/small")
    root.make_dirs("x/y/z")
    root.make_dirs("x/y/z")


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "a//b", "a/./b", "a/b\0", "a/" + "x" * 256]
)
def test_odd_paths(root, path):
    for work in (root.open, root.create, root.make_dirs, root.remove, root.entry, root.read):
        with pytest.raises(BadInput):
            work(path)


def test_links_are_never_followed(root, tmp_path):
    base = tmp_path / "root"
    (base / "link").symlink_to(tmp_path / "secret")
    (base / "dir").symlink_to(tmp_path / "outside")
    (base / "inner").symlink_to("a")
    for path in ("link", "dir/file", "inner/b/file"):
        with pytest.raises((Failed, NotFound)):
            root.open(path)
    with pytest.raises(PanalError):
        root.create("link")
    with pytest.raises(PanalError):
        root.create("dir/new")
    with pytest.raises(PanalError):
        root.make_dirs("dir/new")
    with pytest.raises(PanalError):
        root.rename("a/b/file", "dir/stolen")
    assert sorted(p.name for p in (tmp_path / "outside").iterdir()) == ["file"]
    assert {e.name for e in root.list()} == {"a"}
    assert root.remove("link") and (tmp_path / "secret").read_text() == "outside"


def test_swapped_while_we_look(root, tmp_path):
    """Planted fault: checking the path first and opening it by name then reads "outside" within a second."""
    base, stop = tmp_path / "root", threading.Event()
    (base / "real").mkdir()
    (base / "real" / "file").write_text("inside")
    (base / "trap").symlink_to(tmp_path / "outside")

    def swap():
        while not stop.is_set():
            os.rename(base / "real", base / "spare")
            os.rename(base / "trap", base / "real")
            os.rename(base / "real", base / "trap")
            os.rename(base / "spare", base / "real")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = {"inside": 0, "refused": 0}
    try:
        for number in range(4000):
            try:
                if number % 2:
                    fd = root.open("real/file")
                    assert content(fd) == b"inside"
                else:
                    os.close(root.create(f"real/new{number}"))
                    root.remove(f"real/new{number}")
                seen["inside"] += 1
            except PanalError:
                seen["refused"] += 1
    finally:
        stop.set()
        thread.join()
    assert sorted(p.name for p in (tmp_path / "outside").iterdir()) == ["file"]
    assert seen["inside"] and seen["refused"], f"the race was not run: {seen}"


def test_devices_and_pipes_are_no_files(root, tmp_path):
    os.mkfifo(tmp_path / "root" / "pipe")
    with pytest.raises(Failed, match="not a regular file"):
        root.open("pipe", write=True)


def test_modes(root, tmp_path):
    """Also with a careless umask."""
    before = os.umask(0)
    try:
        os.close(root.create("file"))
        root.write("small", b"x")
        root.make_dirs("p/q")
    finally:
        os.umask(before)
    for name in ("file", "small", "p", "p/q"):
        assert stat.S_IMODE((tmp_path / "root" / name).stat().st_mode) & 0o077 == 0, name
