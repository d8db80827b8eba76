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

_ENDINGS = (
    "apikey", "apitoken", "accesstoken", "authtoken", "refreshtoken", "idtoken", "sessiontoken", "securitytoken",
    "accesskey", "secretkey", "privatekey", "accesskeyid", "secretaccesskey", "clientsecret", "password", "passwd",
    "secret", "authorization", "credentials", "subscriptionkey", "cookie",
)  # fmt: skip
_SEPARATORS = re.compile(r"[-_.\s\[\]]+")
_CACHE_MAX = 4096


class _Verdicts(dict[str, bool]):
    """Remembers verdicts, because names repeat; a hit costs one dictionary look-up."""

    def __init__(self, exact: frozenset[str], extra: frozenset[str]) -> None:
        super().__init__()
        self._names = exact | extra

    def __missing__(self, name: str) -> bool:
        normal = _normal(name)
        verdict = normal in self._names or normal.endswith(_ENDINGS)
        if len(self) < _CACHE_MAX:
            self[name] = verdict
        return verdict


class SecretNames:
    """Answers "is this name a secret's?".

    Args:
        extra: Further names of the user, compared like the built-in ones: without case, `-`, `_`, `.` and spaces.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        names = frozenset(_normal(name) for name in extra)
        self.in_json: Callable[[str], bool] = _Verdicts(_EXACT - _EXACT_NOT_IN_JSON, names).__getitem__
        """For keys of a JSON document and attributes of a span."""
        self.in_fields: Callable[[str], bool] = _Verdicts(_EXACT, names).__getitem__
        """For headers, query parameters and form fields."""
        # Tells rule sets apart without naming what somebody hides.
        suffix = f"+{zlib.crc32(' '.join(sorted(names)).encode()):08x}" if names else ""
        self.version = f"{REDACTION_VERSION}{suffix}"


def _normal(name: str) -> str:
    return _SEPARATORS.sub("", name).lower()


_PAIR = re.compile(
    r"(authorization|cookie|api[-_]?key|access[-_]?key|secret[-_]?key|private[-_]?key|token|password|passwd|pwd|secret"
    r"|credentials?)((?:\\?[\"'])?\s*[:=]\s*)"
    r"(\\?\"(?:[^\"\\]|\\.)*(?:\"|$)|'[^']*(?:'|$)|[^\s,;&}\]<>\"']+)",
    re.IGNORECASE,
)
_PAIR_ANCHORS = ("auth", "cookie", "key", "token", "passw", "pwd", "secret", "credential")
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (("earer ", "EARER ", "asic "), re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MARK}"),
    (("sk-", "pk-", "rk-"), re.compile(r"\b[spr]k-[A-Za-z0-9_-]{16,}"), MARK),
    (("sk_", "rk_"), re.compile(r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{10,}"), MARK),
    (("AKIA", "ASIA"), re.compile(r"\bA[KS]IA[0-9A-Z]{16}\b"), MARK),
    (("gh", "github_pat_"), re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"), MARK),
    (("xox",), re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"), MARK),
    (("hf_",), re.compile(r"\bhf_[A-Za-z0-9]{20,}"), MARK),
    (("eyJ",), re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"), MARK),
    (("://",), re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)"), MARK),
    (("PRIVATE KEY",), re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END[A-Z -]*|\Z)", re.DOTALL), MARK),
)  # fmt: skip


def redact_text(text: str) -> tuple[str, int]:
    """Redact by pattern what is not structured. Returns the text and how many places were redacted.

    A pattern runs only where a literal part of it occurs: the search for that costs a hundredth of the pattern.
    """
    count = 0
    for anchors, pattern, replacement in _SHAPES:
        for anchor in anchors:
            if anchor in text:
                text, hits = pattern.subn(replacement, text)
                count += hits
                break
    lowered = text.lower()
    for anchor in _PAIR_ANCHORS:
        if anchor in lowered:
            text, hits = _PAIR.subn(_keep_frame, text)
            return text, count + hits
    return text, count


def _keep_frame(match: re.Match[str]) -> str:
    """The name, the separator, and the quotes stay; the value goes."""
    name, separator, value = match.groups()
    if value.lower() in ("bearer", "basic") or MARK in value:
        return f"{name}{separator}{value}"
    quote = value[0] if value[0] in "\"'" else ""
    if value.startswith('\\"'):
        quote = '\\"'
    return f"{name}{separator}{quote}{MARK}{quote}"
