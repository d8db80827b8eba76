"""Rewrites the command line of an ASGI server so that it serves the user's app wrapped."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import PurePath

from infertap.cgroup import WORKERS_VARIABLE
from infertap.errors import ConfigError

WRAPPER = "infertap_sidecar.run_app:app"
FACTORY = "infertap_sidecar.run_factory:factory"

SERVER_VARIABLE = "_INFERTAP_RUN_SERVER"
APP_VARIABLE = "_INFERTAP_RUN_APP"
PATH_VARIABLE = "_INFERTAP_RUN_PATH"
NAME_VARIABLE = "_INFERTAP_RUN_NAME"

_SUPPORTED = "uvicorn, python -m uvicorn, fastapi run, gunicorn (with an ASGI worker)"
_SERVERS = frozenset({"uvicorn", "gunicorn", "fastapi"})
_IN_THE_CODE = "wrap the app where it is made, app = InferenceMiddleware(app)"
_OTHER_WAYS = {
    "bentoml": "call add_asgi_middleware(InferenceMiddleware) on the service",
    "daphne": _IN_THE_CODE,
    "granian": _IN_THE_CODE,
    "hypercorn": _IN_THE_CODE,
    "vllm": "add --middleware infertap.InferenceMiddleware to vllm serve",
}
"""How a server that cannot be wrapped from outside takes the middleware; the sidecar stands before any of them."""
_SIDECAR = "infertap serve --upstream URL in front of it"
_QUESTIONS = frozenset({"--help", "--version"})
"""With one of these a server answers and ends: there is no app to wrap."""

_WSGI_WORKERS = frozenset({"sync", "gthread", "gevent", "gevent_wsgi", "gevent_pywsgi", "eventlet", "tornado"})
_GUNICORN_USAGE_ERROR = 2
_FASTAPI_FLAGS = frozenset({"--reload", "--no-reload", "--proxy-headers", "--no-proxy-headers", "--verbose", "-v"})

TakesValue = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Launch:
    """The command to run in place of the given one, and the variables that it needs on top."""

    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GunicornFacts:
    """What only gunicorn itself can say: its configuration file and variables count, too."""

    worker_class: str
    app: str | None
    workers: int = 1


def rewrite(command: Sequence[str], environ: Mapping[str, str]) -> Launch:
    """Replace the app in a server's command line. Raises: ConfigError for what is not supported."""
    prefix, server, arguments = _split(command)
    if server in _SERVERS and _QUESTIONS & set(arguments):
        return Launch(tuple(command))
    if server == "gunicorn":
        facts = gunicorn_facts(arguments)
        return _sharing(_gunicorn(prefix, arguments, facts), str(facts.workers) if facts is not None else None)
    workers = _option(arguments, "--workers") or environ.get("WEB_CONCURRENCY")
    if server == "uvicorn":
        return _sharing(_uvicorn(prefix, arguments, environ), workers)
    if server == "fastapi" and arguments[:1] in (["run"], ["dev"]):
        return _sharing(_fastapi([*prefix, arguments[0]], arguments[1:]), workers)
    named = " ".join(command[:3]) or "nothing"
    way = _OTHER_WAYS.get(server.partition(".")[0], _IN_THE_CODE)
    raise ConfigError([f"cannot wrap {named!r}; supported are {_SUPPORTED}. Instead {way}, or put {_SIDECAR}"])


def _sharing(launch: Launch, workers: str | None) -> Launch:
    """The launch, told how many workers will share the container's memory."""
    if workers is None or workers == "1":
        return launch
    return Launch(launch.command, {**launch.variables, WORKERS_VARIABLE: workers})


def _split(command: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """(what starts the server, the server's name, its arguments)."""
    program = PurePath(command[0]).name if command else ""
    if program.startswith("python") and list(command[1:2]) == ["-m"] and len(command) > 2:
        return list(command[:3]), command[2], list(command[3:])
    return list(command[:1]), program, list(command[1:])


def _uvicorn(prefix: list[str], arguments: list[str], environ: Mapping[str, str]) -> Launch:
    import click
    import uvicorn

    assert isinstance(uvicorn.main, click.Command), "uvicorn's command line is made with click"
    flags = {
        name
        for parameter in uvicorn.main.params
        if isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    if _option(arguments, "--interface") in ("wsgi", "asgi2"):
        problem = "uvicorn --interface wsgi and asgi2 cannot be wrapped; infertap records ASGI 3 apps"
        raise ConfigError([f"{problem}. For others, put {_SIDECAR}"])
    place = find_positional(arguments, lambda option: option not in flags)
    target = FACTORY if "--factory" in arguments else WRAPPER
    if place is not None:
        variables = {SERVER_VARIABLE: "uvicorn", APP_VARIABLE: arguments[place]}
        return Launch((*prefix, *arguments[:place], target, *arguments[place + 1 :]), variables)
    if environ.get("UVICORN_APP"):
        variables = {SERVER_VARIABLE: "uvicorn", APP_VARIABLE: environ["UVICORN_APP"], "UVICORN_APP": target}
        return Launch((*prefix, *arguments), variables)
    raise ConfigError(["uvicorn is given no app: infertap run -- uvicorn module:app"])


def _gunicorn(prefix: list[str], arguments: list[str], facts: GunicornFacts | None) -> Launch:
    if facts is not None and facts.worker_class in _WSGI_WORKERS:
        problem = f"gunicorn's worker class {facts.worker_class!r} serves WSGI, infertap records ASGI"
        hint = "add -k uvicorn_worker.UvicornWorker (pip install uvicorn-worker)"
        raise ConfigError([f"{problem}; {hint}, or, for a WSGI app, put {_SIDECAR}"])
    # By name, not by import statement: gunicorn is the user's, and nothing that infertap itself needs.
    parser = import_module("gunicorn.config").Config().parser()
    flags = {name for action in parser._actions if action.nargs == 0 for name in action.option_strings}
    place = find_positional(arguments, lambda option: option not in flags)
    if place is not None:
        variables = {SERVER_VARIABLE: "gunicorn", APP_VARIABLE: arguments[place]}
        return Launch((*prefix, *arguments[:place], WRAPPER, *arguments[place + 1 :]), variables)
    if facts is not None and facts.app:
        return Launch((*prefix, *arguments, WRAPPER), {SERVER_VARIABLE: "gunicorn", APP_VARIABLE: facts.app})
    raise ConfigError(["gunicorn is given no app: infertap run -- gunicorn -k uvicorn_worker.UvicornWorker module:app"])


def _fastapi(prefix: list[str], arguments: list[str]) -> Launch:
    variables = {SERVER_VARIABLE: "fastapi"}
    rest = list(arguments)
    place = find_positional(rest, lambda option: option not in _FASTAPI_FLAGS)
    if place is not None:
        variables[PATH_VARIABLE] = rest.pop(place)
    for option, name in (("--app", NAME_VARIABLE), ("--entrypoint", APP_VARIABLE), ("-e", APP_VARIABLE)):
        value = _option(rest, option)
        if value is not None:
            variables[name] = value
            rest = _without(rest, option)
    return Launch((*prefix, *rest, "--entrypoint", WRAPPER), variables)


def find_positional(arguments: Sequence[str], takes_value: TakesValue) -> int | None:
    """Index of the first argument that is neither an option nor an option's value."""
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        if argument == "--":
            return index + 1 if index + 1 < len(arguments) else None
        if not argument.startswith("-") or argument == "-":
            return index
        attached = "=" in argument if argument.startswith("--") else len(argument) > 2
        index += 1 if attached or not takes_value(argument) else 2
    return None


def gunicorn_facts(arguments: Sequence[str]) -> GunicornFacts | None:
    """Ask gunicorn, in a process of its own because it runs the user's configuration file; None if it cannot say.

    Raises: ConfigError: gunicorn does not understand its arguments; in its own words.
    """
    code = (
        "import json, sys; from gunicorn.app.wsgiapp import WSGIApplication; "
        "sys.argv[0] = 'gunicorn'; app = WSGIApplication(); "
        "print(json.dumps([app.cfg.worker_class_str, app.cfg.wsgi_app, app.cfg.workers]))"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=60,
    )
    if done.returncode == _GUNICORN_USAGE_ERROR and done.stderr.strip():
        raise ConfigError([done.stderr.splitlines()[-1]])
    try:
        worker_class, app, workers = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return GunicornFacts(worker_class, app, workers)


def _option(arguments: Sequence[str], name: str) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if name.startswith("--") and argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


def _without(arguments: Sequence[str], name: str) -> list[str]:
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == name:
            skip = True
        elif not argument.startswith(f"{name}="):
            kept.append(argument)
    return kept
