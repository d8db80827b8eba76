"""Why a request to the receiver is not taken, each with the answer that HTTP and gRPC have for it."""

from http import HTTPStatus

from infertap.errors import InfertapError


class ReceiverError(InfertapError):
    """A request is not taken. The text goes to the sender and holds nothing of what was sent."""

    status = HTTPStatus.BAD_REQUEST
    grpc_status = "INVALID_ARGUMENT"
    retry_after_s: int | None = None


class MalformedError(ReceiverError):
    """The body is not what its headers say. Sending it again is no use."""


class MediaTypeError(ReceiverError):
    """A content type or coding that is not supported."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class TooLargeError(ReceiverError):
    """More bytes than the receiver takes, compressed or not."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    grpc_status = "INVALID_ARGUMENT"


class BusyError(ReceiverError):
    """There is no room now, or the spool did not take it. The same request is welcome later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    grpc_status = "RESOURCE_EXHAUSTED"
    retry_after_s = 1
