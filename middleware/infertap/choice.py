"""The destination rule: one destination, both, or none; which one, why, and the words that say so at every start."""

import os
from dataclasses import dataclass
from pathlib import Path

from infertap.config import Config
from infertap.errors import ConfigError, OtelConfigError
from infertap.otel_env import OtelEnvironment
from infertap.targets import OtlpTarget, TableTarget, Targets
from infertap.urls import without_credentials, without_password

_TABLE_FOLDERS = ("inference", "spans", "ledger", "payloads")


@dataclass(frozen=True, slots=True)
class Choice:
    """Where records go, and what the operator is told about it."""

    kind: str
    """`table`, `otlp`, `both` or `none`."""
    targets: Targets
    spool_dir: Path
    reason: str
    """The second half of the line at start: `nothing else is set`, `OTEL_EXPORTER_OTLP_ENDPOINT is set` ..."""
    conflict: str | None = None
    """The warning that an explicitly set `tables` is not written because OTLP won."""
    warnings: tuple[str, ...] = ()
    other_spool_dirs: tuple[Path, ...] = ()
    """Where records of the same settings waited while another destination was chosen."""

    @property
    def folder(self) -> Path:
        """This destination's folder of the spool."""
        return self.spool_dir / self.targets.fingerprint(self.spool_dir)

    def start_line(self, content: str) -> str:
        """The one line at every start: where to, why, and whether bodies leave this machine."""
        if self.kind == "none":
            return f"recording nothing because {self.reason}"
        places = [_shown(target) for target in (self.targets.table, self.targets.otlp) if target is not None]
        leaves = self.targets.otlp is not None or (
            self.targets.table is not None and self.targets.table.local_path is None
        )
        if content == "metadata":
            bodies = "bodies and headers are not recorded (content=metadata)"
        else:
            bodies = f"bodies leave this machine (content={content})" if leaves else "bodies stay on this machine"
        return f"recording to {' and '.join(places)} because {self.reason}; {bodies}"


def choose(config: Config, otel: OtelEnvironment, *, cwd: Path) -> Choice:
    """Apply the rule.

    Raises:
        ConfigError: for what the variables of the setting `platform` lack or hold, and for a spool inside a table;
            with the mistakes in `OTEL_*` beside it.
        OtelConfigError: for mistakes in `OTEL_*` alone, whatever the destination; records never go elsewhere instead.
    """
    otel = with_settings(otel, config, cwd=cwd)
    table = _table_target(config, cwd)
    own = [*_place_problems(config, table, cwd), *(otel.platform_problems if _otlp_matters(config, otel) else ())]
    mistakes = otel.problems if config.destination != "none" else ()
    if own:
        raise ConfigError([*own, *mistakes], config.warnings)
    if mistakes:
        raise OtelConfigError(mistakes, config.warnings)
    kind, reason, conflict = _decide(config, otel)
    targets = Targets(
        table=table if kind in ("table", "both") else None,
        otlp=otel.otlp if kind in ("otlp", "both") else None,
    )
    warnings = [*config.warnings, *(otel.warnings if targets.otlp is not None else ())]
    if config.destination != "none":
        warnings.extend(otel.misspelt)
    if otel.without_effect and config.destination != "none":
        have = "has" if len(otel.without_effect) == 1 else "have"
        warnings.append(f"{', '.join(otel.without_effect)} {have} no effect on infertap")
    if targets.otlp is None and config.platform is not None and config.destination == "table":
        warnings.append(f"platform = {config.platform!r} has no effect, because destination = 'table'")
    if kind == "none" and config.destination != "none":
        warnings.append(f"destination = {config.destination!r} but {reason}: nothing is recorded")
    spool_dir = _spool_dir(config, targets, cwd)
    others = {_spool_dir(config, Targets(), cwd), _spool_dir(config, Targets(table=table), cwd)} - {spool_dir}
    return Choice(kind, targets, spool_dir, reason, conflict, tuple(warnings), tuple(sorted(others)))


def _place_problems(config: Config, table: TableTarget, cwd: Path) -> list[str]:
    """A spool inside a table's own folder would be swept away by the table's vacuum."""
    root = table.local_path
    if root is None or config.spool_dir is None:
        return []
    spool = Path(os.path.normpath(cwd / config.spool_dir.expanduser()))
    return [
        f"{config.where('spool_dir')}: {spool} lies inside the table {root / name}; its vacuum would delete the spool"
        for name in _TABLE_FOLDERS
        if spool == root / name or (root / name) in spool.parents
    ]


def with_settings(otel: OtelEnvironment, config: Config, *, cwd: Path) -> OtelEnvironment:
    """The environment as `platform` and `otlp_headers_file` make it read."""
    file = config.otlp_headers_file
    path = None if file is None else os.path.normpath(cwd / file.expanduser())
    return otel.with_settings(platform=config.platform, headers_file=path)


def _otlp_matters(config: Config, otel: OtelEnvironment) -> bool:
    if otel.exporter_off_variable or config.destination in ("table", "none"):
        return False
    if config.destination == "auto":
        return _meant_by(config, otel) is not None
    return True


def _meant_by(config: Config, otel: OtelEnvironment) -> str | None:
    """What says that OTLP is meant under `auto`, in words; None where nothing does."""
    if config.platform is not None:
        said = f"platform = {config.platform!r} ({config.sources.get('platform')})"
        return said if otel.endpoint_variable is None else f"{otel.endpoint_variable} (with {said})"
    return otel.endpoint_variable if not otel.mlflow_exporter_off else None


def _decide(config: Config, otel: OtelEnvironment) -> tuple[str, str, str | None]:
    """(kind, reason, conflict)."""
    off = otel.exporter_off_variable
    source = config.sources.get("destination")
    if config.destination == "none":
        return "none", f"destination = 'none' ({source})", None
    if config.destination == "table":
        return "table", f"destination = 'table' ({source})", None
    if config.destination == "otlp":
        if off:
            return "none", f"{off} switches the export off", None
        return "otlp", f"destination = 'otlp' ({source})", None
    if config.destination == "both":
        if off:
            return "table", f"destination = 'both' ({source}) and {off} switches the export off", None
        return "both", f"destination = 'both' ({source})", None
    return _decide_auto(config, otel, off)


def _decide_auto(config: Config, otel: OtelEnvironment, off: str | None) -> tuple[str, str, str | None]:
    endpoint = _meant_by(config, otel)
    tables_source = config.sources.get("tables")
    if endpoint is None or off:
        reason = f"tables is set ({tables_source})" if tables_source else "nothing else is set"
        ignored = endpoint or otel.endpoint_variable
        if ignored is not None:
            reason += f"; {ignored} does not count because of {off or 'MLFLOW_ENABLE_OTLP_EXPORTER'}"
        return "table", reason, None
    if otel.mlflow_dual_export:
        return "both", f"{endpoint} and MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT are set", None
    if tables_source is None:
        return "otlp", f"{endpoint} is set", None
    conflict = (
        f"TWO DESTINATIONS ARE SET, ONE IS USED: {endpoint} wins, and tables = {config.tables!r} ({tables_source}) "
        "is NOT written. Set destination = 'table' (INFERTAP_DESTINATION=table) to write the tables only, "
        "or destination = 'both' to write both."
    )
    return "otlp", f"{endpoint} is set", conflict


def _table_target(config: Config, cwd: Path) -> TableTarget:
    if "://" in config.tables:
        return TableTarget(config.tables.rstrip("/"), config.storage_options)
    return TableTarget(os.path.normpath(cwd / Path(config.tables).expanduser()), config.storage_options)


def _spool_dir(config: Config, targets: Targets, cwd: Path) -> Path:
    if config.spool_dir is not None:
        return Path(os.path.normpath(cwd / config.spool_dir.expanduser()))
    local = targets.table.local_path if targets.table is not None else None
    return local / ".spool" if local is not None else cwd / ".infertap_spool"


def _shown(target: TableTarget | OtlpTarget) -> str:
    """The target without credentials; a path below the working directory is shown relative to it."""
    if isinstance(target, OtlpTarget):
        return without_credentials(target.endpoint)
    local = target.local_path
    if local is None:
        return without_password(target.uri)
    try:
        return f"./{local.relative_to(Path.cwd())}"
    except ValueError:
        return str(local)
