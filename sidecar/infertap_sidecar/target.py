"""Which tables a reading command means: those of the settings, unless `--tables` names others; where their spool is."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from infertap.choice import choose
from infertap.errors import ConfigError
from infertap.otel_env import OtelEnvironment
from infertap.targets import TableTarget
from infertap_sidecar.flags import add_config_file, add_settings, read_settings
from infertap_sidecar.settings import SidecarConfig
from infertap_sidecar.spool_survey import known_spools


class Asked(NamedTuple):
    """What a reading command asks."""

    tables: TableTarget
    spool_dirs: frozenset[Path]
    """Where records for these tables may wait on this machine."""


def add_table_settings(parser: argparse.ArgumentParser) -> None:
    """`--config`, `--tables` and `--storage-options`."""
    add_config_file(parser)
    add_settings(parser, SidecarConfig, ("tables", "storage_options"), "which tables")


def read_asked(parser: argparse.ArgumentParser, argv: Sequence[str], own: Sequence[str], stray: str = "") -> Asked:
    """The tables' root and what belongs to it. Raises: ConfigError.

    Args:
        own, stray: See `read_settings`.
    """
    config = read_settings(SidecarConfig, parser, argv, own=own, stray=stray)
    # Read as a table destination whatever is recorded to now: the tables of last week can still be asked, and what is
    # wrong with an exporter is no matter of theirs.
    forced = SidecarConfig(tables=config.tables, storage_options=config.storage_options, destination="table")
    choice = choose(forced, OtelEnvironment.read({}), cwd=Path.cwd())
    if choice.targets.table is None:
        raise ConfigError(["tables: no tables are configured"])
    spools = known_spools(config, choice) | ({config.spool_dir.expanduser()} if config.spool_dir is not None else set())
    return Asked(choice.targets.table, frozenset(spools))
