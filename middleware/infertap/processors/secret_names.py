"""Which names hold secrets, and which texts look like one."""

import re
import zlib
from collections.abc import Callable, Iterable

MARK = "[REDACTED]"
"""What stands where a secret stood."""

REDACTION_VERSION = 1
"""Raised whenever the built-in rules change; part of the column `redaction_version`."""

_EXACT = frozenset(
    {
        "auth", "authorization", "proxyauthorization", "xamzsecuritytoken", "xgoogapikey", "cookie", "setcookie",
        "apikey", "xapikey", "key", "ocpapimsubscriptionkey", "token", "jwt", "bearer", "credential", "credentials",
        "password", "passwd", "pwd", "passphrase", "secret", "session", "sessionid", "sid", "csrf", "xsrf", "csrftoken",
        "xcsrftoken", "signature", "sig", "pin", "cvv", "cvc", "ssn", "creditcard", "cardnumber", "xauthtoken",
        "xinfertapouter",
    }
)  # fmt: skip
_EXACT_NOT_IN_JSON = frozenset({"key", "session", "sid", "sig", "signature", "pin", "auth", "bearer"})
"""Words that are secrets as a query parameter or a field, and ordinary keys in a model's JSON."""

_CONVENTIONAL = frozenset({"session.id"})
"""Attributes of OpenTelemetry's conventions that say whose request it was, and let nobody in."""

_ENDINGS = (
    "apikey", "apikeys", "apitoken", "accesstoken", "authtoken", "refreshtoken", "idtoken", "sessiontoken",
    "securitytoken", "bearertoken", "bottoken", "csrftoken", "githubtoken", "gitlabtoken", "hftoken", "vaulttoken",
    "accesskey", "accountkey", "secretkey", "privatekey", "accesskeyid", "secretaccesskey", "clientsecret", "secret",
    "secrets", "authorization", "credentials", "subscriptionkey", "cookie", "cookies", "openaikey", "anthropickey",
    "azurekey", "awskey", "googlekey", "geminikey", "mistralkey", "coherekey", "groqkey", "hfkey", "huggingfacekey",
)  # fmt: skip
_ANYWHERE = ("password", "passwd", "passphrase")
"""`password1` and `password_confirmation` are one, too."""
_ENDINGS_IN_FIELDS = (*_ENDINGS, "token", "signature", "credential", "assertion")
"""`X-Vault-Token`, `hub_token`; in a model's JSON `eos_token` and the like are ordinary keys."""
_SEPARATORS = re.compile(r"[-_.\s\[\]]+")
_CACHE_MAX = 4096
_CACHED_NAME_MAX = 64
"""Characters. Longer names are decided anew each time, or a caller could fill the memory with them."""


class _Verdicts(dict[str, bool]):
    """Remembers verdicts, because names repeat; a hit costs one dictionary look-up."""

    def __init__(self, names: frozenset[str], endings: tuple[str, ...]) -> None:
        super().__init__()
        self._names = names
        self._endings = endings

    def __missing__(self, name: str) -> bool:
        normal = _normal(name)
        verdict = normal in self._names or normal.endswith(self._endings) or any(part in normal for part in _ANYWHERE)
        if len(self) < _CACHE_MAX and len(name) <= _CACHED_NAME_MAX:
            self[name] = verdict
        return verdict


class SecretNames:
    """Answers "is this name a secret's?".

    Args:
        extra: Further names of the user, compared like the built-in ones: without case, `-`, `_`, `.` and spaces.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        names = frozenset(_normal(name) for name in extra)
        self.in_json: Callable[[str], bool] = _Verdicts((_EXACT - _EXACT_NOT_IN_JSON) | names, _ENDINGS).__getitem__
        """For keys of a JSON document and attributes of a span."""
        self.in_fields: Callable[[str], bool] = _Verdicts(_EXACT | names, _ENDINGS_IN_FIELDS).__getitem__
        """For headers, query parameters and form fields."""
        self._conventional = frozenset(name for name in _CONVENTIONAL if _normal(name) not in names)
        # Tells rule sets apart without naming what somebody hides.
        suffix = f"+{zlib.crc32(' '.join(sorted(names)).encode()):08x}" if names else ""
        self.version = f"{REDACTION_VERSION}{suffix}"

    def in_attributes(self, name: str) -> bool:
        """For attributes of spans, whose names are dotted paths."""
        if name in self._conventional:
            return False
        return self.in_json(name) or self.in_json(name.rpartition(".")[2])


def _normal(name: str) -> str:
    return _SEPARATORS.sub("", name).lower()


_QUOTED = r"\\*\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'[^']*(?:'|\Z)"
_OPENING = re.compile(r"\\*[\"']")
_FRAME = r"\\*[\"']?\s*[:=]\s*"
_PAIR = re.compile(
    r"((?:api[-_]?key|access[-_]?key|secret[-_]?key|private[-_]?key|token|password|passwd|passphrase|pwd|secret"
    rf"|credentials?){_FRAME})({_QUOTED}|[^\s,;&}}\]<>\"'({{\[][^\s,;&}}\]<>\"']*)",
    re.IGNORECASE | re.DOTALL,
)
_LINE = re.compile(
    rf"((?:authorization|cookie){_FRAME})(?!\[REDACTED\])({_QUOTED}|[^\s\"'][^\r\n\"']*(?:(?<==)\"[^\r\n\"]*\"[^\r\n\"']*)*)",
    re.IGNORECASE | re.DOTALL,
)
"""Here the value has several words: a scheme and its parameters, or many pairs."""
_NAMED: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (("authorization", "cookie"), _LINE),
    (("key", "token", "passw", "passph", "pwd", "secret", "credential"), _PAIR),
)
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (
        ("earer ", "EARER ", "asic ", "ASIC "),
        # Words of lower-case letters alone are prose ("basic functionality").
        re.compile(r"\b([Bb]earer|BEARER|[Bb]asic|BASIC)\s+(?=[a-z.-]*[A-Z0-9_~+/=])[\w.~+/=-]{8,}"),
        rf"\1 {MARK}",
    ),
    (("sk-", "pk-", "rk-"), re.compile(r"\b[spr]k-[A-Za-z0-9_-]{16,}"), MARK),
    (("sk_", "rk_"), re.compile(r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{10,}"), MARK),
    (("AKIA", "ASIA"), re.compile(r"\bA[KS]IA[0-9A-Z]{16}\b"), MARK),
    (("AIza",), re.compile(r"\bAIza[0-9A-Za-z_-]{35}"), MARK),
    (("gh", "github_pat_"), re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"), MARK),
    (("glpat-",), re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}"), MARK),
    (("xox",), re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"), MARK),
    (("hf_",), re.compile(r"\bhf_[A-Za-z0-9]{20,}"), MARK),
    # Only at the start of a run of these characters: tried at each of them, a long run would cost its square.
    (
        ("eyJ",),
        re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
        MARK,
    ),
    (("://",), re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s\"']+(?=@)"), MARK),
    (("PRIVATE KEY",), re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END[A-Z -]*|\Z)", re.DOTALL), MARK),
)


def redact_text(text: str) -> tuple[str, int]:
    """Redact by pattern what is not structured. Returns the text and how many places were redacted.

    A pattern runs only where a literal part of it occurs: the search for that costs a hundredth of the pattern.
    """
    count = 0
    lowered = text.lower()
    for words, pattern in _NAMED:
        for anchor in words:
            if anchor in lowered:
                text, hits = _redact_pairs(pattern, text)
                count += hits
                break
    for anchors, pattern, replacement in _SHAPES:
        for anchor in anchors:
            if anchor in text:
                text, hits = pattern.subn(replacement, text)
                count += hits
                break
    return text, count


def _redact_pairs(pattern: re.Pattern[str], text: str) -> tuple[str, int]:
    """The name, the separator, and the quotes stay; the value goes."""
    hits = 0

    def keep_frame(match: re.Match[str]) -> str:
        nonlocal hits
        frame, value = match.groups()
        opening = _OPENING.match(value)
        quote = opening[0] if opening is not None else ""
        if value[len(quote) :].removesuffix(quote) in ("", MARK):
            return match[0]
        hits += 1
        return f"{frame}{quote}{MARK}{quote}"

    return pattern.sub(keep_frame, text), hits
