"""HTTP attributes of a server span, made by opentelemetry-instrumentation-asgi's own functions.

1. The names and values equal the official instrumentation's, because they are its own; where a version of it no longer
   has the functions we know, or chokes on an input, a dozen lines here give the stable names.
2. Stable names by default. `OTEL_SEMCONV_STABILITY_OPT_IN` is honoured where it names `http` or `http/dup`.
3. A scope comes from a spooled record, so whatever is in it has been redacted.
4. The official functions cost more than all the rest of a span, and are asked the same things again and again: the last
   answers are remembered. The client is asked about apart, since each connection has a port of its own.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Self

from opentelemetry.trace import Status, StatusCode

Scope = Mapping[str, Any]
"""An ASGI HTTP scope rebuilt from a record: the keys of the specification, without `type`."""

_NOTHING_KNOWN: Scope = {"method": "GET", "path": "/"}
_KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")
_REMEMBERED = 1024
"""Answers that stay in memory for each question; one is about 2 KB."""

_WRONG_INPUT = (TypeError, AttributeError, ValueError, LookupError)
"""What the official functions raise for headers or queries that they cannot decode, or when their signature changed."""


class HttpFacts(NamedTuple):
    """What the attributes of a request are made from; None is absent."""

    method: str
    path: str
    query: str
    http_version: str | None
    scheme: str | None
    root_path: str | None
    server: tuple[Any, ...] | None
    """(host, port)."""
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, request: Mapping[str, Any], facts: Mapping[str, Any]) -> Self:
        """From a REQUEST payload and its `span`."""
        server = facts.get("server")
        return cls(
            request["method"],
            request["path"],
            request.get("query") or "",
            facts.get("http_version"),
            facts.get("scheme"),
            facts.get("root_path"),
            None if server is None else tuple(server),
            tuple([(name, value) for name, value in facts.get("headers", ())]),
        )

    def scope(self) -> Scope:
        """The same as an ASGI scope without `client`."""
        given = {"http_version": self.http_version, "scheme": self.scheme, "root_path": self.root_path}
        return {
            "method": self.method,
            "path": self.path,
            "query_string": self.query.encode("utf-8", "replace"),
            "headers": [(name.encode(), value.encode()) for name, value in self.headers],
            "server": self.server,
            **{name: value for name, value in given.items() if value is not None},
        }


class HttpOutcome(NamedTuple):
    """What a status code means for a span."""

    attributes: Mapping[str, Any]
    status: str
    """`UNSET` or `ERROR`."""


class HttpAttributes:
    """The attributes for one set of `OTEL_*` variables.

    Args:
        environ: Read once: `OTEL_SEMCONV_STABILITY_OPT_IN` and `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_*`.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        opt_in = [part.strip() for part in environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")]
        self._official = _Official.load(dup="http/dup" in opt_in)
        self._capture_request = _names(environ.get("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"))
        self._capture_response = _names(environ.get("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE"))
        self._sanitize = _names(environ.get("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"))
        self._of_facts = lru_cache(_REMEMBERED)(lambda facts: self.of_request(facts.scope()))
        self._of_client = lru_cache(_REMEMBERED)(self._client_attributes)
        self.of_status = lru_cache(_REMEMBERED)(self._status_attributes)
        """From a status code: its attribute, and `error.type` where the server is to blame."""

    def of_exchange(self, facts: HttpFacts, client: list[Any] | None) -> dict[str, Any]:
        """`of_request` of these facts and this client ([address, port])."""
        if client is None:
            return dict(self._of_facts(facts))
        return {**self._of_facts(facts), **self._of_client(*client)}

    def _client_attributes(self, address: Any, port: Any) -> Mapping[str, Any]:
        """What a client adds to a request of which nothing else is known."""
        rest = self.of_request(_NOTHING_KNOWN)
        attributes = self.of_request({**_NOTHING_KNOWN, "client": (address, port)})
        return {name: value for name, value in attributes.items() if name not in rest}

    def of_request(self, scope: Scope) -> dict[str, Any]:
        """Method, path, query, scheme, server, client, user agent, protocol version."""
        if self._official is not None:
            try:
                return _without_port(dict(self._official.collect(scope, self._official.mode)), scope)
            except _WRONG_INPUT:
                pass
        return _own_request_attributes(scope)

    def _status_attributes(self, status_code: int) -> HttpOutcome:
        if self._official is not None:
            recorder = _SpanRecorder()
            try:
                self._official.set_status_code(recorder, status_code, None, self._official.mode)
                return HttpOutcome(recorder.attributes, recorder.status)
            except _WRONG_INPUT:
                pass
        attributes: dict[str, Any] = {"http.response.status_code": status_code}
        if status_code < 500:
            return HttpOutcome(attributes, "UNSET")
        return HttpOutcome({**attributes, "error.type": str(status_code)}, "ERROR")

    def of_request_headers(self, headers: list[list[str]]) -> dict[str, Any]:
        """The captured request headers: attribute name to list of values."""
        return self._captured(headers, self._capture_request, "normalise_request_header_name")

    def of_response_headers(self, headers: list[list[str]]) -> dict[str, Any]:
        """The captured response headers: attribute name to list of values."""
        return self._captured(headers, self._capture_response, "normalise_response_header_name")

    def _captured(self, headers: list[list[str]], patterns: list[str], normalise: str) -> dict[str, Any]:
        if not patterns or not headers:
            return {}
        try:
            from opentelemetry.util import http

            values: dict[str, str | list[str]] = {}
            for name, value in headers:
                found = values.setdefault(name, [])
                if isinstance(found, list):
                    found.append(value)
            return dict(
                http.SanitizeValue(self._sanitize).sanitize_header_values(values, patterns, getattr(http, normalise))
            )
        except (ImportError, *_WRONG_INPUT):
            return {}


class _Official(NamedTuple):
    """The functions of opentelemetry-instrumentation-asgi that we call, and the mode we call them with."""

    collect: Callable[..., Mapping[str, Any]]
    set_status_code: Callable[..., None]
    mode: Any

    @classmethod
    def load(cls, *, dup: bool) -> "_Official | None":
        """None where this version does not have them; the enum was renamed before 0.52b1."""
        try:
            from opentelemetry.instrumentation import _semconv, asgi

            modes: Any = getattr(_semconv, "_StabilityMode", None) or getattr(_semconv, "_HTTPStabilityMode", None)
            return cls(asgi.collect_request_attributes, asgi.set_status_code, modes.HTTP_DUP if dup else modes.HTTP)
        except (ImportError, AttributeError):
            return None


class _SpanRecorder:
    """As much of a span as `set_status_code` touches."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.status = "UNSET"

    def is_recording(self) -> bool:
        return True

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def set_status(self, status: Status) -> None:
        if status.status_code is StatusCode.ERROR:
            self.status = "ERROR"


def known_method(method: str) -> str:
    """The method in upper case, or `HTTP` for one that no standard knows: the first word of a span's name."""
    upper = method.strip().upper()
    return upper if upper in _KNOWN_METHODS else "HTTP"


def _without_port(attributes: dict[str, Any], scope: Scope) -> dict[str, Any]:
    """The official function writes `host:port` into `server.address`, which the conventions have for the host alone."""
    server = scope.get("server")
    if server and "server.address" in attributes:
        attributes["server.address"] = server[0]
    return attributes


def _own_request_attributes(scope: Scope) -> dict[str, Any]:
    method = scope["method"].upper() if scope["method"].upper() in _KNOWN_METHODS else "_OTHER"
    host, port = scope.get("server") or ("0.0.0.0", 80)
    client = scope.get("client") or (None, None)
    agents = [value for name, value in scope.get("headers", ()) if name.lower() == b"user-agent"]
    attributes = {
        "http.request.method": method,
        "http.request.method_original": None if method == scope["method"] else scope["method"],
        "url.scheme": scope.get("scheme"),
        "url.path": scope.get("path"),
        "url.query": scope.get("query_string", b"").decode("utf-8", "replace"),
        "server.address": host,
        "server.port": port,
        "network.protocol.version": scope.get("http_version"),
        "user_agent.original": agents[0].decode("utf-8", "replace") if agents else None,
        "client.address": client[0],
        "client.port": client[1],
    }
    return {name: value for name, value in attributes.items() if value}


def _names(value: str | None) -> list[str]:
    return [part.strip() for part in (value or "").split(",") if part.strip()]
