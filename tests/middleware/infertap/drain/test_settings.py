"""What goes over the pipe, and what two processes can say about it without telling it."""

import json
from dataclasses import replace
from pathlib import Path

from infertap.drain.settings import DrainerSettings
from infertap.targets import OtlpTarget, TableTarget, Targets

SETTINGS = DrainerSettings(
    folder=Path("/spool/table-abc"),
    targets=Targets(
        table=TableTarget("s3://bucket/tables", {"aws_secret_access_key": "hush-hush", "aws_region": "eu"}),
        otlp=OtlpTarget("http://host:4317", "grpc", {"api-key": "sesame", "dataset": "prod"}),
    ),
    commit_interval_s=2.5,
)


def test_they_survive_the_pipe() -> None:
    """JSON and back gives the same settings, credentials included."""
    assert DrainerSettings.from_json(json.loads(json.dumps(SETTINGS.to_json()))) == SETTINGS


def test_the_hash_tells_other_settings_and_other_credentials() -> None:
    """It differs for what the drainer uses, and for nothing else."""
    assert len(SETTINGS.hash16("salt")) == 4
    for same in ({"owner_born_ns": 7}, {"service_name": "other"}, {"version": "9.9"}):
        assert replace(SETTINGS, **same).hash16("salt") == SETTINGS.hash16("salt")
    rotated = replace(
        SETTINGS, targets=Targets(table=TableTarget("s3://bucket/tables", {"aws_secret_access_key": "x"}))
    )
    for other in (rotated, replace(SETTINGS, drain_s=11.0)):
        assert any(other.hash16(salt) != SETTINGS.hash16(salt) for salt in ("a", "b"))


def test_the_hash_is_salted() -> None:
    """The same settings do not give the same hash at every start."""
    assert len({SETTINGS.hash16(str(salt)) for salt in range(20)}) > 10


def test_secrets_are_known_and_not_shown() -> None:
    """What may be a credential is masked in texts; a tenant's name or a region is not."""
    assert SETTINGS.secrets == {"hush-hush", "sesame"}
    assert "hush-hush" not in repr(SETTINGS)
    assert "sesame" not in repr(SETTINGS)
