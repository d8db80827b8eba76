"""The engine's errors in plain words."""

import pytest

from infertap.tables.sql_errors import missing_table, plain

TABLES = ("inference", "spans", "ledger")
FIELDS = "\nValid fields are inference.path, inference.status_code, inference.duration_ns, s.trace_id."


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            f"Schema error: No field named stats_code. Did you mean 'inference.status_code'?{FIELDS}",
            "there is no column `stats_code`; did you mean `status_code`?",
        ),
        (
            f"Schema error: No field named status.{FIELDS}",
            "there is no column `status`; did you mean `status_code`?",
        ),
        (
            f'Schema error: No field named "Path".\nColumn names are case sensitive. Use quotes.{FIELDS}',
            "there is no column `Path`; did you mean `path`?",
        ),
        (
            f"Schema error: No field named s.trace. Did you mean 's.trace_id'?{FIELDS}",
            "there is no column `s.trace`; did you mean `trace_id`?",
        ),
        (
            f"Schema error: No field named zzz.{FIELDS}",
            "there is no column `zzz`; DESCRIBE with the name of a table lists them all",
        ),
        (
            "Error during planning: table 'datafusion.public.inferenc' not found",
            "there is no table `inferenc`; did you mean `inference`?",
        ),
        (
            "Error during planning: table 'datafusion.other.t' not found",
            "there is no table `other.t`; the tables are inference, spans and ledger",
        ),
        (
            "Error during planning: Invalid function 'foo'.\nDid you mean 'floor'?",
            "there is no function `foo`; did you mean `floor`?",
        ),
        (
            'SQL error: ParserError("Expected: ), found: FROM at Line: 1, Column: 19")',
            "this SQL is not understood at line 1, column 19: expected ), found FROM",
        ),
        (
            'SQL error: ParserError("Expected: an expression, found: EOF")',
            "this SQL is not understood: expected an expression, the statement ends",
        ),
        (
            'Error during planning: Expanding, column "inference.path" must appear in the GROUP BY clause',
            "column `path` must be in GROUP BY, or inside an aggregate function",
        ),
        (
            (
                "Error during planning: Function 'sum' failed.\nThis issue was likely caused by a bug. No function "
                "matches the given name and argument types 'sum(Utf8View)'.\n\tCandidate functions:"
            ),
            "no function takes these types: sum(Utf8View); a CAST may help",
        ),
        (
            "Optimizer rule 'simplify_expressions' failed\ncaused by\nArrow error: Cast error: Cannot cast string 'x'",
            "Cannot cast string 'x'",
        ),
        ("External error: Arrow error: Divide by zero error", "Divide by zero error"),
        ("x" * 1000, "x" * 400 + " …"),
    ],
)
def test_a_message_becomes_one_sentence(message: str, words: str) -> None:
    """What is wrong, the nearest name where there is one, and none of the engine's layers."""
    assert plain(message, tables=TABLES) == words


def test_a_missing_table_is_named() -> None:
    """Only where that is the trouble."""
    assert missing_table("Error during planning: table 'datafusion.public.spans' not found") == "spans"
    assert missing_table("External error: Arrow error: Divide by zero error") is None
