"""What the composition root hands to its parts."""

from pathlib import Path

import pytest

from infertap import Config
from infertap.build import build_pipeline
from infertap.choice import choose
from infertap.events import EventLog
from infertap.otel_env import OtelEnvironment


def test_the_resource_is_redacted_before_it_reaches_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process's own command line, as detectors find it, holds what was given there as `--api-key`."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "run.command=serve --api-key hunter2 --port 1,patient.id=hunter2")
    config = Config(tables=str(tmp_path / "tables"), drainer="external", redact_keys=("patient_id",))
    writer = build_pipeline(config, choose(config, OtelEnvironment.read({}), cwd=tmp_path), EventLog()).worker.writer
    writer.open()
    writer.close()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"serve --api-key [REDACTED] --port 1" in content for content in files)
    assert not any(b"hunter2" in content for content in files)
