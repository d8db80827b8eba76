"""`infertap serve`: the sidecar."""

import os
from collections.abc import Sequence
from pathlib import Path

from infertap.choice import with_settings
from infertap.config import Config
from infertap.errors import ConfigError
from infertap.otel_env import OtelEnvironment
from infertap_sidecar.flags import add_config_file, add_settings, make_parser, read_settings
from infertap_sidecar.settings import ServeConfig

_DESCRIPTION = """\
Stands before a model server, passes every request on untouched and records it.

  infertap serve --upstream http://127.0.0.1:8000

Every flag is also a variable (--tables is INFERTAP_TABLES) and a TOML key (tables);
a flag beats a variable beats the file. OTEL_* variables count as everywhere.\
"""


def main(argv: Sequence[str]) -> int:
    """Serve until a signal. Raises: ConfigError before anything is started."""
    parser = make_parser("serve", _DESCRIPTION)
    parser.usage = "infertap serve --upstream URL [--SETTING VALUE ...]"
    add_config_file(parser)
    own = [name for name in ServeConfig.model_fields if name not in Config.model_fields]
    add_settings(parser, ServeConfig, own, "proxy")
    add_settings(parser, ServeConfig, Config.model_fields, "recording")
    try:
        config = read_settings(ServeConfig, parser, argv)
    except ConfigError as error:
        raise ConfigError([*error.problems, *_otel_problems()]) from None
    otel = with_settings(OtelEnvironment.read(os.environ), config, cwd=Path.cwd())
    if otel.problems:
        # What the platform lacks would be said by `choose`, but only in the next start.
        lacks = otel.platform_problems if config.destination not in ("table", "none") else ()
        raise ConfigError([*lacks, *otel.problems])
    # Servers and the recorder are loaded only once it is clear that they will run.
    from infertap_sidecar.app import serve

    return serve(config)


def _otel_problems() -> Sequence[str]:
    """Mistakes in `OTEL_*`, said together with those in the settings: one start shows the whole list."""
    otel = OtelEnvironment.read(os.environ)
    return otel.problems if otel.endpoint_variable is not None and otel.exporter_off_variable is None else ()
