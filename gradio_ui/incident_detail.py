"""Everything about one incident, in the order in which a person on call asks."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from gradio_ui.incident_list import name_of
from gradio_ui.markup import CUT, Html, badge, diff, el, facts, join, moment, notice, section, text
from gradio_ui.timeline import timeline
from gradio_ui.touched import touched
from gradio_ui.wording import BY, OUTCOME, SEVERITY, STEP, VERDICT, duration, plain, standing
from graph.domain import Check, Diagnosis, Status, canonical_json
from server.schemas import FeedbackOut, IncidentDetailOut, LedgerOut
from server.telling import ANSWERS, together

NEAR = 2  # lines shown before and after a line that proves
SHOWN_VALUE = 400  # characters of a before or after image
SHOWN_ARGUMENT = 120  # characters; the diff shows what changes


def headline(found: IncidentDetailOut) -> Html:
    """What failed and where it stands."""
    words, tone = standing(found)
    badges = el(
        "div",
        badge(words, tone),
        badge(f"{found.severity} severity", SEVERITY[found.severity]),
        el("span", f"#{found.id}", cls="am-number"),
        cls="am-badges",
    )
    place = facts(
        [
            ("Run", el("code", found.task.run_id)),
            ("Try", f"{found.try_number}" + (f", {found.operator}" if found.operator else "")),
            ("Failed", moment(found.failed_at)),
            ("Opened", moment(found.opened_at)),
            ("Closed", moment(found.closed_at) if found.closed_at else ""),
            ("Next step", moment(found.wake_at) if _due_later(found) else ""),
        ]
    )
    group = el("p", together(found.group.model_dump()), cls="am-reason") if found.group else Html("")
    return el("header", badges, el("h2", name_of(found)), group, _standing(found), place, cls="am-head")


def _due_later(found: IncidentDetailOut) -> bool:
    return found.wake_at is not None and found.status in {Status.WAITING_TIMER, Status.WATCHING}


def _standing(found: IncidentDetailOut) -> Html:
    if found.status is Status.ESCALATED:
        reason = found.reason or "Airmedic cannot mend this."
        return notice(reason, tone="warn", title="This one is with you.")
    return el("p", found.reason, cls="am-reason") if found.reason else Html("")


def question(found: IncidentDetailOut) -> Html:
    """What a person is asked, right above the buttons that answer it."""
    if not found.asks or found.plan is None:
        return Html("")
    asked, radius = found.question or {}, found.decision.radius if found.decision is not None else None
    others = asked.get("rule") == "members"  # it is about those that failed of the same cause
    left = el("span", moment(found.expires_at, form="left"), cls="am-left") if found.expires_at else None
    return el(
        "div",
        el("h3", "Your decision", left),
        el("p", str(asked.get("summary") or found.plan.summary), cls="am-ask"),
        el("ol", *(el("li", words) for words in _requests(found)), cls="am-steps"),
        Html("") if others else touched(found.plan.actions, radius),
        Html("") if others else diff(found.plan.diff),
        el("p", _why_asked(found), "Nothing is touched before you approve.", cls="am-quiet"),
        cls="am-question",
    )


def _why_asked(found: IncidentDetailOut) -> str:
    asked = found.question or {}
    if asked.get("rule") == "members" and isinstance(why := asked.get("why"), list):
        return f"Asked because {'; '.join(str(one) for one in why)}. "
    if found.decision is None:
        return ""
    rest = (
        f" Needs {found.decision.approvers.value} or more." if found.decision.approvers != "operator" else ""
    )
    return f"Asked because {'; '.join(found.decision.reasons)} (rule {found.decision.rule}).{rest} "


def _requests(found: IncidentDetailOut) -> list[str]:
    asked = (found.question or {}).get("action_requests")
    given = [one for one in asked if isinstance(one, dict)] if isinstance(asked, list) else []
    return [str(one.get("description") or one.get("name")) for one in given]


def story(found: IncidentDetailOut, log: Sequence[str] = ()) -> Html:
    """Why, what was planned and done, and how it went. `log`: the lines of the failed try."""
    parts = [_why(found, log), _todo(found), _plan(found), _decision(found), _ledger(found), _verified(found)]
    parts += [_considered(found), section("Timeline", timeline(found.events)), _feedback(found), _cost(found)]
    return el("div", *parts, cls="am-story")


def _why(found: IncidentDetailOut, log: Sequence[str]) -> Html:
    diagnosis = found.diagnosis
    if diagnosis is None:
        return section("Diagnosis", el("p", "Not diagnosed yet.", cls="am-quiet"))
    again = "passes by itself" if diagnosis.transient else "does not pass by itself"
    sure = el("p", f"{diagnosis.confidence:.0%} sure · {BY[diagnosis.by]} · {again}", cls="am-quiet")
    return section(
        "Diagnosis",
        el("p", el("strong", plain(diagnosis.root_cause.value)), ". ", diagnosis.summary, cls="am-lead"),
        sure,
        _evidence(diagnosis, log),
        _context(diagnosis),
        _ruled_out(diagnosis),
    )


def _evidence(diagnosis: Diagnosis, log: Sequence[str]) -> Html:
    """The lines that prove the cause, among their neighbours; a gap is shown as one."""
    if not diagnosis.evidence:
        return Html("")
    proof = {one.line: one.text for one in diagnosis.evidence}
    near = {
        n: log[n - 1] for line in proof for n in range(line - NEAR, line + NEAR + 1) if 1 <= n <= len(log)
    }
    lines, before = [], 0
    for number, words in sorted({**near, **proof}.items()):
        if before and number > before + 1:
            lines.append(el("li", CUT, cls="am-gap", aria_hidden="true"))
        kind = "am-proof" if number in proof else ""
        lines.append(el("li", el("span", number, cls="am-line"), el("code", words or " "), cls=kind))
        before = number
    place = diagnosis.location
    where = el("p", f"Raised in {place.file}, line {place.line}", cls="am-quiet") if place else None
    return join([el("ol", *lines, cls="am-evidence", aria_label="log lines"), where or Html("")])


def _context(diagnosis: Diagnosis) -> Html:
    rows = [el("li", one) for one in diagnosis.context]
    return join([el("h4", "What Airflow adds"), el("ul", *rows, cls="am-plain")]) if rows else Html("")


def _ruled_out(diagnosis: Diagnosis) -> Html:
    if not diagnosis.ruled_out:
        return Html("")
    rows = [el("li", el("strong", plain(one.root_cause.value)), ": ", one.why) for one in diagnosis.ruled_out]
    return join([el("h4", "Ruled out"), el("ul", *rows, cls="am-plain")])


def _plan(found: IncidentDetailOut) -> Html:
    plan = found.plan
    if plan is None or found.asks:  # the question shows it, right above its buttons
        return Html("")
    wait = f"begins after {duration(plan.wait)}" if plan.wait > 0 else ""
    actions = [el("li", el("code", one.name), " ", _args(one.args)) for one in plan.actions]
    return section(
        "Plan",
        el("p", plan.summary, cls="am-lead"),
        el("ol", *actions, cls="am-steps"),
        touched(plan.actions, found.decision.radius if found.decision is not None else None),
        diff(plan.diff),
        note=wait,
    )


def _args(args: dict[str, JsonValue]) -> Html:
    return el("span", ", ".join(f"{name} = {_cut(value)}" for name, value in args.items()), cls="am-quiet")


def _cut(value: JsonValue) -> str:
    spelled = " ".join(_short(value).split())
    return spelled if len(spelled) <= SHOWN_ARGUMENT else spelled[:SHOWN_ARGUMENT] + CUT


def _decision(found: IncidentDetailOut) -> Html:
    decision = found.decision
    if decision is None:
        return Html("")
    words, tone = VERDICT[decision.verdict]
    shadow = (
        notice("Decided and recorded; nothing is touched.", title="Shadow mode.") if decision.shadow else ""
    )
    return section(
        "Policy",
        el("p", badge(words, tone), " by rule ", el("code", decision.rule)),
        el("ul", *(el("li", reason) for reason in decision.reasons), cls="am-plain"),
        shadow,
    )


def _todo(found: IncidentDetailOut) -> Html:
    rows = [el("li", one) for one in found.checklist]
    return section("What to look at", el("ul", *rows, cls="am-plain")) if rows else Html("")


def _ledger(found: IncidentDetailOut) -> Html:
    rows = [_write(entry) for entry in found.ledger]
    return section("Writes to Airflow", el("ol", *rows, cls="am-ledger")) if rows else Html("")


def _write(entry: LedgerOut) -> Html:
    words, tone = STEP[entry.step]
    return el(
        "li",
        el(
            "div", el("code", entry.action.name), " ", badge(words, tone), " ", moment(entry.at, form="clock")
        ),
        el("p", entry.error, cls="am-error") if entry.error else None,
        facts([("Before", _image(entry.before)), ("After", _image(entry.after))]),
    )


def _image(value: JsonValue) -> Html:
    return el("code", text(_short(value), limit=SHOWN_VALUE)) if value is not None else Html("")


def _short(value: JsonValue) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _verified(found: IncidentDetailOut) -> Html:
    verification = found.verification
    if verification is None:
        return Html("")
    if verification.outcome is None:
        head = el("p", badge("Not known yet", "busy"))
    else:
        head = el("p", badge(*OUTCOME[verification.outcome]))
    return section("Verification", head, el("ul", *map(_check, verification.checks), cls="am-checks"))


def _check(check: Check) -> Html:
    word, tone = {True: ("ok", "good"), False: ("not ok", "bad"), None: ("cannot tell", "calm")}[check.ok]
    return el("li", badge(word, tone), el("strong", plain(check.name)), el("span", check.detail))


def _considered(found: IncidentDetailOut) -> Html:
    """Plans before the one in hand, and what was said to each."""
    earlier = found.plans[:-1]
    rows = [
        el(
            "li",
            el("strong", one.summary),
            " ",
            badge(*VERDICT[one.verdict]),
            " ",
            moment(one.at, form="clock"),
        )
        for one in earlier
    ]
    said = [
        el(
            "li",
            f"{one.by}: {ANSWERS.get(one.kind.value, one.kind.value)}",
            f" “{one.message}”" * bool(one.message),
        )
        for one in found.answers
    ]
    return join(
        [
            section("Earlier plans", el("ul", *rows, cls="am-plain") if rows else ""),
            section("What people decided", el("ul", *said, cls="am-plain") if said else ""),
        ]
    )


def _feedback(found: IncidentDetailOut) -> Html:
    rows = [_rated(one) for one in found.feedback]
    return section("Feedback", el("ul", *rows, cls="am-plain")) if rows else Html("")


def _rated(one: FeedbackOut) -> Html:
    right = {True: "the cause was right", False: "the cause was wrong", None: ""}[one.cause_right]
    instead = f", it was {plain(one.cause.value).lower()}" if one.cause is not None else ""
    words = "; ".join(filter(None, (f"{one.rating} of 5", right + instead, one.comment)))
    return el("li", el("strong", one.by), ": ", words, " ", moment(one.at, form="clock"))


def _cost(found: IncidentDetailOut) -> Html:
    cost = found.cost
    if cost is None or not cost.asked:
        return Html("")
    price = "price not known" if cost.cost_usd is None else f"${cost.cost_usd:.4f}"
    tokens = f"{cost.input_tokens:,} tokens in, {cost.output_tokens:,} out"
    words = f"Asked {cost.asked} times: {tokens}, {price}, {duration(cost.seconds)}."
    return section("Language model", el("p", words, cls="am-quiet"))


def stored_log(log: str, diagnosis: Diagnosis | None) -> Html:
    """The failed try's log with its line numbers; the lines that prove the cause stand out."""
    proof = {one.line for one in diagnosis.evidence} if diagnosis is not None else set()
    lines = [
        el("li", line or " ", cls="am-proof" if number in proof else "", value=number)
        for number, line in _lines_shown(log, proof)
    ]
    return section("Log of the failed try", el("ol", *lines, cls="am-rawlog", tabindex=0))


LOG_SHOWN = 400  # lines
CONTEXT = 12  # lines around a proof


def _lines_shown(log: str, proof: set[int]) -> list[tuple[int, str]]:
    """The end of the log, and what stands around the proof."""
    lines = list(enumerate(log.split("\n"), 1))
    if len(lines) <= LOG_SHOWN:
        return lines
    first = len(lines) - LOG_SHOWN
    near = {n for line in proof for n in range(line - CONTEXT, line + CONTEXT + 1)}
    return [(number, line) for number, line in lines if number > first or number in near]
