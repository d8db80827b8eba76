"""Whether an app in this environment that uses MLflow sends its spans past infertap: MLflow itself is asked.

Only MLflow knows: what it can export depends on what is installed beside it. It is asked in a process of its own, in
an empty folder, because it takes seconds to import and may make a tracking store.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

from infertap.masking import masked_line
from infertap.otel_env import OtelEnvironment

_ASK_S_MAX = 60.0
_REASON_CHARS_MAX = 200
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""Nobody uses MLflow here, so nobody's use is to be reported."""

_ASK = """
import json
from mlflow.tracing.provider import provider
from infertap.joining.providers import exports_otlp, processors_of
try:
    provider.get_or_init_tracer("infertap")
except Exception as error:
    answer = f"{type(error).__name__}: {error}"
else:
    active = processors_of(provider.get())
    answer = active is not None and any(map(exports_otlp, active._span_processors))
print(json.dumps(answer), flush=True)
import os
os._exit(0)
"""

_EXPORTS = (
    "MLflow is installed here and exports its own spans to that endpoint by itself: infertap neither redacts, spools "
    "nor re-sends them; point it at `infertap collect` to have that (docs/joining.md)"
)
_CANNOT = "MLflow is installed here and cannot export its spans by itself ({}); infertap records those of an app"
_UNKNOWN = (
    "MLflow is installed here, and may export its own spans to that endpoint by itself, past infertap: it does not say "
    "whether it can ({})"
)


class MlflowLine(NamedTuple):
    """What is to be said about MLflow's spans."""

    text: str = ""
    """Empty where nothing is."""
    passes_by: bool = False
    """Whether they go past infertap, or may."""


def mlflow_line(environ: Mapping[str, str]) -> MlflowLine:
    """Found out as a recording app finds it out."""
    otel = OtelEnvironment.read(environ)
    off = otel.exporter_off_variable is not None or otel.mlflow_exporter_off
    if otel.endpoint_variable is None or off or find_spec("mlflow") is None:
        return MlflowLine()
    answer, reason = _ask(environ)
    if answer is None:
        return MlflowLine(_UNKNOWN.format(reason), passes_by=True)
    if isinstance(answer, str):
        return MlflowLine(_CANNOT.format(masked_line(answer, chars_max=_REASON_CHARS_MAX)))
    return MlflowLine(_EXPORTS, passes_by=True) if answer else MlflowLine()


def _ask(environ: Mapping[str, str]) -> tuple[bool | str | None, str]:
    """(whether it exports by itself, or why it cannot, or None; then why it did not say)."""
    with tempfile.TemporaryDirectory(prefix="infertap-doctor-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _ASK],
                cwd=folder,
                env={**environ, **_QUIET},
                capture_output=True,
                text=True,
                check=False,
                timeout=_ASK_S_MAX,
            )
        except subprocess.TimeoutExpired:
            return None, f"no answer within {_ASK_S_MAX:g} s"
    try:
        return json.loads(done.stdout.splitlines()[-1]), ""
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return None, masked_line(last, chars_max=_REASON_CHARS_MAX)
