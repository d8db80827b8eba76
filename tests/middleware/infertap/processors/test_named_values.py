"""Values found by the name before them, in text that no parser reads."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.named_values import redact_named_values
from infertap.processors.secret_names import MARK, SecretNames

_NAMES = SecretNames(["patient_id"])
_SECRET = "Hunter2-tr0ub4dor"


def _redact(text: str) -> tuple[str, int]:
    return redact_named_values(text, _NAMES.in_text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"jwt": "S", "a": 1', f'{{"jwt": "{MARK}", "a": 1'),
        ('{"jwt": "S', f'{{"jwt": "{MARK}'),
        ('{"jwt": "S\\" S\\\\", "a": 1', f'{{"jwt": "{MARK}", "a": 1'),
        ('{"ssn": 123, "a": 1', f'{{"ssn": {MARK}, "a": 1'),
        ('{"credentials": {"u": "S}", "v": ["S"]}, "a": 1', f'{{"credentials": {MARK}, "a": 1'),
        ('{"patient_id": ["S", "S', f'{{"patient_id": {MARK}'),
        ('{"\\u0070atient_id": "S"', f'{{"\\u0070atient_id": "{MARK}"'),
        ("{'jwt': 'S', 'a': True}", f"{{'jwt': '{MARK}', 'a': True}}"),
        ('{\\"jwt\\": \\"S\\\\\\"S\\", \\"a\\"', f'{{\\"jwt\\": \\"{MARK}\\", \\"a\\"'),
        ("jwt: S\na: 1", f"jwt: {MARK}\na: 1"),
        ("x, PATIENT-ID = S; a = 1", f"x, PATIENT-ID = {MARK}; a = 1"),
        ("{b'jwt': b'S', b'a': 1}", f"{{b'jwt': b'{MARK}', b'a': 1}}"),
        ("[(b'cookie', b'a=S'), (b'a', b'b')]", f"[(b'cookie', b'{MARK}'), (b'a', b'b')]"),
        ('{"user\'s password": "S", "a": 1', f'{{"user\'s password": "{MARK}", "a": 1'),
        ('{"my\\"password": "S", "a": 1', f'{{"my\\"password": "{MARK}", "a": 1'),
        ("credentials={'u': 'a}b', 'p': 'S'}, a=1", f"credentials={MARK}, a=1"),
        ("a: 1\npassword: correct horse S staple\nb: 2", f"a: 1\npassword: {MARK}\nb: 2"),
        ("a: 1\r\npassword: S S\r\nb: 2", f"a: 1\r\npassword: {MARK}\r\nb: 2"),
        ("password: |\n  S\n\n  S\nb: 2", f"password: {MARK}\nb: 2"),
        ("a:\n  - password: >-\n      S\n    b: 2", f"a:\n  - password: {MARK}\n    b: 2"),
        ('  "password": |\n    S\n  "b": 2', f'  "password": {MARK}\n  "b": 2'),
        ("password: S\n  S\nb: 2", f"password: {MARK}\nb: 2"),
        ("credentials:\n  user: S\n  more: S\nb: 2", f"credentials:{MARK}\nb: 2"),
        ("secrets:\n- S\n- S\nb: 2", f"secrets:{MARK}\nb: 2"),
        ("API key:\n\nS\n\nb", f"API key:{MARK}\n\nb"),
        ('password: "S S" # b', f'password: "{MARK}" # b'),
        ("password: 'it''s S'\nb: 2", f"password: '{MARK}'\nb: 2"),
        ("password: {S} S\nb: 2", f"password: {MARK}\nb: 2"),
        ("password = S S\nb = 2", f"password = {MARK}\nb = 2"),
        ('password = """\nS\n"""\nb = 2', f'password = """{MARK}"""\nb = 2'),
        ("password = 'S' 'S'", f"password = '{MARK}'"),
        ("password='S'$S", f"password='{MARK}"),
        ("login failed: password=S S user=b", f"login failed: password={MARK} user=b"),
        ("db=x;Password=S S;Database=y", f"db=x;Password={MARK};Database=y"),
        ("{password: S, a: 1}", f"{{password: {MARK}, a: 1}}"),
        ("'password' => 'S', 'a' => 1", f"'password' => '{MARK}', 'a' => 1"),
        (':password=>"S", :a=>1', f':password=>"{MARK}", :a=>1'),
        ("password := S", f"password := {MARK}"),
        ("export API_KEY=S", f"export API_KEY={MARK}"),
        ("your api key: S", f"your api key: {MARK}"),
        ("token[0]=S a=1", f"token[0]={MARK} a=1"),
        ("user[password]=S a=1", f"user[password]={MARK} a=1"),
        ("密码：S", f"密码：{MARK}"),
        ("pass\u200bword: S", f"pass\u200bword: {MARK}"),
        ("serve --api-key S --port 1", f"serve --api-key {MARK} --port 1"),
        ("serve --password='S S' -v", f"serve --password='{MARK}' -v"),
        ("Authorization: Digest a=S,\r\n  b=S\r\nHost: h", f"Authorization: {MARK}\r\nHost: h"),
    ],
)
def test_the_value_goes_and_all_the_rest_stays(text: str, shown: str) -> None:
    """In cut-off JSON, in JSON inside text, in Python's own notation and in YAML."""
    assert _redact(text.replace("S", _SECRET)) == (shown, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"password": null, "jwt": "", "a": "b"',
        f'{{"jwt": "{MARK}", "ssn": {MARK}',
        '{"max_tokens": 5, "author": "me"',
        "jwt: \nnext: 1",
        "",
    ],
)
def test_what_holds_nothing_stays(text: str) -> None:
    """Null, empty, redacted before, or of an ordinary name."""
    assert _redact(text) == (text, 0)


_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(
    before=_documents,
    name=st.sampled_from(["password", "client_secret", "patient-id", "JWT", "credentials"]),
    around=st.sampled_from([lambda s: s, lambda s: [s], lambda s: {"x": [1, {"y": s}]}]),
    indent=st.sampled_from([None, 2]),
    cut=st.integers(0, 400),
)
def test_a_secret_in_a_document_that_was_cut_anywhere_is_gone(
    before: Any, name: str, around: Any, indent: int | None, cut: int
) -> None:
    """Wherever the client stopped reading."""
    text = json.dumps({"before": before, name: around(_SECRET), "after": [before]}, indent=indent)[: cut + 1]
    assert _SECRET not in _redact(text)[0]


@given(
    words=st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8), min_size=1, max_size=5),
    name=st.sampled_from(["password", "client_secret", "patient-id", "Api Key", "token[0]"]),
    style=st.sampled_from(
        [
            "{name}: {value}",
            "a: 1\n{name}: {value}\nb: 2",
            "a:\n  {name}: {value}\n  b: 2",
            "{name}: |\n  {value}\n  {value}\nb: 2",
            "{name} = {value}",
            "{name}={value}",
            "it says {name}: {value}",
            "<!-- {name} = {value} -->",
            "'{name}' => '{value}'",
            "x, {name}={value}",
        ]
    ),
)
def test_a_value_of_several_words_goes_with_all_of_them(words: list[str], name: str, style: str) -> None:
    """In YAML, in settings, in logs: no word of it is left."""
    planted = [f"§{word}" for word in words]
    assert "§" not in _redact(style.format(name=name, value=" ".join(planted)))[0]
