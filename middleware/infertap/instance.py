"""The name of one process among its equals, as the column `instance` has it."""

from collections.abc import Mapping
from typing import Any

INSTANCE_ID, POD_NAME, HOST_NAME = "service.instance.id", "k8s.pod.name", "host.name"


def instance_of(resource: Mapping[str, Any]) -> str | None:
    """`service.instance.id`, else the pod's name, else the host's; None where the resource has none of them."""
    return next((str(value) for name in (INSTANCE_ID, POD_NAME, HOST_NAME) if (value := resource.get(name))), None)


def own_instance(resource: Mapping[str, Any], environ: Mapping[str, str], host_name: str) -> str:
    """The same for this process; an id that the SDK has made up says nothing, and does not count."""
    given = (pair.partition("=")[0].strip() for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    known = resource if INSTANCE_ID in given else {**resource, INSTANCE_ID: None}
    return instance_of({HOST_NAME: host_name, **known}) or host_name
