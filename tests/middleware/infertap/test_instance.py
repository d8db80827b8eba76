"""The name of one process among its equals."""

import pytest

from infertap.instance import instance_of, own_instance


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        ({"service.instance.id": "i", "k8s.pod.name": "p", "host.name": "h"}, "i"),
        ({"k8s.pod.name": "p", "host.name": "h"}, "p"),
        ({"host.name": "h"}, "h"),
        ({"service.instance.id": "", "host.name": "h"}, "h"),
        ({}, None),
    ],
)
def test_the_closest_name_counts(resource: dict[str, str], name: str | None) -> None:
    """The instance's own, the pod's, the host's."""
    assert instance_of(resource) == name


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ("", "machine"),
        ("a=b,service.instance.id = mine", "mine"),
        ("k8s.pod.name=pod-7", "pod-7"),
        ("host.name=h", "h"),
    ],
)
def test_an_id_that_nobody_gave_does_not_count(attributes: str, name: str) -> None:
    """The SDK makes up a random one for each process."""
    given = {key.strip(): value.strip() for key, _, value in (pair.partition("=") for pair in attributes.split(","))}
    resource = {"service.instance.id": "c0ffee-made-up", **{key: value for key, value in given.items() if key}}
    assert own_instance(resource, {"OTEL_RESOURCE_ATTRIBUTES": attributes}, "machine") == name
