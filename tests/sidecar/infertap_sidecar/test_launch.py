"""Command lines of ASGI servers with the app replaced, and those that are refused."""

import sys
from pathlib import Path

import pytest

from infertap import ConfigError
from infertap.cgroup import WORKERS_VARIABLE
from infertap_sidecar.launch import (
    APP_VARIABLE,
    FACTORY,
    NAME_VARIABLE,
    PATH_VARIABLE,
    SERVER_VARIABLE,
    WRAPPER,
    gunicorn_facts,
    rewrite,
)


@pytest.mark.parametrize(
    ("before", "after", "app"),
    [
        ("uvicorn app:app", f"uvicorn {WRAPPER}", "app:app"),
        ("uvicorn --port 80 --reload a.b:c --workers 4", f"uvicorn --port 80 --reload {WRAPPER} --workers 4", "a.b:c"),
        ("uvicorn --host=::1 --app-dir src app:app", f"uvicorn --host=::1 --app-dir src {WRAPPER}", "app:app"),
        ("python -m uvicorn app:app", f"python -m uvicorn {WRAPPER}", "app:app"),
        ("python3.12 -m uvicorn app:app", f"python3.12 -m uvicorn {WRAPPER}", "app:app"),
        ("/opt/bin/uvicorn --factory app:make", f"/opt/bin/uvicorn --factory {FACTORY}", "app:make"),
        ("uvicorn --header app:app app:app", f"uvicorn --header app:app {WRAPPER}", "app:app"),
        (
            "gunicorn -k uvicorn_worker.UvicornWorker -w4 --preload app:app",
            f"gunicorn -k uvicorn_worker.UvicornWorker -w4 --preload {WRAPPER}",
            "app:app",
        ),
    ],
)
def test_the_app_is_replaced_and_nothing_else(before: str, after: str, app: str) -> None:
    """Options keep their places and values; the original's name goes into the environment."""
    launch = rewrite(before.split(), {})
    assert " ".join(launch.command) == after
    assert launch.variables[APP_VARIABLE] == app


def test_an_app_named_in_uvicorns_own_variable_is_replaced_there() -> None:
    """uvicorn reads UVICORN_APP where the command line has no app."""
    launch = rewrite(["uvicorn", "--port", "80"], {"UVICORN_APP": "app:app"})
    assert launch.command == ("uvicorn", "--port", "80")
    assert launch.variables == {SERVER_VARIABLE: "uvicorn", APP_VARIABLE: "app:app", "UVICORN_APP": WRAPPER}


@pytest.mark.parametrize(
    ("before", "after", "variables"),
    [
        ("fastapi run main.py --port 80", "fastapi run --port 80", {PATH_VARIABLE: "main.py"}),
        (
            "fastapi run --reload src/m.py --app api",
            "fastapi run --reload",
            {PATH_VARIABLE: "src/m.py", NAME_VARIABLE: "api"},
        ),
        ("fastapi run --entrypoint a:b", "fastapi run", {APP_VARIABLE: "a:b"}),
        ("fastapi dev -e a:b --host 0.0.0.0", "fastapi dev --host 0.0.0.0", {APP_VARIABLE: "a:b"}),
        ("python -m fastapi run", "python -m fastapi run", {}),
    ],
)
def test_fastapis_ways_to_name_an_app(before: str, after: str, variables: dict[str, str]) -> None:
    """A path, an app, an entry point or nothing at all: the wrapper becomes the entry point."""
    launch = rewrite(before.split(), {})
    assert " ".join(launch.command) == f"{after} --entrypoint {WRAPPER}"
    assert launch.variables == {SERVER_VARIABLE: "fastapi", **variables}


@pytest.mark.parametrize(
    ("command", "way"),
    [
        ("hypercorn app:app", "app = InferenceMiddleware(app)"),
        ("python -m granian app:app", "app = InferenceMiddleware(app)"),
        ("vllm serve small", "--middleware infertap.InferenceMiddleware"),
        ("python -m vllm.entrypoints.openai.api_server", "--middleware infertap.InferenceMiddleware"),
        ("bentoml serve service:S", "add_asgi_middleware(InferenceMiddleware)"),
        ("python app.py", "app = InferenceMiddleware(app)"),
        ("mlflow models serve", "infertap serve --upstream URL"),
        ("fastapi deploy", "infertap serve --upstream URL"),
        ("uvicorn", "infertap run -- uvicorn module:app"),
        ("uvicorn --interface wsgi app:app", "infertap serve --upstream URL"),
        ("gunicorn app:app", "add -k uvicorn_worker.UvicornWorker"),
        ("gunicorn -k gthread app:app", "infertap serve --upstream URL"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_with_another_way(command: str, way: str) -> None:
    """A wrong usage, said before anything starts, together with what to do instead."""
    with pytest.raises(ConfigError) as refusal:
        rewrite(command.split(), {})
    assert way in str(refusal.value)


def test_gunicorns_own_configuration_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker class and app may stand in gunicorn's configuration file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gunicorn.conf.py").write_text("worker_class = 'uvicorn_worker.UvicornWorker'\nwsgi_app = 'a:b'\n")
    launch = rewrite(["gunicorn", "-w", "2"], {})
    assert launch.command == ("gunicorn", "-w", "2", WRAPPER)
    assert launch.variables[APP_VARIABLE] == "a:b"
    facts = gunicorn_facts(["--worker-class", "sync"])
    assert facts is not None
    assert facts.worker_class == "sync"
    assert sys.modules.get("gunicorn.app.wsgiapp") is None


@pytest.mark.parametrize(
    "command", ["uvicorn --help", "python -m uvicorn --version", "gunicorn --version", "fastapi --help"]
)
def test_a_question_goes_to_the_server_itself(command: str) -> None:
    """It answers and ends, so there is nothing to wrap."""
    launch = rewrite(command.split(), {})
    assert launch.command == tuple(command.split())
    assert launch.variables == {}


def test_arguments_that_gunicorn_refuses_are_refused_in_its_words() -> None:
    """The option is the mistake, not a missing app."""
    with pytest.raises(ConfigError, match="unrecognized arguments: --nosuch"):
        rewrite(["gunicorn", "--nosuch", "app:app"], {})


@pytest.mark.parametrize(
    ("command", "environ", "workers"),
    [
        ("uvicorn app:app", {}, None),
        ("uvicorn app:app --workers 4", {}, "4"),
        ("uvicorn app:app --workers=3", {"WEB_CONCURRENCY": "5"}, "3"),
        ("python -m uvicorn app:app", {"WEB_CONCURRENCY": "5"}, "5"),
        ("fastapi run main.py --workers 2", {}, "2"),
        ("gunicorn -k uvicorn_worker.UvicornWorker -w 6 app:app", {}, "6"),
        ("gunicorn -k uvicorn_worker.UvicornWorker app:app", {}, None),
    ],
)
def test_the_workers_are_told_how_many_they_are(command: str, environ: dict[str, str], workers: str | None) -> None:
    """They share one container's memory, of which their queues take a part."""
    assert rewrite(command.split(), environ).variables.get(WORKERS_VARIABLE) == workers


def test_gunicorns_configuration_file_says_it_too(tmp_path: Path) -> None:
    """Only gunicorn itself can tell."""
    (tmp_path / "conf.py").write_text("workers = 7\nworker_class = 'uvicorn_worker.UvicornWorker'\n")
    launch = rewrite(["gunicorn", "-c", str(tmp_path / "conf.py"), "app:app"], {})
    assert launch.variables[WORKERS_VARIABLE] == "7"
