"""Documentation that says what the code says."""

import re
from pathlib import Path

import pytest

from infertap import Config
from infertap.config import SIDECAR_SETTINGS
from infertap.platforms import PLATFORMS
from infertap.processors import secret_names, secret_shapes
from infertap_sidecar.document import EXAMPLE, page
from infertap_sidecar.settings import ServeConfig

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_current() -> None:
    """`docs/settings.md` is what `python -m infertap_sidecar.document` prints."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page()


def test_the_example_on_the_settings_page_is_taken(tmp_path: Path) -> None:
    """It holds five settings and more, and not one of them is refused."""
    file = tmp_path / "infertap.toml"
    file.write_text(EXAMPLE, encoding="utf-8")
    config = Config(config_file=str(file))
    assert len([name for name, source in config.sources.items() if source == str(file)]) > 4
    assert config.storage_options["aws_region"] == "eu-central-1"


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


def _table_of_names() -> list[str]:
    """The rows of the page's table, as the code has the names."""
    sure = secret_names._EXACT - secret_names._WEAK - secret_names._SHORT
    fields = set(secret_names._ENDINGS_IN_FIELDS) - set(secret_names._ENDINGS_IN_TEXT)
    return [
        f"| {what} | {where} | {', '.join(f'`{name}`' for name in sorted(names))} |"
        for what, where, names in (
            ("whole names", "everywhere", sure),
            ("whole names", "JSON, headers, forms, queries", secret_names._SHORT),
            ("whole names", "headers, forms, queries", secret_names._WEAK),
            ("whole names", "queries", secret_names._IN_QUERIES),
            ("whole names, before what looks like a key: one word with digits, or a long one", "JSON",
             secret_names._DOUBTFUL_IN_JSON),
            ("whole names, before what looks like a key", "other text", secret_names._DOUBTFUL_IN_TEXT),
            ("how names end, `s` behind it included", "everywhere", secret_names._ENDINGS),
            ("last words of names", "everywhere", {" ".join(words) for words in secret_names._ENDING_WORDS}),
            ("how names end", "all but JSON",
             set(secret_names._ENDINGS_IN_TEXT) - set(secret_names._ENDINGS)),
            ("how names end", "headers, forms, queries", fields),
            ("anywhere in a name, unless it ends in "
             + ", ".join(f"`{word}`" for word in sorted(secret_names._ABOUT)), "everywhere", secret_names._ANYWHERE),
            ("`pass` or `pw` behind", "everywhere", secret_names._PASS_OWNERS),
            ("never", "everywhere", secret_names._VOCABULARY),
        )
    ]  # fmt: skip


def test_the_privacy_page_lists_every_built_in_name() -> None:
    """Its table is what the code says; a failure shows the rows that belong there."""
    text = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    assert [
        row
        for row in text.splitlines()
        if row.startswith(("| whole", "| how", "| last", "| any", "| `pass`", "| never"))
    ] == _table_of_names()


def test_the_privacy_page_names_every_makers_prefix() -> None:
    """By which keys are recognised."""
    text = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    prefixes = secret_shapes.PREFIXES
    assert [prefix for prefix in prefixes if f"`{prefix}`" not in text] == []
