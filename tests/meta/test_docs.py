"""Documentation that says what the code says."""

import re
from pathlib import Path

import pytest

from infertap import Config
from infertap.config import SIDECAR_SETTINGS
from infertap.platforms import PLATFORMS
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


@pytest.mark.parametrize("name", PLATFORMS)
def test_every_platform_has_its_words(name: str) -> None:
    """Each variable is on the page, and each vendor has a Collector configuration that reads the same ones."""
    page = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8")
    platform = PLATFORMS[name]
    assert [variable for variable in (*platform.secrets, *platform.variables) if f"`{variable}`" not in page] == []
    example = ROOT / "examples" / "collector" / f"{name}.yaml"
    if name == "collector":
        return
    assert f"(../examples/collector/{name}.yaml)" in page
    read = set(re.findall(r"\$\{env:(\w+)\}", example.read_text(encoding="utf-8")))
    assert read <= {*platform.secrets, *platform.variables}
