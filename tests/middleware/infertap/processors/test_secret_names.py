"""Names of secrets: which are one, which are not, and what is remembered of them."""

import pytest

from infertap.processors.secret_names import SecretNames, looks_like_key

_ORDINARY = (
    "max_tokens", "prompt_tokens", "completion_tokens", "total_tokens", "tokens", "token_count", "tokenizer",
    "token_type", "token_ids", "stop_token_ids", "eos_token", "bos_token", "pad_token", "unk_token", "special_tokens",
    "time_to_first_token", "time_per_token", "valid_tokens", "token_text", "token_str", "logit_bias", "keyboard",
    "keyword", "keywords", "monkey", "donkey", "author", "authors", "model", "messages", "content", "key_points",
    "session_length", "session_duration", "design", "pinned", "assignment", "signal", "passage", "bypass", "compass",
    "first_pass", "forward_pass", "pass_rate", "passed", "secretary", "cookbook", "cookie_policy", "user", "input",
    "data", "dataframe_split", "finish_reason", "logprobs", "id", "name", "keys", "primary_key", "public_key",
    "key_value", "authority", "piano", "password_policy", "passwordStrength", "secret_name", "hash", "seed",
    "v2", "123", "", "_", "[0]",
)  # fmt: skip
_SECRET_EVERYWHERE = (
    "password", "Password", "PASS_WORD", "user[password]", "user.password", "password1", "password_confirmation",
    "db_passwd", "passwd2", "pass", "db_pass", "dbPass", "DBPASS", "smtp-pass", "pg_pw", "user_pwd", "dbPassword",
    "api_key", "apiKey", "X-API-Key", "openai_api_key", "api keys", "Api Key", "api_key_2", "apiKey1", "API_KEY_PROD",
    "X-Api-Key-V2", "access_token", "refresh-token", "access_tokens", "id_token", "idToken", "hf_token", "token[0]",
    "token[]", "client_secret", "secret", "secrets", "secret_1", "secret_key_base", "secretValue",
    "AWS_SECRET_ACCESS_KEY", "aws_session_token", "Authorization", "Proxy-Authorization", "authorization_header",
    "cookie", "Set-Cookie", "cookies", "private_key", "private_key_pem", "privateKeyBase64", "signing_key",
    "credentials", "jwt", "passphrase", "passcode", "ssn", "credit_card", "cvv", "cvv2", "x-csrf-token",
    "SharedAccessKey", "AccountKey", "connectionString", "code_verifier", "recovery_codes", "x-infertap-outer",
    "wsse:Password", "env/API_KEY",
    "otp_code", "X-Amz-Signature", "пароль", "密码", "ｐａｓｓｗｏｒｄ", "pass\u200bword", "contrasen\u0303a",
)  # fmt: skip
_SECRET_IN_FIELDS = (
    "key", "token", "X-Plex-Token", "hub_token", "sig", "signature", "X-Hub-Signature-256", "session", "sid",
    "csrfmiddlewaretoken", "__RequestVerificationToken", "JSESSIONID", "PHPSESSID", "X-User-JWT",
    "X-Amz-Credential", "user[key]",
)  # fmt: skip


@pytest.mark.parametrize("name", _ORDINARY)
def test_ordinary_names_are_not_secret_in_json(name: str) -> None:
    """A model's own vocabulary must stay readable."""
    assert not SecretNames().in_json(name)


@pytest.mark.parametrize("name", _ORDINARY)
def test_ordinary_names_are_not_secret_in_fields(name: str) -> None:
    """In forms, in queries and in texts, too."""
    names = SecretNames()
    assert not names.in_fields(name)
    assert not names.in_text(name)
    assert not names.in_queries(name)


@pytest.mark.parametrize("name", _SECRET_EVERYWHERE)
def test_secret_names(name: str) -> None:
    """However they are written."""
    names = SecretNames()
    assert names.in_json(name)
    assert names.in_text(name)
    assert names.in_fields(name)
    assert names.in_queries(name)


@pytest.mark.parametrize("name", _SECRET_IN_FIELDS)
def test_names_that_are_secret_in_fields_only(name: str) -> None:
    """`?key=` and `?sig=` are credentials; `token` is one in JSON as well, with exceptions made elsewhere."""
    names = SecretNames()
    assert names.in_fields(name)
    assert names.in_queries(name)
    assert names.in_json(name) is (name == "token")


@pytest.mark.parametrize("name", ["pin", "auth", "Bearer", "otp", "totp", "user.pin", "auth[0]"])
def test_short_names_that_are_secret_wherever_they_are_keys(name: str) -> None:
    """In a text they are ordinary words, and secret only before what looks like a key."""
    names = SecretNames()
    assert names.in_json(name)
    assert names.in_fields(name)
    assert names.in_queries(name)
    assert not names.in_text(name)
    assert not names.in_json(f"{name}_data")


def test_a_key_looks_unlike_a_word() -> None:
    """By its length and its digits."""
    for value in ("4821", "9f8a7c6b", "s3ssion-cookie", "abcdefghijklmnopqrstuvwx"):
        assert looks_like_key(value)
    for value in ("", "5", "404", "none", "timeout", "oauth2", "failed (401) for bob", "a b1234567890"):
        assert not looks_like_key(value)


def test_a_code_is_one_in_an_address_only() -> None:
    """There it lets somebody in once; in a body it is somebody's program or an error's number."""
    names = SecretNames()
    for name in ("code", "ticket"):
        assert names.in_queries(name)
        assert not names.in_fields(name)
        assert not names.in_json(name)


def test_the_users_own_names() -> None:
    """Compared like the built-in ones, and told apart by the version without being named in it."""
    names = SecretNames(["Patient ID", "x"])
    for name in ("patient_id", "PatientId", "patient-id", "patient.id", "X"):
        assert names.in_json(name)
        assert names.in_fields(name)
    assert not names.in_json("patient")
    assert names.version == SecretNames(["x", "patient_id"]).version != SecretNames().version
    assert "patient" not in names.version


def test_names_that_the_user_says_are_harmless() -> None:
    """However they are written, and as the last part of a path; others stay secret, and the version tells."""
    names = SecretNames(exempt=["token"])
    for name in ("token", "Token", "choices[0].token", "token[1]"):
        assert not names.in_json(name)
        assert not names.in_fields(name)
    assert names.in_json("access_token")
    assert names.in_json("token.password")
    assert names.version != SecretNames().version != SecretNames(["token"]).version


def test_long_names_are_decided_and_not_remembered() -> None:
    """A caller could fill the memory with names of a megabyte each."""
    names = SecretNames()
    for number in range(20):
        assert names.in_json(f"{'x' * 100_000}{number}_password")
        assert names.in_json(f"password{number}_{'x' * 100_000}")
    verdicts = names.in_json.__self__  # type: ignore[attr-defined]  # the memory itself is what this is about
    assert sum(map(len, verdicts)) < 10_000


def test_many_names_do_not_fill_the_memory() -> None:
    """Nor do they keep the names that come after them from being remembered."""
    names = SecretNames()
    for number in range(20_000):
        assert not names.in_json(f"name_{number}")
    verdicts = names.in_json.__self__  # type: ignore[attr-defined]  # the memory itself is what this is about
    assert len(verdicts) < 5_000
    assert names.in_json("password")
    assert "password" in verdicts
