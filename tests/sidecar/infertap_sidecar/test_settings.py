"""The sidecar's own settings beside the shared ones."""

import pytest

from infertap import ConfigError
from infertap_sidecar.settings import ServeConfig, SidecarConfig


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://models.example/", "https://models.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("unix:/run/model.sock", "unix:/run/model.sock"),
    ],
)
def test_upstreams_are_scheme_and_authority(given: str, kept: str) -> None:
    """A trailing slash is nothing; everything else stays."""
    assert ServeConfig(upstream=given).upstream_url == kept


@pytest.mark.parametrize(
    "given",
    ["localhost:8000", "http://", "http://h/v1", "ftp://h", "http://h?x=1", "http://u:p@h", "http://h:99999", "unix:x"],
)
def test_other_upstreams_are_refused(given: str) -> None:
    """A path would change the request's target, credentials would end up in logs."""
    with pytest.raises(ConfigError, match="upstream"):
        ServeConfig(upstream=given)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("nonsense", "'nonsense' is no address of a server; expected http://host:port"),
        ("http://h/v1", "'http://h/v1' is no address of a server; expected http://host:port"),
        ("http://u:secret@h", "upstream: expected http://host:port"),
        ("http://h?key=secret", "upstream: expected http://host:port"),
    ],
)
def test_a_wrong_upstream_is_repeated_unless_it_may_hold_a_secret(given: str, shown: str) -> None:
    """What was typed stands beside what was expected."""
    with pytest.raises(ConfigError) as caught:
        ServeConfig(upstream=given)
    (problem,) = caught.value.problems
    assert shown in problem
    assert "secret" not in problem


@pytest.mark.parametrize("upstream", [{}, {"upstream": "nonsense"}])
def test_without_a_right_upstream_the_rest_is_heard_all_the_same(upstream: dict[str, str]) -> None:
    """In one list, and the upstream once."""
    with pytest.raises(ConfigError) as caught:
        ServeConfig(**upstream, outer_secret="short", include_paths="x", listen="h:1", admin="h:1")
    names = sorted(problem.split(":")[0] for problem in caught.value.problems)
    assert names == ["include_paths", "listen and admin are both h", "outer_secret", "upstream"]


def test_serve_needs_an_upstream_and_other_commands_do_not() -> None:
    """One file or environment serves all commands."""
    assert SidecarConfig().upstream is None
    with pytest.raises(ConfigError, match="name the model server"):
        ServeConfig()


def test_all_problems_are_listed() -> None:
    """Wrong values of sidecar and recording come together."""
    with pytest.raises(ConfigError) as caught:
        ServeConfig(listen="99", workers=4, queue_bytes_max="lots", upstream_read_timeout_s=0)
    text = str(caught.value)
    assert all(
        name in text for name in ("upstream:", "listen", "workers", "queue_bytes_max", "upstream_read_timeout_s")
    )


def test_one_address_cannot_serve_two_purposes() -> None:
    """Proxy and operator's port differ."""
    with pytest.raises(ConfigError, match="two addresses"):
        ServeConfig(upstream="http://a", listen="127.0.0.1:1", admin="127.0.0.1:1")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag beats its variable."""
    monkeypatch.setenv("INFERTAP_UPSTREAM", "http://from-env:1")
    monkeypatch.setenv("INFERTAP_LOG_FORMAT", "json")
    config = ServeConfig(upstream="http://from-flag:1")
    assert (config.upstream, config.log_format) == ("http://from-flag:1", "json")
    assert config.warnings == ()
