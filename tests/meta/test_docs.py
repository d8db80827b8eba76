"""Documentation that says what the code says."""

from pathlib import Path

from infertap import Config
from infertap_sidecar.document import page

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_current() -> None:
    """`docs/settings.md` is what `python -m infertap_sidecar.document` prints."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page()


def test_every_setting_is_described() -> None:
    """A setting without words would be a riddle."""
    assert [name for name, field in Config.model_fields.items() if not field.description] == []
