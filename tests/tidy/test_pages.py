"""Pages: one title each, links that lead somewhere, commands that exist.

Planted fault: a link to docs/absent.md, a second `# Title`, `panal vm fly` in a page, each seen red.
"""

from __future__ import annotations

import re

import pytest

from tests.tidy.tree import TOP, markdown, text

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
LINE_LENGTH = 200


def prose(name):
    return FENCE.sub("", text(name))


@pytest.mark.parametrize("name", markdown())
def test_one_title(name):
    titles = re.findall(r"^# .+", prose(name), re.M)
    assert len(titles) == 1 and text(name).startswith("# ")


@pytest.mark.parametrize("name", markdown())
def test_links_resolve(name):
    dead = []
    for target in LINK.findall(prose(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        page = (TOP / name).parent / path if path else TOP / name
        if not page.exists() or (anchor and page.suffix == ".md" and anchor not in anchors(page.read_text())):
            dead.append(target)
    assert not dead


def anchors(page):
    titles = re.findall(r"^#+ (.+)", FENCE.sub("", page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "name", [name for name in markdown() if name in ("README.md", "CONTRIBUTING.md") or name.startswith("docs/")]
)
def test_paths_named_in_code_marks_exist(name):
    """`src/…`, `tests/…`, `docs/…`, `packaging/…` in a page are files or folders of this tree."""
    named = re.findall(r"`((?:src|tests|docs|packaging|bench)/[\w./-]+)`", text(name))
    gone = [path for path in named if not (TOP / path.rstrip(".")).exists()]
    assert not [path for path in gone if "<" not in path and "…" not in path]


@pytest.mark.parametrize("script", ["demo", "test", ".ci/run"])
def test_the_commands_of_the_readme_are_there(script):
    path = TOP / script
    assert path.exists() and path.stat().st_mode & 0o111
    assert f"./{script}" in text("README.md") or script == ".ci/run"


def _commands():
    for name in markdown():
        for line in re.findall(
            r"^(?:\$ )?panal ([a-z][a-z-]*(?: [a-z][a-z-]*)?)", "\n".join(FENCE.findall(text(name))), re.M
        ):
            yield name, line


def test_every_command_in_a_page_exists():
    """First words of each `panal …` line in a code block are a command of the command line."""
    import click

    from panal.cli.main import root

    wrong = []
    for name, line in _commands():
        command: click.Command | None = root
        for word in line.split():
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word)
            if command is None:
                wrong.append(f"{name}: panal {line}")
    assert not wrong


def test_the_tests_that_the_security_page_names_exist():
    """A renamed test must not leave the page behind. Planted fault: a wrong name in any row."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text("docs/reference/security-tests.md"))
    gone = [
        f"{path}::{name}"
        for path, name in named
        if not (TOP / path).is_file() or (name and f"def {name}(" not in (TOP / path).read_text())
    ]
    assert named and not gone
