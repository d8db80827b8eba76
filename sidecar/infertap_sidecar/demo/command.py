"""`infertap demo`: a real model answers through the sidecar, and its requests land in a table on this disk."""

import importlib.util
import os
import signal
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infertap.errors import ConfigError
from infertap.targets import TableTarget
from infertap_sidecar.flags import make_parser

TABLES = "./inference_tables"
REQUESTS_MIN, REQUESTS_MAX = 20, 100_000

_DESCRIPTION = """\
Trains a small classifier, serves it, puts `infertap serve` before it, sends a few hundred mixed
requests and shows what landed. Ends by itself; everything stays on this machine.\
"""
_NEEDED = {"sklearn": "scikit-learn", "openai": "openai"}
"""Module to package: what the demo needs beside infertap itself."""


def main(argv: Sequence[str]) -> int:
    """Runs the demo: 0 if every request landed, 1 if not. Raises: ConfigError, DemoError."""
    arguments = _parse(argv)
    # Loaded only once it is known that everything is there, and that the arguments are right.
    from infertap_sidecar.demo.play import Play

    play = Play(
        _target(arguments.tables),
        tables=arguments.tables,
        default_tables=arguments.tables == TABLES,
        port=arguments.port,
        admin_port=arguments.admin_port,
    )
    with _sigterm_as_interrupt():
        return play.run(arguments.requests, seed=arguments.seed, keep=arguments.keep)


def _parse(argv: Sequence[str]) -> Namespace:
    parser = make_parser("demo", _DESCRIPTION)
    parser.add_argument("--keep", action="store_true", help="stay up afterwards, until Ctrl-C")
    parser.add_argument("--tables", default=TABLES, metavar="URI", help=f"root of the tables; default {TABLES}")
    parser.add_argument("--requests", type=int, default=300, metavar="N", help="how many to send; default 300")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="another seed sends other requests")
    parser.add_argument("--port", type=int, metavar="N", help="the sidecar's port; default: a free one")
    parser.add_argument("--admin-port", type=int, metavar="N", help="its operator's port; default: a free one")
    arguments = parser.parse_args(argv)
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    problems = [f"the demo needs {' and '.join(missing)}: pip install {' '.join(missing)}"] if missing else []
    if not REQUESTS_MIN <= arguments.requests <= REQUESTS_MAX:
        problems.append(f"--requests must be between {REQUESTS_MIN} and {REQUESTS_MAX}")
    for name in ("port", "admin_port"):
        port = getattr(arguments, name)
        if port is not None and not 1 <= port <= 65_535:
            problems.append(f"--{name.replace('_', '-')} must be between 1 and 65535")
    if problems:
        raise ConfigError(problems)
    return arguments


def _target(tables: str) -> TableTarget:
    """The tables as `infertap serve --tables` understands them, in the same working directory."""
    return TableTarget(tables if "://" in tables else os.path.normpath(Path.cwd() / Path(tables).expanduser()))


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo like Ctrl-C: the children are stopped in order, and nothing is left running."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
