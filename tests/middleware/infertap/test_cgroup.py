"""The container's memory limit, from files as the kernel writes them."""

from pathlib import Path

import pytest

from infertap.cgroup import WORKERS_VARIABLE, memory_limit_bytes, sharing_workers


@pytest.mark.parametrize(
    ("files", "membership", "limit"),
    [
        ({"memory.max": "1000\n"}, "0::/\n", 1000),
        ({"memory.max": "max\n"}, "0::/\n", None),
        ({"memory.max": "max\n", "a/memory.max": "500\n", "a/b/memory.max": "900\n"}, "0::/a/b\n", 500),
        ({"memory.max": "400\n", "a/b/memory.max": "900\n"}, "0::/a/b\n", 400),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "4:memory:/\n", None),
        ({"memory/memory.limit_in_bytes": "700\n"}, "4:memory:/\n", 700),
        ({"memory/x/memory.limit_in_bytes": "300\n"}, "3:cpu:/y\n4:cpuset,memory:/x\n", 300),
        ({}, "0::/nowhere\n", None),
        ({"memory.max": "nonsense\n"}, "0::/\n", None),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, files: dict[str, str], membership: str, limit: int | None) -> None:
    """Of the own group and those above it, in both versions of cgroups."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "self").write_text(membership)
    assert memory_limit_bytes(tmp_path, tmp_path / "self") == limit


def test_without_a_membership_the_root_is_looked_at(tmp_path: Path) -> None:
    """A container sees its own group as the root."""
    (tmp_path / "memory.max").write_text("123\n")
    assert memory_limit_bytes(tmp_path, tmp_path / "absent") == 123


@pytest.mark.parametrize(("text", "workers"), [("4", 4), ("", 1), ("0", 1), ("many", 1), ("99999", 1024), ("²", 1)])
def test_the_workers_share_it(text: str, workers: int) -> None:
    """What is no number counts as one worker."""
    assert sharing_workers({WORKERS_VARIABLE: text}) == workers
    assert sharing_workers({}) == 1
