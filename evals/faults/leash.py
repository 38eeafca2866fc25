"""Runs commands as long as its standard input stays open, then ends them and everything they started.

Standard library only, started by path with `python leash.py LOG_DIR JSON`, where the JSON object names each
command; `LOG_DIR/NAME.log` is what it prints, `LOG_DIR/ended` the name of one that ended by itself. The pipe
on standard input is held by the process that wants the commands; when that process dies, however it dies,
the pipe closes.
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
from pathlib import Path

Children = dict[str, "subprocess.Popen[bytes]"]

GRACE = 4.0  # seconds between SIGTERM and SIGKILL
TICK = 0.2  # seconds


def all_pids() -> list[int]:
    """Every process that can be seen. A small Linux has no `ps`; where there is no /proc, there is one."""
    if os.path.isdir("/proc/self"):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    listed = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def session_pids() -> list[int]:
    """Every other process in our session."""
    ours = os.getsid(0)
    found = []
    for pid in all_pids():
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


def end(children: Children) -> None:
    """SIGTERM to the commands, which end their own children; SIGKILL to what is left of the session."""
    every = children.values()
    send([child.pid for child in every if child.poll() is None], signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and any(child.poll() is None for child in every):
        time.sleep(TICK)
    while left := session_pids():
        send(left, signal.SIGKILL)
        for child in every:
            child.poll()
        time.sleep(TICK / 2)


def hold(children: Children) -> str | None:
    """Wait until standard input closes or a command ends; the latter's name."""
    while True:
        readable, _, _ = select.select([0], [], [], TICK)
        if readable and not os.read(0, 4096):
            return None
        for name, child in children.items():
            if child.poll() is not None:
                return name


def start(log_dir: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    with (log_dir / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=default_signals,
        )


def default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def main(log_dir: Path, commands: dict[str, list[str]]) -> int:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # only the pipe decides
    children: Children = {}
    try:
        for name, command in commands.items():
            children[name] = start(log_dir, name, command)
        ended = hold(children)
    finally:
        end(children)
    if ended is None:
        return 0
    (log_dir / "ended").write_text(ended)
    return children[ended].returncode or 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
