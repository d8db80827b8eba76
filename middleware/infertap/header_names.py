"""Which header names a setting may hold: names by RFC 9110, and none that would break an answer or tell a secret."""

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_OF_ANSWERS = frozenset(
    {
        # How the message is framed and the connection used.
        "connection", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
        # What the body is, who may keep it, and for how long.
        "accept-ranges", "age", "cache-control", "digest", "etag", "expires", "last-modified", "link", "pragma", "vary",
        # Where the client goes, and what it may do.
        "allow", "alt-svc", "clear-site-data", "location", "refresh", "retry-after", "strict-transport-security",
        "www-authenticate", "x-content-type-options", "x-frame-options",
        # Who answered, when, and under which trace.
        "date", "host", "server", "status", "traceparent", "tracestate", "via",
    }
)  # fmt: skip
_OF_ANSWERS_PREFIXES = ("access-control-", "content-", "proxy-", "sec-")
_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie", "x-infertap-outer"})
"""What redaction hides in any case: a column of it says nothing."""


def not_a_name(header: str) -> str | None:
    """What is wrong with a header name as such."""
    return None if _TOKEN.fullmatch(header) else f"{header!r} is not a header name"


def not_for_answers(header: str) -> str | None:
    """What is wrong with a name for a header that is added to every answer."""
    name = header.lower()
    if name in _OF_ANSWERS or name in _SECRETS or name.startswith(_OF_ANSWERS_PREFIXES):
        return f"{header!r} has a meaning of its own in an answer; choose another name, such as x-infertap-request-id"
    return not_a_name(header)


def not_for_requester(header: str) -> str | None:
    """What is wrong with a name for the request header that says who asks."""
    if header.lower() in _SECRETS:
        return f"{header!r} is a credential and never stored; name a header that says who the caller is"
    return not_a_name(header)


def not_names(headers: Iterable[str]) -> str | None:
    """What is wrong with a list of names."""
    wrong = [repr(header) for header in headers if not _TOKEN.fullmatch(header)]
    return f"no header names: {', '.join(wrong)}" if wrong else None
