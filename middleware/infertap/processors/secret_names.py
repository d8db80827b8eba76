"""Which names hold secrets.

1. A name is read as words: case, separators, digits and full-width letters make no difference to it.
2. How sure a name is depends on where it stands: `key` is a credential in a query, and an ordinary key in JSON.
"""

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

MARK = "[REDACTED]"
"""What stands where a secret stood."""

REDACTION_VERSION = 2
"""Raised whenever the built-in rules change; part of the column `redaction_version`."""

_EXACT = frozenset(
    {
        "auth", "authorization", "proxyauthorization", "xamzsecuritytoken", "xgoogapikey", "cookie", "setcookie",
        "apikey", "xapikey", "key", "ocpapimsubscriptionkey", "token", "jwt", "bearer", "credential", "credentials",
        "pass", "pwd", "pw", "passkey", "secret", "session", "sessionid", "sid", "csrf", "xsrf", "csrftoken",
        "xcsrftoken", "signature", "sig", "pin", "cvv", "cvc", "ssn", "creditcard", "cardnumber", "securitycode",
        "xauthtoken", "xamzsignature", "xgoogsignature", "xinfertapouter", "authheader", "authcode",
        "authorizationcode", "devicecode", "codeverifier", "otp", "totp", "otpcode", "mfacode", "samlresponse",
        "samlassertion", "seedphrase", "recoveryphrase", "mnemonicphrase", "dsn", "databaseurl",
    }
)  # fmt: skip
_WEAK = frozenset({"key", "session", "sid", "sig", "signature"})
"""Words that are secrets as a query parameter or a field, and ordinary keys in a model's JSON."""
_SHORT = frozenset({"pin", "auth", "bearer", "otp", "totp"})
"""In JSON secrets, too, but ordinary words of a text."""
_DOUBTFUL_IN_JSON = frozenset({"session", "sid", "sig"})
_DOUBTFUL_IN_TEXT = _DOUBTFUL_IN_JSON | _SHORT
"""Secrets where the value looks like one (`looks_like_key`): `session` may also be an object, and `auth` an outcome."""
_IN_QUERIES = frozenset({"code", "ticket"})
"""What lets somebody in once, in an address only; elsewhere `code` is source text or an error's number."""

_CONVENTIONAL = frozenset({"session.id"})
"""Attributes of OpenTelemetry's conventions that say whose request it was, and let nobody in."""

_ENDINGS = (
    "apikey", "apitoken", "accesstoken", "authtoken", "refreshtoken", "sessiontoken", "securitytoken",
    "bearertoken", "bottoken", "csrftoken", "githubtoken", "gitlabtoken", "vaulttoken", "clienttoken", "sastoken",
    "accesskey", "accountkey", "secretkey", "privatekey", "signingkey", "encryptionkey", "masterkey", "sharedkey",
    "sharedaccesskey", "azurestoragekey", "servicekey", "servicerolekey", "functionkey", "functionskey",
    "consumerkey", "authkey", "sessionkey", "sshkey", "deploykey", "licensekey", "hmackey", "accesskeyid",
    "secretaccesskey", "clientsecret", "secret", "authorization", "credentials", "subscriptionkey", "cookie",
    "openaikey", "anthropickey", "azurekey", "awskey", "googlekey", "geminikey", "mistralkey", "coherekey",
    "groqkey", "huggingfacekey", "pwd", "connectionstring", "recoverycode",
    "backupcode",
)  # fmt: skip
_ENDING_WORDS = frozenset({("id", "token"), ("hf", "token"), ("hf", "key")})
"""Endings that count only as words of their own: `valid_token` is none."""
_PASS_OWNERS = frozenset(
    {
        "admin", "api", "app", "auth", "basic", "database", "db", "email", "ftp", "http", "imap", "keystore", "ldap",
        "login", "mail", "mongo", "my", "mysql", "pg", "postgres", "proxy", "redis", "root", "smtp", "sql", "ssh",
        "sudo", "truststore", "user", "vpn", "wifi", "your",
    }
)  # fmt: skip
"""Whose `pass` and `pw` are passwords: `db_pass` is one, `first_pass` is not."""
_ANYWHERE = (
    "password", "passwd", "passphrase", "passcode", "passwort", "kennwort", "contraseña", "contrasena", "senha",
    "motdepasse", "wachtwoord", "пароль", "密码", "密碼", "パスワード", "비밀번호",
)  # fmt: skip
"""`password1` and `password_confirmation` are one, too."""
_ABOUT = frozenset({"policy", "strength", "length", "rules", "required", "enabled", "expired", "expires"})
"""A last word that makes a name one about passwords: `password_policy`."""
_QUALIFIERS = frozenset(
    {
        "pem", "der", "jwk", "base", "b", "raw", "value", "plain", "plaintext", "encoded", "encrypted", "hash",
        "hashed", "prod", "production", "dev", "test", "staging", "live", "sandbox", "old", "new", "current",
        "previous", "primary", "secondary", "backup", "default", "header", "headers", "hex", "env", "string", "text",
        "data", "content", "v",
    }
)  # fmt: skip
"""Last words that leave a secret one: `private_key_pem`, `X-Api-Key-V2`. Digits never count (`b` was `b64`)."""
_NOT_QUALIFIED = _WEAK | _SHORT | {"token", "pass", "pw", "passkey"}
"""`token_text` is a language model's."""
_ENDINGS_IN_TEXT = (*_ENDINGS, "token", "credential")
_ENDINGS_IN_FIELDS = (*_ENDINGS_IN_TEXT, "signature", "assertion", "jwt", "sessionid", "sessid")
"""`X-Vault-Token`, `hub_token`; in a model's JSON many names end so."""
_VOCABULARY = frozenset(
    f"{word}token"
    for word in ("eos", "bos", "pad", "unk", "mask", "sep", "cls", "stop", "special", "image", "audio", "video", "per",
                 "timeper", "first", "last", "to", "timetofirst")
)  # fmt: skip
"""Tokens of language models, wherever they stand."""

_KEY = re.compile(r"\d{4,}+|(?=\S*\d)\S{8,}+|\S{20,}+")
_PATH = re.compile(r"[.\[\]/:]+")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
_CACHE_MAX = 4096
_CACHED_NAME_MAX = 64
"""Characters. Longer names are decided anew each time, or a caller could fill the memory with them."""
_READ_CHARACTERS_MAX = 256
"""So much of a longer name's beginning and end is read."""


class _Rules(NamedTuple):
    names: frozenset[str]
    endings: tuple[str, ...]
    extra: frozenset[str]
    """The user's own, whose digits count, too."""
    exempt: frozenset[str]
    """Names that the user says are harmless: nothing else about them counts."""

    def secret(self, name: str) -> bool:
        if len(name) > 2 * _READ_CHARACTERS_MAX:
            name = f"{name[:_READ_CHARACTERS_MAX]} {name[-_READ_CHARACTERS_MAX:]}"
        if not name.isascii():
            name = unicodedata.normalize("NFKC", name)
        # `user[password]`, `token[0]`, `wsse:Password`, `config.api_key`
        parts = [part for part in _PATH.split(name) if part and not part.isdecimal()]
        if self.exempt and parts and _normal(parts[-1]) in self.exempt:
            return False
        if self._secret(name):
            return True
        return bool(parts) and parts[-1] != name and self._secret(parts[-1])

    def _secret(self, name: str) -> bool:
        if self.extra and _normal(name) in self.extra:
            return True
        words = tuple(word.lower() for word in _WORDS.findall(name))
        flat = "".join(words)
        if flat in _VOCABULARY or not flat:
            return False
        if flat in self.names or self._ends(flat, words):
            return True
        if any(part in flat for part in _ANYWHERE):
            return words[-1] not in _ABOUT
        if words[-1] in ("pass", "pw"):
            return len(words) > 1 and words[-2] in _PASS_OWNERS
        bare = words
        while bare and bare[-1] in _QUALIFIERS:
            bare = bare[:-1]
        if len(bare) in (0, len(words)):
            return False
        flat = "".join(bare)
        return (flat in self.names and flat not in _NOT_QUALIFIED) or self._ends(flat, bare, _ENDINGS)

    def _ends(self, flat: str, words: tuple[str, ...], endings: tuple[str, ...] | None = None) -> bool:
        # `api_keys` as well; `tokens` are counted, and not secret.
        return (
            flat.endswith(endings or self.endings)
            or (flat.endswith("s") and flat[:-1].endswith(_ENDINGS))
            or words[-2:] in _ENDING_WORDS
            or flat in ("idtoken", "hftoken", "hfkey")
            or (flat.endswith("pass") and flat[:-4] in _PASS_OWNERS)
        )


class _Verdicts(dict[str, bool]):
    """Remembers verdicts, because names repeat; a hit costs one dictionary look-up."""

    def __init__(self, rules: _Rules) -> None:
        super().__init__()
        self._rules = rules

    def __missing__(self, name: str) -> bool:
        verdict = self._rules.secret(name)
        if len(name) <= _CACHED_NAME_MAX:
            if len(self) >= _CACHE_MAX:
                self.clear()
            self[name] = verdict
        return verdict


class SecretNames:
    """Answers "is this name a secret's?".

    Args:
        extra: Further names of the user, compared like the built-in ones: without case and separators.
        exempt: Names whose values are to stay; of a path its last part counts.
    """

    def __init__(self, extra: Iterable[str] = (), exempt: Iterable[str] = ()) -> None:
        own = frozenset(normal for normal in map(_normal, extra) if normal)
        harmless = frozenset(normal for normal in map(_normal, exempt) if normal)

        def verdicts(names: frozenset[str], endings: tuple[str, ...]) -> Callable[[str], bool]:
            return _Verdicts(_Rules(names, endings, own, harmless)).__getitem__

        self.in_json = verdicts(_EXACT - _WEAK, _ENDINGS)
        """For keys of a JSON document and attributes of a span."""
        self.doubtful_in_json = _DOUBTFUL_IN_JSON - harmless
        """Lower-case keys whose value goes where it `looks_like_key`."""
        self.in_text = verdicts(_EXACT - _WEAK - _SHORT, _ENDINGS_IN_TEXT)
        """For what stands before a colon or an equals sign in a text, and for elements and attributes of XML."""
        self.doubtful_in_text = _DOUBTFUL_IN_TEXT - harmless
        """As `doubtful_in_json`."""
        self.in_fields = verdicts(_EXACT, _ENDINGS_IN_FIELDS)
        """For headers and form fields."""
        self.in_queries = verdicts(_EXACT | _IN_QUERIES, _ENDINGS_IN_FIELDS)
        """For parameters of a URL."""
        self._conventional = frozenset(name for name in _CONVENTIONAL if _normal(name) not in own)
        # Tells rule sets apart without naming what somebody hides.
        users = [*sorted(own), *(f"-{name}" for name in sorted(harmless))]
        suffix = f"+{zlib.crc32(' '.join(users).encode()):08x}" if users else ""
        self.version = f"{REDACTION_VERSION}{suffix}"

    def in_attributes(self, name: str) -> bool:
        """For attributes of spans, whose names are dotted paths."""
        return name not in self._conventional and self.in_json(name)


def looks_like_key(value: str) -> bool:
    """Whether a value is one word as long as keys are: of digits, with a digit in it, or longer than words are."""
    return _KEY.fullmatch(value) is not None


def _normal(name: str) -> str:
    """Letters and digits alone."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name))).lower()
