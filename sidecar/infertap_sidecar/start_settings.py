"""The settings of a process that is about to record: with them, mistakes in `OTEL_*` are said, in one list."""

import argparse
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from infertap.choice import with_settings
from infertap.errors import ConfigError
from infertap.otel_env import OtelEnvironment
from infertap_sidecar.flags import C, read_settings


def read_start_settings(
    model: type[C], parser: argparse.ArgumentParser, argv: Sequence[str], *, own: Collection[str] = ()
) -> C:
    """As `read_settings`. Raises: ConfigError, also where `OTEL_*` or the platform's variables are wrong."""
    try:
        config = read_settings(model, parser, argv, own=own)
    except ConfigError as error:
        raise ConfigError([*error.problems, *_otel_problems()]) from None
    otel = with_settings(OtelEnvironment.read(os.environ), config, cwd=Path.cwd())
    if otel.problems:
        # What the platform lacks would be said by `choose`, but only in the next start.
        lacks = otel.platform_problems if config.destination not in ("table", "none") else ()
        raise ConfigError([*lacks, *otel.problems])
    return config


def _otel_problems() -> Sequence[str]:
    """Mistakes in `OTEL_*`, said together with those in the settings: one start shows the whole list."""
    otel = OtelEnvironment.read(os.environ)
    return otel.problems if otel.endpoint_variable is not None and otel.exporter_off_variable is None else ()
