"""The processes that the demo starts."""

import os
import re
import sys
from pathlib import Path

import pytest

from infertap_sidecar.demo.children import DemoError, reserved_port, running, wait_until_ready


def test_a_child_is_waited_for_and_stopped(tmp_path: Path) -> None:
    """It answers inside the block, and has ended after it."""
    with reserved_port() as port:
        command = ["http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(port)]
        with running("web server", command, log_dir=tmp_path) as child:
            wait_until_ready(child, f"http://127.0.0.1:{port}/")
            child.check()
    assert child.process.returncode is not None


def test_a_child_that_ends_too_soon_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    """Nobody has to look for a log."""
    with (
        reserved_port() as port,
        running("broken server", ["module_that_is_not_there"], log_dir=tmp_path) as child,
        pytest.raises(DemoError, match=r"the broken server ended with exit code 1:\n.*module_that_is_not_there"),
    ):
        wait_until_ready(child, f"http://127.0.0.1:{port}/")


def test_settings_of_a_real_deployment_stay_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child does not see the variables that would send the demo's rows elsewhere, and has the demo's own name."""
    monkeypatch.setenv("INFERTAP_TABLES", "s3://production/tables")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "production")
    monkeypatch.setenv("DEMO_TEST_KEPT", "kept")
    (tmp_path / "show_environment.py").write_text("import os; print(*map('='.join, sorted(os.environ.items())))")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with running("printer", ["show_environment"], log_dir=tmp_path) as child:
        child.process.wait(60)
    seen = child.log_end()
    assert "DEMO_TEST_KEPT" in seen
    assert "INFERTAP_" not in seen
    assert re.findall(r"OTEL_\S+", seen) == ["OTEL_SERVICE_NAME=infertap-demo"]
