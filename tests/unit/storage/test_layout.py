"""Names of volumes: none that is accepted can leave its directory, hide, or end a property string."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panal.core.errors import BadInput
from panal.host.files import check_relative
from panal.storage.drivers.dir import layout

PIECES = [
    *(
        "100",
        "101",
        "vm-100-disk-0",
        "base-100-disk-0",
        ".raw",
        ".qcow2",
        "iso",
        "snippets",
        "backup",
        "import",
        "vztmpl",
    ),
    *(
        "/",
        "..",
        ".",
        ",",
        ":",
        "\n",
        "\0",
        "-",
        " ",
        "\\",
        "ä",
        "x.iso",
        "vzdump-qemu-100-2026_01_01-00_00_00",
        ".vma.zst",
    ),
    "a" * 300,
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=40))
def test_accepted_names_are_harmless(name):
    try:
        parsed = layout.parse_name(name)
    except ValueError:
        return
    check_relative(name)
    assert parsed.name == name and name.count("/") == 1
    assert not any(c in name for c in ",:\n\0\\") and not name.rpartition("/")[2].startswith((".", "-"))


@given(st.text(max_size=300))
def test_file_names_are_made_safe(given_name):
    try:
        name = layout.file_name(given_name)
    except BadInput:
        return
    assert layout.parse_name(f"snippets/{name}").content == "snippets"
    assert layout.file_name(name) == name


@pytest.mark.parametrize(
    ("name", "content", "fmt", "vmid"),
    [
        ("100/vm-100-disk-0.qcow2", "images", "qcow2", 100),
        ("100/vm-100-cloudinit.raw", "images", "raw", 100),
        ("100/vm-100-state-before.raw", "images", "raw", 100),
        ("999999999/base-999999999-disk-1.raw", "images", "raw", 999999999),
        ("iso/Debian 12.ISO", "iso", "iso", None),
        ("vztmpl/alpine.tar.zst", "vztmpl", "tzst", None),
        ("backup/vzdump-lxc-100-2026_01_01-00_00_00.tar.gz", "backup", "tar.gz", 100),
        ("import/x.qcow2", "import", "qcow2", None),
    ],
)
def test_names(name, content, fmt, vmid):
    parsed = layout.parse_name(name)
    assert (parsed.content, parsed.format, parsed.vmid) == (content, fmt, vmid)
