"""The agent log on a terminal."""

from __future__ import annotations

from server.record import AgentEvent
from server.telling import data_of, details, sentence, title
from tools.terminal import inert_line

COLOURS = {
    "intake": "cyan",
    "monitor": "blue",
    "diagnose": "magenta",
    "human": "yellow",
    "fix": "green",
    "verify": "green",
}


def line_of(event: AgentEvent) -> list[str]:
    """One event as one or more plain lines; no value in them drives the terminal or begins a line."""
    data = data_of(event.data)
    words = sentence(event.name, data)
    head = f"{title(event.name)}: {words}" if words else title(event.name)
    return [inert_line(head), *(f"  {inert_line(line)}" for line in details(event.name, data))]
