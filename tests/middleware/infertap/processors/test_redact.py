"""Redaction of whole bodies: no planted secret survives, and what holds none stays as it was."""

import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.media import Kind
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_SECRET = "Hunter2-tr0ub4dor"


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    """With one name of the user's own."""
    return Redactor(SecretNames(["patient_id"]))


def _json(redactor: Redactor, text: str) -> tuple[str, int]:
    return redactor.body(text, Kind.JSON)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "{}",
        "[]",
        "null",
        "5",
        '"text"',
        '{"a":1,"b":[{"c":"d"}]}',
        '{"a": 1.10, "b": 1E5, "c": 1e-7}',
        '{\n  "max_tokens": 5,\n  "author": "me"\n}',
        '{"text":"he said \\"x\\": 5","a":1}',
        '{"text":"{not json}","list":"[1] a footnote"}',
        '{"a":"\\u00e9\\/"}',
        '{"arguments":"{\\"city\\": \\"Rome\\"}"}',
        '{"n":123456789012345678901234567890}',
        '{"x":NaN,"y":-Infinity}',
        '{"x":"\\ud800"}',
        '\ufeff{"a":1}',
        '{"password":null,"token":"","secret":false,"api_key":"[REDACTED]"}',
        '{"token":{"id":5,"text":" Hello"},"generated_text":null}',
        '{"logprobs":[{"token":"Hel","logprob":-0.1,"top_logprobs":[{"token":"a","logprob":-2}]}]}',
        '{"token":15,"tokens":["a","b"],"eos_token":"</s>"}',
    ],
)
def test_where_nothing_is_redacted_the_exact_text_stays(redactor: Redactor, text: str) -> None:
    """White space, number formats, escapes and all."""
    assert _json(redactor, text) == (text, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"password":"S"}', {"password": MARK}),
        ('{"a":[{"b":{"api_key":"S"}}],"c":1}', {"a": [{"b": {"api_key": MARK}}], "c": 1}),
        ('{"credentials":{"user":"S","more":["S"]}}', {"credentials": MARK}),
        ('{"secrets":["S","S"]}', {"secrets": MARK}),
        ('{"password":12345}', {"password": MARK}),
        ('{"\\u0070assw\\u006frd":"S"}', {"password": MARK}),
        ('{"Patient-ID":"S"}', {"Patient-ID": MARK}),
        ('{"token":"S"}', {"token": MARK}),
        ('{"password" : "S"}', {"password": MARK}),
    ],
)
def test_values_of_secret_names_go(redactor: Redactor, text: str, expected: Any) -> None:
    """Whatever they are, wherever they are, however the name is written."""
    shown, hits = _json(redactor, text.replace("S", _SECRET))
    assert (json.loads(shown), hits) == (expected, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"password":"S","password":null}',
        '{"password":"S","password":""}',
        '{"password":"S","password":null,"a\\\\":1}',
        '{"a":"\\\\":1,"password":"S","password":null}'.replace('"a":"\\\\":1', '"a\\\\":"\\\\"'),
        '{"password" :"S","password":null}',
        '{"x":{"jwt":"S","jwt":null}}',
        '{"arguments":"{\\"password\\":\\"S\\",\\"password\\":null}"}',
        '["{\\"password\\":\\"S\\",\\"password\\":null}"]',
        '"{\\"password\\":\\"S\\",\\"password\\":null}"',
    ],
)
def test_a_secret_cannot_hide_behind_a_repeated_key(redactor: Redactor, text: str) -> None:
    """A parser keeps the last of two equal keys; the text holds both."""
    assert _SECRET not in _json(redactor, text.replace("S", _SECRET))[0]


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\ufeff"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_json_in_strings_is_opened(redactor: Redactor, depth: int, blank: str) -> None:
    """Tool-call arguments, inside events, inside events; also where white space stands before it."""
    document: Any = {"password": _SECRET, "a": 1}
    for _ in range(depth):
        document = {"arguments": blank + json.dumps(document), "b": [2]}
    shown, hits = _json(redactor, json.dumps(document))
    assert _SECRET not in shown
    assert hits >= 1
    assert json.loads(shown)["b"] == [2]


def test_text_in_strings_stays(redactor: Redactor) -> None:
    """A prompt is what is recorded; it is not searched for patterns."""
    text = '{"prompt":"my password: is hard to guess"}'
    assert _json(redactor, text) == (text, 0)


def test_large_integers_stay_exact_beside_a_redacted_value(redactor: Redactor) -> None:
    """orjson reads those over 64 bits as floats."""
    shown, hits = _json(redactor, f'{{"id":123456789012345678901234567890,"small":-5,"password":"{_SECRET}"}}')
    assert hits == 1
    assert json.loads(shown) == {"id": 123456789012345678901234567890, "small": -5, "password": MARK}


@pytest.mark.parametrize("odd", ["NaN", '"\\ud800"', "[-Infinity]", "1" * 5_000])
def test_what_orjson_refuses_is_redacted_all_the_same(redactor: Redactor, odd: str) -> None:
    """NaN, lone surrogates, and integers too long for any parser; and the result can be stored."""
    shown, hits = _json(redactor, f'{{"x":{odd},"jwt":"{_SECRET}","ssn":"{_SECRET}"}}')
    assert _SECRET not in shown
    assert hits == 2
    assert shown.encode()


def test_a_document_nested_too_deeply_is_refused(redactor: Redactor) -> None:
    """Then the body is withheld; a moderately deep one is read."""
    deep = 900
    text = "[" * deep + '{"password":"S"}' + "]" * deep
    assert _json(redactor, text) == (text.replace("S", MARK), 1)
    assert _json(redactor, text.replace("password", "author")) == (text.replace("password", "author"), 0)
    deep = 200_000
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        with pytest.raises(RecursionError):
            _json(redactor, opening * deep + "1" + closing * deep)


def test_a_value_nested_too_deeply_goes_alone(redactor: Redactor) -> None:
    """One string, one parameter, one attribute: the rest can be read."""
    bomb = "[" * 200_000 + "]" * 200_000
    shown, hits = _json(redactor, json.dumps({"a": 1, "b": bomb}))
    assert (json.loads(shown), hits) == ({"a": 1, "b": MARK}, 1)
    assert redactor.form(f"a=1&b={bomb}") == (f"a=1&b={MARK}", 1)
    assert MARK in redactor.url(f"https://h/x?b={bomb}")[0]


@pytest.mark.parametrize("kind", [Kind.JSON, Kind.TEXT, Kind.UNKNOWN, Kind.NDJSON])
@pytest.mark.parametrize("name", ["password", "jwt", "ssn", "patient_id", "clientSecret"])
def test_broken_json_is_redacted_by_name_and_by_pattern(redactor: Redactor, kind: Kind, name: str) -> None:
    """Cut off, with a comma too many, or followed by something else; also by the user's own names."""
    for text in (
        f'{{"a": 1, "{name}": "{_SECRET}", "b": ',
        f'{{"a": 1, "{name}": "{_SECRET}',
        f'{{"a": 1, "{name}": "{_SECRET}",}}',
        f'{{"{name}": "{_SECRET}"}} trailing',
        f"{{'{name}': '{_SECRET}'}}",
        f'{{"a": "Authorization: Token {_SECRET}", ',
    ):
        shown, hits = redactor.body(text, kind)
        assert _SECRET not in shown
        assert hits >= 1


def test_json_under_another_name_is_json(redactor: Redactor) -> None:
    """Where a text begins like it."""
    text = f' \n{{"ssn":"{_SECRET}"}}'
    for kind in (Kind.TEXT, Kind.UNKNOWN, Kind.NDJSON):
        assert _SECRET not in redactor.body(text, kind)[0]
        assert _SECRET not in redactor.body(f"\ufeff{text}", kind)[0]


def test_ndjson_line_by_line(redactor: Redactor) -> None:
    """Lines without secrets stay as they are, line ends and record separators too."""
    lines = ['{"a": 1}', f'{{"jwt":"{_SECRET}"}}', "", "no json", '{"b": 2}\r', f'\x1e{{"ssn":"{_SECRET}"}}']
    shown, hits = redactor.body("\n".join(lines), Kind.NDJSON)
    assert hits == 2
    assert shown.split("\n") == [lines[0], f'{{"jwt":"{MARK}"}}', *lines[2:5], f'\x1e{{"ssn":"{MARK}"}}']


_STREAM = (
    ": hello\n\nevent: delta\nid: 1\ndata: {\"a\": 1}\n\ndata: {\"jwt\":\"S\",\"b\":\ndata: 2}\n\n"
    "data:{\"b\":2}\nretry: 5\n\ndata: [DONE]\n\n"
)  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_event_stream_event_by_event(redactor: Redactor, end: str, mark: str) -> None:
    """Data lines of one event are one document; events without secrets keep their lines."""
    stream = mark + _STREAM.replace("S", _SECRET).replace("\n", end)
    shown, hits = redactor.body(stream, Kind.EVENT_STREAM)
    assert hits == 1
    assert shown == _STREAM.replace('data: {"jwt":"S","b":\ndata: 2}', f'data: {{"jwt":"{MARK}","b":2}}')
    clean = mark + _STREAM.replace("jwt", "text").replace("\n", end)
    assert redactor.body(clean, Kind.EVENT_STREAM) == (clean, 0)


@pytest.mark.parametrize(
    "stream",
    [
        'data: {"jwt":\nid: 5\ndata: "S"}\n\n',
        'data: {"jwt":"S"}',
        'data: {"jwt":"S',
        'data: {"jwt":"S"}\rdata: {"a":1}\r\r',
        "data: password=S\n\n",
        ": Authorization: Token S\n\n",
        "id: sk-Saaaaaaaaaaaaaaaa\n\n",
        'data: {"jwt":"S","jwt":null}\n\n',
        'data\ndata: {"ssn":"S"}\n\n',
        "password=S\n\n",
    ],
)
def test_no_event_hides_a_secret(redactor: Redactor, stream: str) -> None:
    """Split over lines with fields between them, cut off, in comments, ids and unknown fields."""
    assert _SECRET not in redactor.body(stream.replace("S", _SECRET), Kind.EVENT_STREAM)[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("a=1&b=&c", "a=1&b=&c"),
        ("a=b%20c+d", "a=b%20c+d"),
        ("api_key=S&a=1", f"api_key={MARK}&a=1"),
        ("a=1&key=S&token=S", f"a=1&key={MARK}&token={MARK}"),
        ("api%5Fkey=S", f"api%5Fkey={MARK}"),
        ("user%5Bpassword%5D=S", f"user%5Bpassword%5D={MARK}"),
        ("patient+id=S", f"patient+id={MARK}"),
        ("q=%7B%22jwt%22%3A%22S%22%7D", f'q={{"jwt":"{MARK}"}}'),
        ("q=Bearer+S", f"q=Bearer {MARK}"),
        ("Bearer%20S", f"Bearer {MARK}"),
        ("password==S", f"password={MARK}"),
        ("a=1;b=2", "a=1;b=2"),
    ],
)
def test_queries_and_forms(redactor: Redactor, text: str, shown: str) -> None:
    """By the decoded name, then by what the value holds; the rest keeps its encoding."""
    text = text.replace("S", _SECRET)
    assert redactor.query(text)[0] == redactor.form(text)[0] == redactor.body(text, Kind.FORM)[0] == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("authorization", "Bearer S", MARK),
        ("x-plex-token", "S", MARK),
        ("cookie", "a=S", MARK),
        ("user-agent", "curl/8 (basic functionality)", "curl/8 (basic functionality)"),
        ("user-agent", "x Bearer S", f"x Bearer {MARK}"),
        (
            "referer",
            "https://u:S@h/p?key=S&a=1#access_token=S",
            f"https://{MARK}@h/p?key={MARK}&a=1#access_token={MARK}",
        ),
        ("location", "/cb#access_token=S", f"/cb#access_token={MARK}"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
    ],
)
def test_headers(redactor: Redactor, name: str, value: str, shown: str | None) -> None:
    """By name, as a URL where the header is one, by pattern else; a second time the answer is the same."""
    value = value.replace("S", _SECRET)
    assert redactor.field(name, value) == redactor.field(name, value)
    assert redactor.field(name, value)[0] == (value if shown is None else shown)


_names = st.sampled_from(
    ["password", "api_key", "Authorization", "client-secret", "PATIENT_ID", "refreshToken", "cookie", "jwt"]
)
_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
_documents = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def _planted(draw: st.DrawFn) -> Any:
    """A document in which every occurrence of the secret has a secret's name above it."""
    secret: Any = draw(st.sampled_from([_SECRET, [_SECRET], {"v": _SECRET}, f"x {_SECRET} y", [[], {"a": [_SECRET]}]]))
    document: Any = {**draw(st.dictionaries(st.text(max_size=8), _documents, max_size=3)), draw(_names): secret}
    for _ in range(draw(st.integers(0, 4))):
        inner = json.dumps(document) if draw(st.integers(0, 3)) == 0 else document
        document = draw(
            st.sampled_from([[inner], {"k": inner}, [1, inner, None], {"a": {"b": inner}, "c": draw(_documents)}])
        )
    return document


_dumps = st.sampled_from(
    [
        json.dumps,
        lambda document: json.dumps(document, indent=2),
        lambda document: json.dumps(document, separators=(" ,", " : ")),
        lambda document: json.dumps(document, ensure_ascii=False),
    ]
)


@given(document=_planted(), dumps=_dumps)
def test_no_planted_secret_survives_in_json(redactor: Redactor, document: Any, dumps: Any) -> None:
    """At any depth, in any notation, alone, as an event, as a line, as a field, and cut off anywhere."""
    text = dumps(document)
    for kind in (Kind.JSON, Kind.TEXT, Kind.UNKNOWN):
        shown, hits = redactor.body(text, kind)
        assert _SECRET not in shown
        assert hits >= 1
        json.loads(shown)
    line = json.dumps(document)
    for whole, kind in (
        (f"data: {line}\n\ndata: [DONE]\n\n", Kind.EVENT_STREAM),
        ("".join(f"data: {part}\r\n" for part in json.dumps(document, indent=1).split("\n")), Kind.EVENT_STREAM),
        (f'{{"a":1}}\n{line}\n{{"b":2}}', Kind.NDJSON),
        (urlencode({"a": "1", "document": line, "b": "x y"}), Kind.FORM),
    ):
        shown, hits = redactor.body(whole, kind)
        assert _SECRET not in shown
        assert hits >= 1


@given(document=_documents, dumps=_dumps)
def test_a_document_without_secrets_keeps_its_meaning(redactor: Redactor, document: Any, dumps: Any) -> None:
    """And, unless its text may hide a key, its exact text."""
    text = dumps({"data": document})
    shown, hits = redactor.body(text, Kind.JSON)
    if hits == 0:
        assert json.loads(shown) == json.loads(text)
    # Where a colon after a quote is not the end of exactly one key (":)", "a\\" or "a" :), a repeated key could hide.
    pairs: list[Any] = []
    json.loads(text, object_pairs_hook=pairs.extend)
    plain = text.count('":') - text.count('\\":') == len(pairs)
    may_hide_a_key = not plain or '\\\\":' in text or re.search(r'"\s+:', text) is not None
    if hits == 0 and not may_hide_a_key:
        assert shown == text


@given(pairs=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=12)), max_size=5), name=_names)
def test_no_planted_secret_survives_in_a_form(redactor: Redactor, pairs: list[tuple[str, str]], name: str) -> None:
    """Wherever the field stands."""
    text = urlencode([*pairs, (name, _SECRET), *pairs])
    shown, hits = redactor.body(text, Kind.FORM)
    assert _SECRET not in shown
    assert hits >= 1


@given(text=st.text(max_size=200), kind=st.sampled_from([kind for kind in Kind if kind is not Kind.MULTIPART]))
def test_no_text_is_too_odd(redactor: Redactor, text: str, kind: Kind) -> None:
    """Redaction of anything gives a text."""
    shown, hits = redactor.body(text, kind)
    assert isinstance(shown, str)
    assert hits >= 0


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Token hunter2",
        'Authorization: Digest username="u", response="hunter2"',
        "Proxy-Authorization: ApiKey hunter2",
        "Cookie: a=b; session=hunter2",
    ],
)
def test_a_credential_header_in_a_text_goes_to_the_end_of_its_line(redactor: Redactor, text: str) -> None:
    """Whatever the scheme is called, and however many pairs follow."""
    shown, hits = redactor.body(f"{text}\nnext: stays", Kind.TEXT)
    assert "hunter2" not in shown
    assert hits == 1
    assert shown.endswith("\nnext: stays")


@pytest.mark.parametrize("text", ['{"token":{"value":"hunter2"}}', '{"token":["hunter2"]}', '{"openai_key":"hunter2"}'])
def test_a_secret_in_a_container_goes_with_it(redactor: Redactor, text: str) -> None:
    """A token is one in an object or a list, too; numbers and TGI's token objects are a model's."""
    shown, hits = redactor.body(text, Kind.JSON)
    assert "hunter2" not in shown
    assert hits == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"url":"https://b/x?X-Amz-Signature=§&a=1"}', f'{{"url":"https://b/x?X-Amz-Signature={MARK}&a=1"}}'),
        ('{"url":"https://u:§@b/x"}', f'{{"url":"https://{MARK}@b/x"}}'),
        ('{"env":[{"name":"DB_PASSWORD","value":"§"}]}', f'{{"env":[{{"name":"DB_PASSWORD","value":"{MARK}"}}]}}'),
        ('{"key":"http.request.header.cookie","value":{"s":"§"}}', None),
        ('{"headers":[["Authorization","§"],["a","b"]]}', f'{{"headers":[["Authorization","{MARK}"],["a","b"]]}}'),
        ('{"w":"https://hooks.slack.com/services/T0/B0/§"}', f'{{"w":"https://hooks.slack.com/{MARK}"}}'),
        (
            '{"w":"https:\\/\\/discord.com\\/api\\/webhooks\\/1\\/§"}',
            f'{{"w":"https://discord.com/api/webhooks/{MARK}"}}',
        ),
        ('["https:\\u002f/u:§@b/x"]', f'["https://{MARK}@b/x"]'),
        ('{"w":"https://h/hook/sk-proj-§"}', f'{{"w":"https://h/hook/{MARK}"}}'),
        ('{"database":"postgres://u:p@ss/§@h/db"}', f'{{"database":"postgres://{MARK}@h/db"}}'),
        ('["REDIS://:§@h/0"]', f'["REDIS://{MARK}@h/0"]'),
        ('{"broker":"amqp://u:a?b#§@h:1/v"}', f'{{"broker":"amqp://{MARK}@h:1/v"}}'),
        ('{"Key":"ApiKey","Value":"§"}', f'{{"Key":"ApiKey","Value":"{MARK}"}}'),
        ('{"value":"§","label":"Password"}', f'{{"value":"{MARK}","label":"Password"}}'),
        (
            '{"dataframe_split":{"columns":["user","password"],"data":[["bob","§"],["amy",null]]}}',
            f'{{"dataframe_split":{{"columns":["user","password"],"data":[["bob","{MARK}"],["amy",null]]}}}}',
        ),
        ('{"data":[["§",1]],"columns":["api_key","x"]}', f'{{"data":[["{MARK}",1]],"columns":["api_key","x"]}}'),
        ('{"columns":["a","jwt"],"data":["b","§"]}', f'{{"columns":["a","jwt"],"data":["b","{MARK}"]}}'),
        (
            '{"columns":[{"name":"ssn","type":"varchar"}],"rows":[["§"],[]]}',
            f'{{"columns":[{{"name":"ssn","type":"varchar"}}],"rows":[["{MARK}"],[]]}}',
        ),
        ('{"columns":[["a","ssn"]],"values":[[["§"]]]}', f'{{"columns":[["a","ssn"]],"values":[["{MARK}"]]}}'),
        (
            '{"data":{"names":["x","password"],"ndarray":[[1,"§"]]}}',
            f'{{"data":{{"names":["x","password"],"ndarray":[[1,"{MARK}"]]}}}}',
        ),
        (
            '{"inputs":[{"name":"password","shape":[1],"datatype":"BYTES","data":["§"]}]}',
            f'{{"inputs":[{{"name":"password","shape":[1],"datatype":"BYTES","data":"{MARK}"}}]}}',
        ),
        (
            '{"outputs":[{"name":"password","contents":{"bytes_contents":["§"]}}]}',
            f'{{"outputs":[{{"name":"password","contents":"{MARK}"}}]}}',
        ),
        ('[["api_key","§"],["a","b"]]', f'[["api_key","{MARK}"],["a","b"]]'),
        ('{"x":[["patient_id","§"]]}', f'{{"x":[["patient_id","{MARK}"]]}}'),
        ('{"auth":"§"}', f'{{"auth":"{MARK}"}}'),
        ('{"auth":{"user":"bob","key":"§"}}', f'{{"auth":"{MARK}"}}'),
        ('{"bearer":"§","otp":"","pin":null}', f'{{"bearer":"{MARK}","otp":"","pin":null}}'),
        ('{"session":"§","sid":"a"}', f'{{"session":"{MARK}","sid":"a"}}'),
        ('{"pass":"§","user":"x"}', f'{{"pass":"{MARK}","user":"x"}}'),
        ('{"config":{"token[0]":"§"}}', f'{{"config":{{"token[0]":"{MARK}"}}}}'),
    ],
)
def test_secrets_that_have_no_key_of_their_own(redactor: Redactor, text: str, shown: str | None) -> None:
    """A signed URL, an environment, a list of headers."""
    got, hits = _json(redactor, text.replace("§", _SECRET))
    assert _SECRET not in got
    assert hits == 1
    assert shown is None or got == shown


@pytest.mark.parametrize(
    "text",
    [
        '{"url":"https://b/x?a=1","more":"h","how":"https://b is it?","help":"http"}',
        '{"name":"title","value":"x","other":[["a","b"],["token","ids"]]}',
        '{"name":"token","value":5,"key":5}',
        '{"required":["password","user"]}',
        '{"pass":0.8,"pass@1":0.5}',
        '{"required":["password","user"],"any":[["password","secret"],["token","NN"],["password",0.53],["key","v"]]}',
        '{"inputs":[["What is my password?","It is x, says https://b/x"]]}',
        '{"session":{"id":"s1","voice":"alloy"},"sid":5,"signature":"EqQBCgIYAhIkMDAwMDAwMDAw","sig":"(int) -> str"}',
        '{"signature":{"inputs":"[]"},"signature_name":"serving_default","auth":false,"key":"a/b/2024.png"}',
        '{"columns":["token_count","user"],"data":[[5,"x"]]}',
        '{"columns":"password","data":[["x"]],"headers":{"a":"b"}}',
        '{"columns":["password"],"data":{"0":["x"]}}',
        '{"name":"input_ids","datatype":"INT64","data":[1,2]}',
        '{"name":"token","data":[1,2],"values":[3]}',
        '{"url":"a://b","text":"see https://b/x?sig=ok for more","n":"not://a url"}',
    ],
)
def test_ordinary_documents_stay(redactor: Redactor, text: str) -> None:
    """URLs without secrets, names with ordinary values, schemas, rates."""
    assert _json(redactor, text) == (text, 0)


def test_a_key_that_is_a_secret_itself_goes(redactor: Redactor) -> None:
    """A map from keys to counts; no two of them become one."""
    keys = [f"sk-abcdefghijklmnop{number}" for number in range(3)]
    text = json.dumps({"usage": {**dict.fromkeys(keys, 1), "a": 2}, keys[0]: None})
    shown, hits = _json(redactor, text)
    assert hits == 4
    assert not any(key in shown for key in keys)
    assert len(json.loads(shown)["usage"]) == 4


def test_a_document_over_several_lines_of_ndjson(redactor: Redactor) -> None:
    """A name on one line and its value on the next are still a pair."""
    shown, hits = redactor.body(f'{{"password":\n"{_SECRET}"}}\n{{"a":1}}', Kind.NDJSON)
    assert _SECRET not in shown
    assert hits == 1


@pytest.mark.parametrize("field", ["event", "id", "retry", "anything"])
def test_every_field_of_an_event_is_redacted(redactor: Redactor, field: str) -> None:
    """Not only its data."""
    stream = f"{field}: api_key={_SECRET}\ndata: 1\n\n"
    assert redactor.body(stream, Kind.EVENT_STREAM) == (f"{field}: api_key={MARK}\ndata: 1\n\n", 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("POST", "POST"),
        ("/files/{token:path}/x", "/files/{token:path}/x"),
        ("/x/token=§", f"/x/token={MARK}"),
        ("/x/token=§/{token:path}", f"/x/token={MARK}{{token:path}}"),
        ("/x/{token:path}/token=§", f"/x/{{token:path}}/token={MARK}"),
        ("GET /files/{token}", "GET /files/{token}"),
        ('x {"token":"§"}', f'x {{"token":"{MARK}"}}'),
        ("{token:§}", f"{{token:{MARK}"),
        ("/{a", "/{a"),
    ],
)
def test_routes(redactor: Redactor, text: str, shown: str) -> None:
    """What stands in braces is a parameter's name; what a mount put before it is a caller's."""
    assert redactor.route(text.replace("§", _SECRET))[0] == shown


def test_labels_are_remembered_and_forgotten(redactor: Redactor) -> None:
    """The same answer each time, and no memory that callers could fill."""
    fresh = Redactor(SecretNames())
    for _ in range(2):
        assert fresh.label(f"GET /?password={_SECRET}") == (f"GET /?password={MARK}", 1)
    for number in range(10_000):
        fresh.label(f"/items/{number}")
        fresh.label(f"{'/x' * 1_000}{number}")
    assert len(fresh._labels) < 5_000
    assert max(map(len, fresh._labels)) <= 256


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("location", "https://h/cb?code=S&state=x", f"https://h/cb?code={MARK}&state=x"),
        ("link", "<https://h/p?sig=S>; rel=next", f"<https://h/p?sig={MARK}>; rel=next"),
        ("forwarded", "for=1.2.3.4;proto=http;token=S", f"for=1.2.3.4;proto=http;token={MARK}"),
        ("baggage", "a=b,session=S,user=u", f"a=b,session={MARK},user=u"),
        ("baggage", "a=password%3DS", f"a=password={MARK}"),
        ("tracestate", "a=b,jwt=S", f"a=b,jwt={MARK}"),
        ("x-request-id", "sk-Saaaaaaaaaaaaaaaa", MARK),
        ("x-forwarded-for", "patient_id: S", f"patient_id: {MARK}"),
        ("content-type", "text/plain; api_key=S", f"text/plain; api_key={MARK}"),
    ],
)
def test_headers_that_may_carry_another_ones_secret(redactor: Redactor, name: str, value: str, shown: str) -> None:
    """By parameters, by pairs, by the user's own names, and by shape."""
    value = value.replace("S", _SECRET)
    assert redactor.field(name, value) == (shown, 1)
    assert redactor.field(name, value) == (shown, 1)
