"""Errors: one list of problems, one question that decides what happens next."""

import pickle

import pytest

from infertap import errors
from infertap.errors import ConfigError, InfertapError, OtelConfigError, PermanentError, RetryableError


def test_a_configuration_error_lists_all_problems() -> None:
    """One line each; `problems` has them apart."""
    error = ConfigError(["a", "b"])
    assert error.problems == ("a", "b")
    assert str(error) == "- a\n- b"


def test_mistakes_in_otel_variables_are_told_apart() -> None:
    """They stop the sidecar, never an app."""
    with pytest.raises(ConfigError):
        raise OtelConfigError(["x"])
    assert not isinstance(ConfigError(["x"]), OtelConfigError)


def test_a_retryable_error_may_say_when() -> None:
    """Seconds, where the destination asked for them."""
    assert RetryableError("later", retry_after_s=5).retry_after_s == 5
    assert RetryableError("later").retry_after_s is None
    assert not isinstance(PermanentError("no"), RetryableError)


def test_everything_that_is_raised_on_purpose_has_one_base() -> None:
    """So that a caller can catch it."""
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(found) > 5
    assert all(issubclass(error, InfertapError) for error in found)


def test_a_configuration_error_survives_a_process_border() -> None:
    """Servers hand exceptions from worker to master."""
    copy = pickle.loads(pickle.dumps(ConfigError(["a", "b"], ["c"])))
    assert (copy.problems, copy.remarks, str(copy)) == (("a", "b"), ("c",), "- a\n- b\n! c")
