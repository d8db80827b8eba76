"""`infertap drain` delivers real spools, and `doctor` and `maintain` say what is there."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from infertap.spool.lock import FileLock


def count(infertap: Any, tables: str = "inference_tables") -> str:
    return str(infertap("query", "SELECT count(*) AS n FROM inference", "--tables", tables).stdout.strip())


def test_a_spool_is_delivered_once(infertap: Any) -> None:
    """Three requests, delivered by the first run, which says so; the second finds nothing."""
    infertap.record()
    first = infertap("drain")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert first.stdout.splitlines()[1:] == [
        "  tables ./inference_tables: 3 requests delivered",
        "  nothing is left",
    ]
    second = infertap("drain")
    assert second.returncode == 0
    assert "nothing to deliver to ./inference_tables" in second.stdout
    assert count(infertap) == '{"n":3}'


def test_nothing_to_deliver_is_fine(infertap: Any, tmp_path: Path) -> None:
    """No spool, no work, no folder made."""
    result = infertap("drain")
    assert result.returncode == 0
    assert "nothing to deliver" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_delivered_is_said_with_its_reason(infertap: Any, tmp_path: Path) -> None:
    """Tables that cannot be made: exit code 1, the reason, how much waits."""
    infertap.record(INFERTAP_SPOOL_DIR="spool")
    (tmp_path / "inference_tables").write_text("")
    result = infertap("drain", "--spool-dir", "spool")
    assert result.returncode == 1
    assert "  tables ./inference_tables: nothing delivered: table" in result.stdout
    assert "  3 requests wait, " in result.stdout
    assert result.stderr.startswith("infertap drain: destination table did not take records")


def test_what_is_parked_is_said(infertap: Any, tmp_path: Path) -> None:
    """Records that no destination takes are not forgotten, also where nothing waits any more."""
    infertap.record()
    (folder,) = (tmp_path / "inference_tables" / ".spool").glob("table-*")
    (folder / "parked" / "table-drainer-1.jsonl").write_text('{"kind": "request"}\n{"kind": "span"}\n')
    assert "2 records are in its folder `parked`" in infertap("drain").stdout


def test_a_folder_that_another_process_drains_is_left_to_it(infertap: Any, tmp_path: Path) -> None:
    """Exit code 1 while something is left there, and who has it."""
    infertap.record()
    (folder,) = (tmp_path / "inference_tables" / ".spool").glob("table-*")
    lock = FileLock.try_acquire(folder / "drainer.lock")
    assert lock is not None
    result = infertap("drain")
    lock.close()
    assert result.returncode == 1
    assert "3 requests wait" in result.stdout
    assert "another process drains it" in result.stdout


def test_a_forgotten_folder_goes_where_it_was_meant_to(infertap: Any, tmp_path: Path) -> None:
    """The destination was changed; doctor names the old folder, drain delivers it to the old tables."""
    infertap.record("old_tables")
    new = {"INFERTAP_TABLES": "new_tables", "INFERTAP_SPOOL_DIR": "old_tables/.spool"}
    found = infertap("doctor", **new)
    assert found.returncode == 0
    (folder,) = (tmp_path / "old_tables" / ".spool").glob("table-*")
    assert "forgotten" in found.stdout
    assert folder.name in found.stdout
    beside = infertap("drain", **new)
    assert beside.returncode == 0
    assert f"3 requests wait for ./old_tables (infertap drain ./old_tables/.spool/{folder.name})" in beside.stdout
    result = infertap("drain", str(folder), **new)
    assert result.returncode == 0, result.stderr
    assert count(infertap, "old_tables") == '{"n":3}'
    assert not (tmp_path / "new_tables").exists()


def test_a_spool_moved_with_its_tables_is_still_theirs(infertap: Any, tmp_path: Path) -> None:
    """A volume mounted elsewhere: the folder's name is relative, and all folders of a spool_dir are drained."""
    infertap.record("tables")
    shutil.move(tmp_path / "tables", tmp_path / "moved")
    result = infertap("drain", "moved/.spool")
    assert result.returncode == 0, result.stderr
    assert count(infertap, "moved") == '{"n":3}'


def test_what_is_no_spool_is_refused(infertap: Any, tmp_path: Path) -> None:
    """Exit code 1: a wrong folder, a renamed one."""
    (tmp_path / "empty").mkdir()
    assert "neither a spool folder" in infertap("drain", "empty").stderr
    infertap.record("tables")
    (folder,) = (tmp_path / "tables" / ".spool").glob("table-*")
    folder.rename(folder.with_name("table-000000000000"))
    result = infertap("drain", str(folder.with_name("table-000000000000")))
    assert result.returncode == 1
    assert "does not fit" in result.stderr


def test_an_otlp_folder_never_gets_foreign_credentials(infertap: Any, tmp_path: Path) -> None:
    """Drained with another endpoint's key in the environment, the old endpoint is asked without it."""
    old = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    infertap.record("unused", INFERTAP_DESTINATION="otlp", **old)
    new = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:10", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=key"}
    (folder,) = (tmp_path / ".infertap_spool").glob("otlp-*")
    code = (
        "import os, sys; from pathlib import Path; from infertap.otel_env import OtelEnvironment\n"
        "from infertap_sidecar.settings import SidecarConfig; from infertap_sidecar.spool_targets import targets_of\n"
        "targets = targets_of(Path(sys.argv[1]), SidecarConfig(), OtelEnvironment.read(os.environ))\n"
        "print(targets.otlp.endpoint, dict(targets.otlp.headers))"
    )
    foreign = infertap.python("-c", code, str(folder), **new)
    assert foreign.stdout.strip() == "http://127.0.0.1:9/v1/traces {}"
    own = infertap.python("-c", code, str(folder), **old, OTEL_EXPORTER_OTLP_HEADERS="authorization=key")
    assert own.stdout.strip() == "http://127.0.0.1:9/v1/traces {'authorization': 'key'}"


def test_a_platforms_folder_never_gets_another_tenants_key(infertap: Any, tmp_path: Path) -> None:
    """The same endpoint, another instance of it: what was spooled for one is not sent with the other's token."""
    zone = {"INFERTAP_PLATFORM": "grafana", "GRAFANA_CLOUD_ZONE": "prod-eu-west-2", "GRAFANA_CLOUD_API_KEY": "key"}
    infertap.record("unused", INFERTAP_DESTINATION="otlp", GRAFANA_CLOUD_INSTANCE_ID="1", **zone)
    (folder,) = (tmp_path / ".infertap_spool").glob("otlp-*")
    code = (
        "import os, sys; from pathlib import Path; from infertap.otel_env import OtelEnvironment\n"
        "from infertap.choice import with_settings; from infertap_sidecar.settings import SidecarConfig\n"
        "from infertap_sidecar.spool_targets import targets_of\n"
        "config = SidecarConfig()\n"
        "otel = with_settings(OtelEnvironment.read(os.environ), config, cwd=Path.cwd())\n"
        "otlp = targets_of(Path(sys.argv[1]), config, otel).otlp\n"
        "print(otlp.endpoint, otlp.tenant, *otlp.headers, otlp.limits.attribute_bytes_max)"
    )
    endpoint = "https://otlp-gateway-prod-eu-west-2.grafana.net/otlp/v1/traces"
    foreign = infertap.python("-c", code, str(folder), GRAFANA_CLOUD_INSTANCE_ID="2", **zone)
    assert foreign.stdout.strip() == f"{endpoint} 1 None", foreign.stderr
    own = infertap.python("-c", code, str(folder), GRAFANA_CLOUD_INSTANCE_ID="1", **zone)
    assert own.stdout.strip() == f"{endpoint} 1 authorization 2048"


@pytest.mark.slow
def test_follow_delivers_what_comes_and_ends_at_a_signal(infertap: Any, tmp_path: Path) -> None:
    """The drainer of a process with `drainer = "external"`."""
    command = [sys.executable, "-m", "infertap_sidecar", "drain", "--follow", "--commit-interval-s", "0.2"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    process = subprocess.Popen(command, cwd=tmp_path, env=clean, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        infertap.record()
        deadline = time.monotonic() + 120
        while count(infertap) != '{"n":3}':
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_maintain_reports_each_table(infertap: Any) -> None:
    """Several small files become one, with their sizes; a second time there is nothing to do."""
    nothing = infertap("maintain")
    assert (nothing.returncode, nothing.stdout) == (0, "there are no tables in ./inference_tables yet\n")
    for _ in range(2):
        infertap.record()
        assert infertap("drain").returncode == 0
    result = infertap("maintain", "--force")
    assert result.returncode == 0, result.stderr
    sizes = r"\(\d+\.\d KiB\)"
    assert re.search(rf"^inference  2 files {sizes} became 1 {sizes}; the table has 1 file, ", result.stdout, re.M)
    assert "inference  nothing to compact: 1 file, " in infertap("maintain", "--force").stdout
    assert "inference  was maintained within this hour" in infertap("maintain").stdout
    assert count(infertap) == '{"n":6}'
