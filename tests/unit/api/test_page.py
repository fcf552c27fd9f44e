"""The page of methods is the table, and the page of differences tells truly which methods are left out."""

import re
from pathlib import Path

import pytest

from panal.api import page
from panal.api.all_routes import table
from tests.contract.pve import facts

DOCS = Path(__file__).parents[3] / "docs"
OUT = re.findall(r"`((?:[A-Z]+ )?/[^`]*)`", "".join(re.findall(
    r"^\| (`[^|]*) \|", (DOCS / "user-guide/differences.md").read_text().partition("## Methods that are left out")[2], re.M
)))  # fmt: skip


def left_out(verb, path):
    for named in OUT:
        wanted, _, prefix = named.rpartition(" ")
        if wanted in ("", verb) and (path == prefix or path.startswith(prefix + "/")):
            return named
    return None


def test_the_page_is_current():
    """Planted fault: a changed description of any route fails this."""
    assert (DOCS / "reference/api.md").read_text() == page.text(), (
        "run: python -m panal.api.page > docs/reference/api.md"
    )


def test_what_is_there_is_not_said_to_be_left_out():
    """Planted fault: `/nodes/{node}/qemu/{vmid}/resize` as a row fails this."""
    assert len(OUT) > 20
    stale = {named: f"{m.verb} {m.path}" for m in table().methods if (named := left_out(m.verb, m.path))}
    assert not stale, "take it out of docs/user-guide/differences.md"


@pytest.mark.parametrize(("verb", "path"), sorted(facts.used()))
def test_what_clients_use_is_there_or_said_to_be_left_out(verb, path):
    """Planted fault: without the row of cloudinit this fails."""
    assert left_out(verb, path) or (verb, path) in {(m.verb, m.path) for m in table().methods}
