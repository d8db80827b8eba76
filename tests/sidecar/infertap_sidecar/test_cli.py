"""The command line itself: overview, unknown names, exit codes, and what is imported."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from infertap import __version__
from infertap_sidecar.cli import COMMANDS, main
from infertap_sidecar.document import page


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` is 0, no command at all is wrong usage; both say the same."""
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert max(len(line) for line in shown.splitlines()) <= 100
    assert main([]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The distribution's."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"infertap {__version__}\n"


def test_an_unknown_command_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the nearest name."""
    assert main(["sreve"]) == 2
    assert "did you mean serve?" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(infertap: Any, name: str, columns: int) -> None:
    """`--help` is 0, fits the terminal, and has a word on each flag."""
    result = infertap(name, "--help", COLUMNS=str(columns))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: infertap {name}")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    for line, following in pairwise([*lines, ""]):
        if line.startswith("  -"):
            explained = len(line) > 34 or "  " in line.strip() or following.startswith(" " * 12)
            assert explained, line


def test_the_help_says_how_each_value_is_written(infertap: Any) -> None:
    """No placeholder merely repeats the end of its flag, but for a few that are plain words."""
    shown = infertap("serve", "--help", COLUMNS="100").stdout
    flags = re.findall(r"^  --([\w-]+) (\S+)", shown, re.MULTILINE)
    plain = {"FILE", "DIR", "ID", "HEADER", "SECRET", "PLATFORM"}
    repeated = [name for name, word in flags if name.upper().endswith(word) and word not in plain]
    assert (len(flags) > 40, repeated) == (True, [])
    assert dict(flags).items() >= {
        ("listen", "HOST:PORT"), ("otlp-http", "HOST:PORT"), ("otlp-grpc", "HOST:PORT"), ("upstream", "URL"),
        ("redact-except", "NAME,NAME"), ("include-paths", "GLOB,GLOB"), ("storage-options", "NAME=VALUE,..."),
        ("server-span", "light|otel"), ("binary-bodies", "withhold"), ("install-tracer-provider", "true|false"),
        ("drainer", "process|thread|external"), ("drain-s", "SECONDS"), ("spool-bytes-max", "SIZE"),
    }  # fmt: skip
    assert "at least 16 visible" in " ".join(shown.split())


def test_a_size_has_one_form_everywhere(infertap: Any) -> None:
    """The help, the doctor and the page say `1GiB` of the same default, and the same least size."""
    help_ = " ".join(infertap("serve", "--help").stdout.split())
    assert "At least 2KiB. Default: 1GiB." in help_
    assert re.search(r"spool_bytes_max +1GiB +default", infertap("doctor", "--all").stdout)
    row = next(line for line in page().splitlines() if line.startswith("| `spool_bytes_max`"))
    assert "| `1GiB` |" in row
    assert row.endswith("At least 2KiB. |")


def test_serve_has_a_flag_for_every_setting(infertap: Any) -> None:
    """Made from the fields, so none is forgotten."""
    code = "from infertap_sidecar.settings import ServeConfig; print(*ServeConfig.model_fields)"
    shown = infertap("serve", "--help").stdout
    for name in infertap.python("-c", code).stdout.split():
        assert f"--{name.replace('_', '-')} " in shown


def test_the_proxys_process_stays_light(infertap: Any) -> None:
    """What `serve` imports holds no Delta, Arrow, gRPC or protobuf."""
    code = (
        "import sys, infertap_sidecar.app, infertap_sidecar.commands.serve\n"
        "heavy = ('deltalake', 'arro3', 'pyarrow', 'grpc', 'google.protobuf', 'opentelemetry.exporter')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    assert infertap.python("-c", code).stdout.strip() == "[]"


def test_serve_says_what_a_platform_lacks_and_what_else_is_wrong_at_once(infertap: Any) -> None:
    """Exit code 2 before anything is started, with the vendor's and the standard variables in one list."""
    arguments = ("serve", "--upstream", "http://127.0.0.1:1", "--platform", "splunk")
    result = infertap(*arguments, OTEL_EXPORTER_OTLP_TIMEOUT="soon")
    assert result.returncode == 2
    assert "2 problems, nothing was started" in result.stderr
    assert "needs SPLUNK_REALM, SPLUNK_ACCESS_TOKEN" in result.stderr
    assert "OTEL_EXPORTER_OTLP_TIMEOUT" in result.stderr


@pytest.mark.parametrize("command", ["serve", "doctor", "collect", "drain"])
def test_mistakes_in_otel_variables_stand_beside_those_in_the_settings(
    infertap: Any, tmp_path: Path, command: str
) -> None:
    """One list for what delivers, also where the tables are the destination; exit code 2, and nothing is made."""
    variables = {
        "OTEL_TRACES_SAMPLER": "somtimes",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_SPAN_LINK_COUNT_LIMIT": "few",
        "INFERTAP_DESTINATION": "table",
    }
    upstream = ("--upstream", "http://127.0.0.1:1") if command == "serve" else ()
    wrong = infertap(command, *upstream, "--drain-s", "ten", **variables)
    right = infertap(command, *upstream, **variables)
    undone = {"doctor": "", "drain": ", nothing was delivered"}.get(command, ", nothing was started")
    for result, count in ((wrong, 4), (right, 3)):
        assert result.returncode == 2
        assert result.stderr.splitlines()[0] == f"infertap {command}: {count} problems{undone}"
        assert all(name in result.stderr for name in variables if name.startswith("OTEL_"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_only_a_warning_is_not_counted(infertap: Any) -> None:
    """A variable that is no setting stands below the problems; a flag that is like none gets no proposal."""
    result = infertap("serve", "--upstream", "http://h:1", "--nonsense", "x", "--tabels", "y", INFERTAP_ZZZ="1")
    assert result.stderr.splitlines() == [
        "infertap serve: 2 problems, nothing was started",
        "- --nonsense: no such flag",
        "- --tabels: no such flag; did you mean --tables?",
        "! INFERTAP_ZZZ is no setting of infertap and is ignored",
    ]


@pytest.mark.parametrize("command", [("query", "SELECT 1"), ("show",)])
def test_a_reading_command_names_the_flag_and_starts_nothing(infertap: Any, command: tuple[str, ...]) -> None:
    """So it does not say that nothing was started."""
    result = infertap(*command, "--tables", "s4://b/x")
    assert result.stderr.startswith(f"infertap {command[0]}: 1 problem\n- tables (--tables): unknown scheme 's4'")


def test_the_tables_can_be_asked_whatever_is_wrong_with_an_exporter(infertap: Any) -> None:
    """Reading commands have no use for `OTEL_*`."""
    result = infertap("query", "SELECT 1 AS n", OTEL_TRACES_SAMPLER="somtimes", OTEL_EXPORTER_OTLP_TIMEOUT="soon")
    assert "OTEL_" not in result.stderr
