"""Names and shapes of secrets: what counts as one, what does not, and what it costs to find out."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_ORDINARY = (
    "max_tokens", "prompt_tokens", "completion_tokens", "total_tokens", "tokens", "tokenizer", "token_type",
    "token_ids", "eos_token", "keyboard", "monkey", "donkey", "author", "authors", "model", "messages", "content",
    "key_points", "session_length", "design", "pinned", "assignment", "signal", "passage", "bypass", "secretary",
    "cookbook", "user", "input", "data", "dataframe_split", "finish_reason", "logprobs", "id", "name", "keys",
    "authority", "piano", "",
)  # fmt: skip
_SECRET_EVERYWHERE = (
    "password", "Password", "PASS_WORD", "user[password]", "user.password", "password1", "password_confirmation",
    "db_passwd", "api_key", "apiKey", "X-API-Key", "openai_api_key", "api keys", "access_token", "refresh-token",
    "id_token", "hf_token", "client_secret", "secret", "secrets", "AWS_SECRET_ACCESS_KEY", "aws_session_token",
    "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "cookies", "private_key", "credentials", "jwt",
    "passphrase", "ssn", "credit_card", "cvv", "x-csrf-token", "SharedAccessKey", "AccountKey", "x-infertap-outer",
)  # fmt: skip
_SECRET_IN_FIELDS = ("key", "token", "X-Plex-Token", "hub_token", "sig", "signature", "pin", "session", "sid", "auth")


@pytest.mark.parametrize("name", _ORDINARY)
def test_ordinary_names_are_not_secret_in_json(name: str) -> None:
    """A model's own vocabulary must stay readable."""
    assert not SecretNames().in_json(name)


@pytest.mark.parametrize("name", [name for name in _ORDINARY if not name.endswith("token")])
def test_ordinary_names_are_not_secret_in_fields(name: str) -> None:
    """In forms, too."""
    assert not SecretNames().in_fields(name)


@pytest.mark.parametrize("name", _SECRET_EVERYWHERE)
def test_secret_names(name: str) -> None:
    """However they are written."""
    names = SecretNames()
    assert names.in_json(name)
    assert names.in_fields(name)


@pytest.mark.parametrize("name", _SECRET_IN_FIELDS)
def test_names_that_are_secret_in_fields_only(name: str) -> None:
    """`?key=` and `?sig=` are credentials; `token` is one in JSON as well, with exceptions made elsewhere."""
    names = SecretNames()
    assert names.in_fields(name)
    assert names.in_json(name) is (name == "token")


def test_the_users_own_names() -> None:
    """Compared like the built-in ones, and told apart by the version without being named in it."""
    names = SecretNames(["Patient ID", "x"])
    for name in ("patient_id", "PatientId", "patient-id", "patient.id", "X"):
        assert names.in_json(name)
        assert names.in_fields(name)
    assert not names.in_json("patient")
    assert names.version == SecretNames(["x", "patient_id"]).version != SecretNames().version
    assert "patient" not in names.version


def test_long_names_are_decided_and_not_remembered() -> None:
    """A caller could fill the memory with names of a megabyte each."""
    names = SecretNames()
    for number in range(20):
        assert names.in_json(f"{'x' * 100_000}{number}_password")
    verdicts = names.in_json.__self__  # type: ignore[attr-defined]  # the memory itself is what this is about
    assert sum(map(len, verdicts)) < 10_000


_REDACTOR = Redactor(SecretNames())
_SECRET = "Hunter2-tr0ub4dor"
_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "text",
    [
        f"password={_SECRET}",
        f"password: {_SECRET}, and more",
        f"PASSWORD = '{_SECRET} with spaces'",
        f'the "api_key": "{_SECRET}\\" {_SECRET}"',
        f"{{'token': '{_SECRET}'}}",
        f'{{"token": "{_SECRET}',
        f'{{\\"client_secret\\": \\"{_SECRET}\\"}}',
        f'\\\\\\"password\\\\\\": \\\\\\"{_SECRET}\\\\\\"',
        f"Authorization: Bearer {_SECRET}",
        f"Authorization: Token {_SECRET}",
        f'Authorization: Digest username="x", response="{_SECRET}"',
        f"authorization=Basic {_SECRET}==",
        f"Cookie: theme=dark; session={_SECRET}; x=y",
        f"curl -H 'Authorization: Token {_SECRET}' http://host",
        f"got Bearer {_SECRET} from you",
        f"BASIC {_SECRET}",
        f"redis://:{_SECRET}@host:6379/0",
        f"postgres://user:{_SECRET}@host/db",
        f"postgres://user:{_SECRET}@{_SECRET}@host/db",
        f"password={_SECRET} [REDACTED]",
        f'"password": "{_SECRET} [REDACTED]"',
        f"my_access_key={_SECRET}&next=1",
        f"-----BEGIN RSA PRIVATE KEY-----\n{_SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{_SECRET}",
    ],
)
def test_secrets_in_text_are_found_by_their_name_or_frame(text: str) -> None:
    """And a second pass finds nothing more to do."""
    shown, hits = _REDACTOR.text(text)
    assert _SECRET not in shown
    assert "Hunter2" not in shown
    assert hits >= 1
    assert MARK in shown
    assert _REDACTOR.text(shown) == (shown, 0)


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop1234",
        "sk_live_abcdefghij1234",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnopqrstuvwx",
        "github_pat_abcdefghijklmnopqrstuvwx",
        "glpat-abcdefghijklmnopqrst",
        "xoxb-1234567890-abc",
        "hf_abcdefghijklmnopqrstuvwx",
        "AIzaSyA-1234567890abcdefghijklmnopqrstu",
        _JWT,
    ],
)
def test_secrets_in_text_are_found_by_their_shape(secret: str) -> None:
    """Wherever they stand."""
    for text in (secret, f"use {secret}.", f"({secret})", f"a\n{secret}\nb", f'x="{secret}"'):
        shown, hits = _REDACTOR.text(text)
        assert secret not in shown
        assert hits == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max_tokens=5 prompt_tokens: 3 tokenizer: gpt keyboard: qwerty author: me",
        "The basic functionality of bearer certificates, explained.",
        "http://host:8080/path@version and mailto:me@host.example",
        "task-force risk-assessment-for-all-of-us",
        '{"password": null}'[1:12],
        "a secret garden, a key question, the token economy",
        "password=",
        "secret: ",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """Prose about secrets holds none."""
    assert _REDACTOR.text(text) == (text, 0)


@given(
    text=st.text(st.characters() | st.sampled_from("\"'\\{[:=&; \n"), max_size=60),
    name=st.sampled_from(["password", "cookie", "x"]),
)
def test_a_second_pass_changes_nothing(text: str, name: str) -> None:
    """Whatever stands around a name."""
    shown, _ = _REDACTOR.text(f"{name}={text}")
    assert _REDACTOR.text(shown)[0] == shown


_REPEATED = (
    "eyJ-", "-eyJaaaaaaaaa", "-----BEGIN A", "-----BEGIN PRIVATE KEY", "token", "token   ", "token\\", 'token="\\\n',
    "token='", "cookie: \\", 'authorization="a\\', 'cookie: a="', "://", "://a:", "://:a", "bearer ", "Basic a", "sk-",
    "xoxb-", "ghp_", "github_pat_", "password=[REDACTED", '"jwt":"', '"jwt":{', '"jwt": [', "<jwt>", "<jwt ", "jwt: ",
    "jwt   ", '\\"', '"jwt"  ', '"jwt":{"',
    '<a "', '<a "x', "<a '\"", "<jwt><", '<a name="jwt"', "<![CDATA[", "&lt;jwt&gt;", "jwt: |\n", "jwt:\n\n",
    "jwt: a\n b\n", "jwt:\n ", "?sig=", "?a=", "%3Fsig%3D", "&a", "--jwt ", "-a", "a-", "a.", "a[", "jwt a b ",
    "jwt=a ", "jwt: a, ", "://u:/", "://u:1/", "jwt='''", 'jwt="""', "jwt='a''", "jwt='a' ", '":', '\\":', "login a ",
    "-u a:", "\0", "jwt=[", "\u200b", "a: ", "xapp-", "SG.", "/api/webhooks/1/", "hooks.slack.com/",
)  # fmt: skip


def test_no_text_costs_its_square() -> None:
    """A pattern tried anew at each character of a long run would hold the interpreter lock for minutes.

    The limit is no measurement: all of it takes a few seconds, and one such pattern alone takes more than a
    minute.
    """
    program = (
        "import resource, sys\n"
        "from infertap.processors.media import Kind\n"
        "from infertap.processors.redact import Redactor\n"
        "from infertap.processors.secret_names import SecretNames\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (40, 40))\n"
        f"for piece in {_REPEATED!r}:\n"
        "    Redactor(SecretNames()).body(piece * ((1 << 19) // len(piece)), Kind.TEXT)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=600).returncode == 0
