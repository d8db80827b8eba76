"""infertap records every inference request: into Delta tables that you own, or to an OpenTelemetry Collector.

from infertap import InferenceMiddleware

app.add_middleware(InferenceMiddleware)
"""

# ruff: noqa: E402 - a mistake in OTEL_* must not stop the app at this import, and Windows shall hear one sentence
import sys

from infertap._version import __version__
from infertap.sdk_import import import_sdk
from infertap.supported import require_supported

require_supported(sys.platform)
import_sdk()

from infertap.asgi import InferenceMiddleware
from infertap.child_span import start_span
from infertap.config import Config
from infertap.errors import ConfigError
from infertap.metrics import metrics_app
from infertap.trace import annotate

__all__ = ["Config", "ConfigError", "InferenceMiddleware", "__version__", "annotate", "metrics_app", "start_span"]
