"""Which texts look like a secret by themselves: keys of known makers, JWTs, private keys, passwords in URLs."""

import re

from infertap.processors.secret_names import MARK

_LONG = r"(?:[^\s\"'<>?&:]|[?&](?!\w{1,32}=)|:(?!//)){1,256}"
"""A password with anything in it, but no parameters and no second URL behind the first."""
_HOST = r"(?=@[\w.-]+(?::\d{1,5})?(?:[/?#,;)\s\"'<>\\]|\Z))"
_PUBLIC_HOST = r"(?:[\w-]{1,64}\.[\w.-]{1,256}|localhost|[\w-]{1,64}(?=:))(?::\d{1,5})?(?:[/?#\s\"'<>\\]|\Z)"

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
    (("xox", "xapp-"), re.compile(r"\b(?:xox[abeprs]|xapp)-[A-Za-z0-9-]{10,}"), MARK),
    (("hf_", "gsk_", "lsv2_", "npm_"), re.compile(r"\b(?:hf|gsk|npm|lsv2_[a-z]{2})_[A-Za-z0-9_]{20,}"), MARK),
    (("nvapi-", "xai-", "pplx-"), re.compile(r"\b(?:nvapi|xai|pplx)-[A-Za-z0-9_-]{20,}"), MARK),
    (("dapi",), re.compile(r"\bdapi[0-9a-f]{32}(?:-\d)?\b"), MARK),
    (("ya29.", "hvs."), re.compile(r"\b(?:ya29|hvs)\.[A-Za-z0-9_-]{16,}"), MARK),
    (("GOCSPX-", "NRAK-", "SG."), re.compile(r"\b(?:GOCSPX-|NRAK-|SG\.)[A-Za-z0-9_.-]{20,}"), MARK),
    (("whsec_", "glsa_", "glc_"), re.compile(r"\b(?:whsec|glsa|glc)_[A-Za-z0-9_+/=-]{16,}"), MARK),
    (("hooks.slack.com/",), re.compile(r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[^\s\"'<>]+"), MARK),
    (("/api/webhooks/",), re.compile(r"(?<=/api/webhooks/)\d+/[\w-]+"), MARK),
    (
        ("-u ", "--user", "login "),
        # curl and netrc, which give a password no name of its own
        re.compile(
            r"((?<!\S)(?:-u|--user)[ =][\"']?[^\s:\"']{1,256}:|\blogin\s{1,8}\S{1,256}\s{1,8}password\s{1,8})"
            r"(?!\[REDACTED\])[^\s\"']+"
        ),
        rf"\1{MARK}",
    ),
    # From the start of a run of these characters, and its first `eyJ` alone: a later one ends where the run does, too,
    # and tried at each of them a long run would cost its square.
    (
        ("eyJ",),
        re.compile(
            r"(?<![A-Za-z0-9_-])(?>([A-Za-z0-9_-]*?)eyJ)[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"
        ),
        rf"\1{MARK}",
    ),
    (
        ("://",),
        # A name of lower-case letters alone is an account (`ssh://git@host`); digits before a slash are a port.
        re.compile(
            # A password with `@` and `/` in it ends where a host begins; on the web an `@` may also stand in a path.
            r"(?<=://)(?!\[REDACTED\]@)(?:"
            rf"(?<!http://)(?<!https://)[^/\s:@\"'<>]*:(?!\d{{0,5}}[/?#]){_LONG}(?<!/){_HOST}"
            rf"|[^/\s:@\"'<>]*:[^/\s\"'<>@]{{1,128}}@(?!{_PUBLIC_HOST}){_LONG}(?<!/){_HOST}"
            r"|[^/\s:@\"'<>]*:[^/\s\"'<>]+(?=@)|(?![a-z]{1,16}@)[^/\s:@\"'<>?#]+(?=@)"
            r"|[^/\s:@\"'<>]*:(?!\d{0,5}[/?#])[^\s\"'<>@]{1,128}(?=@))"
        ),
        MARK,
    ),
    (
        ("PRIVATE KEY",),
        re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END[A-Z0-9 -]*|\Z)", re.DOTALL),
        MARK,
    ),
)


PREFIXES = tuple(anchor for anchors, _, mark in _SHAPES if mark == MARK for anchor in anchors if "/" not in anchor)
"""How the keys of known makers begin."""
_IN_PATHS = re.compile(
    "|".join(
        re.escape(anchor) for anchors, _, _ in _SHAPES for anchor in anchors if " " not in anchor and anchor != "://"
    )
)


def redact_path(url: str) -> tuple[str, int]:
    """The same as `redact_shapes` for a URL that ends with its path, and cheaper where there is nothing."""
    return (url, 0) if _IN_PATHS.search(url) is None else redact_shapes(url)


def redact_shapes(text: str) -> tuple[str, int]:
    """The text without what looks like a secret, and how many places were redacted.

    A pattern runs only where a literal part of it occurs: the search for that costs a hundredth of the pattern.
    """
    count = 0
    for anchors, pattern, replacement in _SHAPES:
        for anchor in anchors:
            if anchor in text:
                text, hits = pattern.subn(replacement, text)
                count += hits
                break
    return text, count
