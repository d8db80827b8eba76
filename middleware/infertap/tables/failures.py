"""What delta-rs and its storage raise, said in our words: their own texts may quote rows, URLs and credentials.

Everything is retryable but rows that the table itself refuses; an unreachable table costs nothing while the spool has
room.
"""

import errno
import os
import re

from infertap.errors import DestinationError, PermanentError, RetryableError

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
    ("timed out", "the store did not answer in time"),
    ("error sending request", "the store cannot be reached"),
    ("Cast error", "a column of the table has another type than ours"),
    ("reader features", "the table uses a Delta feature that this version of deltalake does not know"),
    ("writer features", "the table uses a Delta feature that this version of deltalake does not know"),
)
"""Part of a foreign text, and what it means; the first that fits."""

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
    meaning = next((f": {meaning}" for sign, meaning in _SIGNS if sign in text), "")
    return RetryableError(f"{what}{meaning} ({type(error).__name__})")
