"""The provider that infertap sets where there is none."""

import pytest

from infertap.joining.installed import InstalledProvider


@pytest.mark.parametrize(("library", "records"), [("openai", True), ("fastapi", False), ("starlette", False)])
def test_frameworks_make_no_second_server_span(library: str, records: bool) -> None:
    """Instrumentations get a tracer that records, frameworks one that does not."""
    span = InstalledProvider().get_tracer(library, "1").start_span("span")
    assert span.is_recording() is records
