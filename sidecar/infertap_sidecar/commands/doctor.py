"""`infertap doctor`: where records go and why, whether they can get there, and what waits."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infertap.choice import Choice, choose
from infertap.otel_env import OtelEnvironment
from infertap.otel_names import misspelt
from infertap.platforms import PLATFORMS
from infertap.targets import OtlpLimits
from infertap_sidecar.checks import run_checks
from infertap_sidecar.flags import add_config_file, add_settings, make_parser, read_settings, shown
from infertap_sidecar.interrupts import ctrl_c_ends_the_process
from infertap_sidecar.lines import line_console, print_line
from infertap_sidecar.mlflow_probe import mlflow_line
from infertap_sidecar.own_endpoint import refuse_own_endpoint, refuse_own_upstream, unset_own_endpoints
from infertap_sidecar.places import size_text, without_secrets
from infertap_sidecar.settings import SidecarConfig
from infertap_sidecar.spool_survey import FolderReport, known_spools, survey
from infertap_sidecar.spool_view import findings
from infertap_sidecar.verdict import Verdict

_DESCRIPTION = """\
Says which destination is used and why, where each setting comes from, whether the destination
can be written or reached, and what waits in the spool. Takes the same variables, file and flags
as serve. Exit code 1 if something does not work, 2 for settings that would stop serve.

  infertap doctor --platform grafana     asks that platform with an empty export\
"""
_OTEL_PREFIXES = (
    "OTEL_EXPORTER_OTLP_",
    "OTEL_TRACES_",
    "OTEL_SDK_",
    "OTEL_SERVICE_",
    "OTEL_RESOURCE_",
    "OTEL_PROPAGATORS",
)


def main(argv: Sequence[str]) -> int:
    """Print the findings; 1 if a check failed. Raises: ConfigError."""
    parser = make_parser("doctor", _DESCRIPTION)
    parser.usage = "infertap doctor [--all] [--SETTING VALUE ...]"
    parser.add_argument("--all", action="store_true", help="also settings that have their default")
    add_config_file(parser)
    add_settings(parser, SidecarConfig, SidecarConfig.model_fields, "settings")
    config = read_settings(SidecarConfig, parser, argv, own=("all",), delivers=True)
    refuse_own_upstream(config)
    show_all: bool = parser.parse_known_args(argv)[0].all
    environ = dict(os.environ)
    own_endpoints = unset_own_endpoints(environ, config.receiver_addresses)
    choice = choose(config, OtelEnvironment.read(environ), cwd=Path.cwd())
    refuse_own_endpoint(choice, config.receiver_addresses)

    out = line_console()
    verdict = Verdict(out)
    _print_choice(choice, config, verdict)
    for line in own_endpoints:
        verdict.line(line)
    with ctrl_c_ends_the_process():
        _print_mlflow(environ, verdict)
        failing = _print_checks(choice, verdict)
    _print_spool(survey(known_spools(config, choice), choice), failing, verdict)
    _print_settings(config, show_all, out)
    verdict.end()
    return 1 if verdict.problems else 0


def _print_choice(choice: Choice, config: SidecarConfig, verdict: Verdict) -> None:
    verdict.line(choice.start_line(config.content), style="bold")
    for warning in (choice.conflict, *choice.warnings):
        if warning:
            verdict.note(warning)
    if choice.targets.otlp is not None and (limits := _limits(choice.targets.otlp.limits)):
        platform = choice.targets.otlp.platform
        verdict.line(f"limits of {platform}: {limits}; what does not fit goes by reference, or is withheld")


def _limits(limits: OtlpLimits) -> str:
    """The limits in words; empty where there are none."""
    words = (
        (limits.request_bytes_max, "a request"),
        (limits.span_bytes_max, "a span"),
        (limits.attribute_bytes_max, "an attribute"),
    )
    shown_limits = [f"{number:,} bytes {of}" for number, of in words if number is not None]
    if limits.array_items_max is not None:
        shown_limits.append(f"{limits.array_items_max} items a list")
    return ", ".join(shown_limits)


def _print_mlflow(environ: Mapping[str, str], verdict: Verdict) -> None:
    about_mlflow = mlflow_line(environ)
    if about_mlflow.passes_by:
        verdict.note(about_mlflow.text)
    elif about_mlflow.text:
        verdict.line(about_mlflow.text)


def _print_checks(choice: Choice, verdict: Verdict) -> dict[str, str]:
    """By destination, the words of its check where that failed."""
    failing = {}
    for check in run_checks(choice):
        text = Text(f"{check.what}: {check.words}")
        if check.passed:
            verdict.good(text)
        else:
            verdict.problem(text)
            failing[check.destination] = check.words
    return failing


def _print_spool(folders: Sequence[FolderReport], failing: Mapping[str, str], verdict: Verdict) -> None:
    for folder in folders:
        waits = f"{folder.waiting.sentence}, {size_text(folder.size_bytes)}"
        state = "in use" if folder.owners else "current" if folder.current else "not in use"
        line = Text("spool folder ") + Text(folder.path.name, "bold") + f" for {folder.destination}: {state}, "
        verdict.line(line + (waits if folder.waiting.segments else "nothing waits"))
        for found in findings(folder, time.time_ns(), failing):
            if found.failed:
                verdict.problem(found.text, indent="  ")
            elif found.warns:
                verdict.note(found.text, indent="  ")
            else:
                verdict.line(found.text, indent="  ")


def _print_settings(config: SidecarConfig, show_all: bool, out: Console) -> None:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column("setting", no_wrap=True)
    grid.add_column("value", overflow="fold", ratio=1)
    grid.add_column("source", no_wrap=True)
    for name in type(config).model_fields:
        source = config.sources.get(name)
        if source is not None or show_all:
            value = _setting_text(config, name)
            grid.add_row(name, Text(value), Text(source or "default", "" if source else "dim"))
    for name, value in sorted({**_otel_variables(os.environ), **_vendor_variables(config, os.environ)}.items()):
        grid.add_row(name, Text(value), "environment")
    out.print()
    if grid.row_count:
        out.print(grid)
    if not show_all:
        print_line(out, "all other settings have their defaults (infertap doctor --all)", style="dim")


def _setting_text(config: SidecarConfig, name: str) -> str:
    value = getattr(config, name)
    if isinstance(value, str) and not type(config).model_fields[name].repr:
        return "(set, not shown)"
    return without_secrets(shown(value))


def _vendor_variables(config: SidecarConfig, environ: Mapping[str, str]) -> dict[str, str]:
    if config.platform is None:
        return {}
    platform = PLATFORMS[config.platform]
    keys = {name: "(set, not shown)" for name in platform.secrets if environ.get(name)}
    return {name: without_secrets(environ[name]) for name in platform.variables if environ.get(name)} | keys


def _otel_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Header values are credentials more often than not, under a misspelt name, too."""
    slips = misspelt(environ)
    return {
        name: "(set, not shown)" if name.endswith("_HEADERS") else without_secrets(value)
        for name, value in environ.items()
        if name.startswith(_OTEL_PREFIXES) and value and name not in slips
    }
