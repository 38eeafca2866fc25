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
PAGE = 50  # incidents on one page


def incident_list(page: IncidentPage, *, shown: str, narrowed: bool = False, first: int = 1) -> Html:
    """One row per incident, those that want something of a person first."""
    if not page.items:
        return _nothing(shown, narrowed=narrowed)
    rows = sorted(page.items, key=_rank)
    return join([el("ul", *map(_row, rows), cls="am-list"), _pager(page, first)])


def _rank(incident: IncidentOut) -> tuple[bool, int]:
    return not incident.asks, -incident.id


def _row(incident: IncidentOut) -> Html:
    words, tone = standing(incident)
    cause = plain(incident.root_cause.value) if incident.root_cause is not None else "Not diagnosed yet"
    head = el(
        "span",
        el("span", cls=f"am-dot am-{SEVERITY[incident.severity]}", title=f"severity {incident.severity}"),
        el("strong", name_of(incident)),
        el("span", moment(incident.opened_at, form="age"), cls="am-age"),
        cls="am-row-head",
    )
    line = el("span", cause, el("small", f"#{incident.id} · {incident.severity}"), cls="am-row-cause")
    foot = el("span", badge(words, tone), _asked(incident), cls="am-row-foot")
    button = el("button", head, line, foot, type="button", cls="am-row", data_incident=incident.id)
    return el("li", button, data_key=incident.id)


def _asked(incident: IncidentOut) -> Html | None:
    ask = wanted(incident)
    if not ask:
        return None
    left = join([", ", moment(incident.expires_at, form="left")]) if incident.expires_at else None
    return el("em", ask, left)


def name_of(incident: IncidentOut) -> Html:
    """The pipeline and its task."""
    task = incident.task
    mapped = f"[{task.map_index}]" if task.map_index >= 0 else ""
    return join([text(task.dag_id, limit=120), el("wbr"), text(f".{task.task_id}{mapped}", limit=120)])


def _pager(page: IncidentPage, first: int) -> Html:
    last = first + len(page.items) - 1
    many = "" if page.count is None else f" of {page.count:,}{'+' if page.more else ''}"
    if first == 1 and page.next is None:
        return el("p", f"{last}{many}" if many else "", cls="am-pager am-quiet")
    back = el("button", "Newer", type="button", cls="am-small", data_turn="back", disabled=first == 1)
    on = el(
        "button",
        "Older",
        type="button",
        cls="am-small",
        data_turn="on",
        data_cursor=page.next,
        disabled=page.next is None,
    )
    return el("p", back, el("span", f"{first:,}–{last:,}{many}"), on, cls="am-pager am-quiet")


def _nothing(shown: str, *, narrowed: bool) -> Html:
    if narrowed:
        return empty("Nothing fits", "Fewer words or filters find more; the search reads names and causes.")
    if shown == "For you":
        return empty("Nothing waits for you", "No incident needs a decision. Open ones are under Open.")
    if shown == "Open":
        return empty("All quiet", "No incident is open. What was handled is under All.")
    return empty(
        "No incident yet",
        "A failure shows up here seconds after Airflow reports it. ",
        "`airmedic doctor` checks that Airflow can reach this server.",
    )
