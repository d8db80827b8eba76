"""An OTLP receiver in a process of its own, gRPC and HTTP at once, that misbehaves on request.

Usage: `python otlp_receiver.py FOLDER [--certificate PEM --key PEM [--client-ca PEM]]`. It writes `ready.json` (the
ports), appends one JSON line per request to `requests.jsonl`, and reads `behaviour.json` at each request (`client.py`).
"""

import argparse
import gzip
import json
import os
import ssl
import threading
import zlib
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status as ProtoStatus


def value_of(value: Any) -> Any:
    """The Python value of an AnyValue."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    if kind == "bytes_value":
        return value.bytes_value.hex()
    return getattr(value, kind) if kind else None


def attributes_of(pairs: Any) -> dict[str, Any]:
    """The attributes as a dict."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def spans_of(request: Any) -> list[dict[str, Any]]:
    """All spans of a request, each with its resource and scope."""
    return [
        span_of(span, attributes_of(of_resource.resource.attributes), of_scope.scope)
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def span_of(span: Any, resource: dict[str, Any], scope: Any) -> dict[str, Any]:
    """One span with hex ids and plain values."""
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() or None,
        "trace_state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "attributes": attributes_of(span.attributes),
        "events": [[e.name, e.time_unix_nano, attributes_of(e.attributes)] for e in span.events],
        "links": [[link.trace_id.hex(), link.span_id.hex(), attributes_of(link.attributes)] for link in span.links],
        "status": [ProtoStatus.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"), span.status.message],
        "dropped": [span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count],
        "resource": resource,
        "scope": [scope.name, scope.version],
    }


class Journal:
    """The folder: what came in, and how to answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._uses: dict[int, int] = {}

    def behaviour(self, spans: list[dict[str, Any]]) -> dict[str, Any]:
        """The behaviour for a request with these spans; empty for a good answer."""
        path = self.folder / "behaviour.json"
        behaviour: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        poison = behaviour.get("only_for_span")
        if poison and not any(span["name"] == poison for span in spans):
            return {}
        if behaviour.get("only_with_spans") and not spans:
            return {}
        with self._lock:
            uses = self._uses[behaviour.get("id", 0)] = self._uses.get(behaviour.get("id", 0), 0) + 1
        after, times = behaviour.get("after", 0), behaviour.get("times", 1 << 30)
        return behaviour if after < uses <= after + times else {}

    def note(self, **facts: Any) -> None:
        """Append one line."""
        with self._lock, (self.folder / "requests.jsonl").open("a") as file:
            file.write(json.dumps(facts) + "\n")


class TraceService(TraceServiceServicer):
    """gRPC."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - its name
        """One request."""
        spans = spans_of(request)
        behaviour = self._journal.behaviour(spans)
        accepted = not behaviour.get("grpc_code") and not behaviour.get("hang")
        self._journal.note(
            transport="grpc",
            accepted=accepted,
            headers=dict(context.invocation_metadata()),
            bytes=request.ByteSize(),
            spans=spans,
        )
        if behaviour.get("hang"):
            threading.Event().wait(600)
        if behaviour.get("grpc_code"):
            if "retry_delay_s" in behaviour:
                info = RetryInfo(retry_delay=Duration(seconds=behaviour["retry_delay_s"]))
                context.set_trailing_metadata((("google.rpc.retryinfo-bin", info.SerializeToString()),))
            context.abort(grpc.StatusCode[behaviour["grpc_code"]], behaviour.get("details", ""))
        return answer(behaviour)


def answer(behaviour: dict[str, Any]) -> Any:
    """A good answer, or a partial success."""
    if "rejected" not in behaviour:
        return ExportTraceServiceResponse()
    partial = ExportTracePartialSuccess(rejected_spans=behaviour["rejected"], error_message="quota")
    return ExportTraceServiceResponse(partial_success=partial)


class Handler(BaseHTTPRequestHandler):
    """HTTP/protobuf."""

    protocol_version = "HTTP/1.1"
    journal: Journal

    def do_POST(self) -> None:
        """One request."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        encoding = self.headers.get("content-encoding", "")
        plain = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(encoding, bytes)(body)
        spans = spans_of(ExportTraceServiceRequest.FromString(plain))
        behaviour = self.journal.behaviour(spans)
        status = behaviour.get("http_status", 200)
        if self.path.partition("?")[0] not in (behaviour.get("path", "/v1/traces"),):
            status = 404
        if len(plain) > behaviour.get("request_bytes_max", 1 << 40):
            status = 413
        accepted = 200 <= status < 300 and "text/html" not in behaviour.get("content_type", "")
        self.journal.note(
            transport="http",
            accepted=accepted and not behaviour.get("hang"),
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            bytes=len(plain),
            spans=spans,
        )
        if behaviour.get("hang"):
            threading.Event().wait(600)
        self._answer(status, behaviour)

    def do_GET(self) -> None:
        """Where a client that follows redirects would end up."""
        self.journal.note(transport="http", accepted=False, method="GET", path=self.path, spans=[])
        self._answer(200, {})

    def _answer(self, status: int, behaviour: dict[str, Any]) -> None:
        body = behaviour["body"].encode() if "body" in behaviour else answer(behaviour).SerializeToString()
        self.send_response(status)
        self.send_header("content-type", behaviour.get("content_type", "application/x-protobuf"))
        for name, value in behaviour.get("headers", {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Quiet."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("--certificate", "--key", "--client-ca", "--grpc-socket"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    journal = Journal(options.folder)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    add_TraceServiceServicer_to_server(TraceService(journal), server)
    web = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Handler,), {"journal": journal}))
    web.daemon_threads = True
    if options.certificate:
        client_ca = options.client_ca.read_bytes() if options.client_ca else None
        pair = (options.key.read_bytes(), options.certificate.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
        grpc_port = server.add_secure_port("127.0.0.1:0", credentials)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
        if options.client_ca:
            context.load_verify_locations(options.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        web.socket = context.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
    else:
        grpc_port = server.add_insecure_port("127.0.0.1:0")
    if options.grpc_socket:
        server.add_insecure_port(f"unix:{options.grpc_socket}")
    server.start()
    partial = options.folder / "ready.json.partial"
    partial.write_text(json.dumps({"grpc_port": grpc_port, "http_port": web.server_address[1]}))
    os.replace(partial, options.folder / "ready.json")
    web.serve_forever()


if __name__ == "__main__":
    main()
