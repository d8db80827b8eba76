"""`infertap maintain`: compacts the tables and clears away what no reader needs; safe beside writers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infertap.clock import SystemClock
from infertap.words import plural
from infertap_sidecar.flags import make_parser
from infertap_sidecar.interrupts import ctrl_c_ends_the_process
from infertap_sidecar.places import short, size_text
from infertap_sidecar.target import add_table_settings, read_asked

if TYPE_CHECKING:
    from infertap.tables.maintenance import TableReport

_DESCRIPTION = """\
Compacts small files, writes a checkpoint, cleans up log and dead files, and says what it did. Safe
beside writers, and safe to run twice: one maintainer works per table and hour. A local root does
this by itself; a shared one, in a bucket, wants it once an hour.

  infertap maintain --tables s3://bucket/tables\
"""


def main(argv: Sequence[str]) -> int:
    """Maintain all tables of a root and say what was done. Raises: ConfigError, RetryableError."""
    parser = make_parser("maintain", _DESCRIPTION)
    parser.add_argument("--force", action="store_true", help="also where it was done within this hour")
    add_table_settings(parser)
    target = read_asked(parser, argv, own=("force",)).tables
    arguments = parser.parse_args(argv)

    from infertap.tables.maintenance import maintain

    with ctrl_c_ends_the_process():
        reports = maintain(target, now_ns=SystemClock().wall_ns(), force=arguments.force)
    if not any(report.exists for report in reports):
        print(f"there are no tables in {short(target.uri)} yet")
        return 0
    for report in reports:
        print(f"{report.table:<10} {_words(report)}")
    return 0


def _words(report: "TableReport") -> str:
    if not report.exists:
        return "does not exist yet"
    if not report.elected:
        return "was maintained within this hour (--force does it again)"
    left = f"{plural(report.files, 'file')}, {size_text(report.size_bytes)}"
    done = f"nothing to compact: {left}"
    if report.files_removed:
        became = f"{plural(report.files_removed, 'file')} ({size_text(report.bytes_removed)}) became"
        done = f"{became} {report.files_added:,} ({size_text(report.bytes_added)}); the table has {left}"
    if report.files_vacuumed:
        done += f"; {plural(report.files_vacuumed, 'dead file')} deleted"
    return done
