"""Where a spool folder's records were meant to go, put together from its `destination.json` and the settings at hand.

The folder holds no credentials. Those of the settings are used only where they were given for the same place: nobody's
key is ever sent to somebody else's endpoint.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from infertap.errors import InfertapError
from infertap.otel_env import OtelEnvironment
from infertap.targets import OtlpTarget, TableTarget, Targets
from infertap_sidecar.places import without_secrets
from infertap_sidecar.settings import SidecarConfig
from infertap_sidecar.spool_survey import read_identity


def targets_of(folder: Path, config: SidecarConfig, otel: OtelEnvironment) -> Targets:
    """The folder's destinations, with credentials where the settings have them. Raises: InfertapError."""
    identity = read_identity(folder)
    if not identity.keys() & {"table", "otlp"}:
        raise InfertapError(f"{folder} is no spool folder of infertap: it has no destination.json that can be read")
    targets = Targets(
        table=_table(identity["table"], folder, config) if "table" in identity else None,
        otlp=_otlp(identity["otlp"], otel) if "otlp" in identity else None,
    )
    if targets.fingerprint(folder.parent) != folder.name:
        raise InfertapError(
            f"{folder} does not fit its own destination.json; was it renamed, or moved away from its tables?"
        )
    return targets


def _table(identity: Mapping[str, Any], folder: Path, config: SidecarConfig) -> TableTarget:
    uri = str(identity["uri"])
    if "://" not in uri:
        return TableTarget(os.path.normpath(folder.parent.resolve() / uri))
    place = {name: str(value) for name, value in identity.items() if name != "uri"}
    given = config.storage_options if without_secrets(config.tables.rstrip("/")) == uri else {}
    return TableTarget(uri, {**{name: value for name, value in given.items() if name.lower() not in place}, **place})


def _otlp(identity: Mapping[str, Any], otel: OtelEnvironment) -> OtlpTarget:
    endpoint, protocol, headers = identity["endpoint"], identity["protocol"], dict(identity.get("headers", {}))
    configured = otel.otlp
    tenant = identity.get("tenant")
    if configured is not None:
        place = (without_secrets(configured.endpoint), configured.protocol, configured.tenant)
        if place == (endpoint, protocol, tenant):
            return replace(configured, headers={**configured.headers, **headers})
    return OtlpTarget(endpoint=endpoint, protocol=protocol, headers=headers, tenant=tenant)
