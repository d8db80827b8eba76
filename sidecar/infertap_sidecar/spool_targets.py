"""Where a spool folder's records were meant to go, put together from its `destination.json` and the settings at hand.

The folder holds no credentials. Those of the settings are used only where they were given for the same place: nobody's
key is ever sent to somebody else's endpoint.
"""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from infertap.drain.settings import DrainerSettings
from infertap.errors import InfertapError
from infertap.otel_env import OtelEnvironment
from infertap.targets import OtlpLimits, OtlpTarget, TableTarget, Targets
from infertap_sidecar.places import without_secrets
from infertap_sidecar.settings import SidecarConfig
from infertap_sidecar.spool_survey import read_identity


def settings_of(
    folder: Path, settings: DrainerSettings, config: SidecarConfig, otel: OtelEnvironment
) -> DrainerSettings:
    """The settings at hand, for that folder: its destinations, with credentials where the settings have them.

    What the app was told about the delivery (limits, certificates, timeouts, storage options) stands in the folder, and
    counts wherever the settings at hand say nothing else.

    Raises:
        InfertapError: the folder is none, or does not fit what it says of itself.
    """
    identity = _identity(folder)
    delivery = _map(identity.get("delivery"))
    targets = Targets(
        table=_table(identity["table"], _map(delivery.get("table")), folder, config) if "table" in identity else None,
        otlp=_otlp(identity["otlp"], _map(delivery.get("otlp")), otel) if "otlp" in identity else None,
    )
    if targets.fingerprint(folder.parent) != folder.name:
        raise InfertapError(
            f"{folder} does not fit its own destination.json; was it renamed, or moved away from its tables?"
        )
    return replace(settings, folder=folder, targets=targets, content=_content(delivery, settings))


def redirected(folder: Path, settings: DrainerSettings) -> DrainerSettings:
    """The settings at hand as they are, destinations included, for a folder that was written for others.

    Raises:
        InfertapError: the folder is none.
    """
    delivery = _map(_identity(folder).get("delivery"))
    return replace(settings, folder=folder, content=_content(delivery, settings))


def _identity(folder: Path) -> Mapping[str, Any]:
    identity = read_identity(folder)
    if not identity.keys() & {"table", "otlp"}:
        raise InfertapError(f"{folder} is no spool folder of infertap: it has no destination.json that can be read")
    return identity


def _content(delivery: Mapping[str, Any], settings: DrainerSettings) -> Literal["full", "metadata"]:
    """Whoever wants no bodies to leave is heard."""
    return "metadata" if delivery.get("content") == "metadata" else settings.content


def _table(
    identity: Mapping[str, Any], delivery: Mapping[str, Any], folder: Path, config: SidecarConfig
) -> TableTarget:
    uri = str(identity["uri"])
    if "://" not in uri:
        return TableTarget(os.path.normpath(folder.parent.resolve() / uri))
    place = {name: str(value) for name, value in identity.items() if name != "uri"}
    given = config.storage_options if without_secrets(config.tables.rstrip("/")) == uri else {}
    known = {name.lower() for name in (*place, *given)}
    told = {name: str(value) for name, value in delivery.items() if name.lower() not in known}
    return TableTarget(
        uri, {**told, **{name: value for name, value in given.items() if name.lower() not in place}, **place}
    )


def _otlp(identity: Mapping[str, Any], delivery: Mapping[str, Any], otel: OtelEnvironment) -> OtlpTarget:
    place = OtlpTarget(
        endpoint=identity["endpoint"],
        protocol=identity["protocol"],
        headers=dict(identity.get("headers", {})),
        tenant=identity.get("tenant"),
    )
    told = _told(place, delivery)
    given = otel.otlp
    if given is None:
        return told
    if (without_secrets(given.endpoint), given.protocol, given.tenant) != (
        place.endpoint,
        place.protocol,
        place.tenant,
    ):
        return told
    said = {
        part.name: value
        for part in fields(OtlpTarget)
        if (value := getattr(given, part.name)) != getattr(place, part.name)
    }
    return replace(told, **{**said, "endpoint": given.endpoint, "headers": {**given.headers, **place.headers}})


def _told(place: OtlpTarget, delivery: Mapping[str, Any]) -> OtlpTarget:
    """The place with what the folder tells, as far as this version knows and understands it."""
    known = {part.name for part in fields(OtlpTarget)} - {"endpoint", "protocol", "headers", "tenant"}
    values = {name: value for name, value in delivery.items() if name in known}
    limits = _map(values.pop("limits", None))
    known_limits = {part.name for part in fields(OtlpLimits)}
    values["limits"] = OtlpLimits(**{name: value for name, value in limits.items() if name in known_limits})
    return replace(place, **values)


def _map(value: object) -> Mapping[str, Any]:
    """What an older infertap did not write, or somebody has damaged, says nothing."""
    return value if isinstance(value, dict) else {}
