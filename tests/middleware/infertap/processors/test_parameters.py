"""Parameters of URLs, wherever a URL stands, and pairs that `&` joins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.media import Kind
from infertap.processors.parameters import redact_parameters
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_NAMES = SecretNames(["patient_id"])
_REDACTOR = Redactor(_NAMES)
_SECRET = "Hunter2-tr0ub4dor"
_URL = "https://bucket.example/k?a=1&{}={}&b=2"
_SECRET_PARAMETERS = (
    "sig", "key", "session", "token", "access_token", "code", "X-Amz-Signature", "X-Amz-Credential",
    "X-Amz-Security-Token", "X-Goog-Signature", "AWSAccessKeyId", "api%5Fkey", "user%5Bpassword%5D", "patient_id",
    "client_secret", "SAMLResponse", "ticket", "jwt",
)  # fmt: skip


@pytest.mark.parametrize("name", _SECRET_PARAMETERS)
@pytest.mark.parametrize("text", ["{}", "cannot fetch {}", '"{}"', "<a href='{}'>x</a>", "({}) and more", "a\n{}\nb"])
def test_a_url_in_a_text_keeps_no_secret_parameter(name: str, text: str) -> None:
    """In an error's message, in HTML, alone; what stands beside it stays."""
    shown, hits = _REDACTOR.text(text.format(_URL.format(name, _SECRET)))
    assert hits == 1
    assert shown == text.format(_URL.format(name, MARK))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/cb?code=S&state=x", f"/cb?code={MARK}&state=x"),
        ("/p;jsessionid=S?a=1", f"/p;jsessionid={MARK}"),
        ("https://h/#access_token=S&a=1", f"https://h/#access_token={MARK}&a=1"),
        ("https://h/?a=1&amp;sig=S&amp;b=2", f"https://h/?a=1&amp;sig={MARK}&amp;b=2"),
        (r"https://h/?a=1\u0026sig=S\u0026b=2", rf"https://h/?a=1\u0026sig={MARK}\u0026b=2"),
        ("/go?to=https%3A%2F%2Fh%3Fsig%3DS%26a%3D1", f"/go?to=https%3A%2F%2Fh%3Fsig%3D{MARK}%26a%3D1"),
        ("/go?to=https://h?sig=S", f"/go?to=https://h?sig={MARK}"),
    ],
)
def test_however_a_url_is_written(text: str, shown: str) -> None:
    """As a path, with parameters of a path or a fragment, escaped, or inside another one."""
    assert redact_parameters(text.replace("S", _SECRET), _NAMES.in_queries) == (shown, 1)


@pytest.mark.parametrize(
    "text",
    [
        "https://h/?max_tokens=5&eos_token=x&q=key",
        f"/?sig={MARK}&key=",
        "a?b:c=d",
        "if (a&b==c) code=1",
        "status;q=0.5",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Ordinary parameters, redacted ones, and text that only looks like it."""
    assert redact_parameters(text, _NAMES.in_queries) == (text, 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a=1&ghp_abcdefghijklmnopqrstuvwx=", f"a=1&{MARK}="),
        ("ghp_abcdefghijklmnopqrstuvwx=1", f"{MARK}=1"),
        ("next=https%253A%252F%252Fh%253Fsig%253DS", f"next=https%3A%2F%2Fh%3Fsig%3D{MARK}"),
        ("next=https%3A%2F%2Fu%3AS%40h", f"next=https://{MARK}@h"),
        ("a=1#id_token=S", f"a=1#id_token={MARK}"),
    ],
)
def test_names_and_encoded_values_of_a_query(text: str, shown: str) -> None:
    """A secret may stand where a name is, and a URL may be encoded twice."""
    assert _REDACTOR.query(text.replace("S", _SECRET)) == (shown, 1)


def test_json_under_the_name_of_a_form_is_json() -> None:
    """curl sends it so, by itself; an ampersand in it cuts no secret in two."""
    text = f'{{"password":"{_SECRET}&{_SECRET}","a":"b=c"}}'
    assert _REDACTOR.body(text, Kind.FORM) == (f'{{"password":"{MARK}","a":"b=c"}}', 1)
    assert _SECRET not in _REDACTOR.body(text[:-3], Kind.FORM)[0]
    assert _SECRET not in _REDACTOR.body(f"[0]=a&api%5Fkey={_SECRET}", Kind.FORM)[0]


@given(
    before=st.text(max_size=12),
    name=st.sampled_from(_SECRET_PARAMETERS),
    lead=st.sampled_from(["?", "&", "?a=1&", ";", "#", "&amp;"]),
    value=st.text(st.characters(codec="ascii", exclude_characters="&#\"'<>\\;", categories=["L", "N", "P", "S"])),
)
def test_a_parameter_goes_with_all_its_characters(before: str, name: str, lead: str, value: str) -> None:
    """Whatever they are, and whatever stands before the URL."""
    assert _SECRET not in _REDACTOR.text(f"{before} https://h/p{lead}{name}={value}{_SECRET} after")[0]
