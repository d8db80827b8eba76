"""Claims of newer owners."""

from typing import Any

from infertap.drain.retire import RetireClaim, is_held, is_newer_version


def test_a_claim_counts_while_its_owner_lives(bench: Any) -> None:
    """A claimant that is gone, or was born earlier, retires nobody."""
    writer = bench.spool()
    claim = RetireClaim(slot=writer.slot.spool_id, born_ns=200)
    claim.save(bench.folder)
    assert RetireClaim.load(bench.folder) == claim
    assert claim.beats(bench.folder, 100)
    assert not claim.beats(bench.folder, 200)
    writer.close()
    assert not claim.beats(bench.folder, 100)


def test_a_damaged_claim_is_none(bench: Any) -> None:
    """Nobody is retired by a torn file."""
    bench.folder.retire.write_text('{"slot": "x"')
    assert RetireClaim.load(bench.folder) is None


def test_only_a_locked_slot_is_held(bench: Any) -> None:
    """Neither a missing slot nor an orphan has a living owner."""
    writer = bench.spool()
    spool_id = writer.slot.spool_id
    assert is_held(bench.folder, spool_id)
    writer.close()
    assert not is_held(bench.folder, spool_id)
    assert not is_held(bench.folder, "0" * 16)
    assert not is_held(bench.folder, "")


def test_versions_are_compared_by_their_numbers() -> None:
    """Ten is more than nine, and a suffix is not looked at."""
    assert is_newer_version("0.10.0", than="0.9.9")
    assert is_newer_version("1.0", than="0.9.9rc1")
    assert not is_newer_version("0.1.0", than="0.1.0")
    assert not is_newer_version("0.1.0.dev3", than="0.1.0")
