"""The page of keys is the tables."""

from pathlib import Path

from panal.guests.config import page

PAGE = Path(__file__).parents[4] / "docs/reference/vm-keys.md"


def test_the_page_is_current():
    """Planted fault: a changed description of any key fails this."""
    assert PAGE.read_text() == page.text(), "run: python -m panal.guests.config.page > docs/reference/vm-keys.md"
