"""`infertap maintain`: compacts the tables and clears away what no reader needs; safe beside writers."""

import sys
from collections.abc import Sequence

from infertap.clock import SystemClock
from infertap_sidecar.flags import make_parser
from infertap_sidecar.interrupts import ctrl_c_ends_the_process
from infertap_sidecar.target import add_table_settings, table_target

_DESCRIPTION = """\
Compacts small files, writes a checkpoint, cleans up log and dead files. Safe beside writers, and
safe to run twice: one maintainer works per table and hour. A local root does this by itself.\
"""


def main(argv: Sequence[str]) -> int:
    """Maintain all tables of a root and say what was done. Raises: ConfigError, RetryableError."""
    parser = make_parser("maintain", _DESCRIPTION)
    parser.add_argument("--force", action="store_true", help="also where it was done within this hour")
    add_table_settings(parser)
    target = table_target(parser, argv, own=("force",))
    arguments = parser.parse_args(argv)

    from infertap.tables.maintenance import TableReport, maintain

    def words(report: TableReport) -> str:
        if not report.exists:
            return "does not exist yet"
        if not report.elected:
            return "was maintained within this hour (--force does it again)"
        if not report.files_removed and not report.files_vacuumed:
            return "nothing to compact"
        vacuumed = "" if report.files_vacuumed is None else f", {report.files_vacuumed} dead files deleted"
        return f"{report.files_removed} files became {report.files_added}{vacuumed}"

    with ctrl_c_ends_the_process():
        reports = maintain(target, now_ns=SystemClock().wall_ns(), force=arguments.force)
    for report in reports:
        print(f"{report.table:<10} {words(report)}", file=sys.stdout)
    return 0
