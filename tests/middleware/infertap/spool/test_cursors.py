"""Cursors: forward only, exact after a restart, and harmless when damaged."""

import pytest

from infertap.spool.cursors import Cursors
from infertap.spool.folder import SpoolFolder
from infertap.spool.jsonfile import read_json


def test_cursors_survive_a_restart(folder: SpoolFolder) -> None:
    """What was saved is loaded, in the form that the contract names."""
    cursors = Cursors.load(folder, "aa")
    assert (cursors.segment_no("table"), cursors.outcomes) == (0, {})
    cursors.advance("table", 12)
    cursors.advance("otlp", 9)
    cursors.advance("table", 11)
    cursors.add({(5, "otlp", "written", ""): 2, (5, "otlp", "lost", "rejected"): 1})
    cursors.add({(5, "otlp", "written", ""): 3})
    cursors.save(folder)
    assert read_json(folder.cursor("aa")) == {
        "destinations": {"table": {"segment_no": 12}, "otlp": {"segment_no": 9}},
        "outcomes": {"5|otlp|written|": 5, "5|otlp|lost|rejected": 1},
    }
    assert Cursors.load(folder, "aa") == cursors
    assert folder.cursor("aa").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"destinations": 3}', '{"destinations": {"table": {}}}', '{"outcomes": {"5|otlp": 1}}'],
)
def test_damaged_cursors_start_again(folder: SpoolFolder, content: str) -> None:
    """A damaged file is as good as none: delivery repeats what is still there."""
    folder.cursor("aa").write_text(content)
    assert Cursors.load(folder, "aa") == Cursors("aa")
