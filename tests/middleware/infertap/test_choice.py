"""The destination rule as a truth table, and the words that say at every start what it decided."""

from pathlib import Path
from typing import Any

import pytest

from infertap.choice import Choice, choose
from infertap.config import Config
from infertap.errors import ConfigError, OtelConfigError
from infertap.otel_env import OtelEnvironment

_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
_TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}
_DISABLED = {"OTEL_SDK_DISABLED": "true"}
_NO_EXPORTER = {"OTEL_TRACES_EXPORTER": "none"}
_DUAL = {"MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT": "true"}
_MLFLOW_OFF = {"MLFLOW_ENABLE_OTLP_EXPORTER": "false"}
_SECRET = "hunter2-is-no-good"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, and no `INFERTAP_*` variable that the rule reads."""
    monkeypatch.chdir(tmp_path)
    for name in ("TABLES", "DESTINATION", "SPOOL_DIR", "STORAGE_OPTIONS", "CONTENT", "CONFIG"):
        monkeypatch.delenv(f"INFERTAP_{name}", raising=False)


def _choose(variables: dict[str, str] | None = None, **settings: Any) -> Choice:
    return choose(Config(**settings), OtelEnvironment.read(variables or {}), cwd=Path.cwd())


_OFF_REASON = "{} switches the export off"
_TABLE_WITHOUT_REASON = "nothing else is set"
_AUTO: list[tuple[dict[str, str], bool, str, str, bool]] = [
    # environment, tables set, kind, reason, conflict
    ({}, False, "table", "nothing else is set", False),
    ({}, True, "table", "tables is set (argument)", False),
    (_ENDPOINT, False, "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT is set", False),
    (_TRACES, False, "otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set", False),
    (_ENDPOINT | _TRACES, False, "otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set", False),
    (_ENDPOINT, True, "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT is set", True),
    (_DUAL, False, "table", "nothing else is set", False),
    (_DUAL, True, "table", "tables is set (argument)", False),
    (_MLFLOW_OFF, True, "table", "tables is set (argument)", False),
    (_DISABLED, False, "table", "nothing else is set", False),
    (_NO_EXPORTER, True, "table", "tables is set (argument)", False),
    *(
        (
            _ENDPOINT | more | off,
            tables,
            "table",
            (
                f"{'tables is set (argument)' if tables else 'nothing else is set'}; "
                f"OTEL_EXPORTER_OTLP_ENDPOINT does not count because of {name}"
            ),
            False,
        )
        for off, name in (
            (_DISABLED, "OTEL_SDK_DISABLED"),
            (_NO_EXPORTER, "OTEL_TRACES_EXPORTER"),
            (_MLFLOW_OFF, "MLFLOW_ENABLE_OTLP_EXPORTER"),
        )
        for more in ({}, _DUAL)
        for tables in (False, True)
    ),
    *(
        (
            _ENDPOINT | _DUAL,
            tables,
            "both",
            "OTEL_EXPORTER_OTLP_ENDPOINT and MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT are set",
            False,
        )
        for tables in (False, True)
    ),
]


@pytest.mark.parametrize(("variables", "tables", "kind", "reason", "conflict"), _AUTO)
def test_auto(variables: dict[str, str], tables: bool, kind: str, reason: str, conflict: bool) -> None:
    """An endpoint wins unless something switches it off; only OTLP over explicit tables is a conflict."""
    choice = _choose(variables, **({"tables": "./t"} if tables else {}))
    assert (choice.kind, choice.reason, choice.conflict is not None) == (kind, reason, conflict)
    assert choice.targets.names == {"table": ("table",), "otlp": ("otlp",), "both": ("table", "otlp")}[kind]
    assert choice.warnings == ()


@pytest.mark.parametrize("endpoint", [{}, _ENDPOINT])
@pytest.mark.parametrize("mlflow", [{}, _DUAL, _MLFLOW_OFF, _DUAL | _MLFLOW_OFF])
@pytest.mark.parametrize("off", [{}, _DISABLED, _NO_EXPORTER, _DISABLED | _NO_EXPORTER])
@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("destination", ["table", "otlp", "both", "none"])
def test_an_explicit_destination_is_what_happens(
    endpoint: dict[str, str], mlflow: dict[str, str], off: dict[str, str], tables: bool, destination: str
) -> None:
    """Whatever MLflow's variables say; only what switches OTLP off takes it away, and never the tables."""
    settings: dict[str, Any] = {"destination": destination} | ({"tables": "./t"} if tables else {})
    choice = _choose(endpoint | mlflow | off, **settings)
    expected = destination
    if off:
        expected = {"otlp": "none", "both": "table"}.get(destination, destination)
    assert choice.kind == expected
    assert choice.conflict is None
    assert f"destination = {destination!r}" in choice.reason or expected == "none"
    warned = destination == "otlp" and bool(off)
    assert [_OFF_REASON.format(next(iter(off), "")) in warning for warning in choice.warnings] == [True] * warned


def test_otlp_without_an_endpoint_means_the_standards_default() -> None:
    """As every OpenTelemetry exporter does."""
    assert "recording to http://localhost:4317 because destination = 'otlp' (argument)" in _choose(
        destination="otlp"
    ).start_line("full")


def test_the_warning_names_both_settings_and_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator must not have to look anything up."""
    monkeypatch.setenv("INFERTAP_TABLES", "s3://bucket/tables")
    choice = _choose(_ENDPOINT)
    assert choice.conflict is not None
    for words in (
        "OTEL_EXPORTER_OTLP_ENDPOINT wins",
        "tables = 's3://bucket/tables' (INFERTAP_TABLES) is NOT written",
        "destination = 'table'",
        "destination = 'both'",
    ):
        assert words in choice.conflict


@pytest.mark.parametrize(
    ("variables", "settings", "content", "line"),
    [
        (
            {},
            {},
            "full",
            "recording to ./inference_tables because nothing else is set; bodies stay on this machine",
        ),
        (
            _ENDPOINT,
            {},
            "full",
            (
                "recording to http://collector:4317 because OTEL_EXPORTER_OTLP_ENDPOINT is set; "
                "bodies leave this machine (content=full)"
            ),
        ),
        (
            {},
            {"tables": "s3://bucket/x/"},
            "full",
            "recording to s3://bucket/x because tables is set (argument); bodies leave this machine (content=full)",
        ),
        (
            {},
            {"tables": "/srv/t"},
            "metadata",
            (
                "recording to /srv/t because tables is set (argument); "
                "bodies and headers are not recorded (content=metadata)"
            ),
        ),
        (
            {},
            {"destination": "both"},
            "full",
            (
                "recording to ./inference_tables and http://localhost:4317 because destination = 'both' (argument); "
                "bodies leave this machine (content=full)"
            ),
        ),
        ({}, {"destination": "none"}, "full", "recording nothing because destination = 'none' (argument)"),
        (
            _DISABLED,
            {"destination": "otlp"},
            "full",
            "recording nothing because OTEL_SDK_DISABLED switches the export off",
        ),
    ],
)
def test_the_line_at_start(variables: dict[str, str], settings: dict[str, Any], content: str, line: str) -> None:
    """Where to, why, and whether bodies leave this machine."""
    assert _choose(variables, **settings).start_line(content) == line


def test_the_line_at_start_shows_no_credentials() -> None:
    """Neither of an endpoint (whose user information is refused before) nor of a table's store."""
    endpoint = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://host:4318/v1/traces?key={_SECRET}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={_SECRET}",
    }
    choice = _choose(endpoint, destination="both", storage_options={"k": _SECRET})
    assert "http://host:4318/v1/traces" in choice.start_line("full")
    assert _SECRET not in choice.start_line("full")
    assert _SECRET not in str(choice.targets.identity(choice.spool_dir))
    assert _SECRET not in str(choice.targets.description(choice.spool_dir))


_BROKEN = _ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "soap"}
_NO_SAMPLER = {"OTEL_TRACES_SAMPLER": "somtimes"}


@pytest.mark.parametrize(
    ("variables", "settings", "raises"),
    [
        (_BROKEN, {}, True),
        (_BROKEN, {"destination": "otlp"}, True),
        (_BROKEN, {"destination": "both"}, True),
        (_BROKEN, {"destination": "table"}, True),
        (_BROKEN, {"destination": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"}, {}, True),
        (_BROKEN | _DUAL, {}, True),
        (_BROKEN | _DISABLED, {}, False),
        (_BROKEN | _NO_EXPORTER, {}, False),
        (_BROKEN | _MLFLOW_OFF, {}, True),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "soap"}, {}, True),
        (_NO_SAMPLER, {}, True),
        (_NO_SAMPLER, {"destination": "table"}, True),
        (_NO_SAMPLER, {"destination": "none"}, False),
        (_NO_SAMPLER | _NO_EXPORTER, {}, True),
        (_NO_SAMPLER | _DISABLED, {}, False),
        ({"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "many"}, {}, True),
    ],
)
def test_mistakes_in_otel_variables_count_whatever_the_destination(
    variables: dict[str, str], settings: dict[str, Any], raises: bool
) -> None:
    """Nothing is recorded elsewhere instead; only what nobody will read is no mistake."""
    if raises:
        with pytest.raises(OtelConfigError, match="OTEL_"):
            _choose(variables, **settings)
    else:
        assert _choose(variables, **settings).targets.otlp is None


def test_a_spool_in_a_table_a_platform_without_key_and_otel_mistakes_come_at_once() -> None:
    """One start shows the whole list."""
    with pytest.raises(ConfigError) as error:
        _choose(_NO_SAMPLER, tables="t", spool_dir="t/spans", platform="splunk", destination="both")
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "spool_dir",
        "platform = 'splunk' needs SPLUNK_REALM, SPLUNK_ACCESS_TOKEN, not set here",
        "OTEL_TRACES_SAMPLER",
    ]


def test_the_spool_lies_beside_local_tables_else_in_the_working_folder(tmp_path: Path) -> None:
    """Unless it is named."""
    assert _choose().spool_dir == tmp_path / "inference_tables" / ".spool"
    assert _choose(tables=f"file://{tmp_path}/t").spool_dir == tmp_path / "t" / ".spool"
    assert _choose(destination="both", tables="./t").spool_dir == tmp_path / "t" / ".spool"
    assert _choose(tables="s3://b/x").spool_dir == tmp_path / ".infertap_spool"
    assert _choose(_ENDPOINT).spool_dir == tmp_path / ".infertap_spool"
    assert _choose(spool_dir="s/../spool").spool_dir == tmp_path / "spool"


def test_the_working_folder_is_the_one_that_was_given(tmp_path: Path) -> None:
    """Relative roots and what is shown of them hang on it, not on the process."""
    other = tmp_path / "elsewhere"
    choice = choose(Config(), OtelEnvironment.read({}), cwd=other)
    assert choice.targets.table is not None
    assert choice.targets.table.local_path == other / "inference_tables"
    assert choice.spool_dir == other / "inference_tables" / ".spool"


def test_a_home_folder_is_meant_where_a_tilde_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell."""
    monkeypatch.setenv("HOME", "/home/ann")
    choice = _choose(tables="~/t", spool_dir="~/s")
    assert choice.targets.table is not None
    assert (choice.targets.table.uri, choice.spool_dir) == ("/home/ann/t", Path("/home/ann/s"))


def test_warnings_of_the_settings_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those about the exporter only where OTLP is a destination; what has no meaning here is named everywhere, once."""
    monkeypatch.setenv("INFERTAP_TABELS", "x")
    odd = {"OTEL_EXPORTER_OTLP_TIMEOUT": "10000", "OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_CONFIG_FILE": "x"}
    nothing = "OTEL_CONFIG_FILE, OTEL_BSP_MAX_QUEUE_SIZE have no effect on infertap"
    assert _choose(odd).warnings[1:] == (nothing,)
    assert len(_choose(odd | _ENDPOINT).warnings) == 3
    assert len(_choose(odd, destination="none").warnings) == 1


def test_the_folder_is_named_by_the_destination() -> None:
    """Readable kind first."""
    choice = _choose()
    assert choice.folder.parent == choice.spool_dir
    assert choice.folder.name.startswith("table-")
    assert _choose(destination="both").folder.name.startswith("table-otlp-")
