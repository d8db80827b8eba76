"""Reading a sealed segment: everything that is whole, nothing that is not, and patience with newer versions."""

from pathlib import Path

import pytest

from infertap.record import SCHEMA_VERSION
from infertap.spool.folder import SEALED, segment_path
from infertap.spool.frames import Kind, UnsupportedFormat, encode, pack
from infertap.spool.reader import read_segment

OPENING = {"spool_id": "aa", "segment_no": 7, "schema_version": SCHEMA_VERSION, "service_name": "svc"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Segment 7 of slot `aa`."""
    (tmp_path / "aa").mkdir()
    return segment_path(tmp_path / "aa", 7, SEALED)


def _file(*frames: tuple[int, bytes], opening: dict[str, object] = OPENING) -> bytes:
    return b"".join(encode(kind, payload) for kind, payload in ((Kind.OPEN, pack(opening)), *frames))


def test_frames_are_sorted_by_kind(path: Path) -> None:
    """Each kind in the order of writing; unknown kinds are kept for parking."""
    content = _file(
        (Kind.REQUEST, pack({"sequence_no": 1})),
        (Kind.LEDGER, pack({"minutes": {}})),
        (Kind.SPAN, pack({"name": "a"})),
        (77, b"?"),
        (Kind.REQUEST, pack({"sequence_no": 2})),
        (Kind.SEAL, pack({"reason": "age"})),
    )
    path.write_bytes(content)
    segment = read_segment(path)
    assert (segment.spool_id, segment.segment_no, segment.header) == ("aa", 7, OPENING)
    assert segment.requests == ({"sequence_no": 1}, {"sequence_no": 2})
    assert segment.spans == ({"name": "a"},)
    assert segment.ledger == ({"minutes": {}},)
    assert segment.unknown == ((77, b"?"),)
    assert (segment.damaged, segment.size_bytes) == (0, len(content))


def test_damage_is_counted(path: Path) -> None:
    """A damaged payload, a payload that is no map, and an unreadable tail count as one frame each."""
    content = bytearray(_file((Kind.REQUEST, pack({"n": 1})), (Kind.REQUEST, b"\x01"), (Kind.REQUEST, pack({"n": 3}))))
    content[len(_file()) + 24] ^= 1
    path.write_bytes(bytes(content) + b"torn")
    segment = read_segment(path)
    assert (segment.requests, segment.damaged) == (({"n": 3},), 3)


def test_a_damaged_opening_is_replaced_by_the_slots_header(path: Path) -> None:
    """Rows behind a damaged OPEN frame keep their service name."""
    content = bytearray(_file((Kind.REQUEST, pack({"n": 1}))))
    content[30] ^= 1
    path.write_bytes(bytes(content))
    assert read_segment(path).header == {}
    (path.parent / "header").write_bytes(encode(Kind.OPEN, pack({"service_name": "svc"})))
    segment = read_segment(path)
    assert (segment.header, segment.requests, segment.damaged) == ({"service_name": "svc"}, ({"n": 1},), 1)


def test_a_newer_schema_is_left_alone(path: Path) -> None:
    """A segment of a newer version raises, whatever its frames look like, and stays."""
    path.write_bytes(_file((Kind.REQUEST, b"\xc1"), opening={**OPENING, "schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(UnsupportedFormat, match="schema"):
        read_segment(path)
    assert path.exists()


def test_a_segment_that_is_gone_says_so(path: Path) -> None:
    """Another drainer may have delivered it."""
    with pytest.raises(FileNotFoundError):
        read_segment(path)
