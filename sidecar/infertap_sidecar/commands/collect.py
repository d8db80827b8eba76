"""`infertap collect`: the OTLP receiver alone."""

from collections.abc import Sequence

from infertap.config import Config
from infertap_sidecar.flags import add_config_file, add_settings, make_parser
from infertap_sidecar.settings import CollectConfig
from infertap_sidecar.start_settings import read_start_settings

_DESCRIPTION = """\
Takes spans over OTLP (HTTP and gRPC) and records them. A span without a parent in its own
process that has inputs and outputs (MLflow, OpenInference, GenAI) becomes a row of `inference`.

  infertap collect --tables ./inference_tables

With neither --otlp-http nor --otlp-grpc both standard ports are opened; one given alone opens
only that one. Every flag is also a variable (--tables is INFERTAP_TABLES) and a TOML key.\
"""
_OWN = ("otlp_http", "otlp_grpc", "otlp_bytes_max", "admin", "connection_drain_s", "log_format")


def main(argv: Sequence[str]) -> int:
    """Collect until a signal. Raises: ConfigError before anything is started."""
    parser = make_parser("collect", _DESCRIPTION)
    parser.usage = "infertap collect [--SETTING VALUE ...]"
    add_config_file(parser)
    add_settings(parser, CollectConfig, _OWN, "receiver")
    add_settings(parser, CollectConfig, Config.model_fields, "recording")
    config = read_start_settings(CollectConfig, parser, argv)
    from infertap_sidecar.receiver.collector import collect

    return collect(config)
