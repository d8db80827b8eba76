"""One body on its way to a row: decode, redact, fit, in this order; or a reason why it is not there, and a preview."""

import hashlib
from typing import NamedTuple

from infertap.processors.decode import BinaryError, TooLargeError, UndecodableError, decode
from infertap.processors.head import head_of
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


_UNSEEN_CHARACTERS = 3_000
"""So far from the cut ends what is shown: whatever the cut has split is longer than any secret, or is not seen."""


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
        inline_bytes_max: Largest text (UTF-8 bytes) that a row holds. A larger body is withheld before it is parsed;
            what redaction would have taken out of it does not make it fit.
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
        try:
            text = decode(raw, media, coding, bytes_max=self._inline_bytes_max)
        except BinaryError:
            return StoredBody(None, None, side.binary.value, 0)
        except TooLargeError:
            beginning = self._preview(raw, media, coding) if preview else None
            return StoredBody(None, None, side.over_inline.value, 0, beginning)
        except UndecodableError:
            return StoredBody(None, None, side.undecodable.value, 0)
        try:
            text, redacted = self._redactor.body(text, media.kind, boundary=media.boundary)
            stored = text.encode()
        except Exception:
            # The privacy law: whatever went wrong, the body is withheld.
            return StoredBody(None, None, side.redaction_failed.value, 0)
        if len(stored) > self._inline_bytes_max:
            beginning = text[:PREVIEW_CHARACTERS_MAX] if preview else None
            return StoredBody(None, None, side.over_inline.value, redacted, beginning)
        return StoredBody(text, hashlib.sha256(stored).hexdigest(), None, redacted)

    def _preview(self, raw: bytes, media: MediaType, coding: str | None) -> str | None:
        """The beginning, redacted twice: as what it claims to be, and as the text that it may be as a whole."""
        try:
            head = head_of(raw, media, coding)
            if head is None:
                return None
            text = self._redactor.text(self._redactor.body(head, media.kind)[0])[0]
            text.encode()
        except Exception:
            # The privacy law again: then there is none.
            return None
        return text[: min(PREVIEW_CHARACTERS_MAX, max(0, len(text) - _UNSEEN_CHARACTERS))] or None
