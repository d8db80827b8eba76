"""`infertap drain` delivers real spools, and `doctor` and `maintain` say what is there."""

import json
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


DEAD = {"INFERTAP_DESTINATION": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def otlp_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / ".infertap_spool").glob("otlp-*")
    return folder


def test_a_folder_for_a_wrong_address_is_redirected(infertap: Any, tmp_path: Path) -> None:
    """To the tables that the settings say now, once, and told; before, drain asks the old address."""
    infertap.record("unused", **DEAD)
    folder = otlp_folder(tmp_path)
    assert infertap("drain", str(folder)).returncode == 1
    first = infertap("drain", str(folder), "--redirect")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines() == [
        f"./.infertap_spool/{folder.name}, written for http://127.0.0.1:9 and redirected:",
        "  tables ./inference_tables: 3 requests delivered",
        "  nothing is left",
    ]
    assert "nothing to deliver" in infertap("drain", str(folder), "--redirect").stdout
    assert count(infertap) == '{"n":3}'
    assert "forgotten" not in infertap("doctor").stdout


def test_what_the_old_destination_has_taken_is_not_redirected(infertap: Any, tmp_path: Path) -> None:
    """Its cursor has passed the segment, and only the removal is missing: a crash in between."""
    infertap.record("unused", **DEAD)
    folder = otlp_folder(tmp_path)
    (slot,) = (folder / "slots").iterdir()
    (folder / "cursors" / f"{slot.name}.json").write_text('{"destinations": {"otlp": {"segment_no": 1}}}')
    result = infertap("drain", str(folder), "--redirect")
    assert result.returncode == 0, result.stderr
    assert "nothing delivered" in result.stdout
    assert not (tmp_path / "inference_tables" / "inference").exists()


def test_what_a_destination_without_successor_never_got_is_said(infertap: Any, tmp_path: Path) -> None:
    """A folder of `both`, redirected to its tables alone: OTLP's copies go, and not without a word."""
    infertap.record("tables", **{**DEAD, "INFERTAP_DESTINATION": "both"})
    (folder,) = (path.parent for path in tmp_path.rglob("destination.json"))
    result = infertap("drain", str(folder), "--redirect", "--tables", "elsewhere", "--destination", "table")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1:] == [
        "  tables ./elsewhere: 3 requests delivered",
        "  nothing is left",
        "  OTLP http://127.0.0.1:9: 3 requests not sent; the settings do not name it any more",
    ]
    assert count(infertap, "elsewhere") == '{"n":3}'


def test_a_redirect_that_fails_leaves_all_for_the_next(infertap: Any, tmp_path: Path) -> None:
    """Exit code 1, the new destination's reason, and what waits is still there for another try."""
    infertap.record("unused", **DEAD)
    (tmp_path / "file").write_text("")
    folder = otlp_folder(tmp_path)
    failed = infertap("drain", str(folder), "--redirect", "--tables", "file", "--spool-dir", "spool")
    assert failed.returncode == 1
    assert "tables ./file: nothing delivered: table" in failed.stdout
    assert "3 requests wait" in failed.stdout
    assert infertap("drain", str(folder), "--redirect").returncode == 0
    assert count(infertap) == '{"n":3}'


def test_what_cannot_be_redirected_is_refused(infertap: Any, tmp_path: Path) -> None:
    """Without a folder, beside --follow, to nowhere, and under a living writer."""
    infertap.record("unused", **DEAD)
    folder = otlp_folder(tmp_path)
    for wrong in ((), (str(folder), "--follow")):
        done = infertap("drain", *wrong, "--redirect")
        assert (done.returncode, "--redirect takes the folder of one" in done.stderr) == (2, True)
    assert "nowhere to send" in infertap("drain", str(folder), "--redirect", "--destination", "none").stderr
    (slot,) = (folder / "slots").iterdir()
    lock = FileLock.try_acquire(slot / "lock")
    assert lock is not None
    in_use = infertap("drain", str(folder), "--redirect")
    lock.close()
    assert (in_use.returncode, "a living process writes to" in in_use.stderr) == (1, True)


_SHOW_TARGET = """
import dataclasses, json, os, sys
from pathlib import Path
from infertap.build import drainer_settings
from infertap.choice import choose, with_settings
from infertap.otel_env import OtelEnvironment
from infertap_sidecar.settings import SidecarConfig
from infertap_sidecar.spool_targets import settings_of
config = SidecarConfig()
otel = with_settings(OtelEnvironment.read(os.environ), config, cwd=Path.cwd())
settings = drainer_settings(config, choose(config, otel, cwd=Path.cwd()))
settings = settings_of(Path(sys.argv[1]).resolve(), settings, config, otel)
print(json.dumps({**settings.targets.to_json(), "content": settings.content}))
"""


def target_of(infertap: Any, folder: Path, **variables: str) -> Any:
    """What `infertap drain FOLDER` would deliver to, as JSON."""
    done = infertap.python("-c", _SHOW_TARGET, str(folder), **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_otlp_folder_never_gets_foreign_credentials(infertap: Any, tmp_path: Path) -> None:
    """Drained with another endpoint's key in the environment, the old endpoint is asked without it."""
    old = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    infertap.record("unused", INFERTAP_DESTINATION="otlp", **old)
    new = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:10", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=key"}
    (folder,) = (tmp_path / ".infertap_spool").glob("otlp-*")
    foreign = target_of(infertap, folder, **new)["otlp"]
    assert (foreign["endpoint"], foreign["headers"]) == ("http://127.0.0.1:9/v1/traces", {})
    own = target_of(infertap, folder, **old, OTEL_EXPORTER_OTLP_HEADERS="authorization=key")["otlp"]
    assert (own["endpoint"], own["headers"]) == ("http://127.0.0.1:9/v1/traces", {"authorization": "key"})


def test_a_platforms_folder_never_gets_another_tenants_key(infertap: Any, tmp_path: Path) -> None:
    """The same endpoint, another instance of it: the platform's limits count, and the other's token does not."""
    zone = {"INFERTAP_PLATFORM": "grafana", "GRAFANA_CLOUD_ZONE": "prod-eu-west-2", "GRAFANA_CLOUD_API_KEY": "key"}
    infertap.record("unused", INFERTAP_DESTINATION="otlp", GRAFANA_CLOUD_INSTANCE_ID="1", **zone)
    (folder,) = (tmp_path / ".infertap_spool").glob("otlp-*")
    endpoint = "https://otlp-gateway-prod-eu-west-2.grafana.net/otlp/v1/traces"
    for instance, headers in (("2", []), ("1", ["authorization"])):
        otlp = target_of(infertap, folder, GRAFANA_CLOUD_INSTANCE_ID=instance, **zone)["otlp"]
        assert (otlp["endpoint"], otlp["tenant"], list(otlp["headers"])) == (endpoint, "1", headers)
        assert otlp["limits"]["attribute_bytes_max"] == 2048


DELIVERY = {
    "INFERTAP_DESTINATION": "both",
    "INFERTAP_TABLES": "s3://bucket/tables",
    "INFERTAP_SPOOL_DIR": "spool",
    "INFERTAP_STORAGE_OPTIONS": "aws_region=eu-west-1,AWS_ALLOW_HTTP=true,timeout=7s,aws_secret_access_key=hunter2",
    "INFERTAP_PLATFORM": "newrelic",
    "INFERTAP_OTLP_HEADERS_FILE": "headers",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:9",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=hunter2,tenant=t1",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/etc/ca.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/etc/client.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/etc/client.key",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5000",
}


def test_a_folder_tells_all_that_its_delivery_needs_but_secrets(infertap: Any, tmp_path: Path) -> None:
    """Drained by somebody with no settings at all: as the app would, but for the keys. What is set by hand wins."""
    infertap.record(DELIVERY["INFERTAP_TABLES"], **DELIVERY)
    (folder,) = (tmp_path / "spool").glob("table-otlp-*")
    assert "hunter2" not in (folder / "destination.json").read_text()
    found = target_of(infertap, folder)
    assert found["table"]["storage_options"] == {"aws_region": "eu-west-1", "AWS_ALLOW_HTTP": "true", "timeout": "7s"}
    otlp = found["otlp"]
    assert (otlp["timeout_s"], otlp["compression"], otlp["value_length_max"]) == (3.0, "gzip", 5000)
    assert (otlp["certificate"], otlp["client_key"]) == ("/etc/ca.pem", "/etc/client.key")
    assert (otlp["client_certificate"], otlp["headers_file"]) == ("/etc/client.pem", str(tmp_path / "headers"))
    assert (otlp["limits"]["array_items_max"], otlp["headers"]) == (64, {"tenant": "t1"})
    mine = {name: DELIVERY[name] for name in DELIVERY if name.endswith(("ENDPOINT", "PROTOCOL", "_HEADERS"))}
    otlp = target_of(infertap, folder, **mine, OTEL_EXPORTER_OTLP_TIMEOUT="5")["otlp"]
    assert (otlp["timeout_s"], otlp["compression"], otlp["limits"]["array_items_max"]) == (5.0, "gzip", 64)
    assert otlp["headers"] == {"authorization": "hunter2", "tenant": "t1"}


def test_a_folder_of_an_older_version_is_delivered_as_ever(infertap: Any, tmp_path: Path) -> None:
    """It tells where, and nothing else; what a newer version tells more is passed over."""
    infertap.record(DELIVERY["INFERTAP_TABLES"], **DELIVERY)
    (folder,) = (tmp_path / "spool").glob("table-otlp-*")
    told = json.loads((folder / "destination.json").read_text())
    for delivery in (None, {"otlp": {"timeout_s": 3.0, "colour": "blue", "limits": {"colours_max": 1}}, "mood": 1}):
        (folder / "destination.json").write_text(json.dumps({**told, "delivery": delivery}))
        otlp = target_of(infertap, folder)["otlp"]
        assert otlp["endpoint"] == "https://127.0.0.1:9/v1/traces"
        assert otlp["timeout_s"] == (10.0 if delivery is None else 3.0)
        assert otlp["limits"]["array_items_max"] is None


def test_a_folder_without_content_stays_so(infertap: Any, tmp_path: Path) -> None:
    """Whoever drains it with other settings sends no body for that."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    infertap.record("unused", INFERTAP_DESTINATION="otlp", INFERTAP_CONTENT="metadata", **endpoint)
    (folder,) = (tmp_path / ".infertap_spool").glob("otlp-*")
    assert target_of(infertap, folder, **endpoint)["content"] == "metadata"


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
