"""The plan of what the demo's clients send."""

from collections import Counter

import pytest

from infertap_sidecar.demo.clients import SHARES, Kind, Planned, plan, scoring_payload
from infertap_sidecar.demo.scoring import INPUT_FIELDS
from infertap_sidecar.demo.wine import WineModel


def test_a_seed_stands_for_one_plan() -> None:
    """The same seed gives the same requests, another one gives others."""
    assert plan(100, sample_count=178, seed=1) == plan(100, sample_count=178, seed=1)
    assert plan(100, sample_count=178, seed=1) != plan(100, sample_count=178, seed=2)


@pytest.mark.parametrize("count", [20, 99, 300, 1000])
def test_a_plan_has_all_kinds_and_the_asked_length(count: int) -> None:
    """Also where a share of a hundredth would be less than one request."""
    planned = plan(count, sample_count=178, seed=7)
    assert [request.number for request in planned] == list(range(count))
    assert set(Counter(request.kind for request in planned)) == set(Kind)


def test_the_shares_are_of_a_hundred() -> None:
    """So that they can be read as percent."""
    assert sum(SHARES.values()) == 100


def test_all_four_forms_of_mlflow_are_sent(model: WineModel) -> None:
    """They follow one another with the requests' numbers."""
    payloads = [scoring_payload(Planned(number, Kind.SCORE, 177), model) for number in range(4)]
    assert {name for payload in payloads for name in payload if name in INPUT_FIELDS} == set(INPUT_FIELDS)
