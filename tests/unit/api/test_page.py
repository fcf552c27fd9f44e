"""The page of methods is the table."""

from pathlib import Path

from panal.api import page

PAGE = Path(__file__).parents[3] / "docs/reference/api.md"


def test_the_page_is_current():
    """Planted fault: a changed description of any route fails this."""
    assert PAGE.read_text() == page.text(), "run: python -m panal.api.page > docs/reference/api.md"
