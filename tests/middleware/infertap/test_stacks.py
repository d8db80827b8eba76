"""Stacks: Python's own text from what is kept of an exception, and no frame of the app kept for it."""

import gc
import traceback
import weakref

import pytest

from infertap.stacks import Stack


def _caught(raising: str, depth: int = 0) -> BaseException:
    try:
        _RAISING[raising](depth)
    except BaseException as error:
        return error
    raise AssertionError


def _plainly(_: int) -> None:
    raise ValueError("no good")


def _caused(_: int) -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("outer") from error


def _while_handling(_: int) -> None:
    try:
        {}["missing"]
    except KeyError:
        raise RuntimeError("outer")  # noqa: B904 - the point


def _suppressed(_: int) -> None:
    try:
        {}["missing"]
    except KeyError:
        raise RuntimeError("outer") from None


def _noted(_: int) -> None:
    error = ValueError("no good")
    error.add_note("while predicting")
    raise error


def _deeply(depth: int) -> None:
    if depth == 0:
        raise ValueError("deep")
    _deeply(depth - 1)


_RAISING = {
    "plainly": _plainly,
    "caused": _caused,
    "while_handling": _while_handling,
    "suppressed": _suppressed,
    "noted": _noted,
    "deeply": _deeply,
}


@pytest.mark.parametrize("raising", list(_RAISING))
@pytest.mark.parametrize("depth", [0, 50])
def test_the_text_is_pythons_own(raising: str, depth: int) -> None:
    """Chain, notes and repeated frames included; only the marks under a line are left out."""
    error = _caught(raising, depth)
    expected = [line for line in "".join(traceback.format_exception(error)).splitlines() if set(line) - set(" ^~")]
    assert [line for line in str(Stack(error)).splitlines() if line] == expected


def test_of_a_very_deep_stack_the_end_is_kept() -> None:
    """The frames nearest to the error, and how many are missing."""
    text = str(Stack(_caught("deeply", 500)))
    assert text.splitlines()[1] == "  [374 more frames]"
    assert text.endswith("ValueError: deep\n")


def test_a_group_shows_its_members() -> None:
    """As a TaskGroup raises; together no more than sixteen exceptions are kept."""
    group = ExceptionGroup("both", [_caught("plainly"), ExceptionGroup("inner", [_caught("caused")] * 40)])
    text = str(Stack(group))
    assert text.startswith("ExceptionGroup: both (2 sub-exceptions)\n  | ---------------- 1 ----------------\n")
    assert "  | ValueError: no good" in text
    assert "  |   | RuntimeError: outer" in text
    wide = ExceptionGroup("wide", [ValueError(str(number)) for number in range(1_000)])
    assert str(Stack(wide)).count("ValueError") == 15


def test_a_cycle_of_causes_ends() -> None:
    """Each exception is shown once."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert str(Stack(first)).count("ValueError") == 2


def test_an_exception_that_cannot_be_printed_is_no_error() -> None:
    """Its class is said."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "UnprintableError that cannot be printed" in str(Stack(UnprintableError()))


def test_no_local_variable_lives_for_it() -> None:
    """Neither exception, nor traceback, nor frame: bodies and tensors go when the app lets them go."""

    class Tensor:
        pass

    def predict() -> "tuple[Stack, weakref.ref[Tensor]]":
        tensor = Tensor()
        try:
            raise ValueError("no good")
        except ValueError as error:
            return Stack(error), weakref.ref(tensor)

    stack, tensor = predict()
    gc.collect()
    assert tensor() is None
    assert "in predict" in str(stack)
