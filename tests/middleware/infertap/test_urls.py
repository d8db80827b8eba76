"""What of a URL is shown or written down."""

import pytest

from infertap.urls import without_credentials, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h:1/v1/traces?k=s#f", "https://h:1/v1/traces"),
        ("https://u:p@[::1/x?k=s", "https://[::1/x"),
        ("u:p@h:1", "h:1"),
        ("u:p@h:1/a@b?k=s", "h:1/a@b"),
        ("collector:4317", "collector:4317"),
        ("unix:/run/a@b.sock", "unix:/run/a@b.sock"),
        ("https://h/p", "https://h/p"),
        ("", ""),
    ],
)
def test_credentials_and_queries_go(url: str, shown: str) -> None:
    """With a scheme or without, readable as a URL or not; a socket's path is a path."""
    assert without_credentials(url) == shown


def test_the_container_of_an_azure_uri_stays() -> None:
    """It is no user; with a password it would be one."""
    assert without_password("abfss://c@a.dfs.core.windows.net/t?sig=s") == "abfss://c@a.dfs.core.windows.net/t"
    assert without_password("s3://key:secret@b/t?x=1") == "s3://b/t"
