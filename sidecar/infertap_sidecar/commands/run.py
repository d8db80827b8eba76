"""`infertap run -- COMMAND`: records an app that knows nothing of infertap."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from infertap.config import Config
from infertap.errors import ConfigError, InfertapError
from infertap_sidecar.flags import add_config_file, add_settings, make_parser, read_settings, variable
from infertap_sidecar.launch import rewrite

_DESCRIPTION = """\
Runs an ASGI server with the app wrapped in infertap's middleware; the app stays as it is.

  infertap run -- uvicorn app:app --port 8000
  infertap run -- python -m uvicorn app:app
  infertap run -- fastapi run main.py
  infertap run -- gunicorn -k uvicorn_worker.UvicornWorker -w 4 app:app

Settings come from INFERTAP_* variables, from the file, or from the flags below (before the --).\
"""


def main(argv: Sequence[str]) -> int:
    """Becomes the server; returns only where it cannot. Raises: ConfigError."""
    own, command = _split(list(argv))
    parser = make_parser("run", _DESCRIPTION)
    parser.usage = "infertap run [--SETTING VALUE ...] -- COMMAND"
    add_config_file(parser)
    add_settings(parser, Config, Config.model_fields, "recording")
    # Read once here, so that a wrong setting is seen before a server starts; the workers read them again.
    config = read_settings(Config, parser, own, stray="put -- before the command")
    if not command:
        raise ConfigError(["no command given: infertap run -- uvicorn module:app"])
    launch = rewrite(command, os.environ)
    environment = {**os.environ, **launch.variables, **_as_variables(parser.parse_args(own).__dict__)}
    if "install_tracer_provider" not in config.sources:
        # An app that was not written for infertap may have instrumentations and nowhere to send their spans.
        environment[variable("install_tracer_provider")] = "true"
    program = _find(launch.command[0])
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, [launch.command[0], *launch.command[1:]], environment)
    except OSError as error:
        raise InfertapError(f"cannot run {program}: {error.strerror}") from error


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    if "--" in argv:
        place = argv.index("--")
        return argv[:place], argv[place + 1 :]
    # Without `--`, the command begins at the first argument that is no flag.
    if argv and not argv[0].startswith("-"):
        return [], argv
    return argv, []


def _as_variables(given: dict[str, str]) -> dict[str, str]:
    """Flags become variables, because the settings are read in the server's processes."""
    variables = {variable(name): str(value) for name, value in given.items() if name != "config_file"}
    if "config_file" in given:
        variables["INFERTAP_CONFIG"] = str(Path(given["config_file"]).resolve())
    return variables


def _find(program: str) -> str:
    """The program on the path, else beside our own interpreter (a virtual environment that is not activated)."""
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if found is None:
        raise InfertapError(f"there is no program {program!r} on the PATH")
    return found
