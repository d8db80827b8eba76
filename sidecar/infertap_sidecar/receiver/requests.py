"""Which of the received spans stand for a request, and so become rows of `inference`.

1. It is a local root: its parent, if it has one, is in another process.
2. It has inputs and outputs (or inputs and an error).
3. It does not carry our mark: then an infertap further out writes the row.
4. One row for each trace and remote parent, however many roots a process makes under it.
5. The span of a request by a sender's infertap that keeps no row itself is always a row, whatever 1 to 4 say.
"""

from collections.abc import Sequence

from infertap.clock import Clock
from infertap.processors.span_content import request_content
from infertap.processors.span_request import infertap_request_id
from infertap_sidecar.receiver.spans import ReceivedSpan
from infertap_sidecar.receiver.window import Seen, Window

_DAY_NS = 86_400_000_000_000
_AGE_NS_MAX = 30 * _DAY_NS
"""Spans that are older, or from the future, stay spans: a wrong clock shall not make partitions without end."""

RowKey = tuple[str, str | None]
"""Trace id, and the remote parent's span id; for a request of a sender's infertap its request id, and None."""


class RequestRule:
    """Decides, and remembers for which remote parents there is a row. Any thread."""

    def __init__(self, clock: Clock, window: Window) -> None:
        self._clock = clock
        self._window = window

    def choose(self, spans: Sequence[ReceivedSpan]) -> dict[int, RowKey]:
        """Index of each span that becomes a row, with the key to `confirm` or `forget` once that is known."""
        with_content = [index for index, span in enumerate(spans) if self._stands_for_request(span)]
        makers = {spans[index].key: spans[index].record.resource for index in with_content}
        chosen: dict[int, RowKey] = {}
        # Under several roots with one remote parent, the first is the request. A root whose parent has content and
        # is of the same process was only told that its parent is remote.
        for index in sorted(with_content, key=lambda index: spans[index].start_ns):
            record = spans[index].record
            request_id = infertap_request_id(record)
            if request_id is None and record.parent_span_id is not None:
                maker = makers.get((record.trace_id, record.parent_span_id))
                if maker is not None and maker == record.resource:
                    continue
            key = (record.trace_id, record.parent_span_id) if request_id is None else (request_id, None)
            if self._window.claim([key]) == [Seen.NEW]:
                chosen[index] = key
        return chosen

    def confirm(self, keys: Sequence[RowKey]) -> None:
        """These rows are on the disk."""
        self._window.confirm(keys)

    def forget(self, keys: Sequence[RowKey]) -> None:
        """These rows are not: the next root may have its row."""
        self._window.forget(keys)

    def _stands_for_request(self, span: ReceivedSpan) -> bool:
        if infertap_request_id(span.record) is None and (not span.is_local_root or span.marked):
            return False
        age_ns = self._clock.wall_ns() - span.start_ns
        return -_DAY_NS <= age_ns <= _AGE_NS_MAX and request_content(span.record) is not None
