"""CSV: columns whose header is a secret's name."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.bodies import REQUEST, BodyProcessor
from infertap.processors.media import Kind, parse_media_type
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_REDACTOR = Redactor(SecretNames(["patient_id"]))
_SECRET = "Hunter2-tr0ub4dor"


def _redact(text: str) -> tuple[str, int]:
    return _REDACTOR.body(text, Kind.DELIMITED)


@pytest.mark.parametrize(
    ("text", "shown", "hits"),
    [
        ("user,password\nbob,§\namy,§\n", f"user,password\nbob,{MARK}\namy,{MARK}\n", 2),
        ("user;Api Key;a\r\nbob;§;1,5\r\n", f"user;Api Key;a\r\nbob;{MARK};1,5\r\n", 1),
        ("\ufeffpatient_id\tx\n§\t1", f"patient_id\tx\n{MARK}\t1\n", 1),
        ('"a","jwt"\n"x, y","§ ""§"", §\n§"\nz,\n', f'a,jwt\n"x, y",{MARK}\nz,\n', 1),
        ("password\n§\n", f"password\n{MARK}\n", 1),
        ("url,b\nhttps://u:§@h/x,1\n", f"url,b\nhttps://{MARK}@h/x,1\n", 1),
    ],
)
def test_the_column_goes_and_the_others_stay(text: str, shown: str, hits: int) -> None:
    """Whatever separates the cells; what is a secret by its shape goes in any column."""
    assert _redact(text.replace("§", _SECRET)) == (shown, hits)


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "a,b\n1,2,3\n'x,\"", "password,b\n,1\n", f"password,b\n{MARK},1", "1.5,2,3"]
)
def test_where_there_is_no_secret_the_exact_text_stays(text: str) -> None:
    """Also where it is no good table."""
    assert _redact(text) == (text, 0)


@pytest.mark.parametrize(
    "text",
    ["a,password\nx,pa,Hunter2\n", 'a,password\nx,"Hunter2', 'a,password\nx,"Hun"ter2\n', f"password\n{'x' * 200_000}"],
)
def test_a_table_with_secrets_that_cannot_be_read_is_withheld(text: str) -> None:
    """Too many cells, cut off within quotes, quotes in the middle, a cell without end."""
    stored = BodyProcessor(_REDACTOR, 1 << 20).store(text.encode(), parse_media_type("text/csv"), None, REQUEST)
    assert (stored.text, stored.code) == (None, "REQUEST_REDACTION_FAILED")


@given(
    rows=st.lists(
        st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=6), min_size=2, max_size=2),
        max_size=4,
    ),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_no_planted_secret_survives(rows: list[list[str]], delimiter: str, quoting: int) -> None:
    """Whatever stands beside it."""
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=quoting).writerows(  # type: ignore[arg-type]
        [["a", "password", "b"], *([a, f"{b}{_SECRET}\n{b}", b] for a, b in rows)]
    )
    shown, hits = _redact(out.getvalue())
    assert _SECRET not in shown
    assert hits >= len(rows)
