"""What HTTP and gRPC may hold at once: never more than all of it together, and neither what the other needs."""

import pytest

from infertap_sidecar.receiver.room import rooms

MIB = 1 << 20


@pytest.mark.parametrize(
    ("total", "message", "http", "grpc"),
    [(64, 20, 44, 20), (256, 20, 136, 120), (16, 20, 8, 8), (64, 32, 32, 32), (64, 33, 32, 32)],
)
def test_each_transport_has_room_of_its_own(total: int, message: int, http: int, grpc: int) -> None:
    """gRPC has whole messages within one half; HTTP, which needs no more than has come, the rest."""
    shares = rooms(total * MIB, message_bytes_max=message * MIB, http=True, grpc=True)
    assert (shares.http.bytes_max, shares.grpc.bytes_max) == (http * MIB, grpc * MIB)


def test_a_transport_that_stands_alone_has_all_of_it() -> None:
    """Nobody else needs any."""
    assert rooms(64, message_bytes_max=20, http=True, grpc=False).http.bytes_max == 64
    assert rooms(64, message_bytes_max=20, http=False, grpc=True).grpc.bytes_max == 64
