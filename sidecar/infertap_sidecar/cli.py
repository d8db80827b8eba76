"""The command `infertap`: one module a command, imported only when it is the one that was asked for.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration (all problems at once, nothing started).
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from infertap._version import __version__
from infertap.errors import ConfigError, InfertapError, UsageError

DONE, FAILED, WRONG_USAGE = 0, 1, 2


class Command(NamedTuple):
    """Where a command lives, and what the overview says about it."""

    module: str
    summary: str


class CommandModule(Protocol):
    """What every module of a command offers."""

    def main(self, argv: Sequence[str]) -> int:
        """Run with the arguments after the command's name; the exit code. Raises: InfertapError."""


COMMANDS = {
    "serve": Command("infertap_sidecar.commands.serve", "record a model server: a proxy in front of it"),
    "collect": Command("infertap_sidecar.commands.collect", "record what others send over OTLP: the receiver alone"),
    "run": Command("infertap_sidecar.commands.run", "record an unmodified Python app: infertap run -- uvicorn app:app"),
    "demo": Command("infertap_sidecar.demo.command", "watch a real model being recorded, start to finish"),
    "query": Command("infertap_sidecar.commands.query", "ask the tables in SQL"),
    "show": Command("infertap_sidecar.commands.show", "one request with its answer, spans and timing"),
    "doctor": Command("infertap_sidecar.commands.doctor", "where records go and why, and whether they can"),
    "drain": Command("infertap_sidecar.commands.drain", "deliver what waits in the spool"),
    "maintain": Command("infertap_sidecar.commands.maintain", "compact and clean up the tables"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; every expected failure is a message on standard error, not a traceback."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(overview())
        return DONE if arguments else WRONG_USAGE
    if name in ("-V", "--version", "version"):
        print(f"infertap {__version__}")
        return DONE
    if name not in COMMANDS:
        return _unknown(name)
    try:
        return _run(COMMANDS[name], arguments[1:])
    except ConfigError as error:
        count = len(error.problems)
        print(
            f"infertap {name}: {count} problem{'' if count == 1 else 's'}, nothing was started\n{error}",
            file=sys.stderr,
        )
        return WRONG_USAGE
    except InfertapError as error:
        print(f"infertap {name}: {error}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED
    except KeyboardInterrupt:
        print(f"infertap {name}: interrupted", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`); the interpreter's flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def overview() -> str:
    """What `infertap --help` prints."""
    lines = [f"infertap {__version__}: records every inference request", "", "usage: infertap COMMAND [...]", ""]
    lines += [f"  {name:<10}{command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "infertap COMMAND --help says more about each."]
    return "\n".join(lines)


def _run(command: Command, arguments: Sequence[str]) -> int:
    module = cast("CommandModule", importlib.import_module(command.module))
    code = module.main(arguments)
    sys.stdout.flush()
    return code


def _unknown(name: str) -> int:
    nearest = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    print(f"infertap: there is no command {name!r}{hint}\n\n{overview()}", file=sys.stderr)
    return WRONG_USAGE
