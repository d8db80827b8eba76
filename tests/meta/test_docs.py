"""Documentation that says what the code says."""

from pathlib import Path

from infertap import Config
from infertap.config import SIDECAR_SETTINGS
from infertap_sidecar.document import page
from infertap_sidecar.settings import ServeConfig

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_current() -> None:
    """`docs/settings.md` is what `python -m infertap_sidecar.document` prints."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page()


def test_every_setting_is_described() -> None:
    """A setting without words would be a riddle."""
    assert [name for name, field in Config.model_fields.items() if not field.description] == []


def test_the_sidecars_own_settings_are_known_to_the_middleware() -> None:
    """Their variables in an app's environment are no mistakes, so the middleware must know their names."""
    own = set(ServeConfig.model_fields) - set(Config.model_fields)
    assert own == SIDECAR_SETTINGS
