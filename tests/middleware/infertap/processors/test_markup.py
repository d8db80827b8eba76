"""XML and HTML: elements and attributes whose name is a secret's, and pairs of a name and a value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.markup import redact_markup
from infertap.processors.media import Kind
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_NAMES = SecretNames(["patient_id"])
_REDACTOR = Redactor(_NAMES)
_SECRET = "Hunter2-tr0ub4dor"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<password>S</password><a>1</a>", f"<password>{MARK}</password><a>1</a>"),
        ("<s:Password kind='x'>S</s:Password>", f"<s:Password kind='x'>{MARK}</s:Password>"),
        ("<jwt\n  a='>'\n>S</jwt>", f"<jwt\n  a='>'\n>{MARK}</jwt>"),
        ("<jwt><![CDATA[S<S]]></jwt>", f"<jwt>{MARK}</jwt>"),
        ("<jwt><![CDATA[</jwt>S]]></jwt><a/>", f"<jwt>{MARK}</jwt><a/>"),
        ("<jwt>S", f"<jwt>{MARK}"),
        ("<password><value>S</value><b/></password><a>1</a>", f"<password>{MARK}</password><a>1</a>"),
        ("<jwt><jwt>S</jwt><jwt/>S</jwt><a>1</a>", f"<jwt>{MARK}</jwt><a>1</a>"),
        ("<patient_id>S</patient_id>", f"<patient_id>{MARK}</patient_id>"),
        ('<entry key="db.password">S</entry>', f'<entry key="db.password">{MARK}</entry>'),
        ('<add key="ApiKey" value="S" a="b"/>', f'<add key="ApiKey" value="{MARK}" a="b"/>'),
        ("<input type=hidden name=csrf_token value=S>b", f'<input type=hidden name=csrf_token value="{MARK}">b'),
        ("&lt;jwt&gt;S&lt;/jwt&gt;b", f"&lt;jwt&gt;{MARK}&lt;/jwt&gt;b"),
    ],
)
def test_the_content_goes_and_all_the_rest_stays(text: str, shown: str) -> None:
    """Nested, in CDATA, with a prefix, cut off, escaped, or as a pair of attributes."""
    assert redact_markup(text.replace("S", _SECRET), _NAMES.in_text) == (shown, 1)


@pytest.mark.parametrize(
    "text",
    [
        "<author>me</author><password/><password></password><jwt a='b'/>",
        f"<jwt>{MARK}</jwt>",
        "<a name='title'>x</a> 1 < 2 > 0 <",
        '<input type="password" name="password">b',
        "&lt;p&gt;&amp;&lt;/p&gt;",
    ],
)
def test_what_holds_nothing_stays(text: str) -> None:
    """Empty, redacted before, of an ordinary name, or no markup."""
    assert redact_markup(text, _NAMES.in_text) == (text, 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('<user a="1" password="S" b="2"/>', f'<user a="1" password="{MARK}" b="2"/>'),
        ("<user x:password='S S'>c</user>", f"<user x:password='{MARK}'>c</user>"),
        ("<user api-key = 'S'>", f"<user api-key = '{MARK}'>"),
        ("<!-- password: S -->", f"<!-- password: {MARK}"),
    ],
)
def test_attributes_and_comments_are_pairs_like_any_other(text: str, shown: str) -> None:
    """The whole redaction of text finds them."""
    assert _REDACTOR.body(text.replace("S", _SECRET), Kind.TEXT) == (shown, 1)


@given(
    depth=st.integers(0, 4),
    name=st.sampled_from(["password", "ns:ApiKey", "jwt", "Client-Secret"]),
    around=st.sampled_from(["<r>{}</r>", "<?xml version='1.0'?><r a='b'>{}<c/></r>", "x {} y", "<![CDATA[{}]]>"]),
    inside=st.sampled_from(["{}", " {} ", "<![CDATA[{}]]>", "<v a='1'>{}</v>", "<!-- x -->{}", "<v/>{}<v/>"]),
    cut=st.integers(0, 200),
)
def test_no_planted_secret_survives(depth: int, name: str, around: str, inside: str, cut: int) -> None:
    """At any depth, and cut off anywhere."""
    content = inside.format(_SECRET)
    for _ in range(depth):
        content = f"<x>{content}</x>"
    text = around.format(f"<{name}>{content}</{name}>")
    assert _SECRET not in _REDACTOR.body(text, Kind.TEXT)[0]
    assert _SECRET not in _REDACTOR.body(text[: cut + 1], Kind.TEXT)[0]
