"""The documentation of the tables is the schema's."""

from pathlib import Path

from infertap.tables.document import document

PAGE = Path(__file__).parents[4] / "docs" / "tables.md"


def test_the_page_is_current() -> None:
    """After a change of the schema: `python -m infertap.tables.document > docs/tables.md`."""
    assert PAGE.read_text() == document()
