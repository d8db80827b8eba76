"""All benchmarks in turn, each in a process of its own: what `make bench` runs."""

import subprocess
import sys
import time
from pathlib import Path

PARTS = ("event_loop.py", "worker.py", "drainer.py", "lag.py", "proxy.py")


def main() -> int:
    folder = Path(__file__).parent
    missing = [name for name in PARTS if not (folder / name).is_file()]
    if missing:
        print(f"missing in {folder}: {', '.join(missing)}", file=sys.stderr)
        return 1
    failed = []
    for name in PARTS:
        began_s = time.monotonic()
        code = subprocess.run([sys.executable, folder / name], check=False).returncode
        print(f"{name}: {time.monotonic() - began_s:.0f} s{'' if code == 0 else f', exit code {code}'}\n", flush=True)
        if code:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
