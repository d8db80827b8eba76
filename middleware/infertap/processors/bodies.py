"""One body on its way to a row: decode, redact, fit, in this order; or a reason why it is not there, and a preview."""

import hashlib
from typing import NamedTuple

from infertap.processors.decode import BinaryError, TooLargeError, UndecodableError, decode
from infertap.processors.media import MediaType
from infertap.processors.redact import Redactor
from infertap.record import PREVIEW_CHARACTERS_MAX, ErrorCode


class Side(NamedTuple):
    """The reason codes of one side of an exchange."""

    binary: ErrorCode
    undecodable: ErrorCode
    over_inline: ErrorCode
    redaction_failed: ErrorCode


REQUEST = Side(
    ErrorCode.REQUEST_BINARY_WITHHELD,
    ErrorCode.REQUEST_UNDECODABLE,
    ErrorCode.REQUEST_OVER_INLINE_LIMIT,
    ErrorCode.REQUEST_REDACTION_FAILED,
)
RESPONSE = Side(
    ErrorCode.RESPONSE_BINARY_WITHHELD,
    ErrorCode.RESPONSE_UNDECODABLE,
    ErrorCode.RESPONSE_OVER_INLINE_LIMIT,
    ErrorCode.RESPONSE_REDACTION_FAILED,
)


PREVIEW_SOURCE_BYTES_MAX = 4 << 20
"""A larger body is not redacted only to show its beginning: 4 MiB of short JSON values cost the worker 0.2 s."""


class StoredBody(NamedTuple):
    """What a row holds of a body: the text and its hash, or the code that says why not."""

    text: str | None
    sha256: str | None
    code: str | None
    redacted: int
    preview: str | None = None
    """The beginning of the redacted text, where that is over the limit and somebody wants to see it."""


class BodyProcessor:
    """Turns raw bodies into stored ones. Never raises.

    Args:
        inline_bytes_max: Largest text (UTF-8 bytes) that a row holds. A larger body is withheld before it is parsed,
            unless a preview is wanted; what redaction would have taken out of it does not make it fit.
    """

    __slots__ = ("_inline_bytes_max", "_redactor")

    def __init__(self, redactor: Redactor, inline_bytes_max: int) -> None:
        self._redactor = redactor
        self._inline_bytes_max = inline_bytes_max

    def store(
        self, raw: bytes, media: MediaType, coding: str | None, side: Side, *, preview: bool = False
    ) -> StoredBody:
        """Decode, redact, fit. `raw` is what passed, whole or not: what cannot be parsed is redacted as text.

        Args:
            preview: Whether a body over the limit is to show its first `PREVIEW_CHARACTERS_MAX` characters.
        """
        if not raw:
            return StoredBody("", hashlib.sha256(b"").hexdigest(), None, 0)
        limit = self._inline_bytes_max
        try:
            text = decode(raw, media, coding, bytes_max=max(limit, PREVIEW_SOURCE_BYTES_MAX) if preview else limit)
        except BinaryError:
            return StoredBody(None, None, side.binary.value, 0)
        except TooLargeError:
            return StoredBody(None, None, side.over_inline.value, 0)
        except UndecodableError:
            return StoredBody(None, None, side.undecodable.value, 0)
        try:
            too_large = preview and len(text.encode()) > limit
            text, redacted = self._redactor.body(text, media.kind, boundary=media.boundary)
            stored = text.encode()
        except Exception:
            # The privacy law: whatever went wrong, the body is withheld.
            return StoredBody(None, None, side.redaction_failed.value, 0)
        if too_large or len(stored) > limit:
            shown = text[:PREVIEW_CHARACTERS_MAX] if preview else None
            return StoredBody(None, None, side.over_inline.value, redacted, shown)
        return StoredBody(text, hashlib.sha256(stored).hexdigest(), None, redacted)
