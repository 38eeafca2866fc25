"""The list of incidents."""

from __future__ import annotations

from gradio_ui.markup import Html, badge, el, empty, join, moment, text
from gradio_ui.wording import SEVERITY, plain, standing, wanted
from graph.domain import Status
from server.schemas import IncidentOut, IncidentPage

OPEN = tuple(status for status in Status if status is not Status.CLOSED)
FILTERS: dict[str, tuple[Status, ...]] = {
    "For you": (Status.WAITING_DECISION, Status.ESCALATED),
    "Open": OPEN,
    "All": (),
}


def incident_list(page: IncidentPage, *, selected: int | None, shown: str) -> Html:
    """One row per incident, those that want something of a person first."""
    if not page.items:
        return _nothing(shown)
    rows = sorted(page.items, key=_rank)
    more = el("p", f"The newest {len(rows)} are shown.", cls="am-more") if page.next is not None else None
    return join([el("ul", *(_row(one, selected) for one in rows), cls="am-list"), more or Html("")])


def _rank(incident: IncidentOut) -> tuple[bool, int]:
    return not incident.asks, -incident.id


def _row(incident: IncidentOut, selected: int | None) -> Html:
    words, tone = standing(incident)
    cause = plain(incident.root_cause.value) if incident.root_cause is not None else "Not diagnosed yet"
    ask = wanted(incident)
    head = el(
        "span",
        el("span", cls=f"am-dot am-{SEVERITY[incident.severity]}", title=f"severity {incident.severity}"),
        el("strong", name_of(incident)),
        el("span", moment(incident.opened_at, form="age"), cls="am-age"),
        cls="am-row-head",
    )
    line = el("span", cause, el("small", f"#{incident.id} · {incident.severity}"), cls="am-row-cause")
    foot = el("span", badge(words, tone), el("em", ask) if ask else None, cls="am-row-foot")
    button = el(
        "button",
        head,
        line,
        foot,
        type="button",
        cls="am-row",
        data_incident=incident.id,
        aria_current="true" if incident.id == selected else None,
    )
    return el("li", button)


def name_of(incident: IncidentOut) -> Html:
    """The pipeline and its task."""
    task = incident.task
    mapped = f"[{task.map_index}]" if task.map_index >= 0 else ""
    return join([text(task.dag_id, limit=120), el("wbr"), text(f".{task.task_id}{mapped}", limit=120)])


def _nothing(shown: str) -> Html:
    if shown == "For you":
        return empty("Nothing waits for you", "No incident needs a decision. Open ones are under Open.")
    if shown == "Open":
        return empty("All quiet", "No incident is open. What was handled is under All.")
    return empty(
        "No incident yet",
        "A failure shows up here seconds after Airflow reports it. ",
        "`airmedic doctor` checks that Airflow can reach this server.",
    )
