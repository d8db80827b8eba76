"""Targets: what makes a destination this one, without secrets."""

import json
from pathlib import Path
from typing import Any

import pytest

from infertap.targets import OtlpTarget, TableTarget, Targets

_SPOOL = Path("/data/tables/.spool")
_SECRET = "hunter2-is-no-good"


def _table(uri: str, **options: str) -> str:
    return Targets(table=TableTarget(uri, options)).fingerprint(_SPOOL)


def _otlp(endpoint: str = "http://c:4317", protocol: str = "grpc", **more: Any) -> str:
    return Targets(otlp=OtlpTarget(endpoint, protocol, **more)).fingerprint(_SPOOL)


def test_rotated_credentials_find_the_same_folder() -> None:
    """Neither keys, nor tokens, nor timeouts are part of the fingerprint."""
    assert _table("s3://b/x", AWS_SECRET_ACCESS_KEY="a") == _table("s3://b/x", AWS_SECRET_ACCESS_KEY="b")
    assert _otlp(headers={"Authorization": "a"}, timeout_s=1) == _otlp(headers={"authorization": "b"}, timeout_s=2)
    assert _otlp("http://u:a@c:4317") == _otlp("http://u:b@c:4317") == _otlp("http://c:4317")
    assert _otlp(compression="gzip", certificate="/a") == _otlp()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_otlp(headers={"X-Scope-OrgID": "a"}), _otlp(headers={"x-scope-orgid": "b"})),
        (_otlp(headers={"x-mlflow-experiment-id": "1"}), _otlp()),
        (_otlp(), _otlp("http://d:4317")),
        (_otlp(), _otlp(protocol="http/protobuf")),
        (_table("s3://b/x"), _table("s3://b/y")),
        (_table("s3://b/x"), _table("gs://b/x")),
        (_table("s3://b/x"), _table("s3://b/x", AWS_ENDPOINT_URL="http://minio")),
        (_table("s3://b/x", aws_region="eu"), _table("s3://b/x", AWS_REGION="us")),
        (
            _table("abfss://one@account.dfs.core.windows.net/x"),
            _table("abfss://two@account.dfs.core.windows.net/x"),
        ),
        (_table("az://c/x", account_name="one"), _table("az://c/x", account_name="two")),
        (_table("/data/tables"), _table("/data/other")),
    ],
)
def test_another_tenant_or_place_is_another_folder(one: str, other: str) -> None:
    """No record ever leaves under somebody else's name."""
    assert one != other


def test_the_case_of_a_tenant_headers_name_does_not_matter() -> None:
    """Its value does."""
    assert _otlp(headers={"X-Scope-OrgID": "a"}) == _otlp(headers={"x-scope-orgid": "a"})


def test_a_volume_that_is_mounted_elsewhere_is_the_same_folder() -> None:
    """A local root counts relative to the spool."""
    here = Targets(table=TableTarget("/data/tables"))
    there = Targets(table=TableTarget("/mnt/tables"))
    assert here.fingerprint(Path("/data/tables/.spool")) == there.fingerprint(Path("/mnt/tables/.spool"))
    assert here.fingerprint(Path("/data/spool")) == there.fingerprint(Path("/mnt/spool"))
    assert Targets(table=TableTarget("file:///data/tables")).fingerprint(_SPOOL) == here.fingerprint(_SPOOL)


def test_the_identity_holds_no_secret() -> None:
    """It is written to a disk."""
    targets = Targets(
        table=TableTarget(f"s3://user:{_SECRET}@b/x?sig={_SECRET}", {"secret": _SECRET, "region": "eu"}),
        otlp=OtlpTarget(f"http://u:{_SECRET}@c/v1?k={_SECRET}#{_SECRET}", "grpc", {"api-key": _SECRET, "tenant": "t"}),
    )
    identity = targets.identity(_SPOOL)
    assert _SECRET not in json.dumps(identity)
    assert identity["table"] == {"uri": "s3://b/x", "region": "eu"}
    assert identity["otlp"] == {"endpoint": "http://c/v1", "protocol": "grpc", "headers": {"tenant": "t"}}


def test_credentials_are_not_in_the_repr() -> None:
    """A traceback shows it."""
    targets = Targets(
        table=TableTarget("s3://b", {"secret": _SECRET}), otlp=OtlpTarget("http://c", "grpc", {"k": _SECRET})
    )
    assert _SECRET not in repr(targets)


def test_the_drainer_gets_everything_back() -> None:
    """Through JSON, secrets included."""
    targets = Targets(
        table=TableTarget("s3://b", {"secret": _SECRET}),
        otlp=OtlpTarget("http://c", "grpc", {"k": _SECRET}, timeout_s=3, insecure=False, value_length_max=5),
    )
    for given in (targets, Targets(table=targets.table), Targets(otlp=targets.otlp), Targets()):
        assert Targets.from_json(json.loads(json.dumps(given.to_json()))) == given


def test_an_unknown_setting_of_a_target_is_refused() -> None:
    """A drainer of another version must not ignore what it does not know."""
    with pytest.raises(TypeError):
        Targets.from_json({"table": {"uri": "/x", "format": "iceberg"}})


@pytest.mark.parametrize(
    ("uri", "path"),
    [("/a/b", Path("/a/b")), ("file:///a/b", Path("/a/b")), ("s3://b/x", None), ("memory://x", None)],
)
def test_local_paths(uri: str, path: Path | None) -> None:
    """Only a folder of this machine has one."""
    assert TableTarget(uri).local_path == path
