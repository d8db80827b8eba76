"""`infertap doctor`: the choice, the checks, the sources, and no secret."""

import socket
from pathlib import Path
from typing import Any


def test_defaults_are_explained_and_nothing_is_made(infertap: Any, tmp_path: Path) -> None:
    """Where to, why, writable; looking leaves no trace."""
    result = infertap("doctor")
    assert result.returncode == 0
    assert "recording to ./inference_tables because nothing else is set" in result.stdout
    assert result.stdout.count("✓") == 2
    assert list(tmp_path.iterdir()) == []


def test_each_setting_has_its_source(infertap: Any, tmp_path: Path) -> None:
    """Flag, variable, file and default are told apart."""
    (tmp_path / "i.toml").write_text('commit_interval_s = 3\nupstream = "http://model:1"\n')
    result = infertap(
        "doctor", "--all", "--config", "i.toml", "--spool-flush-ms", "70", INFERTAP_CAPTURE_BYTES_MAX="2MiB"
    )
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert lines["commit_interval_s"].split() == ["commit_interval_s", "3", "i.toml"]
    assert lines["upstream"].split() == ["upstream", "http://model:1", "i.toml"]
    assert lines["spool_flush_ms"].split()[1:] == ["70", "argument"]
    assert lines["capture_bytes_max"].split()[1:] == ["2MiB", "INFERTAP_CAPTURE_BYTES_MAX"]
    assert lines["drain_s"].split()[1:] == ["10", "default"]


def test_a_dead_endpoint_and_a_conflict_are_seen_without_their_secrets(infertap: Any) -> None:
    """The warning of two destinations, a failed probe with its fix, exit code 1, and no header value anywhere."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    result = infertap(
        "doctor",
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=topsecret",
        INFERTAP_TABLES="./t",
        INFERTAP_STORAGE_OPTIONS="aws_secret_access_key=topsecret",
    )
    assert result.returncode == 1
    assert "TWO DESTINATIONS ARE SET" in result.stdout
    assert f"✗ OTLP {endpoint}" in result.stdout
    assert "topsecret" not in result.stdout + result.stderr


def test_tables_that_cannot_be_written_are_seen(infertap: Any, tmp_path: Path) -> None:
    """A file where the folder should be: exit code 1."""
    (tmp_path / "tables").write_text("")
    result = infertap("doctor", "--tables", "tables")
    assert result.returncode == 1
    assert "NOT WRITABLE" in result.stdout


def test_wrong_settings_are_usage_errors(infertap: Any) -> None:
    """Exit code 2 with all problems."""
    result = infertap("doctor", "--content", "half", "--nonsense", "1")
    assert result.returncode == 2
    assert "content" in result.stderr
    assert "--nonsense" in result.stderr


def test_the_receivers_own_endpoint_and_the_secret(infertap: Any) -> None:
    """What serve would take as unset, doctor does, too; the secret is named and not shown."""
    variables = {
        "INFERTAP_OTLP_HTTP": "127.0.0.1:4318",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318",
        "INFERTAP_OUTER_SECRET": "a-secret-of-both-sides",
    }
    done = infertap("doctor", **variables)
    assert done.returncode == 0, done.stderr
    assert "recording to ./inference_tables" in done.stdout
    assert "OTEL_EXPORTER_OTLP_ENDPOINT points at this receiver" in done.stdout
    assert "outer_secret" in done.stdout
    assert "a-secret-of-both-sides" not in done.stdout + done.stderr
