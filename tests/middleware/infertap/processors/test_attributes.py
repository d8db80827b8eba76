"""Attributes of spans: by their name, by what the conventions keep under it, and by content."""

from typing import Any

import pytest

from infertap.processors.attributes import AttributeRedactor
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_SECRET = "Hunter2-tr0ub4dor"
_NAMES = SecretNames(["patient_id"])
_KEPT = frozenset({"authorization", "referer", "user-agent", "x-plex-token"})
_ATTRIBUTES = AttributeRedactor(Redactor(_NAMES), _NAMES, kept_headers=_KEPT, keeps_content=True)


def _planted(value: Any) -> Any:
    if isinstance(value, list):
        return [_planted(item) for item in value]
    return value.replace("§", _SECRET) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("openai.api_key", 5, MARK),
        ("patient.id", "§", MARK),
        ("user.password", ["§"], MARK),
        ("a", 1.5, 1.5),
        ("a", True, True),
        ("llm.usage.max_tokens", 5, 5),
        ("session.id", "abc", "abc"),
        ("a", ["x", "password=§"], ["x", f"password={MARK}"]),
        ("a", '{"jwt":"§"}', f'{{"jwt":"{MARK}"}}'),
        ("url.full", "https://u:§@h/p?sig=§&a=1#key=§", f"https://{MARK}@h/p?sig={MARK}&a=1#key={MARK}"),
        ("http.url", "https://h/cb?code=§&state=x", f"https://h/cb?code={MARK}&state=x"),
        ("http.target", "/p?session=§", f"/p?session={MARK}"),
        ("url.path", "/p;jsessionid=§", f"/p;jsessionid={MARK}"),
        ("http.route", "/files/{token:path}", "/files/{token:path}"),
        ("http.route", "/x?key=§", f"/x?key={MARK}"),
        ("url.query", "key=§&a=1", f"key={MARK}&a=1"),
        ("url.query", "?X-Amz-Signature=§", f"X-Amz-Signature={MARK}"),
        ("db.statement", "SET PASSWORD = '§'", f"SET PASSWORD = '{MARK}'"),
        ("process.command_args", ["vllm", "--api-key", "§", "--port", "1"], ["vllm", "--api-key", MARK, "--port", "1"]),
        ("process.command_args", ["--api-key=§", "-x", "§"], [f"--api-key={MARK}", "-x", _SECRET]),
        ("process.command_line", "vllm serve --api-key § --port 1", f"vllm serve --api-key {MARK} --port 1"),
        ("http.request.header.authorization", "§", MARK),
        ("http.request.header.authorization", ["§"], MARK),
        ("http.request.header.x_plex_token", ["§"], MARK),
        ("http.request.header.user-agent", ["a", "token=§"], ["a", f"token={MARK}"]),
        ("http.response.header.referer", ["/p?key=§"], [f"/p?key={MARK}"]),
    ],
)
def test_what_is_kept_of_an_attribute(name: str, value: Any, shown: Any) -> None:
    """By the whole name and by its last part, then as a URL, a query, a header, or by content; types stay."""
    assert _ATTRIBUTES.all({name: _planted(value)}) == {name: shown}


@pytest.mark.parametrize(
    "name",
    ["http.request.header.x-internal", "http.response.header.x_internal", "rpc.grpc.request.metadata.x-internal"],
)
def test_headers_off_the_list_are_not_kept(name: str) -> None:
    """Whoever captured them."""
    assert _ATTRIBUTES.all({name: ["x"], "a": 1}) == {"a": 1}


def test_names_are_redacted_too() -> None:
    """A name may be a caller's text."""
    shown = _ATTRIBUTES.all({f"password={_SECRET}": "x", f"a Bearer {_SECRET}": {f"token={_SECRET}": 1}})
    assert shown == {f"password={MARK}": MARK, f"a Bearer {MARK}": {f"token={MARK}": 1}}


def test_one_value_that_cannot_be_read_goes_alone() -> None:
    """A bomb in one attribute leaves the others."""
    bomb = "[" * 200_000 + "]" * 200_000
    assert _ATTRIBUTES.all({"b": bomb, "url.full": bomb, "a": 1})["a"] == 1
    assert _ATTRIBUTES.one("b", bomb) == (MARK, 1)


def test_the_bytes_of_utf_16_hide_no_name() -> None:
    """Nor does any other NUL between its letters."""
    assert _SECRET not in str(_ATTRIBUTES.all({"a": f"password={_SECRET}".encode("utf-16-le")})).replace("\0", "")


def test_content_is_recognised_by_name() -> None:
    """Content goes with `content = metadata`; what describes it stays."""
    bare = AttributeRedactor(Redactor(_NAMES), _NAMES, kept_headers=_KEPT, keeps_content=False)
    content = ("input.value", "mlflow.spanOutputs", "gen_ai.input.messages", "llm.input_messages.0.message.content")
    others = ("input.mime_type", "mlflow.spanType", "gen_ai.request.model", "llm.model_name")
    assert tuple(bare.all(dict.fromkeys((*content, "gen_ai.headers", *others), "x"))) == others
