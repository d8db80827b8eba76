"""`infertap query SQL`: the tables in SQL, as a table for people or a format for programs."""

import sys
from collections.abc import Sequence

from infertap_sidecar.flags import make_parser
from infertap_sidecar.interrupts import ctrl_c_ends_the_process
from infertap_sidecar.target import add_table_settings, read_asked

_DESCRIPTION = """\
Asks the tables inference, spans and ledger. One reading statement: SELECT, WITH or EXPLAIN;
SHOW TABLES and DESCRIBE inference say what there is.

  infertap query "SELECT path, count(*) AS requests,
                    approx_percentile_cont(duration_ns, 0.95) / 1e6 AS p95_ms
                  FROM inference GROUP BY path"
  infertap query "SELECT * FROM inference" --format parquet > inference.parquet

What they hold: docs/tables.md.\
"""
FORMATS = ("table", "jsonl", "csv", "parquet")


def main(argv: Sequence[str]) -> int:
    """Print the result. Raises: ConfigError, QueryError, RetryableError."""
    parser = make_parser("query", _DESCRIPTION)
    parser.add_argument("sql", metavar="SQL", help="the statement; - reads it from standard input")
    parser.add_argument("--format", choices=FORMATS, default=None, help="default: table on a terminal, else jsonl")
    add_table_settings(parser)
    asked = read_asked(parser, argv, own=("sql", "format"), stray="put the statement in quotes")
    arguments = parser.parse_args(argv)

    from infertap.tables.query import query
    from infertap_sidecar import output
    from infertap_sidecar.undelivered import read_tables, say

    sql = sys.stdin.read() if arguments.sql == "-" else arguments.sql
    with ctrl_c_ends_the_process():
        result, undelivered = read_tables(asked, lambda tables: query(tables, sql))
    say("query", undelivered)
    kind = arguments.format or ("table" if sys.stdout.isatty() else "jsonl")
    writers = {
        "table": output.write_table,
        "jsonl": output.write_jsonl,
        "csv": output.write_csv,
        "parquet": output.write_parquet,
    }
    writers[kind](result, sys.stdout)
    return 0
