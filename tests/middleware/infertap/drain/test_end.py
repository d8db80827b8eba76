"""When a drainer may leave, with times given."""

from infertap.drain.end import RENEWALS_MAX, End, EndRules


def test_it_stays_while_an_owner_lives() -> None:
    """Neither idleness nor a failing destination matters then."""
    rules = EndRules(linger_s=3, drain_s=10)
    assert [rules.look(now, owners=True, waiting=waiting) for now in (0, 100, 1000) for waiting in (False, True)] == [
        None
    ] * 6


def test_idle_it_lingers() -> None:
    """With nobody there and nothing to do it waits `linger_s` for the next owner."""
    rules = EndRules(linger_s=3, drain_s=10)
    assert rules.look(0, owners=False, waiting=False) is None
    assert rules.next_s() == 3
    assert rules.look(2.9, owners=False, waiting=False) is None
    assert rules.look(3.0, owners=False, waiting=False) is End.IDLE


def test_an_owner_in_between_starts_the_wait_again() -> None:
    """Lingering counts from the last time that somebody was there."""
    rules = EndRules(linger_s=3, drain_s=10)
    rules.look(0, owners=False, waiting=False)
    rules.look(2, owners=True, waiting=False)
    assert rules.look(4, owners=False, waiting=False) is None
    assert rules.look(7, owners=False, waiting=False) is End.IDLE


def test_without_success_it_gives_up() -> None:
    """`drain_s` after the last owner has left, if nothing could be delivered in that time."""
    rules = EndRules(linger_s=3, drain_s=10)
    assert rules.look(0, owners=False, waiting=True) is None
    assert rules.look(9.9, owners=False, waiting=True) is None
    assert rules.look(10, owners=False, waiting=True) is End.GAVE_UP


def test_each_success_renews_its_time_but_not_for_ever() -> None:
    """A backlog may take longer than `drain_s` as long as it moves, up to ten times as long."""
    rules = EndRules(linger_s=3, drain_s=10)
    rules.look(0, owners=False, waiting=True)
    for now in range(1, RENEWALS_MAX * 10):
        rules.delivered_s = now
        assert rules.look(now, owners=False, waiting=True) is None
    rules.delivered_s = RENEWALS_MAX * 10
    assert rules.look(RENEWALS_MAX * 10, owners=False, waiting=True) is End.GAVE_UP
