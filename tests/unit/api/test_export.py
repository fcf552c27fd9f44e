"""The packaged method table is the table."""

from panal.api import export


def test_the_packaged_file_is_current():
    """Planted fault: a changed description in any route fails this."""
    assert export.path().read_bytes() == export.text(), (
        "run: python -m panal.api.export, and commit client/methods.json"
    )
