"""From spans to the spool: what is accepted is on the disk, what becomes a row, and what is refused."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from infertap.pipeline import Pipeline
from infertap_sidecar.receiver.errors import BusyError, TooLargeError
from infertap_sidecar.receiver.intake import Answer, Intake
from infertap_sidecar.receiver.wire import WireSpan

Spooled = Callable[[Pipeline], tuple[list[dict[str, Any]], list[dict[str, Any]]]]
CONTENT = {"mlflow.spanInputs": '{"a": 1, "password": "p"}', "mlflow.spanOutputs": '{"b": 2}'}
REMOTE, LOCAL = 0x300, 0x100
RESOURCE = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="scorer"))])


def wire(
    number: int,
    *,
    trace: int = 1,
    parent: int = 0,
    flags: int = LOCAL,
    resource: Resource = RESOURCE,
    attributes: dict[str, str] | None = None,
    **fields: Any,
) -> WireSpan:
    """A span with small numbers for ids, which began now."""
    now_ns = time.time_ns()
    span = Span(
        trace_id=trace.to_bytes(16),
        span_id=number.to_bytes(8),
        parent_span_id=parent.to_bytes(8) if parent else b"",
        flags=flags,
        name=f"s{number}",
        attributes=[KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in (attributes or {}).items()],
        **{"start_time_unix_nano": now_ns, "end_time_unix_nano": now_ns + 5_000_000, **fields},
    )
    return WireSpan(resource, InstrumentationScope(), span)


def taken(intake: Intake, *spans: WireSpan) -> Answer:
    return intake.take(spans).result(60)


def test_accepted_means_spooled(intake: Intake, pipeline: Pipeline, spooled: Spooled) -> None:
    """Every span of an accepted request is on the disk, also where it takes several groups."""
    assert taken(intake, *(wire(number) for number in range(1, 701))) == Answer(0, "")
    _, spans = spooled(pipeline)
    assert [span["name"] for span in spans] == [f"s{number}" for number in range(1, 701)]


def test_a_local_root_with_content_becomes_a_redacted_row(intake: Intake, pipeline: Pipeline, spooled: Spooled) -> None:
    """The row has the span's times and ids, the sender's name, and no secret; the span is kept, too."""
    taken(intake, wire(1, attributes=CONTENT), wire(2, parent=1))
    (row,), spans = spooled(pipeline)
    assert (row["request"], row["response"]) == ('{"a":1,"password":"[REDACTED]"}', '{"b": 2}')
    assert (row["protocol"], row["status_code"], row["duration_ns"]) == ("mlflow", 200, 5_000_000)
    assert (row["service_name"], row["resource"]) == ("scorer", {"service.name": "scorer"})
    assert row["span_id"] == f"{1:016x}"
    assert "span" not in row
    assert [(span["name"], span.get("request_id")) for span in spans] == [("s1", row["request_id"]), ("s2", None)]
    assert json.loads(spans[0]["attributes"]["mlflow.spanInputs"]) == {"a": 1, "password": "[REDACTED]"}


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": CONTENT, "parent": 9},
        {"attributes": CONTENT, "parent": 9, "flags": 0},
        {"attributes": CONTENT, "trace_state": "a=1,infertap=0000000000000009"},
        {"attributes": CONTENT, "parent": 9, "flags": REMOTE, "trace_state": "infertap=1"},
        {"attributes": {"mlflow.spanInputs": "1"}},
        {"attributes": {"mlflow.spanOutputs": "1"}},
        {"attributes": CONTENT, "start_time_unix_nano": 1_000_000_000_000_000_000},
        {"attributes": CONTENT, "start_time_unix_nano": 4_000_000_000_000_000_000},
    ],
    ids=["child", "unsaid", "marked", "marked remote", "no outputs", "no inputs", "long ago", "future"],
)
def test_other_spans_are_no_rows(intake: Intake, pipeline: Pipeline, spooled: Spooled, fields: dict[str, Any]) -> None:
    """Children, marked spans, spans without both sides, and spans of a broken clock stay spans."""
    assert taken(intake, wire(1, **fields)) == Answer(0, "")
    requests, spans = spooled(pipeline)
    assert (requests, len(spans)) == ([], 1)


def test_a_failed_call_is_a_row_without_an_answer(intake: Intake, pipeline: Pipeline, spooled: Spooled) -> None:
    """An error needs no outputs, and gives status 500."""
    event = Span.Event(
        name="exception",
        attributes=[
            KeyValue(key="exception.type", value=AnyValue(string_value="ValueError")),
            KeyValue(key="exception.message", value=AnyValue(string_value="too long")),
        ],
    )
    status = Status(code=Status.STATUS_CODE_ERROR)
    taken(intake, wire(1, attributes={"mlflow.spanInputs": "1"}, status=status, events=[event]))
    (row,), _ = spooled(pipeline)
    assert (row["status_code"], row["error_type"], row["error_message"]) == (500, "ValueError", "too long")
    assert row["logging_error_codes"] == ["RESPONSE_NOT_SEEN"]


def test_one_row_for_each_trace_and_remote_parent(intake: Intake, pipeline: Pipeline, spooled: Spooled) -> None:
    """Several roots under one remote parent are one request, in one export or in several."""
    taken(intake, *(wire(number, parent=9, flags=REMOTE, attributes=CONTENT) for number in (1, 2)))
    taken(intake, wire(3, parent=9, flags=REMOTE, attributes=CONTENT))
    taken(intake, wire(4, parent=8, flags=REMOTE, attributes=CONTENT))
    taken(intake, wire(5, trace=2, parent=9, flags=REMOTE, attributes=CONTENT))
    requests, spans = spooled(pipeline)
    assert [row["span_id"][-1] for row in requests] == ["1", "4", "5"]
    assert len(spans) == 5


def test_a_parent_of_the_same_process_is_not_remote(intake: Intake, pipeline: Pipeline, spooled: Spooled) -> None:
    """A bridge inside a process calls a parent remote that is in the same export; another process's root is a row."""
    other = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="other"))])
    taken(
        intake,
        wire(1, attributes=CONTENT),
        wire(2, parent=1, flags=REMOTE, attributes=CONTENT),
        wire(3, parent=1, flags=REMOTE, attributes=CONTENT, resource=other),
    )
    requests, _ = spooled(pipeline)
    assert [(row["span_id"][-1], row["service_name"]) for row in requests] == [("1", "scorer"), ("3", "other")]


def test_the_requests_of_a_senders_infertap_are_always_rows(
    intake: Intake, pipeline: Pipeline, spooled: Spooled
) -> None:
    """With no bodies, below the mark of a caller, joined to another server span, and several under one parent."""
    ids = [f"019ab5a2-7c00-7abc-8def-{number:012d}" for number in range(3)]
    server: dict[str, Any] = {
        "kind": Span.SPAN_KIND_SERVER,
        "parent": 9,
        "flags": REMOTE,
        "trace_state": "infertap=0000000000000009",
    }
    taken(
        intake,
        wire(1, attributes={"infertap.request_id": ids[0], "url.path": "/a"}, **server),
        wire(2, attributes={"infertap.request_id": ids[1], "output.value": "x"}, **server),
        wire(3, attributes={"infertap.request_id": ids[2]}, parent=8, kind=Span.SPAN_KIND_INTERNAL),
        wire(4, attributes=CONTENT, parent=1, flags=REMOTE, trace_state="infertap=0000000000000001"),
        wire(5, attributes={"infertap.request_id": ids[0]}, trace_state=f"infertap={5:016x}"),
    )
    requests, spans = spooled(pipeline)
    assert [(row["request_id"], row["span_id"][-1]) for row in requests] == list(zip(ids, "123", strict=True))
    assert (requests[0]["path"], requests[1]["response"], "response" in requests[2]) == ("/a", "x", False)
    assert [span.get("request_id") for span in spans] == [*ids, None, None]


def test_a_retry_is_accepted_and_not_written_again(intake: Intake, pipeline: Pipeline, spooled: Spooled) -> None:
    """The same ids within the window are the same span, in one request or in two."""
    first, second = wire(1, attributes=CONTENT), wire(2)
    assert taken(intake, first, first) == Answer(0, "")
    assert taken(intake, first, second) == Answer(0, "")
    requests, spans = spooled(pipeline)
    assert (len(requests), [span["name"] for span in spans]) == (1, ["s1", "s2"])


def test_the_same_span_gives_the_same_row_id(
    make_pipeline: Callable[..., Pipeline], make_intake: Callable[[Pipeline], Intake], spooled: Spooled, tmp_path: Any
) -> None:
    """Also through another process, whose window knows nothing."""
    span = wire(1, attributes=CONTENT)
    ids = []
    for name in ("one", "two"):
        pipeline = make_pipeline(tables=str(tmp_path / name))
        taken(make_intake(pipeline), span)
        ids.append(spooled(pipeline)[0][0]["request_id"])
    assert ids[0] == ids[1]
    assert ids[0][14] == "7"


def test_invalid_spans_are_counted_and_the_others_taken(intake: Intake, pipeline: Pipeline, spooled: Spooled) -> None:
    """The answer says how many and why, and nothing of what they held."""
    bad = wire(1, attributes={"secret": "s3cr3t"})
    assert bad.span is not None
    bad.span.trace_id = b"short"
    unreadable = wire(3)._replace(span=None)
    answer = taken(intake, bad, wire(2), unreadable)
    assert answer == Answer(2, "rejected 2 spans: 1 invalid trace_id, 1 unreadable")
    assert [span["name"] for span in spooled(pipeline)[1]] == ["s2"]


def test_without_room_nothing_is_taken_and_a_retry_is_welcome(
    make_pipeline: Callable[..., Pipeline], make_intake: Callable[[Pipeline], Intake], spooled: Spooled
) -> None:
    """A full queue is BusyError, and the same spans are new when they come again."""
    pipeline = make_pipeline(queue_bytes_max=1 << 20, capture_bytes_max=1 << 10, inline_bytes_max=1 << 10)
    intake = make_intake(pipeline)
    pipeline.inbox.span_bytes_max, room = 1 << 12, pipeline.inbox.span_bytes_max
    pipeline.inbox._from_others = 1 << 11
    with pytest.raises(BusyError):
        intake.take([wire(1, attributes=CONTENT)])
    pipeline.inbox.span_bytes_max = room
    assert taken(intake, wire(1, attributes=CONTENT)) == Answer(0, "")
    assert len(spooled(pipeline)[0]) == 1


def test_more_than_can_ever_be_held_is_refused_for_good(
    make_pipeline: Callable[..., Pipeline], make_intake: Callable[[Pipeline], Intake]
) -> None:
    """A sender that retries the same batch would retry for ever."""
    intake = make_intake(make_pipeline(queue_bytes_max=1 << 20, capture_bytes_max=1 << 10, inline_bytes_max=1 << 10))
    with pytest.raises(TooLargeError):
        intake.take(wire(number) for number in range(1, 10_000))


def test_a_spool_that_cannot_be_written_refuses(
    make_pipeline: Callable[..., Pipeline], make_intake: Callable[[Pipeline], Intake], tmp_path: Any
) -> None:
    """Nothing is called accepted that is on no disk."""
    (tmp_path / "file").write_text("not a folder")
    pipeline = make_pipeline(spool_dir=str(tmp_path / "file" / "spool"))
    with pytest.raises(BusyError):
        taken(make_intake(pipeline), wire(1))


def test_a_stopped_pipeline_refuses(intake: Intake, pipeline: Pipeline) -> None:
    """What comes after the stop is not taken."""
    pipeline.stop()
    with pytest.raises(BusyError):
        intake.take([wire(1)])


def test_metadata_keeps_no_content(
    make_pipeline: Callable[..., Pipeline], make_intake: Callable[[Pipeline], Intake], spooled: Spooled
) -> None:
    """With content = metadata there is a row, with sizes and without bodies, and a span without them."""
    pipeline = make_pipeline(content="metadata")
    taken(make_intake(pipeline), wire(1, attributes={**CONTENT, "other": "x"}))
    (row,), (span,) = spooled(pipeline)
    assert "request" not in row
    assert row["request_bytes"] == len(CONTENT["mlflow.spanInputs"])
    assert span["attributes"] == {"other": "x"}
