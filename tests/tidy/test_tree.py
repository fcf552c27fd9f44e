"""What tracked files never name: registries of this machine, build directories, where a lock file's packages came from.

Planted fault: the pip index of the machine written into a page and into requirements.lock, seen red.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.tidy.tree import LOCKS, TOP, text, tracked


def _say(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout
    except FileNotFoundError:
        return ""


def registry_hosts():
    """Host names of the package sources that this machine is set up with, read now and written nowhere."""
    lines = [
        path.read_text(errors="replace") for path in Path("/etc/apt").rglob("*") if path.suffix in (".list", ".sources")
    ]
    lines += [_say("python3", "-m", "pip", "config", "list"), _say("npm", "config", "get", "registry")]
    lines += [
        value for key, value in os.environ.items() if key.startswith(("PIP_", "UV_", "NPM_CONFIG_", "npm_config_"))
    ]
    hosts = re.findall(r"https?://(?:[^/@\s]*@)?([^/:\s'\"]+)", "\n".join(lines))
    return sorted(set(hosts) - {"localhost", "127.0.0.1"})


def test_no_file_names_a_registry():
    hosts = registry_hosts()
    found = [f"{name}: {host}" for name in tracked() for host in hosts if host in text(name)]
    assert not found, "mirrors come from the system's configuration"


def test_no_file_names_a_directory_of_this_machine():
    places = [f"/{place}/" for place in ("wo" + "rk/wt", "ro" + "ot/.pyenv", "wo" + "rk/shared", "wo" + "rk/main")]
    assert not [f"{name}: {place}" for name in tracked() for place in places if place in text(name)]


@pytest.mark.parametrize("name", [name for name in tracked() if name.endswith(LOCKS)])
def test_lock_files_have_no_addresses(name):
    assert not re.findall(
        r"(?:https?|file)://(?!(?:github\.com|opencollective\.com|www\.|\w+\.org/sponsor))\S+", text(name)
    )
    assert '"resolved"' not in text(name)


def test_python_locks_pin_by_hash():
    for name in ("requirements.lock", "requirements-dev.lock"):
        pins = re.findall(r"^[\w.\[\]-]+==", text(name), re.M)
        blocks = re.split(r"\n(?=[\w])", text(name).strip())
        assert pins and len(pins) == len(blocks)
        assert all("--hash=sha256:" in block for block in blocks)


def test_top_level_is_the_design_s():
    pages = {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}
    folders = {".ci", "src", "web", "tests", "bench", "docs", "packaging"}
    allowed = pages | folders | {"demo", "test", "pyproject.toml", ".gitignore", ".npmrc"}
    allowed |= {"requirements.lock", "requirements-dev.lock"}
    assert {name.split("/")[0] for name in tracked()} <= allowed


def test_nothing_tracked_is_big_or_binary():
    assert not [name for name in tracked() if (TOP / name).stat().st_size > 1_500_000]
