"""How things stand: switches, health of every part, pipelines, and the counts."""

from __future__ import annotations

from datetime import datetime

from gradio_ui.markup import Html, badge, el, empty, facts, join, moment, notice, section
from gradio_ui.wording import OUTCOME, STATUS, plain
from graph.domain import Door, Outcome, Role, Status
from server.routes.me import MeOut
from server.schemas_overview import HealthOut, PipelineOut, RunOut, StatusOut

HEALTH = {
    "well": ("well", "good"),
    "degraded": ("degraded", "warn"),
    "unwell": ("unwell", "bad"),
    "off": ("not used", "calm"),
    "unknown": ("not known", "calm"),
}
PARTS = {"dag_processor": "DAG processor", "agent": "Airmedic's driver", "model": "Language model"}
RUN = {"success": "good", "failed": "bad", "running": "busy", "queued": "calm"}
PIPELINES = 60  # shown at once
RUNS = 12
WARNINGS = 20


def mode_line(status: StatusOut, me: MeOut) -> Html:
    """The line at the top of every page: is it on, is everything well, does anybody wait for me."""
    if status.paused:
        mode = badge("Stopped: nothing is written", "bad")
    else:
        mode = badge("Healing is on", "good") if status.healing == "on" else badge("Shadow mode", "warn")
    unwell = [one for one in status.health if one.state == "unwell"]
    well = badge(f"{_part(unwell[0])} is unwell", "bad") if unwell else badge("All parts are well", "good")
    ask = status.waiting_decision
    asked = badge(f"{ask:,} for your decision", "warn") if ask else badge("Nothing to decide", "calm")
    who = el("span", me.name, el("small", me.role.value), cls="am-me")
    return el("div", mode, well, asked, who, cls="am-mode")


def status_page(status: StatusOut, me: MeOut) -> Html:
    """The whole page."""
    return el(
        "div",
        el("div", _switches(status, me), _health(status), _doors(status), cls="am-status-side"),
        el("div", _counts(status), _warnings(status), _pipelines(status), cls="am-status-main"),
        cls="am-status",
    )


def _switches(status: StatusOut, me: MeOut) -> Html:
    if status.paused:
        words = notice(
            "Airmedic diagnoses and asks, and writes nothing.", tone="bad", title="Everything is stopped."
        )
    elif status.healing == "on":
        words = notice(
            "What policy allows is carried out; the rest is asked.", tone="good", title="Healing is on."
        )
    else:
        words = notice(
            "Airmedic diagnoses, decides and records, and touches nothing.", tone="warn", title="Shadow mode."
        )
    known = [("Airflow", status.airflow_id), ("Environment", status.environment)]
    buttons = _buttons(status, me)
    policy = facts([*known, ("Policy in force", el("code", status.policy))])
    return section("Mode", words, policy, el("div", *buttons, cls="am-switches") if buttons else "")


def _buttons(status: StatusOut, me: MeOut) -> list[Html]:
    if not me.role.includes(Role.OPERATOR):
        return []
    if status.paused:
        stop = _switch("Resume writing to Airflow", "paused", False, "What policy allows is written again.")
    else:
        stop = _switch(
            "Stop everything",
            "paused",
            True,
            "Nothing is written to Airflow until somebody resumes.",
            tone="bad",
        )
    if status.healing == "on":
        return [stop, _switch("Go to shadow mode", "shadow", True, "Airmedic decides, and touches nothing.")]
    if not me.role.includes(Role.ADMIN):
        return [stop]
    return [stop, _switch("Let it heal", "shadow", False, "What policy allows is carried out from now on.")]


def _switch(words: str, name: str, value: bool, told: str, *, tone: str = "") -> Html:
    given = {"data_switch": name, "data_value": str(value).lower(), "data_confirm": told}
    return el(
        "button", words, type="button", cls=f"am-button {tone and 'am-button-' + tone}".strip(), **given
    )


def _part(part: HealthOut) -> str:
    return PARTS.get(part.name, plain(part.name))


def _health(status: StatusOut) -> Html:
    rows = [
        el(
            "li",
            badge(*HEALTH[one.state]),
            el("strong", _part(one)),
            el("span", one.detail, cls="am-quiet") if one.detail else None,
        )
        for one in status.health
    ]
    version = f"Airflow {status.airflow.version}" if status.airflow.version else ""
    asked = el("p", "Airflow was asked ", moment(status.airflow.asked_at, form="age"), " ago", cls="am-quiet")
    return section("Health", el("ul", *rows, cls="am-checks"), asked, note=version)


def _counts(status: StatusOut) -> Html:
    now = [_tile(status.incidents.get(one, 0), *STATUS[one]) for one in Status if one is not Status.CLOSED]
    ended = [_tile(status.outcomes.get(one, 0), *OUTCOME[one]) for one in Outcome]
    return join(
        [
            section("Incidents now", el("div", *now, cls="am-tiles"), note=f"{status.open:,} open"),
            section("How they ended", el("div", *ended, cls="am-tiles"), note="only healed counts as a heal"),
        ]
    )


def _tile(count: int, words: str, tone: str) -> Html:
    shade = tone if count else "none"
    return el("div", el("b", f"{count:,}"), el("span", words), cls=f"am-tile am-{shade}")


def _warnings(status: StatusOut) -> Html:
    """What the watch noticed and nobody has to act on yet; nothing at all when there is none."""
    if not status.findings:
        return Html("")
    rows = [
        el(
            "li",
            badge(plain(one.kind), "warn"),
            el("strong", one.subject),
            el("span", one.text, ", since ", moment(one.since), cls="am-quiet"),
        )
        for one in status.findings[:WARNINGS]
    ]
    return section("Early warnings", el("ul", *rows, cls="am-checks"), note="not incidents yet")


def _pipelines(status: StatusOut) -> Html:
    if not status.pipelines:
        return section(
            "Pipelines", empty("No pipeline is known yet", "Airflow's DAGs show up here with their runs.")
        )
    ranked = sorted(status.pipelines, key=_trouble)
    rate = "" if status.success_rate is None else f"{status.success_rate:.0%} of the last runs succeeded"
    rows = [_pipeline(one) for one in ranked[:PIPELINES]]
    rest = len(ranked) - len(rows)
    more = el("p", f"{rest:,} more are well.", cls="am-quiet") if rest > 0 else ""
    return section("Pipelines", el("ul", *rows, cls="am-pipelines"), more, note=rate)


def _trouble(one: PipelineOut) -> tuple[int, bool, str]:
    failed = bool(one.runs) and one.runs[0].state == "failed"
    return -one.open_incidents, not failed, one.dag_id


def _pipeline(one: PipelineOut) -> Html:
    marks = [_run(run) for run in reversed(one.runs[:RUNS])]
    state = badge("paused", "calm") if one.is_paused else None
    trouble = badge(f"{one.open_incidents} open", "warn") if one.open_incidents else None
    last = moment(one.runs[0].end or one.runs[0].start, form="age") if one.runs else "no run yet"
    return el(
        "li",
        el("code", one.dag_id, cls="am-dag"),
        el("span", state, trouble, cls="am-badges"),
        el("span", *marks, cls="am-runs"),
        el("span", last, cls="am-quiet am-last"),
        data_key=one.dag_id,
    )


def _run(run: RunOut) -> Html:
    return el("i", cls=f"am-run am-{RUN.get(run.state, 'calm')}", title=f"{run.run_id}: {run.state}")


def _doors(status: StatusOut) -> Html:
    rows: list[tuple[str, object]] = [
        (plain(door.value), _when(status.seen.get(door))) for door in Door if door is not Door.POLL
    ]
    rows.append(("Asked Airflow until", moment(status.polled_until)))
    if status.queue is not None:
        rows.append(("Not yet looked at", f"{status.queue.occurrences:,}"))
        rows.append(("Due now", f"{status.queue.due:,}"))
    return section("How failures arrive", facts(rows))


def _when(at: datetime | None) -> object:
    return "never" if at is None else moment(at)
