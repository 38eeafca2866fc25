"""How things stand: mode, Airflow, and the counts."""

from __future__ import annotations

from datetime import datetime

from gradio_ui.markup import Html, badge, el, facts, join, moment, notice, section
from gradio_ui.wording import OUTCOME, STATUS, plain
from graph.domain import Door, Outcome, Status
from server.schemas_overview import AirflowOut, StatusOut


def mode_line(status: StatusOut) -> Html:
    """The line at the top of every page: is it on, does Airflow answer, does anybody wait for me."""
    mode = badge("Healing is on", "good") if status.healing == "on" else badge("Shadow mode", "warn")
    airflow = badge("Airflow answers", "good") if status.airflow.ok else badge("Airflow is silent", "bad")
    ask = status.waiting_decision
    asked = badge(f"{ask} for your decision", "warn") if ask else badge("Nothing to decide", "calm")
    return el(
        "div", mode, airflow, asked, el("span", f"Airflow {status.airflow_id}", cls="am-quiet"), cls="am-mode"
    )


def status_page(status: StatusOut) -> Html:
    """The whole page."""
    return el(
        "div", _mode(status), _airflow(status.airflow), _counts(status), _doors(status), cls="am-status"
    )


def _mode(status: StatusOut) -> Html:
    if status.healing == "on":
        words = notice(
            "What policy allows is carried out; the rest is asked.", tone="good", title="Healing is on."
        )
    else:
        words = notice(
            "Airmedic diagnoses, decides and records, and touches nothing. AIRMEDIC_HEALING=on heals.",
            tone="warn",
            title="Shadow mode.",
        )
    known = [("Airflow", status.airflow_id), ("Environment", status.environment)]
    return section("Mode", words, facts([*known, ("Policy in force", el("code", status.policy))]))


def _airflow(airflow: AirflowOut) -> Html:
    if not airflow.ok:
        words = airflow.detail or "It did not answer."
        return section("Airflow", notice(words, tone="bad", title="No answer."), _asked(airflow.asked_at))
    parts = {
        "Metadata database": airflow.metadatabase,
        "Scheduler": airflow.scheduler,
        "DAG processor": airflow.dag_processor,
        "Triggerer": airflow.triggerer,
    }
    rows = [el("li", badge(*_health(well)), el("span", name)) for name, well in parts.items()]
    version = f"version {airflow.version}" if airflow.version else ""
    return section("Airflow", el("ul", *rows, cls="am-checks"), _asked(airflow.asked_at), note=version)


def _asked(at: datetime) -> Html:
    return el("p", "Asked ", moment(at, form="age"), " ago", cls="am-quiet")


def _health(well: bool | None) -> tuple[str, str]:
    return {True: ("healthy", "good"), False: ("unhealthy", "bad"), None: ("not told", "calm")}[well]


def _counts(status: StatusOut) -> Html:
    now = [_tile(status.incidents.get(one, 0), *STATUS[one]) for one in Status if one is not Status.CLOSED]
    ended = [_tile(status.outcomes.get(one, 0), *OUTCOME[one]) for one in Outcome]
    return join(
        [
            section("Now", el("div", *now, cls="am-tiles"), note=f"{status.open} open"),
            section("Ended", el("div", *ended, cls="am-tiles"), note="only healed counts as a heal"),
        ]
    )


def _tile(count: int, words: str, tone: str) -> Html:
    shade = tone if count else "none"
    return el("div", el("b", count), el("span", words), cls=f"am-tile am-{shade}")


def _doors(status: StatusOut) -> Html:
    rows: list[tuple[str, object]] = [
        (plain(door.value), moment(status.seen.get(door), form="full"))
        for door in Door
        if door is not Door.POLL
    ]
    rows.append(("Asked Airflow until", moment(status.polled_until)))
    return section("How failures arrive", facts(rows))
