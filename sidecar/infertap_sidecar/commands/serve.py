"""`infertap serve`: the sidecar."""

from collections.abc import Sequence

from infertap.config import Config
from infertap_sidecar.flags import add_config_file, add_settings, make_parser
from infertap_sidecar.settings import ServeConfig
from infertap_sidecar.start_settings import read_start_settings

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
    config = read_start_settings(ServeConfig, parser, argv)
    # Servers and the recorder are loaded only once it is clear that they will run.
    from infertap_sidecar.app import serve

    return serve(config)
