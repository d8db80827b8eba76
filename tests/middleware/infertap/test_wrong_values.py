"""Plain words for every way in which a value can be wrong; never the library's."""

import os
from typing import Any

import pytest

from infertap.config import Config
from infertap.errors import ConfigError
from infertap_sidecar.settings import SidecarConfig


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `INFERTAP_*` variable of the machine."""
    for name in list(os.environ):
        if name.startswith("INFERTAP_"):
            monkeypatch.delenv(name)


def problem(**setting: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Config(**setting)
    (line,) = caught.value.problems
    return line


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"destination": "tabel"}, "'tabel' is none of auto, table, otlp, both, none; did you mean table?"),
        ({"content": "x"}, "'x' is none of full, metadata"),
        ({"spool_flush_ms": "0"}, "'0' is out of range; expected at least 1"),
        ({"spool_flush_ms": "1.5"}, "'1.5' is no number; expected milliseconds, such as 50, without the unit"),
        ({"drain_s": "10s"}, "'10s' is no number; expected seconds, such as 2.5, without the unit"),
        ({"drain_s": "nan"}, "'nan' is no number; expected seconds, such as 2.5, without the unit"),
        ({"commit_interval_s": 0}, "0 is out of range; expected more than 0"),
        ({"drain_s": 601}, "601 is out of range; expected at most 600"),
        ({"queue_bytes_max": "10XB"}, "'10XB' is no size; expected a size such as 64MiB, or a number of bytes"),
        ({"queue_bytes_max": 1.5}, "1.5 is no size; expected a size such as 64MiB, or a number of bytes"),
        ({"queue_bytes_max": -1}, "-1 is out of range; expected at least 8KiB"),
        ({"install_tracer_provider": "maybe"}, "'maybe' is neither true nor false"),
        ({"tables": 5}, "5 is no text"),
        ({"exclude_paths": 5}, "5 is no list of names"),
        ({"storage_options": 5}, "it is no map; expected name=value,name=value or a JSON object"),
    ],
)
def test_each_kind_is_one_line_of_our_own(setting: dict[str, Any], line: str) -> None:
    """What was given, what was expected, and the nearest name where there is one."""
    (name,) = setting
    assert problem(**setting) == f"{name}: {line}"


def test_a_platform_is_found_by_its_nearest_name() -> None:
    """Whatever its case; all names are listed."""
    line = problem(platform="Grafanna")
    assert line.startswith("platform: 'Grafanna' is none of datadog, newrelic, signoz, ")
    assert line.endswith("; did you mean grafana?")


def test_what_may_be_a_credential_is_not_repeated() -> None:
    """A long value in the wrong place."""
    secret = "wJalrXUtnFEMI-K7MDENG"
    for name in ("platform", "drain_s", "queue_bytes_max", "install_tracer_provider"):
        line = problem(**{name: secret})
        assert line.startswith(f"{name}: it is n")
        assert secret not in line


def test_every_setting_says_something_of_its_own() -> None:
    """A value of a type that no setting takes: no word of pydantic's comes through."""
    for name in SidecarConfig.model_fields:
        with pytest.raises(ConfigError) as caught:
            SidecarConfig(**{name: object()})
        assert "nput should" not in str(caught.value)
        assert "unable to" not in str(caught.value)
