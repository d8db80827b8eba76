"""The three tables, each column described once: Arrow schema, documentation and statistics come from here.

1. Names and order follow Databricks' AI-Gateway table, then ours; `spans` follows Unity Catalog's span table v2.
2. A MAP, ARRAY or STRUCT is never NULL, but empty: engines disagree about NULL there.
3. Statistics exist for the columns in `statistics` only. Those of any other column would carry content into the Delta
   log, where erasure does not reach it.
"""

from dataclasses import dataclass

from infertap.record import FIELD_CHARACTERS_MAX, HEADERS_MAX, TAGS_MAX


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `type` is Spark's SQL type; `filled_by` names the part of infertap that fills the column."""

    name: str
    type: str
    meaning: str
    filled_by: str = "core"


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One table below the root: its folder's name, its columns and how it is laid out."""

    name: str
    columns: tuple[Column, ...]
    partition_by: str
    statistics: tuple[str, ...]
    """Columns with minimum and maximum in log and footer: ids, times and numbers, never content."""
    bodies: tuple[str, ...] = ()
    """Columns of long, unlike values, where a dictionary only costs."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)


_CODES = "why something is missing: of `record.ErrorCode`, for example `REQUEST_BINARY_WITHHELD`, `PATH_OVER_LIMIT`"
_OF_SPANS = "rows of spans (`collect`); NULL elsewhere until protocols are built"
_EMPTY_OF_SPANS = "rows of spans (`collect`); empty elsewhere until protocols are built"
_NOT_YET = "nobody yet: always NULL"
_LONG = f"over {FIELD_CHARACTERS_MAX:,} characters"
_PROTOCOL = "`http` for every HTTP request until protocols are built; `mlflow` or `otlp` where a span became the row"
_ERROR_TYPE = "class of the exception that ended the request; NULL where the app answered an error by itself"
_CLIENT_ID = "header `x-request-id`, up to 256 characters"
_TAGS = f"what the app set with `annotate(**tags)`, as text; without those {_LONG} or beyond {TAGS_MAX}"
_HEADERS = (
    f"headers of the allow-list; repeated ones joined by `, `; without those {_LONG} or behind the {HEADERS_MAX}th"
)

INFERENCE = TableSchema(
    name="inference",
    partition_by="request_date",
    statistics=(
        "request_id", "request_time", "status_code", "response_model", "duration_ns",
        "spool_id", "segment_no", "sequence_no",
    ),
    bodies=("request", "response"),
    columns=(
        Column("request_id", "STRING", "UUIDv7, made by infertap"),
        Column("request_date", "DATE", "UTC day of `request_time`; the partition"),
        Column("request_time", "TIMESTAMP", "arrival, microseconds, UTC"),
        Column("client_request_id", "STRING", _CLIENT_ID),
        Column("status_code", "INT", "as sent; 500 for an exception without one, 499 for a client gone before one"),
        Column("sampling_fraction", "DOUBLE", "probability with which this row was kept; 1.0 until rules are built"),
        Column("execution_duration_ms", "BIGINT", "arrival to last byte, cut to whole milliseconds"),
        Column("request", "STRING", "request body as text, redacted; null when withheld"),
        Column("response", "STRING", "response body likewise; a stream as it was sent, event by event"),
        Column("request_ref", "STRING", "URI of the payload file that holds the request body", _NOT_YET),
        Column("response_ref", "STRING", "URI of the payload file that holds the response body", _NOT_YET),
        Column("request_encoding", "STRING", "`text` or `base64`; null where there is no inline body"),
        Column("response_encoding", "STRING", "`text` or `base64`; null where there is no inline body"),
        Column("logging_error_codes", "ARRAY<STRING>", _CODES),
        Column("served_entity_id", "STRING", "setting `served_entity_id`, else the service name"),
        Column("requester", "STRING", "value of the header named by `requester_header`, up to 256 characters"),
        Column("trace_id", "STRING", "32 lower-case hex digits"),
        Column("span_id", "STRING", "16 lower-case hex digits: the server span"),
        Column("parent_span_id", "STRING", "the caller's span; null at the root of a trace"),
        Column("method", "STRING", "HTTP method"),
        Column("path", "STRING", f"path of the URL, without query; empty {_LONG}"),
        Column("query", "STRING", f"query string, redacted; null {_LONG}"),
        Column("request_headers", "MAP<STRING,STRING>", _HEADERS),
        Column("response_headers", "MAP<STRING,STRING>", _HEADERS),
        Column("request_content_type", "STRING", "media type without parameters"),
        Column("response_content_type", "STRING", "media type without parameters"),
        Column("request_bytes", "BIGINT", "body bytes that passed, also when withheld"),
        Column("response_bytes", "BIGINT", "body bytes that passed, also when withheld"),
        Column("request_sha256", "STRING", "of the stored text only"),
        Column("response_sha256", "STRING", "of the stored text only"),
        Column("duration_ns", "BIGINT", "arrival to last byte, nanoseconds"),
        Column("time_to_first_chunk_ns", "BIGINT", "arrival to the first body bytes of the answer"),
        Column("time_to_first_token_ns", "BIGINT", "arrival to the first generated token", _NOT_YET),
        Column("is_stream", "BOOLEAN", "whether the answer was a stream"),
        Column("chunk_count", "BIGINT", "body messages of the answer that carried bytes"),
        Column("end_reason", "STRING", "one of `record.EndReason`: `complete`, `client_disconnect`, `app_error` ..."),
        Column("protocol", "STRING", _PROTOCOL),
        Column("operation", "STRING", "what was asked for, in the protocol's own word", _OF_SPANS),
        Column("request_model", "STRING", "model that was asked for", _OF_SPANS),
        Column("response_model", "STRING", "model that answered", _OF_SPANS),
        Column("model_version", "STRING", "version that answered", _NOT_YET),
        Column("input_tokens", "BIGINT", "as the answer says", _OF_SPANS),
        Column("output_tokens", "BIGINT", "as the answer says", _OF_SPANS),
        Column("cached_input_tokens", "BIGINT", "as the answer says", _OF_SPANS),
        Column("reasoning_tokens", "BIGINT", "as the answer says", _NOT_YET),
        Column("finish_reasons", "ARRAY<STRING>", "one for each choice", _EMPTY_OF_SPANS),
        Column("tool_call_count", "INT", "tool calls in the answer", _NOT_YET),
        Column("instance_count", "INT", "rows or instances in the request", _NOT_YET),
        Column("error_type", "STRING", _ERROR_TYPE),
        Column("error_message", "STRING", f"its message, redacted; null {_LONG}"),
        Column("redaction_version", "STRING", "the rules that redacted this row"),
        Column("redacted_count", "INT", "values that redaction replaced, in all columns"),
        Column("sample_rule", "STRING", "the rule that kept this row", _NOT_YET),
        Column("tags", "MAP<STRING,STRING>", _TAGS),
        Column("service_name", "STRING", "OpenTelemetry `service.name`"),
        Column("instance", "STRING", "`service.instance.id` where given, else `k8s.pod.name`, else the host's name"),
        Column("resource", "MAP<STRING,STRING>", "all attributes of the OpenTelemetry resource"),
        Column("schema_version", "INT", "version of these columns"),
        Column("infertap_version", "STRING", "version that captured the request"),
        Column("spool_id", "STRING", "the slot of the spool that the row came through"),
        Column("segment_no", "BIGINT", "its segment in that slot"),
        Column("sequence_no", "BIGINT", "number of the row in its slot; a gap is a lost row"),
    ),
)  # fmt: skip

_ATTRIBUTES = "attributes STRING, dropped_attributes_count INT"

SPANS = TableSchema(
    name="spans",
    partition_by="date",
    statistics=("time", "trace_id", "start_time_unix_nano", "request_id", "spool_id", "segment_no"),
    columns=(
        Column("record_id", "STRING", "unique for each row: slot, segment and position in it"),
        Column("time", "TIMESTAMP", "start of the span, microseconds, UTC"),
        Column("date", "DATE", "UTC day of `time`; the partition"),
        Column("service_name", "STRING", "OpenTelemetry `service.name`"),
        Column("trace_id", "STRING", "32 lower-case hex digits"),
        Column("span_id", "STRING", "16 lower-case hex digits"),
        Column("trace_state", "STRING", "W3C `tracestate`"),
        Column("parent_span_id", "STRING", "null at the root of a trace"),
        Column("flags", "INT", "W3C trace flags"),
        Column("name", "STRING", "name of the span; of a request's own: method and route, or path"),
        Column("kind", "STRING", "`SPAN_KIND_SERVER`, `SPAN_KIND_INTERNAL` and so on"),
        Column("start_time_unix_nano", "BIGINT", "nanoseconds since the epoch"),
        Column("end_time_unix_nano", "BIGINT", "nanoseconds since the epoch"),
        Column("attributes", "STRING", "JSON object; bodies are in `inference`, joined by `trace_id` and `span_id`"),
        Column("dropped_attributes_count", "INT", "as the maker of the span counted"),
        Column("events", f"ARRAY<STRUCT<time_unix_nano BIGINT, name STRING, {_ATTRIBUTES}>>", "attributes as JSON"),
        Column("dropped_events_count", "INT", "as the maker of the span counted"),
        Column(
            "links",
            f"ARRAY<STRUCT<trace_id STRING, span_id STRING, trace_state STRING, {_ATTRIBUTES}, flags INT>>",
            "attributes as JSON",
        ),
        Column("dropped_links_count", "INT", "as the maker of the span counted"),
        Column("status", "STRUCT<message STRING, code STRING>", "`STATUS_CODE_OK`, `..._ERROR` or `..._UNSET`"),
        Column("resource", f"STRUCT<{_ATTRIBUTES}>", "attributes as JSON"),
        Column("resource_schema_url", "STRING", "empty where the maker gave none"),
        Column("instrumentation_scope", f"STRUCT<name STRING, version STRING, {_ATTRIBUTES}>", "what made the span"),
        Column("span_schema_url", "STRING", "empty where the maker gave none"),
        Column("request_id", "STRING", "the request that the span belongs to, where its process knows it"),
        Column("spool_id", "STRING", "the slot of the spool that the row came through"),
        Column("segment_no", "BIGINT", "its segment in that slot"),
    ),
)

LEDGER = TableSchema(
    name="ledger",
    partition_by="date",
    statistics=("spool_id", "segment_no", "minute", "count"),
    columns=(
        Column("spool_id", "STRING", "the slot whose requests are counted"),
        Column("segment_no", "BIGINT", "highest segment of the slot that the commit of this row covers"),
        Column("service_name", "STRING", "OpenTelemetry `service.name` of the slot's process"),
        Column("instance", "STRING", "as in `inference`, of the slot's process"),
        Column("minute", "TIMESTAMP", "minute of arrival, UTC"),
        Column("destination", "STRING", "`table` or `otlp`; null where the count holds for every destination"),
        Column("outcome", "STRING", "`seen`, `kept`, `sampled`, `lost` or `written`"),
        Column("cause", "STRING", "one of `record.LossCause` for `lost`; else null"),
        Column("count", "BIGINT", "requests to add: sum over the rows, never read a single one"),
        Column("date", "DATE", "UTC day of `minute`; the partition"),
    ),
)

TABLES = (INFERENCE, SPANS, LEDGER)
