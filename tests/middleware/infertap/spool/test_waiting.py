"""What waits in segments, in numbers and in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertap.spool.frames import Kind, encode, pack
from infertap.spool.waiting import Waiting


def segment(folder: Path, *, requests: int = 0, spans: int = 0, seal: bool = True, body: bytes = b"") -> Path:
    path = folder / f"{len(list(folder.iterdir())) + 1:012d}.seg"
    frames = [encode(Kind.OPEN, pack({"segment_no": 1}))]
    frames += [encode(Kind.REQUEST, pack({"request": body})) for _ in range(requests)]
    if seal:
        frames.append(encode(Kind.SEAL, pack({"reason": "stop", "requests": requests, "spans": spans})))
    path.write_bytes(b"".join(frames))
    return path


def test_segments_say_what_is_in_them(tmp_path: Path) -> None:
    """Added up over all of them; one that is gone counts for nothing."""
    paths = [segment(tmp_path, requests=2, spans=1), segment(tmp_path, requests=1), tmp_path / "gone.seg"]
    assert Waiting.of(paths) == Waiting(segments=2, requests=3, spans=1)


def test_a_forged_seal_in_a_body_counts_for_nothing(tmp_path: Path) -> None:
    """Only the frame that ends the file is believed."""
    forged = encode(Kind.SEAL, pack({"requests": 1000, "spans": 0}))
    assert Waiting.of([segment(tmp_path, requests=1, body=forged)]) == Waiting(segments=1, requests=1)


def test_unsealed_and_damaged_segments_are_counted_frame_by_frame(tmp_path: Path) -> None:
    """Also an empty one; only what cannot be read at all stays uncounted."""
    whole = segment(tmp_path, requests=2)
    damaged, unreadable = tmp_path / "damaged.open", tmp_path / "folder.seg"
    damaged.write_bytes(whole.read_bytes()[:-3])
    unreadable.mkdir()
    paths = [segment(tmp_path, requests=1, seal=False), segment(tmp_path), damaged, unreadable]
    assert Waiting.of(paths) == Waiting(segments=4, requests=3, uncounted=1)


@pytest.mark.parametrize(
    ("waiting", "sentence"),
    [
        (Waiting(1, 1), "1 request waits"),
        (Waiting(1, 2000), "2,000 requests wait"),
        (Waiting(1, 0, 1), "1 span waits"),
        (Waiting(2, 1, 1), "1 request and 1 span wait"),
        (Waiting(2, 3, 0, 1), "at least 3 requests wait"),
        (Waiting(1, 0, 0, 1), "1 unreadable segment waits"),
        (Waiting(1), "ledger counts wait"),
    ],
)
def test_in_words(waiting: Waiting, sentence: str) -> None:
    """Singular and plural, and honest about what is not known."""
    assert waiting.sentence == sentence


def test_a_writers_segments_are_counted(make_writer: Callable[..., Any]) -> None:
    """The spool's own files are read."""
    writer = make_writer()
    writer.append([(Kind.REQUEST, pack({})), (Kind.SPAN, pack({})), (Kind.SPAN, pack({}))], minutes=[0])
    writer.seal()
    assert Waiting.of(writer.slot.pending_segments()) == Waiting(segments=1, requests=1, spans=2)
