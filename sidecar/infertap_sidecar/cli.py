"""The command `infertap`: one module a command, imported only when it is the one that was asked for.

1. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration (all problems at once, nothing started), 130 Ctrl-C.
2. Nothing of ours is imported before `main` can answer for it: Ctrl-C during the imports is no traceback either.
"""

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

_QUIET = {"GRPC_VERBOSITY": "NONE", "RUST_LOG": "off"}
"""gRPC's core and delta-rs print lines of their own past every logger; what they mean is in our messages."""


class Command(NamedTuple):
    """Where a command lives, and what the overview says about it."""

    module: str
    summary: str
    undone: str = ""
    """What wrong settings keep from happening, for the message about them."""


class CommandModule(Protocol):
    """What every module of a command offers."""

    def main(self, argv: Sequence[str]) -> int:
        """Run with the arguments after the command's name; the exit code. Raises: InfertapError."""


_STARTED = ", nothing was started"
COMMANDS = {
    "serve": Command("infertap_sidecar.commands.serve", "record a model server: a proxy in front of it", _STARTED),
    "collect": Command(
        "infertap_sidecar.commands.collect", "record what others send over OTLP: the receiver alone", _STARTED
    ),
    "run": Command(
        "infertap_sidecar.commands.run", "record an unmodified Python app: infertap run -- uvicorn app:app", _STARTED
    ),
    "demo": Command("infertap_sidecar.demo.command", "watch a real model being recorded, start to finish", _STARTED),
    "query": Command("infertap_sidecar.commands.query", "ask the tables in SQL"),
    "show": Command("infertap_sidecar.commands.show", "one request with its answer, spans and timing"),
    "doctor": Command("infertap_sidecar.commands.doctor", "where records go and why, and whether they can"),
    "drain": Command("infertap_sidecar.commands.drain", "deliver what waits in the spool", ", nothing was delivered"),
    "maintain": Command(
        "infertap_sidecar.commands.maintain", "compact and clean up the tables", ", nothing was changed"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; every expected failure is a message on standard error, not a traceback."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    name = arguments[0] if arguments else "--help"
    try:
        code = _run(name, arguments[1:]) if name in COMMANDS else _answer(name, given=bool(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"infertap {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ImportError as error:
        if error.name != "infertap":
            raise
        # What it says about this platform is all there is to say.
        print(error, file=sys.stderr)
        return WRONG_USAGE
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`); the interpreter's flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    return code


def overview() -> str:
    """What `infertap --help` prints."""
    from infertap._version import __version__

    lines = [f"infertap {__version__}: records every inference request", "", "usage: infertap COMMAND [...]", ""]
    lines += [f"  {name:<10}{command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "infertap COMMAND --help says more about each."]
    return "\n".join(lines)


def _answer(name: str, *, given: bool) -> int:
    """What is no command: help, version, a slip."""
    if name in ("-h", "--help", "help"):
        print(overview())
        return DONE if given else WRONG_USAGE
    if name in ("-V", "--version", "version"):
        from infertap._version import __version__

        print(f"infertap {__version__}")
        return DONE
    return _unknown(name)


def _run(name: str, arguments: Sequence[str]) -> int:
    from importlib import import_module

    from infertap.errors import ConfigError, InfertapError, UsageError

    if name != "run":
        # The app that `run` becomes keeps its environment as it was.
        for variable, value in _QUIET.items():
            os.environ.setdefault(variable, value)
    try:
        return cast("CommandModule", import_module(COMMANDS[name].module)).main(arguments)
    except ConfigError as error:
        count = len(error.problems)
        print(
            f"infertap {name}: {count} problem{'' if count == 1 else 's'}{COMMANDS[name].undone}\n{error}",
            file=sys.stderr,
        )
        return WRONG_USAGE
    except InfertapError as error:
        # An engine's or a server's words may quote what was recorded.
        from infertap_sidecar.terminal import harmless

        print(f"infertap {name}: {harmless(str(error))}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def _unknown(name: str) -> int:
    from difflib import get_close_matches

    nearest = get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    what = "flag" if name.startswith("-") else "command"
    print(f"infertap: there is no {what} {name!r}{hint}\n\n{overview()}", file=sys.stderr)
    return WRONG_USAGE
