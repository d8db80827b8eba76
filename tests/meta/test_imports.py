"""The architecture as a test: imports point one way, and heavy packages stay on the drainer's side."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    "infertap": ROOT / "middleware" / "infertap",
    "infertap_sidecar": ROOT / "sidecar" / "infertap_sidecar",
}
LEAVES = {
    "_version", "clock", "errors", "instance", "otel_current", "otel_names", "record", "sdk_env", "sdk_import", "sizes",
    "supported", "targets", "texts", "urls", "words", "wsgi",
}  # fmt: skip
REQUEST_PATH = LEAVES | {"capture", "paths", "processors", "protocols", "trace", "trace_context"}
MAY_IMPORT = {
    **{leaf: set() for leaf in LEAVES},
    "targets": {"urls"},
    "masking": set(),
    "config": {"errors", "header_names", "paths", "words", "wrong_values"},
    "header_names": set(),
    "wrong_values": {"words"},
    "platforms": {"targets"},
    "otel_env": {"otel_names", "platforms", "sdk_env", "targets"},
    "choice": {"config", "errors", "otel_env", "targets", "urls"},
    "trace_context": {"record", "sdk_env"},
    "stacks": {"texts"},
    "trace": {"otel_current", "record", "sizes", "stacks", "texts", "trace_context"},
    "child_span": {"otel_current", "record", "sizes", "texts", "trace", "trace_context"},
    "capture": {"record", "sizes", "trace"},
    "paths": set(),
    "table_identity": {"spool", "targets"},
    "cgroup": set(),
    "processors": {"instance", "processors", "protocols", "record", "trace", "trace_context", "errors"},
    "protocols": {"protocols", "record", "errors"},
    "events": {"words"},
    "joining": {"joining", "record", "sdk_env", "sizes", "trace", "trace_context"},
    "spool": {"_version", "clock", "errors", "events", "record", "spool", "words"},
    "tables": {"_version", "clock", "errors", "record", "tables", "targets"},
    "destinations": {
        "_version",
        "clock",
        "destinations",
        "errors",
        "masking",
        "record",
        "spool",
        "table_identity",
        "tables",
        "targets",
        "urls",
    },
    "drain": LEAVES | {"build", "destinations", "drain", "events", "masking", "spool"},
    "handover": {"record"},
    "inbox": {"capture", "handover", "record", "trace"},
    "worker": REQUEST_PATH | {"events", "handover", "inbox", "joining", "spool"},
    "pipeline": REQUEST_PATH | {"choice", "events", "handover", "inbox", "joining", "spool", "worker"},
    "metrics": LEAVES | {"asgi_types", "choice", "spool"},
    "sharing": {"build", "choice", "config", "pipeline"},
    "lifespan": {"asgi_types", "build", "config", "errors", "events", "pipeline"},
    "outer": {"pipeline", "record", "trace", "trace_context"},
    "asgi_types": set(),
    "tap": REQUEST_PATH | {"asgi_types", "pipeline"},
    "asgi": REQUEST_PATH
    | {"asgi_types", "build", "config", "joining", "lifespan", "outer", "pipeline", "sharing", "tap"},
}
HEAVY = ("arro3", "deltalake", "google.protobuf", "grpc", "opentelemetry.exporter", "opentelemetry.proto", "pyarrow")
HEAVY_ROOMS = {"destinations", "tables"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a source file imports, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files(package: str) -> list[Path]:
    return sorted(SOURCES[package].rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCES["infertap"]).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files("infertap"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_it_may_know(path: Path) -> None:
    """A module of infertap imports nothing above it."""
    name = room(path)
    if name in ("__init__", "build", "testing"):
        return
    allowed = MAY_IMPORT[name]
    for module in imports(path):
        top, _, rest = module.partition(".")
        assert top != "infertap_sidecar"
        if top == "infertap" and rest:
            assert rest.partition(".")[0] in allowed, f"{name} must not know {module}"


@pytest.mark.parametrize("path", files("infertap"), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_stay_on_the_drainers_side(path: Path) -> None:
    """Delta, Arrow, gRPC and protobuf are imported by destinations and tables only."""
    if room(path) not in HEAVY_ROOMS:
        assert not [module for module in imports(path) if module.startswith(HEAVY)]


def test_the_proxys_process_stays_light() -> None:
    """`infertap serve` gives the receiver a process of its own, because it needs gRPC and protobuf."""
    code = "import sys, infertap_sidecar.app; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [module for module in loaded if module.startswith(HEAVY)]


def test_no_package_hides_in_the_source_folders() -> None:
    """`middleware/` and `sidecar/` are folders on the path, not packages."""
    assert not (ROOT / "middleware" / "__init__.py").exists()
    assert not (ROOT / "sidecar" / "__init__.py").exists()


def test_the_owners_half_of_drain_knows_no_destination() -> None:
    """The election runs in the app's process, so nothing that it imports may lead to a destination or a table."""
    seen: set[Path] = set()
    waiting = [SOURCES["infertap"] / "drain" / "election.py"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for module in imports(path):
            parts = module.split(".")
            if parts[0] != "infertap" or len(parts) < 2:
                continue
            assert parts[1] not in HEAVY_ROOMS, f"{path.name} leads to {module}"
            file = SOURCES["infertap"].joinpath(*parts[1:]).with_suffix(".py")
            if file.exists() and file not in seen:
                waiting.append(file)
