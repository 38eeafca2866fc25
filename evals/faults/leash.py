"""Runs commands as long as its standard input stays open, then ends them and everything they started.

Standard library only, started by path with `python leash.py LOG_FILE JSON`. The pipe on standard input is
held by the process that wants the commands; when that process dies, however it dies, the pipe closes.
The leash must be the leader of its own session: whatever is in that session when it ends is ended too
(Airflow puts each task in a process group of its own, so groups are not enough).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time

GRACE = 6.0  # seconds between SIGTERM and SIGKILL
TICK = 0.2  # seconds


def session_pids() -> list[int]:
    """Every other process in our session."""
    listed = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=False)
    ours = os.getsid(0)
    found = []
    for word in listed.stdout.split():
        pid = int(word)
        try:
            if pid != os.getpid() and os.getsid(pid) == ours:
                found.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def end(children: list[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to the commands, which end their own children; SIGKILL to what is left of the session."""
    send([child.pid for child in children if child.poll() is None], signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(TICK)
    while left := session_pids():
        send(left, signal.SIGKILL)
        for child in children:
            child.poll()
        time.sleep(TICK / 2)


def hold(children: list[subprocess.Popen[bytes]]) -> int:
    """Wait until standard input closes or a command ends; the latter's exit status, else 0."""
    while True:
        readable, _, _ = select.select([0], [], [], TICK)
        if readable and not os.read(0, 4096):
            return 0
        for child in children:
            if child.poll() is not None:
                return child.returncode or 1


def main(log_file: str, commands: str) -> int:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # only the pipe decides
    children: list[subprocess.Popen[bytes]] = []
    try:
        with open(log_file, "ab") as log:
            for command in json.loads(commands):
                children.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        preexec_fn=default_signals,
                    )
                )
        return hold(children)
    finally:
        end(children)


def default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
