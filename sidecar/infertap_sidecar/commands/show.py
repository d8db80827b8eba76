"""`infertap show [REQUEST_ID]`: one request with its answer, its timing and its spans."""

import sys
from collections.abc import Sequence
from typing import Any

from infertap.errors import InfertapError
from infertap_sidecar.flags import make_parser
from infertap_sidecar.interrupts import ctrl_c_ends_the_process
from infertap_sidecar.places import short
from infertap_sidecar.target import add_table_settings, read_asked
from infertap_sidecar.terminal import console, harmless_json
from infertap_sidecar.width import WIDTH_MAX

_DESCRIPTION = """\
Shows everything that was recorded about one request: what went in, what came out, its spans.
Without an id: the newest request.

  infertap show
  infertap show 0193e0a2-7c1e           enough where no other id begins so
  infertap show 4bf92f3577b34da6a3ce929d0e0e4736           a trace id\
"""
_NEWEST = "SELECT request_id, request_time, status_code, path FROM inference ORDER BY request_time DESC LIMIT 10"


def main(argv: Sequence[str]) -> int:
    """Print one request. Raises: ConfigError, QueryError, InfertapError where there is none of that id."""
    parser = make_parser("show", _DESCRIPTION)
    help_ = "request_id or trace_id of a row, or the beginning of it; default: the newest request"
    parser.add_argument("request_id", metavar="REQUEST_ID", nargs="?", help=help_)
    parser.add_argument("--json", action="store_true", help="row and spans as one JSON object, with nothing left out")
    parser.add_argument("--raw", action="store_true", help="an event stream as it was sent, not put together")
    add_table_settings(parser)
    asked = read_asked(parser, argv, own=("request_id", "json", "raw"))
    arguments = parser.parse_args(argv)

    from infertap.tables.lookup import lookup
    from infertap_sidecar.undelivered import read_tables, say

    with ctrl_c_ends_the_process():
        found, undelivered = read_tables(asked, lambda tables: lookup(tables, arguments.request_id))
    if found.inference is None and not found.spans:
        raise InfertapError(_nothing_found(arguments.request_id, short(asked.tables.uri), undelivered))
    if arguments.request_id is None:
        say("show", [f"there may be newer ones: {sentence}" for sentence in undelivered])
    if arguments.json:
        _print_json(found._asdict())
    else:
        from infertap_sidecar.request_view import print_request

        print_request(found.inference, found.spans, console(sys.stdout, width_max=WIDTH_MAX), raw=arguments.raw)
    return 0


def _nothing_found(request_id: str | None, place: str, undelivered: Sequence[str]) -> str:
    if request_id is None:
        return "; ".join([f"there is no request in {place} yet", *undelivered])
    waits = "; ".join(undelivered) or "a new one appears with the next commit"
    return f'there is no request {request_id} in {place} ({waits}); the newest ones: infertap query "{_NEWEST}"'


def _print_json(found: dict[str, Any]) -> None:
    import orjson

    text = orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    print(harmless_json(text) if sys.stdout.isatty() else text)
