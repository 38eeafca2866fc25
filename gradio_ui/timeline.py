"""The agent log on the page: what Airmedic saw, thought and did, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gradio_ui.markup import Html, el, empty, join, moment
from server.schemas import AgentEventOut
from server.telling import data_of, sentence, title


def timeline(events: Iterable[AgentEventOut]) -> Html:
    """The life of one incident, first thing first."""
    rows = [_row(event, numbered=False) for event in events]
    return el("ol", *rows, cls="am-timeline") if rows else Html("")


def log_list(events: Sequence[AgentEventOut], *, searched: bool) -> Html:
    """The agent log, newest first."""
    if events:
        return el("ol", *(_row(event, numbered=True) for event in events), cls="am-timeline am-log")
    if searched:
        return empty(
            "No line matches", "Fewer words find more. A number like #12 shows one incident's lines."
        )
    return empty("The agent log is empty", "Every step Airmedic takes is written here, as it takes it.")


def _row(event: AgentEventOut, *, numbered: bool) -> Html:
    head = [el("strong", title(event.name))]
    if numbered and event.incident_id is not None:
        head.append(incident_link(event.incident_id))
    head.append(el("small", event.node or "runner"))
    body = sentence(event.name, data_of(event.data))
    return el(
        "li",
        el("span", moment(event.at, form="clock"), cls="am-at"),
        el("div", el("div", join(head, " "), cls="am-event-head"), el("p", body) if body else None),
        cls=f"am-level-{event.level if event.level in {'warning', 'error'} else 'info'}",
        data_key=event.id,
    )


def incident_link(number: int) -> Html:
    """A button that opens an incident; links are never made from what was written elsewhere."""
    return el("button", f"#{number}", cls="am-link", type="button", data_incident=number)
