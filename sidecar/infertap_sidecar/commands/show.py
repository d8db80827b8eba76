"""`infertap show REQUEST_ID`: one request with its answer, its timing and its spans."""

import sys
from collections.abc import Sequence
from typing import Any

from infertap.errors import InfertapError
from infertap_sidecar.flags import make_parser
from infertap_sidecar.interrupts import ctrl_c_ends_the_process
from infertap_sidecar.target import add_table_settings, table_target

_DESCRIPTION = """\
Shows everything that was recorded about one request.

  infertap show 0193e0a2-7c1e-7b3a-9d2f-5a6b7c8d9e0f\
"""


def main(argv: Sequence[str]) -> int:
    """Print one request. Raises: ConfigError, InfertapError where there is none of that id."""
    parser = make_parser("show", _DESCRIPTION)
    parser.add_argument("request_id", metavar="REQUEST_ID", help="the row's request_id")
    parser.add_argument("--json", action="store_true", help="row and spans as one JSON object")
    add_table_settings(parser)
    target = table_target(parser, argv, own=("request_id", "json"))
    arguments = parser.parse_args(argv)

    from infertap.tables.query import lookup

    with ctrl_c_ends_the_process():
        found = lookup(target, arguments.request_id)
    if found["inference"] is None and not found["spans"]:
        raise InfertapError(
            f"there is no request {arguments.request_id} in {target.uri} (a new one appears with the next commit)"
        )
    if arguments.json:
        _print_json(found)
    else:
        from infertap_sidecar.request_view import print_request

        print_request(found["inference"], found["spans"], sys.stdout)
    return 0


def _print_json(found: dict[str, Any]) -> None:
    import orjson

    print(orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())
