"""Secrets in texts, by the name before them and by their shape; and what it costs to look for them."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

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
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{_SECRET}",
        f"-----BEGIN ED25519 PRIVATE KEY-----\\n{_SECRET}\\n-----END ED25519 PRIVATE KEY-----",
        f"https://{_SECRET}@github.com/x",
        f"postgres://user:a/{_SECRET}@host/db",
        f"postgres://u:p@ss/{_SECRET}@host/db",
        f"postgres://u:p@ss/{_SECRET}@[REDACTED]@host:5432/db?sslmode=require",
        f"https://u:p@ss/{_SECRET}@host/db",
        f"amqp://u:a?b#{_SECRET}@host:5672/vhost",
        f"postgres://u:p@h/db,postgres://v:{_SECRET}@h2/db",
        f"curl -u bob:{_SECRET} http://host",
        f"curl --user 'bob:{_SECRET}' http://host",
        f"machine h login bob password {_SECRET}",
        f"https://hooks.slack.com/services/T0/B0/{_SECRET}",
        f"https://discord.com/api/webhooks/1/{_SECRET}",
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
        "gsk_abcdefghijklmnopqrstuvwx",
        "npm_abcdefghijklmnopqrstuvwx",
        "lsv2_pt_abcdefghijklmnopqrstuvwx",
        "nvapi-abcdefghijklmnopqrstuvwx",
        "xapp-1-ABCDEFGHIJ-abc",
        "dapi0123456789abcdef0123456789abcdef",
        "ya29.abcdefghijklmnopqrst",
        "hvs.abcdefghijklmnopqrst",
        "GOCSPX-abcdefghijklmnopqrst",
        "SG.abcdefghijklmnop.qrstuvwxyz",
        "whsec_abcdefghijklmnopqrst",
        "glsa_abcdefghijklmnopqrst",
        _JWT,
        f"{_JWT}.YWJj.ZGVm",
    ],
)
def test_secrets_in_text_are_found_by_their_shape(secret: str) -> None:
    """Wherever they stand."""
    for text in (secret, f"use {secret}.", f"({secret})", f"a\n{secret}\nb", f'x="{secret}"'):
        shown, hits = _REDACTOR.text(text)
        assert secret not in shown
        assert hits == 1


@pytest.mark.parametrize("before", ["session_", "a-", "x", "eyJ-", "."])
def test_a_jwt_is_found_behind_whatever_is_glued_to_it(before: str) -> None:
    """What stands before it stays."""
    assert _REDACTOR.text(f"{before}{_JWT}") == (MARK if before == "eyJ-" else f"{before}{MARK}", 1)


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
        "git clone ssh://git@host/x and git@host:x/y",
        "http://[::1]:8080/x and http://host?mail=a@b.c",
        "usage: x <file> <name>",
        '<p class="x">password</p>',
        "key: value; code=404; session: 5; auth: none",
        'Traceback (most recent call last):\n  File "x.py", line 3, in f\nValueError: token count: 5',
        "serve --keep-alive 5 --max-tokens 7",
        "a token < b, and https://h/p?a=1&b=2#x=3",
        "12:30:45 eos_token: </s>",
        "forward_pass: 3",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """Prose about secrets holds none."""
    assert _REDACTOR.text(text) == (text, 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:S@h.example/pkg@1.2", f"https://{MARK}@h.example/pkg@1.2"),
        ("https://u:S@registry/@scope/pkg", f"https://{MARK}@registry/@scope/pkg"),
        ("http://u:S@h:80/a@b c@d", f"http://{MARK}@h:80/a@b c@d"),
        ("postgres://u:S@h/db?mail=a@b.c", f"postgres://{MARK}@h/db?mail=a@b.c"),
        ("mongodb://u:S@h1:1,h2:2/db", f"mongodb://{MARK}@h1:1,h2:2/db"),
        ("redis://h:6379/0 and x@y.z", "redis://h:6379/0 and x@y.z"),
    ],
)
def test_of_a_url_with_a_password_the_host_stays(text: str, shown: str) -> None:
    """What follows it may hold an `@`, too."""
    assert _REDACTOR.text(text.replace("S", _SECRET))[0] == shown


@given(
    text=st.text(st.characters() | st.sampled_from("\"'\\{[:=&;<>/|?@- \n"), max_size=60),
    name=st.sampled_from(["password", "cookie", "x", "<jwt>", "a?sig", "  - jwt", "://u:p@h/?key"]),
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
    "-u a:", "\0", "jwt=[", "\u200b", "a: ", "xapp-", "&lt;a", "a\u200b", "SG.", "/api/webhooks/1/", "hooks.slack.com/",
    '{"name":"jwt",', '"value":{', "name: jwt\nvalue: a\n", "- name: jwt\n  value: a\n", "value: ", "value=a ", "  - ",
    "name=jwt value=", "value: a name: jwt ", "{'name':'jwt',", "name:jwt value:a{", "<name>jwt</name><value>",
    "<name>jwt</name>", "<value>", "<name ", ":name ", "<a></b>", "jwt\n  ", '"a"', "'a', ", '\\"name', "auth=",
    "otp: ",
    "://u:p@s/", "x://u:@", "://u:p@a.b", "@a", "http://u:p@ss/w",
)  # fmt: skip

_REPEATED_IN_TABLES = ("x,y\n", '"', 'x,"\n', "jwt,", "\n", "x,,", '"",')


def test_no_text_costs_its_square() -> None:
    """A pattern tried anew at each character of a long run would hold the interpreter lock for minutes.

    The limit is no measurement: all of it takes half a minute, and one such pattern alone far more.
    """
    program = (
        "import contextlib, json, resource, sys\n"
        "from infertap.processors.media import Kind\n"
        "from infertap.processors.redact import Redactor\n"
        "from infertap.processors.secret_names import SecretNames\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (150, 150))\n"
        f"for piece in {_REPEATED!r}:\n"
        "    Redactor(SecretNames()).body('x: ' + piece * ((1 << 19) // len(piece)), Kind.TEXT)\n"
        f"for piece in {_REPEATED_IN_TABLES!r}:\n"
        "    with contextlib.suppress(ValueError):\n"
        "        Redactor(SecretNames()).body('a,jwt\\n' + piece * ((1 << 19) // len(piece)), Kind.DELIMITED)\n"
        "n = 1 << 16\n"
        "for table in ({'columns': ['jwt'] * n, 'data': [[]] * n}, {'columns': ['jwt'] * n, 'data': ['x'] * n},\n"
        "              {'x': [['jwt', 'x']] * n}, {'name': 'jwt', 'data': ['x'] * n}):\n"
        "    Redactor(SecretNames()).body(json.dumps(table), Kind.JSON)\n"
        "Redactor(SecretNames()).body('jwt,' * n + '\\n' + 'x\\n' * n, Kind.DELIMITED)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=600).returncode == 0
