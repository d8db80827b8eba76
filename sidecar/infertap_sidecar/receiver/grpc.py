"""OTLP over gRPC: `TraceService/Export` on a server of its own threads.

A call's message is read here and not before the call: gRPC would hold as many messages as there are calls. So the
method is served as if its request were a stream, which is the same on the wire; one message of it is read, when it is
the call's turn.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager

import grpc  # type: ignore[import-untyped]
from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped]
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from infertap.clock import Clock
from infertap_sidecar.address import Address, listen
from infertap_sidecar.receiver.errors import BusyError, ReceiverError
from infertap_sidecar.receiver.http import PARSERS, response
from infertap_sidecar.receiver.intake import SETTLED_S_MAX, Answer, Intake
from infertap_sidecar.receiver.room import Room
from infertap_sidecar.receiver.salvage import spans_of_protobuf
from infertap_sidecar.receiver.turns import Turns

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_CALLS_MAX = 32
"""Calls that are served at once."""
_WAITING_CALLS_MAX = 128
"""Calls that are open at once; a further one is answered RESOURCE_EXHAUSTED by gRPC itself, without a word of retry."""
_MESSAGE_S_MAX = 10.0
"""Longest wait for a message, where nobody else waits for its turn; as long as most senders wait themselves."""


class GrpcReceiver:
    """The server.

    Args:
        room: For the bytes of messages that are being received and read.
        bytes_max: Largest message; gRPC refuses a larger one, compressed or not, with RESOURCE_EXHAUSTED.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, intake: Intake, room: Room, clock: Clock, address: Address, *, bytes_max: int) -> None:
        self._intake = intake
        self._parsing = threading.BoundedSemaphore(PARSERS)
        bytes_max = min(bytes_max, room.bytes_max)
        self._turns = Turns(room, bytes_max, clock)
        self._server = grpc.server(
            ThreadPoolExecutor(_CALLS_MAX, "infertap-otlp-grpc"),
            maximum_concurrent_rpcs=_WAITING_CALLS_MAX,
            options=[
                ("grpc.max_receive_message_length", bytes_max),
                # Else gRPC itself takes in megabytes of a fast sender's message that nobody reads yet.
                ("grpc.http2.bdp_probe", 0),
                # Two servers on one port would share the calls without a word.
                ("grpc.so_reuseport", 0),
            ],
        )
        export = grpc.stream_unary_rpc_method_handler(
            self._export, response_serializer=ExportTraceServiceResponse.SerializeToString
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {"Export": export})])
        try:
            port = self._server.add_insecure_port(str(address))
        except RuntimeError as error:
            # gRPC keeps the reason to itself; the system says it again.
            listen(address, "--otlp-grpc").close()
            raise OSError(0, f"cannot listen on {address} (--otlp-grpc takes another one)") from error
        self.address = address if address.path is not None else address._replace(port=port)
        """Where it really listens."""

    def start(self) -> None:
        """Take calls."""
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Take no new calls, and wait for those under way."""
        self._server.stop(grace_s).wait(grace_s + 1.0)

    def _export(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        try:
            return response(self._taken(messages, context))
        except ReceiverError as error:
            code = grpc.StatusCode[error.grpc_status]
            if error.retry_after_s is not None:
                # Without it, RESOURCE_EXHAUSTED tells a sender to give up (OTLP/gRPC, section on retries).
                context.set_trailing_metadata((("grpc-status-details-bin", _retry(error, code)),))
            context.abort(code, str(error))
            raise  # abort has raised already

    def _taken(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Answer:
        def read() -> bytes:
            with _deadline(context):
                return next(messages, b"")

        with self._turns.received(read, context.cancel) as body, self._parsing:
            self._intake.expect(len(body))
            answer = self._intake.take(spans_of_protobuf(body))
            del body
        remaining_s = context.time_remaining()
        try:
            return answer.result(SETTLED_S_MAX if remaining_s is None else min(SETTLED_S_MAX, remaining_s))
        except FutureTimeoutError:
            raise BusyError("the spool is slow; ask again") from None


@contextmanager
def _deadline(context: grpc.ServicerContext) -> Iterator[None]:
    """Give up a sender that never ends its message; most senders have set a deadline themselves."""
    remaining_s = context.time_remaining()
    if remaining_s is not None and remaining_s <= _MESSAGE_S_MAX:
        yield
        return
    timer = threading.Timer(_MESSAGE_S_MAX, context.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _retry(error: ReceiverError, code: grpc.StatusCode) -> bytes:
    details = AnyMessage()
    details.Pack(RetryInfo(retry_delay=Duration(seconds=error.retry_after_s)))
    number: int = code.value[0]
    serialised: bytes = Status(code=number, message=str(error), details=[details]).SerializeToString()
    return serialised
