"""`infertap doctor`: where records go and why, whether they can get there, and what waits."""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infertap.choice import Choice, choose
from infertap.otel_env import OtelEnvironment
from infertap.platforms import PLATFORMS
from infertap.spool.accounts import read_ledger
from infertap.spool.folder import SpoolFolder
from infertap.targets import OtlpLimits
from infertap_sidecar.checks import run_checks
from infertap_sidecar.flags import add_config_file, add_settings, make_parser, read_settings, shown
from infertap_sidecar.interrupts import ctrl_c_ends_the_process
from infertap_sidecar.own_endpoint import refuse_own_endpoint, unset_own_endpoints
from infertap_sidecar.places import size_text, without_secrets
from infertap_sidecar.settings import SidecarConfig
from infertap_sidecar.spool_survey import FolderReport, survey

_DESCRIPTION = """\
Says which destination is used and why, where each setting comes from, whether the destination
can be written or reached, and what waits in the spool. Takes the same variables, file and flags
as serve. Exit code 1 if something does not work.

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

_MLFLOW_EXPORTS = (
    "MLflow is installed here and exports its own spans to that endpoint by itself: infertap neither redacts, spools "
    "nor re-sends them; point it at `infertap collect` to have that (docs/joining.md)"
)


def main(argv: Sequence[str]) -> int:
    """Print the findings; 1 if a check failed. Raises: ConfigError."""
    parser = make_parser("doctor", _DESCRIPTION)
    parser.add_argument("--all", action="store_true", help="also settings that have their default")
    add_config_file(parser)
    add_settings(parser, SidecarConfig, SidecarConfig.model_fields, "settings")
    config = read_settings(SidecarConfig, parser, argv, own=("all",))
    show_all: bool = parser.parse_known_args(argv)[0].all
    environ = dict(os.environ)
    own_endpoints = unset_own_endpoints(environ, config.receiver_addresses)
    choice = choose(config, OtelEnvironment.read(environ), cwd=Path.cwd())
    refuse_own_endpoint(choice, config.receiver_addresses)

    out = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100, highlight=False, soft_wrap=True)
    _print_choice(choice, config, out)
    for line in own_endpoints:
        out.print(Text(f"! {line}", "yellow"))
    if mlflow_exports(OtelEnvironment.read(environ)):
        out.print(Text(f"! {_MLFLOW_EXPORTS}", "yellow"))
    with ctrl_c_ends_the_process():
        passed = _print_checks(choice, out)
    folders = survey({choice.spool_dir, Path.cwd() / ".infertap_spool", *_local_spool(config)}, choice)
    _print_spool(folders, out)
    _print_settings(config, show_all, out)
    return 0 if passed else 1


def mlflow_exports(otel: OtelEnvironment) -> bool:
    """Whether an app in this environment that uses MLflow sends its spans past infertap."""
    off = otel.exporter_off_variable is not None or otel.mlflow_exporter_off
    return otel.endpoint_variable is not None and not off and find_spec("mlflow") is not None


def _local_spool(config: SidecarConfig) -> list[Path]:
    """Where records waited while a local table was the destination."""
    return [] if "://" in config.tables else [Path(config.tables).expanduser() / ".spool"]


def _print_choice(choice: Choice, config: SidecarConfig, out: Console) -> None:
    out.print(Text(choice.start_line(config.content), "bold"))
    for warning in (choice.conflict, *choice.warnings):
        if warning:
            out.print(Text(f"! {warning}", "yellow"))
    if choice.targets.otlp is not None and (limits := _limits(choice.targets.otlp.limits)):
        out.print(
            f"limits of {choice.targets.otlp.platform}: {limits}; what does not fit goes by reference, or is withheld"
        )


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


def _print_checks(choice: Choice, out: Console) -> bool:
    passed = True
    for check in run_checks(choice):
        passed = passed and check.passed
        out.print(
            Text("✓ " if check.passed else "✗ ", "green" if check.passed else "red") + f"{check.what}: {check.words}"
        )
    return passed


def _print_spool(folders: Sequence[FolderReport], out: Console) -> None:
    if not folders:
        out.print("spool: nothing there yet")
        return
    for folder in folders:
        waits = (
            f"waiting segments: {folder.segments}, {size_text(folder.size_bytes)}"
            if folder.segments
            else "nothing waits"
        )
        state = "in use" if folder.owners else "current" if folder.current else "not in use"
        out.print(
            Text("spool folder ") + Text(folder.path.name, "bold") + f" for {folder.destination}: {state}, {waits}"
        )
        for name, status in folder.drainer.destinations.items():
            if status.last_error:
                out.print(Text(f"  {name} fails: {status.last_error}", "yellow"))
        if counts := _ledger_words(folder.path):
            out.print(f"  {counts}")
        if folder.forgotten:
            out.print(Text(f"  forgotten: nobody delivers these; infertap drain {folder.path}", "yellow"))


def _ledger_words(path: Path) -> str:
    """What a folder without tables has counted; empty where a table does, or where there is nothing yet."""
    ledger = read_ledger(SpoolFolder(path))
    totals = sum(ledger.values(), Counter())
    if not totals:
        return ""
    return f"requests since {min(ledger)}: " + ", ".join(f"{name} {totals[name]:,}" for name in sorted(totals))


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
        out.print(grid, soft_wrap=False)
    if not show_all:
        out.print(Text("all other settings have their defaults (infertap doctor --all)", "dim"))


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
    """Header values are credentials more often than not."""
    return {
        name: "(set, not shown)" if name.endswith("_HEADERS") else without_secrets(value)
        for name, value in environ.items()
        if name.startswith(_OTEL_PREFIXES) and value
    }
