"""What the receiver remembers: new, under way, known, and forgotten again."""

from infertap_sidecar.receiver.window import Seen, Window


def test_a_key_is_known_only_once_it_is_confirmed() -> None:
    """Until the disk has it, a second claim hears that it is under way; a failure lets it come again."""
    window = Window()
    assert window.claim(["a", "b"]) == [Seen.NEW, Seen.NEW]
    assert window.claim(["a"]) == [Seen.UNDER_WAY]
    window.confirm(["a"])
    window.forget(["b"])
    assert window.claim(["a", "b"]) == [Seen.KNOWN, Seen.NEW]


def test_the_oldest_known_keys_are_forgotten_first() -> None:
    """The window is bounded."""
    window = Window(keys_max=2)
    for key in ("a", "b", "c"):
        window.claim([key])
        window.confirm([key])
    assert window.claim(["b", "c", "a"]) == [Seen.KNOWN, Seen.KNOWN, Seen.NEW]
