"""Credentials in error texts."""

import pytest

from infertap.masking import TEXT_CHARS_MAX, masked, masked_line


@pytest.mark.parametrize(
    "text",
    [
        "401 for https://user:s3cr3t@host/v1/traces",
        "GET https://bucket.example/key?X-Amz-Signature=s3cr3t&x=1 failed",
        "header Authorization: Bearer s3cr3t-value",
        "api-key=s3cr3t",
        "key=s3cr3t",
        "{'aws_secret_access_key': 's3cr3t'}",
        "x-honeycomb-token: s3cr3t",
        "password = 's3cr3t' was refused",
    ],
)
def test_credentials_go_and_the_rest_stays(text: str) -> None:
    """Whatever form a library quotes them in."""
    assert "s3cr3t" not in masked(text)
    assert "***" in masked(text) or "host" in masked(text) or "bucket" in masked(text)


def test_known_secrets_go_wherever_they_stand() -> None:
    """The settings' own credentials need no pattern."""
    assert masked("odd place: <AKIAxyz!> and AKIA", {"AKIAxyz!", "AKIA"}) == "odd place: <***> and ***"


def test_harmless_text_is_left_alone() -> None:
    """What a reader needs to find the mistake is kept."""
    text = "connection refused: http://collector:4318/v1/traces (os error 111)"
    assert masked(text) == text


def test_a_line_is_one_line_of_limited_length() -> None:
    """Status files stay small and readable."""
    line = masked_line("a\nb\t" + "x" * 1000)
    assert line.startswith("a b x")
    assert len(line) == TEXT_CHARS_MAX


def test_a_receivers_answer_cannot_act_on_the_terminal_that_shows_it() -> None:
    """Control characters become question marks, lines stay lines."""
    assert masked("HTTP 500: \x1b[2Jgone\x07\x9b31m\nnext\tcell") == "HTTP 500: ?[2Jgone??31m\nnext\tcell"
