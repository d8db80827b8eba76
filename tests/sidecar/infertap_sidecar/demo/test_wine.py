"""The classifier and its explanations."""

import re

import pytest
from sklearn.datasets import load_wine

from infertap_sidecar.demo.wine import WineModel


def test_it_has_learned_the_data(model: WineModel) -> None:
    """Every wine it was trained on gets its class back."""
    known = load_wine()
    predicted = model.predict([model.sample(number) for number in range(model.sample_count)])
    assert predicted == [known.target_names[number] for number in known.target]


def test_an_unknown_number_is_an_index_error(model: WineModel) -> None:
    """Which the demo's server does not catch, on purpose."""
    with pytest.raises(IndexError):
        model.sample(model.sample_count)


@pytest.mark.parametrize("number", [0, 70, 150])
def test_an_explanation_names_the_prediction(model: WineModel, number: int) -> None:
    """The first sentence says what `predict` says, and the last one names another wine of the data."""
    wine = model.sample(number)
    sentences = list(model.explain(wine))
    assert model.predict([wine])[0] in sentences[0]
    neighbour = re.search(r"number (\d+), a known (class_\d)", sentences[-1])
    assert neighbour is not None
    assert int(neighbour[1]) != number
    assert load_wine().target_names[load_wine().target[int(neighbour[1])]] == neighbour[2]


def test_the_tipping_points_of_an_explanation_are_true(model: WineModel) -> None:
    """A wine changed as a sentence says gets the class that the sentence says."""
    wine = model.sample(17)
    claims = [re.match(r"A (\S+) (above|below) about (\S+) would make it (class_\d)", s) for s in model.explain(wine)]
    found = [claim for claim in claims if claim is not None]
    assert found
    for claim in found:
        changed = list(wine)
        # The sentence rounds to three digits; the scan's neighbouring value lies further on.
        step = 1.02 if claim[2] == "above" else 0.98
        changed[model.features.index(claim[1])] = float(claim[3]) * step
        assert model.predict([changed]) == [claim[4]]


def test_wines_differ_in_what_is_said_about_them(model: WineModel) -> None:
    """The text is computed from the wine: no two of ten are told the same."""
    texts = {" ".join(model.explain(model.sample(number))) for number in range(0, 100, 10)}
    assert len(texts) == 10
