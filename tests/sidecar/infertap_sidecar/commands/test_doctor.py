"""`infertap doctor`: the choice, the checks, the sources, and no secret."""

import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from infertap.drain.state import DestinationStatus, DrainerState
from infertap.spool.folder import SpoolFolder
from infertap.spool.lock import FileLock


def test_defaults_are_explained_and_nothing_is_made(infertap: Any, tmp_path: Path) -> None:
    """Where to, why, writable; looking leaves no trace."""
    result = infertap("doctor")
    assert result.returncode == 0
    assert "recording to ./inference_tables because nothing else is set" in result.stdout
    assert result.stdout.count("✓") == 2
    assert result.stdout.endswith("\nno problem found\n")
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
    assert lines["spool_flush_ms"].split()[1:] == ["70", "--spool-flush-ms"]
    assert lines["capture_bytes_max"].split()[1:] == ["2MiB", "INFERTAP_CAPTURE_BYTES_MAX"]
    assert lines["drain_s"].split()[1:] == ["10", "default"]


def test_a_dead_endpoint_and_a_conflict_are_seen_without_their_secrets(
    infertap: Any, free_port: Callable[[], int]
) -> None:
    """The warning of two destinations, a failed probe with its fix, exit code 1, and no header value anywhere."""
    endpoint = f"http://127.0.0.1:{free_port()}"
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


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ("file", "./file is no folder"),
        ("file/below", "./file is no folder"),
        pytest.param("/proc/tables", "/proc: ", marks=pytest.mark.skipif(sys.platform != "linux", reason="no /proc")),
    ],
)
def test_tables_that_cannot_be_written_are_seen(infertap: Any, tmp_path: Path, tables: str, reason: str) -> None:
    """A file where the folder should be, and a file system that takes none although the rights do: exit code 1."""
    (tmp_path / "file").write_text("")
    result = infertap("doctor", "--tables", tables)
    assert result.returncode == 1
    assert f"NOT WRITABLE, so records wait in the spool: {reason}" in result.stdout
    assert "2 problems found" in result.stdout


def test_a_store_without_credentials_names_them(infertap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to set, and not what the library calls it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    off = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}
    result = infertap("doctor", "--tables", "s3://bucket/tables", **off)
    assert result.returncode == 1
    line = next(line for line in result.stdout.splitlines() if line.startswith("✗ tables s3://bucket/tables: "))
    assert "NOT REACHED: no credentials are set (AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY" in line


def test_losses_are_told(infertap: Any) -> None:
    """How many of how many, and why; where nothing was lost, nothing is said."""
    infertap.record("none")
    assert "lost" not in infertap("doctor", "--tables", "none").stdout
    infertap.record("some", header_count=100, INFERTAP_QUEUE_BYTES_MAX="8KiB")
    result = infertap("doctor", "--tables", "some")
    assert "! 3 of 3 requests were lost: queue_full 3" in result.stdout
    infertap("drain", "--tables", "some")
    assert "! 3 of 3 requests were lost: queue_full 3" in infertap("doctor", "--tables", "some").stdout


def test_a_full_disk_is_seen(infertap: Any, tmp_path: Path) -> None:
    """The folder can be entered and files can be made, but they take no byte."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from infertap_sidecar.cli import main; sys.exit(main(['doctor', '--tables', sys.argv[1]]))"
    )
    result = infertap.python("-c", code, str(tmp_path / "tables"))
    assert result.returncode == 1, result.stderr
    assert "File too large" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_would_stop_serve_stops_doctor(infertap: Any) -> None:
    """One list with the mistakes in flags and in `OTEL_*`, exit code 2, the same lines from both."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"}
    flags = ("--content", "half", "--upstream", "http://127.0.0.1:1")
    doctor, serve = infertap("doctor", *flags, **environ), infertap("serve", *flags, **environ)
    assert doctor.returncode == serve.returncode == 2
    assert doctor.stderr.splitlines()[0] == "infertap doctor: 2 problems"
    assert serve.stderr.splitlines()[0] == "infertap serve: 2 problems, nothing was started"
    assert doctor.stderr.splitlines()[1:] == serve.stderr.splitlines()[1:]


def test_the_settings_of_a_table_do_not_hide_mistakes_in_otel(infertap: Any) -> None:
    """`serve` refuses them whatever the destination is, and so does doctor."""
    result = infertap("doctor", "--destination", "table", OTEL_EXPORTER_OTLP_PROTOCOL="carrier-pigeon")
    serve = infertap(
        "serve", "--destination", "table", "--upstream", "http://x:1", OTEL_EXPORTER_OTLP_PROTOCOL="pigeon"
    )
    assert result.returncode == serve.returncode == 2


def test_wrong_settings_are_usage_errors(infertap: Any) -> None:
    """Exit code 2 with all problems."""
    result = infertap("doctor", "--content", "half", "--nonsense", "1")
    assert result.returncode == 2
    assert "content" in result.stderr
    assert "--nonsense" in result.stderr


def test_a_slip_in_a_variable_is_heard_beside_what_is_wrong(infertap: Any) -> None:
    """Alone it is a warning; beside a mistake it may be the reason, and stands in the same list, once."""
    slip = {"INFERTAP_CONTNET": "metadata"}
    words = "INFERTAP_CONTNET is no setting of infertap and is ignored; did you mean INFERTAP_CONTENT?"
    alone = infertap("doctor", **slip)
    assert alone.returncode == 0
    assert words in alone.stdout
    for arguments, otel in (
        (("--content", "half"), {}),
        (("--nonsense", "1"), {}),
        ((), {"OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"}),
        (("--spool-dir", "inference_tables/spans"), {}),
    ):
        result = infertap("doctor", *arguments, **slip, **otel)
        assert result.returncode == 2
        assert result.stderr.count(words) == 1
        assert "1 problem\n" in result.stderr


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


GRAFANA = {
    "GRAFANA_CLOUD_ZONE": "prod-eu-west-2",
    "GRAFANA_CLOUD_INSTANCE_ID": "123456",
    "GRAFANA_CLOUD_API_KEY": "k3y-of-the-vendor",
}


def doctor_of_grafana(infertap: Any, vendor_intake: Any, certificates: Path, **changes: str) -> Any:
    environ = {**GRAFANA, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "ca.pem")}
    return infertap("doctor", "--platform", "grafana", **{**environ, "HTTPS_PROXY": vendor_intake.proxy, **changes})


def test_a_platform_is_asked_with_an_empty_export(infertap: Any, vendor_intake: Any, certificates: Path) -> None:
    """Credentials and path are right: exit code 0, the limits in words, the key nowhere."""
    result = doctor_of_grafana(infertap, vendor_intake, certificates)
    assert result.returncode == 0, result.stdout
    assert "because platform = 'grafana' (--platform) is set" in result.stdout
    assert (
        "✓ OTLP https://otlp-gateway-prod-eu-west-2.grafana.net/otlp/v1/traces (http/protobuf): accepted"
        in result.stdout
    )
    assert "limits of grafana: 2,048 bytes an attribute" in result.stdout
    assert "GRAFANA_CLOUD_INSTANCE_ID" in result.stdout
    assert "k3y-of-the-vendor" not in result.stdout + result.stderr
    (request,) = vendor_intake.requests
    assert request == {"vendor": "grafana", "status": 200, "reason": None, "spans": []}


def test_a_refused_key_is_explained(infertap: Any, vendor_intake: Any, certificates: Path) -> None:
    """The answer and, in that vendor's own words, what to compare; never the key itself."""
    result = doctor_of_grafana(infertap, vendor_intake, certificates, GRAFANA_CLOUD_API_KEY="wrong-k3y")
    assert result.returncode == 1
    assert "HTTP 401" in result.stdout
    assert "a token with the scope traces:write of the same stack" in result.stdout
    assert "wrong-k3y" not in result.stdout + result.stderr


def test_what_a_platform_lacks_is_a_usage_error(infertap: Any) -> None:
    """All missing variables in one message, exit code 2."""
    result = infertap("doctor", "--platform", "grafana")
    assert result.returncode == 2
    assert "needs GRAFANA_CLOUD_ZONE, GRAFANA_CLOUD_INSTANCE_ID, GRAFANA_CLOUD_API_KEY" in result.stderr


def unwritable_log(tmp_path: Path) -> None:
    """Tables whose folders take files, and whose commits fail all the same."""
    (tmp_path / "inference_tables" / "spans").mkdir(parents=True)
    (tmp_path / "inference_tables" / "spans" / "_delta_log").write_text("")


def spool_of(tmp_path: Path) -> SpoolFolder:
    (path,) = (tmp_path / "inference_tables" / ".spool").glob("table-*")
    return SpoolFolder(path)


def test_a_destination_that_fails_is_a_problem(infertap: Any, tmp_path: Path) -> None:
    """The folder is writable, the last delivery failed, nobody is at work: exit code 1, all of it said."""
    unwritable_log(tmp_path)
    infertap.record()
    assert infertap("drain").returncode == 1
    result = infertap("doctor")
    assert "✓ tables ./inference_tables: writable" in result.stdout
    assert "  ✗ table failed at the last try, " in result.stdout
    assert "next try" not in result.stdout
    assert "  ! no drainer is at work, so nobody delivers these now; the next start does, or infertap" in result.stdout
    assert "1 problem found" in result.stdout
    assert result.returncode == 1


@pytest.mark.parametrize(("in_s", "words"), [(30, "(next try in "), (-5, "(the next try is due)")])
def test_a_living_drainer_tries_again(infertap: Any, tmp_path: Path, in_s: int, words: str) -> None:
    """Only where one lives there is a next try, and none in 0 seconds."""
    infertap.record()
    folder = spool_of(tmp_path)
    now_ns = time.time_ns()
    status = DestinationStatus(last_error="no space", last_error_ns=now_ns, retry_at_ns=now_ns + in_s * 10**9)
    lock = FileLock.try_acquire(folder.drainer_lock)
    assert lock is not None
    DrainerState(destinations={"table": status}).save(folder.drainer_state)
    result = infertap("doctor")
    lock.close()
    assert f"  ✗ table fails {words}" in result.stdout
    assert "nobody delivers" not in result.stdout
    assert result.returncode == 1


def test_a_forgotten_folders_failure_is_told_as_past(infertap: Any, tmp_path: Path) -> None:
    """The old destination is none of the settings', so it is no problem of theirs; both ways out are named."""
    unwritable_log(tmp_path)
    infertap.record()
    infertap("drain")
    result = infertap("doctor", "--tables", "new", INFERTAP_SPOOL_DIR="inference_tables/.spool")
    assert "  ! table failed at the last try, " in result.stdout
    place = f"./inference_tables/.spool/{spool_of(tmp_path).path.name}"
    assert f"infertap drain {place} sends them to ./inference_tables, with --redirect to where" in result.stdout
    assert result.returncode == 0


def test_the_verdict_counts_what_is_no_problem_and_yet_to_be_looked_at(infertap: Any, tmp_path: Path) -> None:
    """A slip in a variable, a forgotten folder and its losses do not fail, and are not passed over either."""
    infertap.record()
    folder = spool_of(tmp_path)
    folder.totals.write_text('{"counters": {"seen": 9, "lost/crash_in_flight": 2}}')
    result = infertap("doctor", "--tables", "new", INFERTAP_SPOOL_DIR="inference_tables/.spool", INFERTAP_TABLE="x")
    assert result.stdout.count("! ") == 3
    assert result.stdout.endswith("\nno problem found, but 3 things to look at (!)\n")
    assert result.returncode == 0


def test_one_dead_endpoint_is_one_problem_said_once(infertap: Any, free_port: Callable[[], int]) -> None:
    """The check has just said what the last delivery failed of; only another reason is worth a second line."""
    port = free_port()
    environ = {
        "INFERTAP_DESTINATION": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    infertap.record(**environ)
    assert infertap("drain", **environ).returncode == 1
    result = infertap("doctor", **environ)
    assert result.stdout.count("nobody listens at") == 1
    assert "\n  otlp failed at the last try, " in result.stdout
    assert " ago: see above\n" in result.stdout
    assert "\n1 problem found (✗), and 1 thing to look at (!)\n" in result.stdout
    assert result.returncode == 1


def test_losses_are_shown_where_a_table_is_the_ledger(infertap: Any, tmp_path: Path) -> None:
    """What the drainer gave up, and what owners lost: the table may never hear of it."""
    infertap.record()
    folder = spool_of(tmp_path)
    DrainerState(destinations={"table": DestinationStatus(counts={"lost/spool_full": 866})}).save(folder.drainer_state)
    folder.totals.write_text('{"counters": {"seen": 9, "lost/crash_in_flight": 2}}')
    result = infertap("doctor")
    assert "  ! 2 of 12 requests were lost: crash_in_flight 2\n" in result.stdout
    assert "  ! 866 spooled requests will never reach table: spool_full 866\n" in result.stdout


def test_a_misspelt_variable_is_no_setting(infertap: Any) -> None:
    """It is named with what was meant, its value is not shown, and it is no mistake."""
    result = infertap("doctor", OTEL_EXPORTER_OTLP_HEADER="authorization=hunter2")
    assert "! OTEL_EXPORTER_OTLP_HEADER is no variable of OpenTelemetry and is ignored; did you mean" in result.stdout
    assert "hunter2" not in result.stdout
    assert result.returncode == 0


@pytest.mark.skipif(find_spec("mlflow") is None, reason="needs mlflow-tracing")
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        pytest.param(
            None,
            "cannot export its spans by itself (ModuleNotFoundError",
            marks=pytest.mark.skipif(find_spec("sqlparse") is not None, reason="all of MLflow is installed"),
        ),
        ("http://127.0.0.1:1", "exports its own spans to that endpoint by itself"),
    ],
)
def test_mlflow_itself_is_asked_who_exports_its_spans(
    infertap: Any, tmp_path: Path, uri: str | None, words: str
) -> None:
    """`mlflow-tracing` without a server cannot, and an app's spans come to infertap; nothing is left behind."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **({"MLFLOW_TRACKING_URI": uri} if uri else {})}
    result = infertap("doctor", **variables)
    assert f"MLflow is installed here and {words}" in result.stdout
    assert list(tmp_path.iterdir()) == []
