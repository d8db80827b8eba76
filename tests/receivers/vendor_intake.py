"""The six vendors' trace intakes in one process, as strict as their documentation, behind an HTTP proxy of its own.

Usage: `python vendor_intake.py FOLDER --certificate PEM --key PEM`. The proxy (CONNECT) stands in for name resolution:
a client with `https_proxy` set connects to `otlp.datadoghq.eu` and lands here, with TLS for that very name. It writes
`ready.json` (the proxy's port) and appends one JSON line per request to `requests.jsonl`.
"""

import argparse
import gzip
import json
import os
import socket
import ssl
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

KEY = "k3y-of-the-vendor"


class Vendor(NamedTuple):
    """What one intake demands; the figures are the vendors', not ours."""

    name: str
    path: str
    header: str
    value: str = KEY
    status: int = 200
    wrong_key_status: int = 401
    request_bytes_max: int = 1 << 40
    span_bytes_max: int = 1 << 40
    value_bytes_max: int = 1 << 40
    value_characters_max: int = 1 << 40
    name_characters_max: int = 1 << 40
    array_items_max: int = 1 << 40
    plain_values: bool = False
    resource: tuple[str, ...] = ()


VENDORS = {
    "otlp.datadoghq.eu": Vendor(
        "datadog", "/v1/traces", "dd-api-key", status=202, wrong_key_status=403, request_bytes_max=3_200_000,
        resource=("service.name", "deployment.environment.name", "service.version"),
    ),
    "otlp.eu01.nr-data.net": Vendor(
        "newrelic", "/v1/traces", "api-key", value=f"eu01xx{KEY}", wrong_key_status=403, request_bytes_max=1_000_000,
        value_characters_max=4095, name_characters_max=255, array_items_max=64, plain_values=True,
    ),
    "ingest.eu2.signoz.cloud": Vendor("signoz", "/v1/traces", "signoz-ingestion-key", request_bytes_max=16_000_000),
    "ingest.us1.observability.splunkcloud.com": Vendor(
        "splunk", "/v2/trace/otlp", "x-sf-token", span_bytes_max=64_000
    ),
    "otlp-gateway-prod-eu-west-2.grafana.net": Vendor(
        "grafana", "/otlp/v1/traces", "authorization", value="Basic MTIzNDU2OmszeS1vZi10aGUtdmVuZG9y",
        value_bytes_max=2048,
    ),
    "ingest.lightstep.com": Vendor("servicenow", "grpc", "lightstep-access-token"),
}  # fmt: skip

VENDORS["otlp.nr-data.net"] = VENDORS["otlp.eu01.nr-data.net"]


def refusal(vendor: Vendor, request: Any) -> str | None:
    """Which documented limit the request is over."""
    for of_resource in request.resource_spans:
        names = {pair.key for pair in of_resource.resource.attributes}
        if missing := [name for name in vendor.resource if name not in names]:
            return f"resource lacks {missing}"
        if found := _refused_attributes(vendor, of_resource.resource.attributes):
            return found
        for span in (span for scope in of_resource.scope_spans for span in scope.spans):
            if span.ByteSize() > vendor.span_bytes_max:
                return f"span of {span.ByteSize()} bytes"
            for attributes in (span.attributes, *(event.attributes for event in span.events)):
                if found := _refused_attributes(vendor, attributes):
                    return found
    return None


def _refused_attributes(vendor: Vendor, attributes: Any) -> str | None:
    for pair in attributes:
        if len(pair.key) > vendor.name_characters_max:
            return "name too long"
        kind = pair.value.WhichOneof("value")
        items = pair.value.array_value.values if kind == "array_value" else [pair.value]
        kinds = {item.WhichOneof("value") for item in items}
        if vendor.plain_values and (len(kinds) > 1 or kinds & {"kvlist_value", "array_value", "bytes_value"}):
            return f"{pair.key}: type"
        if len(items) > vendor.array_items_max:
            return f"{pair.key}: {len(items)} items"
        for text in (item.string_value for item in items):
            if len(text) > vendor.value_characters_max or len(text.encode()) > vendor.value_bytes_max:
                return f"{pair.key}: value too long"
    return None


class Journal:
    """What came in."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "requests.jsonl"
        self._lock = threading.Lock()

    def note(self, vendor: str, status: Any, reason: str | None, request: Any) -> None:
        """Append one line."""
        spans = [
            {pair.key: pair.value.string_value or str(pair.value) for pair in span.attributes} | {"span": span.name}
            for of_resource in request.resource_spans
            for scope in of_resource.scope_spans
            for span in scope.spans
        ]
        line = {"vendor": vendor, "status": status, "reason": reason, "spans": spans}
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Intake(BaseHTTPRequestHandler):
    """HTTP/protobuf intakes of five of them."""

    protocol_version = "HTTP/1.1"
    journal: Journal

    def do_POST(self) -> None:
        """One request."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        vendor = VENDORS[self.headers["host"].partition(":")[0]]
        status, reason, request = self._judged(vendor, body)
        self.journal.note(vendor.name, status, reason, request)
        answer = b"" if status != 200 else ExportTraceServiceResponse().SerializeToString()
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _judged(self, vendor: Vendor, body: bytes) -> tuple[int, str | None, Any]:
        nothing = ExportTraceServiceRequest()
        if self.path != vendor.path:
            return 404, self.path, nothing
        if self.headers.get_all(vendor.header) != [vendor.value]:
            return vendor.wrong_key_status, "key", nothing
        if self.headers["content-type"] != "application/x-protobuf":
            return 415, "content type", nothing
        plain = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        if len(plain) > vendor.request_bytes_max:
            return 413, f"{len(plain)} bytes", nothing
        try:
            request = ExportTraceServiceRequest.FromString(plain)
        except DecodeError:
            return 400, "no protobuf", nothing
        reason = refusal(vendor, request)
        return (400 if reason else vendor.status), reason, request

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Quiet."""


class GrpcIntake(TraceServiceServicer):
    """ServiceNow's; gRPC's own default limits the message to 4 MiB."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - its name
        """One request."""
        vendor = VENDORS["ingest.lightstep.com"]
        metadata = context.invocation_metadata()
        if [value for name, value in metadata if name == vendor.header] != [vendor.value]:
            self._journal.note(vendor.name, "UNAUTHENTICATED", "key", ExportTraceServiceRequest())
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")
        self._journal.note(vendor.name, 200, None, request)
        return ExportTraceServiceResponse()


def serve_proxy(ports: dict[str, int]) -> int:
    """An HTTP proxy that leads each vendor's name to its port here; returns its own."""

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            host = self.path.partition(":")[0]
            if host not in VENDORS:
                self.send_error(502)
                return
            far = socket.create_connection(("127.0.0.1", ports["grpc" if VENDORS[host].path == "grpc" else "http"]))
            self.send_response(200)
            self.end_headers()
            threading.Thread(target=pump, args=(far, self.connection), daemon=True).start()
            pump(self.connection, far)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
            """Quiet."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    return int(proxy.server_address[1])


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Bytes from one to the other until either ends."""
    try:
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("--certificate", "--key"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    journal = Journal(options.folder)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add_TraceServiceServicer_to_server(GrpcIntake(journal), server)
    pair = (options.key.read_bytes(), options.certificate.read_bytes())
    ports = {"grpc": server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))}
    server.start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), type("I", (Intake,), {"journal": journal}))
    web.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    web.socket = context.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
    ports["http"] = int(web.server_address[1])
    partial = options.folder / "ready.json.partial"
    partial.write_text(json.dumps({"proxy_port": serve_proxy(ports), "names": list(VENDORS)}))
    os.replace(partial, options.folder / "ready.json")
    web.serve_forever()


if __name__ == "__main__":
    main()
