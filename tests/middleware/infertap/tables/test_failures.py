"""What a store's refusal is called, in words that say what to do."""

import pytest

from infertap.tables.failures import describe, opening_words

ARROW = "\n  \x1b[31m\u21b3\x1b[0m "


@pytest.mark.parametrize(
    ("causes", "named"),
    [
        (
            ("Operation not supported", "an error occurred while loading credentials", "request forbidden"),
            "AWS_ACCESS_KEY_ID",
        ),
        (
            ("Operation not supported", "the credential provider was not enabled", "no credentials found in chain. A:"),
            "AWS_SECRET_ACCESS_KEY",
        ),
        (
            ("Generic GCS error", "Error performing GET http://169.254.169.254/computeMetadata/v1/x", "denied"),
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        (
            ("Generic MicrosoftAzure error", "Error performing GET http://169.254.169.254/metadata/identity/o", "x"),
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
        (("Generic MicrosoftAzure error", "Account must be specified"), "AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_missing_credentials_are_named(causes: tuple[str, ...], named: str) -> None:
    """What delta-rs 1.x says of each store without credentials; and no line of it is quoted."""
    error = OSError(ARROW.join(causes))
    assert named in opening_words(error)
    assert named in str(describe(error, table="spans", doing="opening"))
    assert named in str(describe(error, table="spans", doing="append"))
    assert causes[-1] not in opening_words(error)


def test_the_last_words_of_an_unknown_failure_hold_no_key() -> None:
    """While opening they are quoted, later they are not."""
    error = OSError(ARROW.join(("Generic S3 error", "odd thing at https://key:secret@host/x AKIAIOSFODNN7EXAMPLE1")))
    assert opening_words(error) == "odd thing at https://... ***"
    assert "odd" not in str(describe(error, table="spans", doing="append"))
