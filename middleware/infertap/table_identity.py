"""Says whether two processes mean the same tables, without opening them: for spans that travel to where they came from.

1. Never the same answer for two tables: a span that is left out by mistake is lost, one that is written twice is not.
2. No credential goes in, and only a digest comes out.
"""

import functools
import hashlib
import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from infertap.spool.boot import boot_id
from infertap.targets import TableTarget

IN_TABLE = "infertap.in_table"
"""Attribute of a span that its sender writes into tables by itself; its value is their `table_identity`."""

_ENDPOINTS = (
    "aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint", "endpoint_url", "endpoint", "azure_endpoint",
    "google_base_url",
)  # fmt: skip
_ACCOUNTS = ("azure_storage_account_name", "account_name")
_NEED_ACCOUNT = frozenset({"az", "azure", "adl", "abfs", "abfss"})
"""Containers have a name in an account only."""


def table_identity(target: TableTarget, environ: Mapping[str, str]) -> str | None:
    """16 hex digits; None where it cannot be known: a local root that does not exist yet, a container of no account.

    A local root is known by its place on its disk, so that it is the same one under each path and in each container of
    this machine; one on a network volume is another one on each machine.
    """
    local = target.local_path
    if local is None:
        facts = _remote(target, environ)
    else:
        try:
            status = os.stat(local)
        except OSError:
            return None
        facts = f"{_machine()} {status.st_dev} {status.st_ino}"
    return None if facts is None else hashlib.sha256(facts.encode()).hexdigest()[:16]


def _remote(target: TableTarget, environ: Mapping[str, str]) -> str | None:
    options = {name.lower(): value for name, value in target.storage_options.items()}
    parts = urlsplit(target.uri)
    account = _first(_ACCOUNTS, options, environ)
    if parts.scheme in _NEED_ACCOUNT and not account and "@" not in parts.netloc:
        return None
    endpoint = _first(_ENDPOINTS, options, environ)
    host = urlsplit(endpoint).hostname or ""
    if endpoint and ("." not in host or host.startswith("127.")):
        return None  # `localhost`, `minio`: another server on the next machine
    scheme = "s3" if parts.scheme == "s3a" else parts.scheme
    return f"{scheme} {parts.netloc} {parts.path.rstrip('/')} {endpoint} {account}"


def _first(names: tuple[str, ...], options: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """As delta-rs: an option wins over the variable of the same name."""
    given = (options.get(name) for name in names)
    variables = (environ.get(name.upper()) for name in names)
    return next((value.rstrip("/") for value in (*given, *variables) if value), "")


@functools.cache
def _machine() -> str:
    boot = boot_id()
    # Where the system does not tell its boot, its name has to do.
    return boot if boot.strip("0-") else socket.gethostname()
