"""Keeps the request's target as the client wrote it, which ASGI's path and query cannot: `/e?` is not `/e` there."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TARGET_KEY = "infertap.target"
"""Where the scope has the target, as bytes."""


class ExactTargetProtocol(HttpToolsProtocol):
    """uvicorn's own protocol; what it has read of the request line goes into the scope as well."""

    def on_headers_complete(self) -> None:
        """The request's head is there."""
        self.scope[TARGET_KEY] = self.url  # type: ignore[literal-required]
        super().on_headers_complete()
