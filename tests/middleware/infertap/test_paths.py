"""Which paths are recorded."""

import pytest

from infertap.config import DEFAULT_EXCLUDE_PATHS
from infertap.paths import PathFilter


@pytest.mark.parametrize(
    ("path", "recorded"),
    [
        ("/invocations", True),
        ("/v1/chat/completions", True),
        ("", True),
        ("/health", False),
        ("/health/live", False),
        ("/v2/health/ready", False),
        ("/metrics", False),
        ("/docs/oauth2-redirect", False),
        ("/healthcare", True),
        ("/api/health", True),
        ("/Health", True),
        ("/health\n", True),
    ],
)
def test_the_default_leaves_out_what_is_no_inference(path: str, recorded: bool) -> None:
    """Health, metrics and documentation; whole paths, with their case."""
    assert PathFilter((), DEFAULT_EXCLUDE_PATHS).records(path) is recorded


def test_exclusion_beats_inclusion() -> None:
    """What is not let in, and what is taken out, is not recorded; the answer is the same a second time."""
    paths = PathFilter(("/v1/*", "/v2/?"), ("/v1/private*",))
    for _ in range(2):
        assert [paths.records(path) for path in ("/v1/a", "/v1/private/b", "/v2/x", "/v2/xy", "/other")] == [
            True,
            False,
            True,
            False,
            False,
        ]


def test_globs_are_no_regular_expressions() -> None:
    """Their special characters mean themselves."""
    assert PathFilter(("/a.(b)|c",), ()).records("/a.(b)|c")
    assert not PathFilter(("/a.b",), ()).records("/axb")


def test_many_and_long_paths_do_not_fill_the_memory() -> None:
    """Ids in paths, and paths of a megabyte."""
    paths = PathFilter((), ("/x/*",))
    for number in range(10_000):
        assert paths.records(f"/item/{number}")
    for number in range(50):
        assert not paths.records(f"/x/{'y' * 100_000}/{number}")
    assert len(paths._known) <= 2048
    assert sum(map(len, paths._known)) < 1 << 20
