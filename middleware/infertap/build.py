"""The composition root: settings in, pipeline or destinations out; the only module that names concrete parts.

Heavy parts (Delta, Arrow, gRPC, protobuf) are imported inside the functions of the drainer's side: the app's process
never runs them, unless it asked for `drainer = "thread"`.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource

from infertap._version import __version__
from infertap.cgroup import memory_limit_bytes, sharing_workers
from infertap.choice import Choice, choose
from infertap.clock import SystemClock
from infertap.config import DEFAULT_EXCLUDE_PATHS, Config
from infertap.drain.election import DrainerElection
from infertap.drain.settings import DrainerSettings
from infertap.drain.thread import ThreadDrainer
from infertap.errors import ConfigError, OtelConfigError
from infertap.events import EventLog
from infertap.instance import own_instance
from infertap.joining.joining import JoiningSettings
from infertap.otel_env import OtelEnvironment
from infertap.paths import PathFilter
from infertap.pipeline import Idle, Pipeline, PipelineSettings
from infertap.processors.assemble import Assembler, AssemblySettings
from infertap.processors.attributes import redacted_resource
from infertap.spool.folder import SpoolFolder
from infertap.spool.writer import SpoolWriter
from infertap.trace_context import TraceSettings

if TYPE_CHECKING:
    from infertap.destinations.protocol import Destination

_SEGMENT_AGE_S_MAX = 5.0
_MEMORY_SHARE = 8
_SPAN_SHARE, _RECEIVER_SPAN_SHARE = 0.25, 1.0


def prepare(config: Config | None = None) -> Pipeline | Idle:
    """Everything the app's side needs, built and not started.

    Raises:
        ConfigError: the settings are wrong; all problems at once. Mistakes in `OTEL_*` do not raise: they are logged,
            and nothing is recorded.
    """
    try:
        config = config or Config()
        return _prepare(config, EventLog(is_throwaway=config.throws_away))
    except OtelConfigError as error:
        return _idle([*error.problems, *error.remarks])
    except ConfigError:
        raise
    except Exception as error:
        # The first law: whatever it is (a vanished working directory, a broken package), traffic passes.
        return _idle([f"{type(error).__name__}: {error}"])


def warm_up() -> None:
    """Do now, at start-up, what the first `prepare` would do for the first time: a server without lifespan events makes
    that call in a request. Imports, entry points and patterns are kept by those who made them."""
    try:
        PathFilter((), DEFAULT_EXCLUDE_PATHS)
        TraceSettings.from_environment(os.environ)
        Resource.create()
    except Exception:
        # Settings of OpenTelemetry that cannot work: the start meets them again, and says so.
        return


def prepare_or_idle(config: Config | None) -> Pipeline | Idle:
    """As `prepare`, for a server without lifespan events: wrong settings are one log line, and traffic passes."""
    try:
        return prepare(config)
    except ConfigError as error:
        return _idle([*error.problems, *error.remarks])


def _prepare(config: Config, log: EventLog) -> Pipeline | Idle:
    choice = choose(config, OtelEnvironment.read(os.environ), cwd=Path.cwd())
    if choice.kind == "none":
        return Idle(lambda: log.starting(choice.start_line(config.content), choice.warnings, None))
    return build_pipeline(config, choice, log)


def start(recorder: Pipeline | Idle) -> Pipeline | Idle:
    """Start it. What cannot start becomes an `Idle` that has said why: the first law, again."""
    try:
        recorder.start()
    except Exception as error:
        recorder = _idle([f"{type(error).__name__}: {error}"])
        recorder.start()
    return recorder


def _idle(problems: Sequence[str]) -> Idle:
    return Idle(lambda: EventLog().not_recording(problems))


def build_pipeline(config: Config, choice: Choice, log: EventLog, *, receives: bool = False) -> Pipeline:
    """The pipeline of one process. `receives`: it takes the spans of others, and no request passes through it."""
    clock = SystemClock()
    found = dict(Resource.create().attributes)
    # Detectors put a process's command line into it, with what was given there as `--api-key`.
    resource = redacted_resource(found, config.redact_keys, config.redact_except)
    service_name = str(resource.get("service.name", "unknown_service"))
    instance = own_instance(resource, os.environ, socket.gethostname())
    folder = SpoolFolder(choice.folder)
    writer = SpoolWriter(
        folder,
        {"service_name": service_name, "instance": instance, "resource": resource},
        identity=choice.targets.description(choice.spool_dir, content=config.content),
        spool_bytes_max=config.spool_bytes_max,
        clock=clock,
        segment_bytes_max=config.segment_bytes_max,
        segment_age_s_max=min(_SEGMENT_AGE_S_MAX, config.commit_interval_s),
    )
    trace = TraceSettings.from_environment(os.environ)
    settings = drainer_settings(config, choice, service_name)
    thread = ThreadDrainer(settings, build_destinations)
    delivery = DrainerElection(
        folder,
        settings,
        owner=writer,
        clock=clock,
        mode=config.drainer,
        start_thread=thread.start,
    )
    return Pipeline(
        choice,
        _pipeline_settings(config, receives=receives),
        assembler=Assembler(_assembly_settings(config, choice, service_name, trace)),
        writer=writer,
        delivery=delivery,
        at_end=thread.close,
        trace=trace,
        joining=JoiningSettings(choice.kind, _texts(found), config.install_tracer_provider),
        clock=clock,
        log=log,
    )


def drainer_settings(config: Config, choice: Choice, service_name: str = "") -> DrainerSettings:
    """What the drainer of this choice is told."""
    return DrainerSettings(
        folder=choice.folder,
        targets=choice.targets,
        commit_interval_s=config.commit_interval_s,
        commit_bytes_max=config.commit_bytes_max,
        spool_bytes_max=config.spool_bytes_max,
        drain_s=config.drain_s,
        content=config.content,
        owner_born_ns=SystemClock().wall_ns(),
        service_name=service_name,
        version=__version__,
    )


def build_destinations(settings: DrainerSettings) -> "list[Destination]":
    """The destinations of a drainer, not opened. Imports the heavy parts of those that are used, and only those."""
    destinations: list[Destination] = []
    clock = SystemClock()
    if settings.targets.table is not None:
        from infertap.destinations.table import TableDestination

        parked = SpoolFolder(settings.folder).parked_dir
        destinations.append(TableDestination(settings.targets.table, parked_dir=parked, clock=clock))
    if settings.targets.otlp is not None:
        from infertap.destinations.otlp import OtlpDestination

        destinations.append(
            OtlpDestination(
                settings.targets.otlp,
                clock=clock,
                content=settings.content,
                tables=settings.targets.table,
                probes=True,
                memory=SpoolFolder(settings.folder).otlp_memory,
            )
        )
    return destinations


def _pipeline_settings(config: Config, *, receives: bool) -> PipelineSettings:
    header = config.request_id_header
    return PipelineSettings(
        content=config.content,
        queue_bytes_max=_within_memory(config.queue_bytes_max),
        capture_bytes_max=config.capture_bytes_max if config.content == "full" else 0,
        spool_flush_ms=config.spool_flush_ms,
        drain_s=config.drain_s,
        include_paths=config.include_paths,
        exclude_paths=config.exclude_paths,
        request_id_header=header.lower().encode() if header is not None else None,
        span_excluded=_span_excluded(os.environ),
        server_span=config.server_span,
        outer_secret=config.outer_secret.encode() if config.outer_secret is not None else None,
        span_share=_RECEIVER_SPAN_SHARE if receives else _SPAN_SHARE,
    )


def _within_memory(queue_bytes_max: int) -> int:
    """The byte budget, at most this worker's part of an eighth of what the cgroup allows this container."""
    limit = memory_limit_bytes()
    if limit is None:
        return queue_bytes_max
    return min(queue_bytes_max, limit // _MEMORY_SHARE // sharing_workers(os.environ))


def _assembly_settings(config: Config, choice: Choice, service_name: str, trace: TraceSettings) -> AssemblySettings:
    def captured(direction: str) -> tuple[str, ...]:
        value = os.environ.get(f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_{direction}", "")
        return tuple(name.strip() for name in value.split(",") if name.strip())

    return AssemblySettings(
        content=config.content,
        inline_bytes_max=config.inline_bytes_max,
        served_entity_id=config.served_entity_id or service_name,
        requester_header=config.requester_header,
        capture_headers=config.capture_headers,
        redact_keys=config.redact_keys,
        redact_except=config.redact_except,
        span_request_headers=captured("REQUEST"),
        span_response_headers=captured("RESPONSE"),
        sampler=trace.pure,
        previews=choice.targets.otlp is not None,
    )


def _span_excluded(environ: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool] | None:
    if not (environ.get("OTEL_PYTHON_ASGI_EXCLUDED_URLS") or environ.get("OTEL_PYTHON_EXCLUDED_URLS")):
        return None
    from opentelemetry.util.http import get_excluded_urls

    excluded = get_excluded_urls("ASGI")

    def matches(scope: Mapping[str, Any]) -> bool:
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        return bool(excluded.url_disabled(f"{scope.get('scheme', 'http')}://{host}{scope['path']}"))

    return matches


def _texts(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in resource.items()}
