"""The tracked files, once read, for every tidy rule."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LOCKS = (".lock", "lock.json", "lock.yaml")
TEXT = (
    ".py",
    ".md",
    ".toml",
    ".sh",
    ".service",
    ".conf",
    ".yml",
    ".yaml",
    ".json",
    ".js",
    ".mjs",
    ".ts",
    ".tsx",
    ".css",
    ".cfg",
    "",
)


@functools.cache
def tracked() -> tuple[str, ...]:
    """Paths that git tracks or would (new files count before they are committed), relative to the top."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return tuple(sorted(name for name in set(listed.split("\0")) if name and (TOP / name).is_file()))


@functools.cache
def text(name: str) -> str:
    """A tracked file's text; empty for a binary one."""
    try:
        return (TOP / name).read_text()
    except UnicodeDecodeError:
        return ""


def python_files(*prefixes: str) -> list[str]:
    """Tracked Python files below the prefixes."""
    return [name for name in tracked() if name.endswith(".py") and name.startswith(prefixes or ("",))]


@functools.cache
def parsed(name: str) -> ast.Module:
    """The syntax tree of a tracked Python file."""
    return ast.parse(text(name), name)


def markdown() -> list[str]:
    """Tracked Markdown files."""
    return [name for name in tracked() if name.endswith(".md")]
