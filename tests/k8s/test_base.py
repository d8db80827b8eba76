"""The manifests of `k8s/base` as `kubectl kustomize` renders them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from infertap import __version__
from infertap_sidecar.settings import ServeConfig

BASE = Path(__file__).parents[2] / "k8s" / "base"
OLDEST, NEWEST = "1.30", "1.37"
"""Kubernetes releases that know every field we use: native sidecars came with 1.29, `preStop.sleep` with 1.30."""


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    """What would be applied, by kind."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([kubectl, "kustomize", str(BASE)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}


@pytest.fixture
def pod(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The pod's specification."""
    spec: dict[str, Any] = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def sidecar(pod: dict[str, Any]) -> dict[str, Any]:
    """The container of infertap."""
    containers = {container["name"]: container for container in pod["initContainers"]}
    container: dict[str, Any] = containers["infertap"]
    return container


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings of ours, as in a new container."""
    for name in list(os.environ):
        if name.startswith(("INFERTAP_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_manifest_is_valid_in_strict_mode(manifests: dict[str, dict[str, Any]], version: str) -> None:
    """Unknown fields and wrong types would be refused; there are none."""
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_wrong_field_would_be_found(pod: dict[str, Any], manifests: dict[str, dict[str, Any]]) -> None:
    """The validation above can fail: a misspelt field of the same manifest does not pass."""
    pod["initContainers"][0]["restartPolcy"] = "Always"
    try:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(manifests["Deployment"], NEWEST, strict=True)
    finally:
        del pod["initContainers"][0]["restartPolcy"]


def test_the_sidecar_is_a_native_one_of_this_version(sidecar: dict[str, Any]) -> None:
    """It starts before the model, ends after it, and its image is the one of this source."""
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["image"] == f"infertap:{__version__}"


def test_the_settings_are_settings_that_the_sidecar_takes(
    manifests: dict[str, dict[str, Any]],
    sidecar: dict[str, Any],
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The generated map, read as a container's environment, gives a valid configuration without a warning."""
    settings = manifests["ConfigMap"]
    assert sidecar["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    for name, value in settings["data"].items():
        monkeypatch.setenv(name, value)
    config = ServeConfig()
    assert config.warnings == ()
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    assert ports == {"proxy": config.listen_address.port, "admin": config.admin_address.port}


def test_the_spool_has_a_volume_with_room_for_its_cap(pod: dict[str, Any], sidecar: dict[str, Any]) -> None:
    """The spool is on a volume that outlives the container, and larger than the spool can become."""
    mounted = {mount["mountPath"]: mount["name"] for mount in sidecar["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounted["/spool"]]["emptyDir"]["sizeLimit"] == "1536Mi"
    assert ServeConfig(upstream="http://127.0.0.1:8000").spool_bytes_max < 1536 << 20


def test_a_stop_has_time_for_everything(pod: dict[str, Any]) -> None:
    """The grace period covers the model's stop and both of infertap's drains."""
    config = ServeConfig(upstream="http://127.0.0.1:8000")
    model = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] + 30
    assert pod["terminationGracePeriodSeconds"] >= model + config.connection_drain_s + config.drain_s


def test_every_container_keeps_to_the_restricted_profile(pod: dict[str, Any], sidecar: dict[str, Any]) -> None:
    """Nothing runs as root, gains privileges or has capabilities; the sidecar's root file system is read-only."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_service_leads_through_the_sidecar(manifests: dict[str, dict[str, Any]], pod: dict[str, Any]) -> None:
    """Clients cannot pass by: the service's port is the proxy's."""
    service = manifests["Service"]["spec"]
    assert [port["targetPort"] for port in service["ports"]] == ["proxy"]
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
