"""The receiver as `infertap serve`'s child: settings on standard input, its addresses on standard output.

1. The end of standard input means stop: a proxy that was killed leaves no receiver behind.
2. Settings may hold secrets, so they are on no command line.
3. Spans are never rows here: the proxy beside it writes the row.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from infertap.choice import choose
from infertap.errors import ConfigError
from infertap.otel_env import OtelEnvironment
from infertap_sidecar import logs
from infertap_sidecar.receiver.collector import end_process, run
from infertap_sidecar.settings import CollectConfig, ReceiverAddresses


def main() -> int:
    """Run until told to stop; the exit code."""
    try:
        config = CollectConfig(**json.loads(sys.stdin.readline()))
        choice = choose(config, OtelEnvironment.read(os.environ), cwd=Path.cwd())
        logs.configure(config.log_format)
        return run(
            config,
            choice,
            makes_rows=False,
            admin=False,
            is_helper=True,
            on_listening=_say_where,
            on_stop_wanted=_stop_at_end_of_input,
        )
    except ConfigError as error:
        print(f"infertap's receiver cannot start:\n{error}", file=sys.stderr)
        return 2


def _say_where(addresses: ReceiverAddresses) -> None:
    names = {name: str(address) for name, address in addresses._asdict().items() if address is not None}
    print(json.dumps(names), flush=True)


def _stop_at_end_of_input(stop: Callable[[], None]) -> None:
    def wait() -> None:
        while sys.stdin.readline():
            pass
        stop()

    threading.Thread(target=wait, name="infertap-parent", daemon=True).start()


if __name__ == "__main__":
    end_process(main())
