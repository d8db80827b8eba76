"""How failures of the upstream are named: alike whichever client saw them, and never with a byte of the exchange."""

import os
import socket
import ssl

from infertap_sidecar.upstream.protocol import UpstreamError, UpstreamTimeoutError


def connect_timed_out(timeout_s: float) -> UpstreamError:
    """No connection in time."""
    return UpstreamTimeoutError("ConnectTimeout", f"no connection to the upstream within {timeout_s:g} s")


def no_free_connection(timeout_s: float) -> UpstreamError:
    """Every connection that may be open was busy all the time."""
    return UpstreamTimeoutError("PoolTimeout", f"no connection to the upstream became free within {timeout_s:g} s")


def silent(timeout_s: float) -> UpstreamError:
    """Nothing came, before or within the answer."""
    return UpstreamTimeoutError("ReadTimeout", f"the upstream sent nothing for {timeout_s:g} s")


def stalled(timeout_s: float) -> UpstreamError:
    """Nothing of the request's body was taken."""
    return UpstreamTimeoutError("WriteTimeout", f"the upstream took nothing of the request body for {timeout_s:g} s")


def cannot_connect(error: BaseException) -> UpstreamError:
    """Nobody listens, the name is not known, TLS fails."""
    return UpstreamError("ConnectError", f"cannot connect to the upstream: {reason(error)}")


def broke(error: BaseException) -> UpstreamError:
    """The connection ended by a failure of the network or of the upstream's process."""
    error_type = "WriteError" if isinstance(error, BrokenPipeError) else "ReadError"
    return UpstreamError(error_type, f"the connection to the upstream broke: {reason(error)}")


def closed_early() -> UpstreamError:
    """The upstream closed in order, and too early."""
    return UpstreamError("RemoteProtocolError", "the upstream closed the connection before its answer was complete")


def broken_answer(why: str) -> UpstreamError:
    """What came is no answer.

    Args:
        why: One of our own or of the parser's fixed sentences.
    """
    return UpstreamError("RemoteProtocolError", f"the upstream's answer is no valid HTTP/1.1: {why}")


def reason(error: BaseException) -> str:
    """The operating system's word for it, from the innermost OSError that has one."""
    text = "no connection"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            text = "the name is not known"
        elif isinstance(cause, ssl.SSLError):
            text = f"TLS failed ({cause.reason or 'no reason given'})"
        elif isinstance(cause, OSError) and cause.errno:
            text = os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    return text
