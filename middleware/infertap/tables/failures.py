"""What delta-rs and its storage raise, said in our words: their own texts may quote rows, URLs and credentials.

Everything is retryable but rows that the table itself refuses; an unreachable table costs nothing while the spool has
room.
"""

import errno
import os
import re

from infertap.errors import DestinationError, PermanentError, RetryableError

_NO_S3 = (
    "no credentials are set (AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, in the environment or in storage_options, "
    "or AWS_PROFILE), and the machine offers none"
)
_NO_GCS = (
    "no credentials are set (GOOGLE_APPLICATION_CREDENTIALS in the environment, or google_service_account in "
    "storage_options), and the machine offers none"
)
_NO_AZURE = (
    "no credentials are set (AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CLIENT_ID with its "
    "secret, in the environment or in storage_options), and the machine offers none"
)

_SIGNS = (
    ("os error 28", "no space left on the device"),
    ("os error 13", "permission denied"),
    ("os error 30", "the file system is read-only"),
    ("Concurrent transaction failed", "another drainer committed the same segments first"),
    ("Metadata changed", "the table's schema or settings were changed at the same moment"),
    ("Transaction failed", "other writers committed first, too often"),
    ("Failed to commit transaction", "other writers committed first, too often"),
    ("SignatureDoesNotMatch", "the store refused the credentials (signature does not match)"),
    ("InvalidAccessKeyId", "the store refused the credentials (unknown access key)"),
    ("AccessDenied", "the store denied access"),
    ("status 403", "the store denied access"),
    ("status 401", "the store refused the credentials"),
    ("NoSuchBucket", "the bucket does not exist"),
    ("dns error", "the store's host name cannot be resolved"),
    ("connect error", "the store cannot be reached"),
    ("(Connect)", "the store cannot be reached"),
    ("MissingRegion", "no region is set (AWS_REGION)"),
    ("Missing region", "no region is set (AWS_REGION)"),
    ("loading credentials", _NO_S3),
    ("no credentials found", _NO_S3),
    ("CredentialsNotLoaded", _NO_S3),
    ("computeMetadata", _NO_GCS),
    ("metadata/identity", _NO_AZURE),
    ("Account must be specified", "no account is set (AZURE_STORAGE_ACCOUNT_NAME, or account_name in storage_options)"),
    ("169.254.169.254", "no credentials are set, and the machine offers none"),
    ("no credentials", "no credentials are set"),
    ("NoCredentials", "no credentials are set"),
    ("status 404", "the store does not know this place"),
    ("Invalid table location", "the URI is not understood by the table library"),
    ("not a valid url", "the URI is not understood by the table library"),
    ("No storage backend", "the table library has no driver for this scheme"),
    ("Unknown scheme", "the table library has no driver for this scheme"),
    ("Unable to recognise URL", "the table library has no driver for this scheme"),
    ("timed out", "the store did not answer in time"),
    ("error sending request", "the store cannot be reached"),
    ("Cast error", "a column of the table has another type than ours"),
    ("reader features", "the table uses a Delta feature that this version of deltalake does not know"),
    ("writer features", "the table uses a Delta feature that this version of deltalake does not know"),
)
"""Part of a foreign text, and what it means; the first that fits."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://\S+")
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_WORDS_CHARS_MAX = 160
_REFUSED = re.compile(r"failed validation check|[Ii]nvariant|CHECK constraint")


class RowsRefusedError(PermanentError):
    """The table refuses at least one row of the batch: a CHECK constraint or an invariant that somebody added."""


def is_foreign_panic(error: BaseException) -> bool:
    """Whether this is a panic of a Rust library, which derives from BaseException and cannot be imported."""
    return type(error).__module__ == "pyo3_runtime"


def describe(error: BaseException, *, table: str, doing: str) -> DestinationError:
    """The error to raise instead of `error`: it quotes nothing but error numbers and names of classes."""
    what = f"table `{table}`: {doing} failed"
    if isinstance(error, OSError) and error.errno is not None:
        return RetryableError(f"{what}: {os.strerror(error.errno)} ({errno.errorcode.get(error.errno, error.errno)})")
    text = str(error)
    if _REFUSED.search(text):
        return RowsRefusedError(f"{what}: the table refuses at least one row")
    meaning = opening_words(error) if doing == "opening" else _meaning(text)
    return RetryableError(f"{what}{': ' if meaning else ''}{meaning} ({type(error).__name__})")


def opening_words(error: BaseException) -> str:
    """Why a table cannot be opened. No row is in hand yet, so the library's last words may be quoted; what could be a
    key may not."""
    text = str(error)
    return _meaning(text) or _last_words(text)


def _meaning(text: str) -> str:
    """What a foreign text says, where we know it."""
    return next((meaning for sign, meaning in _SIGNS if sign in text), "")


def _last_words(text: str) -> str:
    """The innermost cause in a chain of errors, as one short line without colours, URLs or anything like a key."""
    lines = [line for line in _COLOUR.sub("", text).replace("\u21b3", "\n").splitlines() if line.strip()]
    words = _KEY_LIKE.sub("***", _URL.sub(r"\1://...", lines[-1] if lines else "no reason given"))
    return " ".join(words.split())[:_WORDS_CHARS_MAX]
