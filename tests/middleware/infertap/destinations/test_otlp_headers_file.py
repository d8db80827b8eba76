"""Headers from a file that rotates: read when it changes, kept while unreadable, never somebody else's tenant."""

from pathlib import Path

import pytest

from infertap.destinations.otlp_headers_file import HeadersFile, parse_headers
from infertap.destinations.otlp_probe import probe
from infertap.errors import RetryableError
from infertap.targets import OtlpTarget

_SECRET = "hunter2-is-no-good"


def target_with(path: Path, **headers: str) -> OtlpTarget:
    return OtlpTarget("http://127.0.0.1:9/v1/traces", "http/protobuf", headers=headers, headers_file=str(path))


def test_without_a_file_the_target_is_as_it_was() -> None:
    """The very same object."""
    target = OtlpTarget("http://c:4317", "grpc", headers={"a": "1"})
    assert HeadersFile(target).current() is target


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """The same object while nothing changes; the file's headers win over the others."""
    path = tmp_path / "headers"
    path.write_text("Authorization=Bearer one\n")
    file = HeadersFile(target_with(path, authorization="old", more="1"))
    first = file.current()
    assert first.headers == {"authorization": "Bearer one", "more": "1"}
    assert file.current() is first
    (tmp_path / "new").write_text("Authorization=Bearer two\n")
    (tmp_path / "new").rename(path)
    assert file.current().headers == {"authorization": "Bearer two", "more": "1"}


def test_a_swapped_link_is_a_change(tmp_path: Path) -> None:
    """Kubernetes swaps the folder of a mounted secret by a link."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "headers").write_text(f"x={name}")
    (tmp_path / "data").symlink_to("one")
    file = HeadersFile(target_with(tmp_path / "data" / "headers"))
    assert file.current().headers == {"x": "one"}
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "data")
    assert file.current().headers == {"x": "two"}


def test_a_file_that_is_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    """Only one that was never there is a failure, which ends once it is there."""
    path = tmp_path / "headers"
    file = HeadersFile(target_with(path))
    with pytest.raises(RetryableError, match="otlp_headers_file cannot be read"):
        file.current()
    assert "otlp_headers_file" in probe(target_with(path)).line
    path.write_text("x=1")
    assert file.current().headers == {"x": "1"}
    path.unlink()
    assert file.current().headers == {"x": "1"}


def test_what_a_file_may_hold() -> None:
    """Values as they are (a percent sign is no escape), comments and empty lines aside."""
    assert parse_headers(b"# by the vault\n\n X-Key = a%20b=, c \r\n") == {"x-key": "a%20b=, c"}


@pytest.mark.parametrize("line", [_SECRET, f"a b={_SECRET}", f"x={_SECRET}\xff", f"x=\x01{_SECRET}", f"={_SECRET}"])
def test_what_is_no_header_is_named_by_its_line(line: str) -> None:
    """Never by its text."""
    with pytest.raises(RetryableError, match="line 2") as raised:
        parse_headers(f"a=1\n{line}".encode("latin-1"))
    assert _SECRET not in str(raised.value)


def test_a_tenants_header_is_refused() -> None:
    """What was spooled for one tenant must not leave for another because a file changed."""
    with pytest.raises(RetryableError, match="x-scope-orgid tells tenants apart"):
        parse_headers(b"X-Scope-OrgID=other")
