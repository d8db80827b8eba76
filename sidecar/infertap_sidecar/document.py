"""The page `docs/settings.md`, made from the settings' own fields so that it cannot disagree with them.

`python -m infertap_sidecar.document > docs/settings.md` writes it; a test says whether the file is current.
"""

import sys
from collections.abc import Iterable
from typing import Any

from pydantic.fields import FieldInfo

from infertap import Config
from infertap.wrong_values import choices_of
from infertap_sidecar.flags import shown, smallest_size
from infertap_sidecar.settings import ServeConfig

_HEAD = """\
# Settings

<!-- Made by `python -m infertap_sidecar.document > docs/settings.md`; change the fields of `Config` instead. -->

Each setting has one name, the same everywhere: `queue_bytes_max` in a TOML file (`--config FILE` or
`INFERTAP_CONFIG`), `INFERTAP_QUEUE_BYTES_MAX` in the environment, `Config(queue_bytes_max=...)` in Python,
`--queue-bytes-max` for `infertap serve`. Argument or flag beats variable beats file beats default; an empty variable
counts as unset. All problems of a start are reported at once. `infertap doctor --all` shows what is in force and where
it came from.

A TOML file has no sections but `storage_options`, which comes last:

```toml
tables = "s3://bucket/inference"
exclude_paths = ["/health", "/internal/*"]
redact_keys = ["patient_id", "case_number"]
spool_bytes_max = "4GiB"
commit_interval_s = 30

[storage_options]
aws_region = "eu-central-1"
aws_endpoint = "https://minio.example:9000"
```

| a value | in TOML | in a variable, as a flag or as an argument |
|---|---|---|
| list | `["/v1/*", "/predict"]` | `/v1/*,/predict` |
| map (`storage_options`) | a table | `aws_region=eu,aws_endpoint=https://h`, or a JSON object where a value \
holds a comma: `{"aws_secret_access_key": "ab=c,d"}` |
| size | `"64MiB"`, or a number of bytes | `64MiB` |
| duration | a number; the unit ends the name (`_s`, `_ms`) | the same |
| yes or no | `true`, `false` | the same |

Paths are globs on the whole path, not regular expressions: `/v1/*`, `*/predict`. In Python, lists and maps are those of
Python, too. delta-rs reads its own variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`) beside `storage_options`.

The column `service_name` is no setting of infertap: `OTEL_SERVICE_NAME` (or `service.name` in
`OTEL_RESOURCE_ATTRIBUTES`) sets it, and `served_entity_id` falls back to it.
"""

EXAMPLE = _HEAD.partition("```toml\n")[2].partition("```")[0]
"""The TOML file on the page."""


def page() -> str:
    """The whole page."""
    own = {name: field for name, field in ServeConfig.model_fields.items() if name not in Config.model_fields}
    return "\n".join(
        [_HEAD, "## Everywhere", "", *_table(Config.model_fields), "", "## `infertap serve` only", "", *_table(own), ""]
    )


def _table(fields: dict[str, FieldInfo]) -> Iterable[str]:
    yield "| setting | default | meaning |"
    yield "|---|---|---|"
    for name, field in fields.items():
        choices = [repr(value) for value in choices_of(field)]
        words = f"{field.description} One of {', '.join(choices)}." if len(choices) > 1 else field.description
        if smallest := smallest_size(name, field):
            words = f"{words} At least {smallest}."
        yield f"| `{name}` | {_shown(field)} | {words} |"


def _shown(field: FieldInfo) -> str:
    value: Any = field.default
    if field.is_required():
        return "required"
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{shown(value)}`"


if __name__ == "__main__":
    sys.stdout.write(page())
