"""Whether two processes mean the same tables: alike under every name they have, and never alike for two of them."""

from pathlib import Path

import pytest

from infertap.table_identity import table_identity
from infertap.targets import TableTarget


def test_a_folder_is_itself_under_every_path(tmp_path: Path) -> None:
    """A link, a detour and a URI lead to the same one; a neighbour is another one; a missing one is unknown."""
    folder, neighbour = tmp_path / "tables", tmp_path / "others"
    assert table_identity(TableTarget(str(folder)), {}) is None
    folder.mkdir()
    neighbour.mkdir()
    (tmp_path / "link").symlink_to(folder)
    names = (str(folder), f"{neighbour}/../tables", str(tmp_path / "link"), f"file://{folder}")
    assert len({table_identity(TableTarget(name), {}) for name in names}) == 1
    assert table_identity(TableTarget(str(neighbour)), {}) != table_identity(TableTarget(str(folder)), {})


@pytest.mark.parametrize(
    ("one", "other", "environ", "alike"),
    [
        (TableTarget("s3://b/t"), TableTarget("s3a://b/t/"), {}, True),
        (TableTarget("s3://b/t"), TableTarget("s3://b/u"), {}, False),
        (TableTarget("s3://b/t"), TableTarget("s3://c/t"), {}, False),
        (TableTarget("s3://b/t", {"aws_secret_access_key": "k"}), TableTarget("s3://b/t"), {}, True),
        (TableTarget("s3://b/t", {"AWS_ENDPOINT_URL": "http://m:9000/"}), TableTarget("s3://b/t"), {}, False),
        (
            TableTarget("s3://b/t", {"endpoint": "http://m:9000"}),
            TableTarget("s3://b/t"),
            {"AWS_ENDPOINT_URL": "http://m:9000"},
            True,
        ),
        (TableTarget("abfss://c@a/t"), TableTarget("abfss://c@b/t"), {}, False),
        (TableTarget("az://c/t", {"account_name": "a"}), TableTarget("az://c/t", {"account_name": "b"}), {}, False),
    ],
)
def test_a_bucket_is_known_by_its_name_and_where_it_is(
    one: TableTarget, other: TableTarget, environ: dict[str, str], alike: bool
) -> None:
    """Bucket, path, endpoint and account count, credentials do not; the environment fills what the options leave."""
    assert (table_identity(one, {}) == table_identity(other, environ)) is alike


def test_a_container_without_an_account_is_unknown() -> None:
    """Its name is one of many, so nothing is left out for it."""
    assert table_identity(TableTarget("az://c/t"), {}) is None
    assert table_identity(TableTarget("az://c/t"), {"AZURE_STORAGE_ACCOUNT_NAME": "a"}) is not None
