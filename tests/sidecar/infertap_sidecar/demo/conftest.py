"""A trained model, once for all tests of this folder."""

import pytest

from infertap_sidecar.demo.wine import WineModel


@pytest.fixture(scope="session")
def model() -> WineModel:
    """The demo's classifier."""
    return WineModel()
