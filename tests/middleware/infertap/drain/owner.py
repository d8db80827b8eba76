"""An owner as a process of its own: real slot, real election, told by lines of JSON what to do."""

import json
import os
import select
import signal
import sys
import time
from dataclasses import replace
from typing import Any

from infertap.clock import SystemClock
from infertap.drain.election import DrainerElection
from infertap.drain.settings import DrainerSettings
from infertap.record import InferenceRecord
from infertap.spool.folder import SpoolFolder
from infertap.spool.frames import Kind, pack
from infertap.spool.writer import SpoolWriter


def main() -> None:
    options = json.loads(sys.argv[1])
    for name in options.get("ignored_signals", ()):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    for name in options.get("blocked_signals", ()):
        signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name)])
    settings = DrainerSettings.from_json(options["settings"])
    settings = replace(settings, owner_born_ns=time.time_ns(), service_name=options.get("service_name", ""))
    folder, clock = SpoolFolder(settings.folder), SystemClock()
    writer = SpoolWriter(folder, {"service_name": "svc"}, identity={}, spool_bytes_max=1 << 30, clock=clock)
    writer.open()
    election = DrainerElection(
        folder,
        settings,
        owner=writer,
        clock=clock,
        mode=options.get("mode", "process"),
        command=options["command"],
        on_terminal=options.get("on_terminal", False),
    )
    _answer(slot=writer.slot.spool_id if writer.slot else None)
    sequence = 0
    while True:
        if options.get("ticks", True):
            election.tick()
        if not select.select([sys.stdin], [], [], options.get("tick_s", 0.2))[0]:
            continue
        line = os.read(0, 1 << 16).decode()
        if not line:
            return
        for text in line.splitlines():
            order: dict[str, Any] = json.loads(text)
            if "rows" in order:
                _spool(writer, order["rows"], sequence, order.get("minute", 0), order.get("body", ""))
                sequence += len(order["rows"])
                _answer(spooled=len(order["rows"]))
            if "fork_s" in order:
                if os.fork() == 0:
                    time.sleep(order["fork_s"])
                    os._exit(0)
                _answer(forked=True)
            if "tick" in order:
                election.tick()
                _answer(ticked=True)
            if "stop" in order:
                left = election.flush_and_wait(writer, deadline_s=order["stop"])
                waits = f"{left.sentence} {election.who_delivers()}" if left.segments else ""
                writer.close()
                election.close()
                _answer(left=left.segments, waits=waits)
                return


def _spool(writer: SpoolWriter, ids: list[str], sequence: int, minute: int, body: str) -> None:
    frames = []
    for offset, request_id in enumerate(ids):
        record = InferenceRecord(request_id, minute * 60_000_000, sequence_no=sequence + offset, request=body)
        frames.append((Kind.REQUEST, pack(record.to_payload())))
    writer.append(frames, minutes=[minute] * len(frames))
    writer.flush()
    writer.seal()


def _answer(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
