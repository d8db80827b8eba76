"""Values whose name is a value beside them, in text that no parser reads."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.media import Kind
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_REDACTOR = Redactor(SecretNames(["patient_id"]))
_SECRET = "Hunter2-tr0ub4dor"


_QUOTED = (
    '{"env":[{"name":"API_KEY","value":"§"}],"x":',
    '{"env":[{"name":"API_KEY","value":"§"',
    '[{"value":"§","name":"jwt"},{"name":"a","value":"b"}',
    '{"name":"jwt","x":{"value":"b"},"t":"}","value":"§","c":1',
    '{"name":"jwt","t":"say \\"hi\\" }","value":"§"',
    '{"name": "authorization", "value": "§"',
    'log: {"name": "jwt", "value": "§"} {"name":"a","value":"b"}',
    "got {'value': '§', 'name': 'jwt'} and {'value': 'b'}",
    "{b'name': b'jwt', b'value': b'§', b'x': b'b'}",
    "[{'Key': 'ApiKey', 'Value': '§'}, {'Key': 'a', 'Value': 'b'}]",
    '{"a":[\n{\n"value":"§",\n"name":"patient_id"\n},\n{\n"value":"b"}',
    '- "name": "jwt"\r\n  "value": "§"\r\n- "value": "b"',
    'env {\n  name  = "jwt"\n  value = "§"\n}\nenv {\n  value = "b"\n}',
)
_PLAIN = (
    'x {\\"name\\": \\"jwt\\", \\"value\\": \\"§\\"} b',
    "- name: A\n  value: b\n- name: DB_PASSWORD\n  value: §\n- name: C\n  value: d",
    "e:\n  - value: §\n    name: jwt\n  - value: b\n    name: c\nvalue: d",
    "- name: 'jwt'\n  value: §\n- value: b",
    "key: jwt # x\nother: a\n\nvalue: §\nb: c",
    "a:\n  name: jwt\n  value: §\nb:\n  value: c",
    "- {name: jwt, value: §, a: b}\n- {name: c, value: d}",
    "name=jwt value=§\nname=a value=b",
    "value=§ name=jwt\nvalue=b name=a",
    "#  - name: jwt\n#    value: §\n# b",
    "name: jwt, value: §",
    "<name>db.password</name><value>§</value><name>a</name><value>b</value>",
    "<p><value>§</value><x/><Name>jwt</Name></p><value>b</value>",
    "<key>Password</key>\n<string>§</string><key>a</key><string>b</string>",
    '<e:name i="1">jwt</e:name><e:value>§</e:value>b',
    '<input name=jwt value="§"><option value=b>',
    "&lt;name&gt;jwt&lt;/name&gt;&lt;value&gt;§&lt;/value&gt;b",
)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        *((text, secret) for text in _QUOTED for secret in (_SECRET, f"{_SECRET} }} {{[: <{_SECRET}")),
        *((text, secret) for text in _PLAIN for secret in (_SECRET, f"{_SECRET} {_SECRET}")),
    ],
)
def test_the_value_goes_and_its_neighbours_stay(text: str, secret: str) -> None:
    """Before or after its name, in objects, items, mappings, lines, elements; a second time there is nothing left."""
    shown = text.replace("§", MARK)
    assert _REDACTOR.text(text.replace("§", secret)) == (shown, 1)
    assert _REDACTOR.text(shown) == (shown, 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("- name: jwt\n  value: |\n    §\n\n    §\n- value: b", f"- name: jwt\n  value: {MARK}\n- value: b"),
        ('{"name":"jwt","value":{"a":"§"},"b":1', f'{{"name":"jwt","value":{MARK},"b":1'),
        ('[{"name":"password","data":["§"', f'[{{"name":"password","data":{MARK}'),
        ("<name>jwt</name><value><![CDATA[§]]></value>b", f"<name>jwt</name><value>{MARK}</value>b"),
        ("<name>jwt</name><value>§", f"<name>jwt</name><value>{MARK}"),
    ],
)
def test_a_value_of_several_lines_or_levels_goes_with_all_of_them(text: str, shown: str) -> None:
    """Blocks, objects, lists, nested elements; also where they were cut off."""
    assert _REDACTOR.text(text.replace("§", _SECRET)) == (shown, 1)


@pytest.mark.parametrize(
    "text",
    [
        "name: title\nvalue: x\nkey: a\nvalue: y",
        "- name: DB_PASSWORD\n  valueFrom:\n    secretKeyRef:\n      name: db\n      key: password\n- value: x",
        'log: {"name":"password","in":"query"}, {"value":"x"}',
        "The name: password rules of old. Its value is known.",
        "<p>name</p><name>bob</name><value>x</value><value>y</value>",
        "The key: password. And the data: they show it.",
        "Header: password rules, default: none of them",
        "hostname: password.example\ndefault: yes",
        '{"name": "password", "value": null',
    ],
)
def test_ordinary_pairs_stay(text: str) -> None:
    """Of ordinary names, of another object, or references to a secret."""
    assert _REDACTOR.text(text) == (text, 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("your OTP: 482913", f"your OTP: {MARK}"),
        ("auth=9f8a7c6b5d done in 5 ms", f"auth={MARK} done in 5 ms"),
        ('{"pin": 4821, "a": ', f'{{"pin": {MARK}, "a": '),
        ("bearer: abcdefghijklmnopqrstuvwx", f"bearer: {MARK}"),
        ("session: 9f8a7c6b\nb", f"session: {MARK}\nb"),
        ("<pin>4821</pin><auth>none</auth>", f"<pin>{MARK}</pin><auth>none</auth>"),
        ("auth: timeout, pin: 13, session: 5, bearer: of bad news, auth=ok done", None),
        ("failed auth: (401) for bob at 12:30, <auth>see below, section 12345678</auth>", None),
    ],
)
def test_words_of_several_meanings(text: str, shown: str | None) -> None:
    """In a text they name a secret only before what looks like a key."""
    assert _REDACTOR.text(text) == ((text, 0) if shown is None else (shown, 1))


_others = st.recursive(
    st.none() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    before=_others,
    between=st.dictionaries(st.text(st.characters(categories=["L"]), min_size=1, max_size=5), _others, max_size=2),
    name=st.sampled_from(["API_KEY", "db.password", "patient_id", "authorization"]),
    words=st.sampled_from([("name", "value"), ("key", "value"), ("Name", "Value"), ("name", "data")]),
    around=st.sampled_from([lambda s: s, lambda s: [s], lambda s: {"x": [1, {"y": s}]}]),
    indent=st.sampled_from([None, 2]),
    cut=st.integers(0, 400),
)
def test_a_pair_in_a_document_that_was_cut_anywhere_is_redacted(
    before: Any, between: dict[str, Any], name: str, words: tuple[str, str], around: Any, indent: int | None, cut: int
) -> None:
    """Wherever the client stopped sending."""
    pair = {words[0]: name, **between, words[1]: around(_SECRET)}
    text = json.dumps({"before": before, "pairs": [pair], "after": [before]}, indent=indent)[: cut + 1]
    for kind in (Kind.JSON, Kind.TEXT):
        assert _SECRET not in _REDACTOR.body(text, kind)[0]


@given(
    names=st.lists(st.sampled_from(["PORT", "API_KEY", "HOST", "db-password"]), max_size=6),
    first=st.booleans(),
    quote=st.sampled_from(["", '"', "'"]),
    indent=st.integers(0, 3),
)
def test_in_a_manifest_the_secret_values_go_and_only_they(
    names: list[str], first: bool, quote: str, indent: int
) -> None:
    """Whatever the order of items, and of name and value in them."""
    items = [
        (name, f"{'secret' if name in ('API_KEY', 'db-password') else 'plain'}{at}") for at, name in enumerate(names)
    ]
    lines = ["env:"]
    for name, value in items:
        pair = [f"name: {quote}{name}{quote}", f"value: {quote}{value}{quote}"]
        lines += [
            f"{' ' * indent}{mark} {line}" for mark, line in zip("- ", pair if first else pair[::-1], strict=True)
        ]
    shown = _REDACTOR.text("\n".join([*lines, "end: 1"]))[0]
    assert "secret" not in shown
    assert [value for _, value in items if value.startswith("plain") and value not in shown] == []
