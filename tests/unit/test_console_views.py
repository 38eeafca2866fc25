"""What the console draws: untrusted text stays inert, and what a person needs is said."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from pydantic import JsonValue

from gradio_ui import chat_page
from gradio_ui.edit_form import NotAValue, edit_form, edited_args, fields_of
from gradio_ui.feedback_form import feedback_form
from gradio_ui.figures_page import figures_page
from gradio_ui.incident_detail import headline, question, stored_log, story
from gradio_ui.incident_list import incident_list
from gradio_ui.markup import Html, diff, el, join, notice, text
from gradio_ui.status_page import mode_line, status_page
from gradio_ui.timeline import log_list, timeline
from gradio_ui.touched import touched
from gradio_ui.wording import OUTCOME, SEVERITY, STATUS, STEP, VERDICT
from graph.domain import Action, BlastRadius, Outcome, Severity, Status, Step, Verdict
from server.routes.me import MeOut
from server.schemas import AgentEventOut, IncidentDetailOut, IncidentPage
from server.schemas_overview import StatusOut, SummaryOut
from server.telling import data_of, details, sentence, title

AT = "2026-03-01T03:00:00+00:00"
ATTACKS = [
    pytest.param("<script>alert(1)</script>", id="a script"),
    pytest.param("<img src=x onerror=alert(1)>", id="an event handler"),
    pytest.param('"><svg/onload=alert(1)>', id="out of an attribute"),
    pytest.param("[click](javascript:alert(1)) **bold** http://evil.example", id="markdown and links"),
    pytest.param("${alert(1)} {{alert(1)}} `${1}`", id="a template"),
    pytest.param("' autofocus onfocus='alert(1)", id="single quotes"),
]
OURS = {
    *("div", "span", "strong", "small", "em", "b", "h2", "h3", "h4", "p", "ul", "ol", "li", "dl", "dt", "dd"),
    *("code", "pre", "time", "button", "section", "header", "wbr", "i", "small", "meter"),
    *("form", "fieldset", "legend", "label", "input", "select", "option", "textarea", "details", "summary"),
}


class Tags(HTMLParser):
    """The elements and attributes a browser would make of it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data


def make_event(name: str = "noted", data: JsonValue = None, **given: Any) -> AgentEventOut:
    return AgentEventOut.model_validate(
        {
            "id": 1,
            "incident_id": 12,
            "at": AT,
            "node": "diagnose",
            "name": name,
            "level": "info",
            "data": data or {},
        }
        | given
    )


def make_found(words: str = "plain", **given: Any) -> IncidentDetailOut:
    """An incident whose every untrusted text is `words`."""
    action = {"name": "patch_variable", "target": {}, "args": {"value": words}}
    fields: dict[str, Any] = {
        "id": 12,
        "version": 3,
        "status": "waiting_decision",
        "outcome": None,
        "severity": "high",
        "airflow": "default",
        "task": {"dag_id": words, "run_id": words, "task_id": words, "map_index": 2},
        "try_number": 1,
        "operator": words,
        "root_cause": "schema_drift",
        "summary": words,
        "reason": words,
        "asks": True,
        "attempt": 0,
        "opened_at": AT,
        "updated_at": AT,
        "failed_at": AT,
        "closed_at": None,
        "expires_at": AT,
        "wake_at": None,
        "log": "digest",
        "diagnosis": {
            "root_cause": "schema_drift",
            "transient": False,
            "confidence": 0.97,
            "remediation": "adapt_schema",
            "summary": words,
            "evidence": [{"line": 24, "text": words}],
            "ruled_out": [{"root_cause": "missing_data", "why": words}],
            "location": {"file": words, "line": 7},
        },
        "plan": {
            "id": "abc",
            "remediation": "adapt_schema",
            "summary": words,
            "diff": f"--- a\n+{words}\n-{words}",
            "wait": 0,
            "actions": [action],
        },
        "decision": {"verdict": "ask", "rule": words, "reasons": [words]},
        "checklist": [words],
        "verification": {"outcome": "healed", "checks": [{"name": words, "ok": True, "detail": words}]},
        "question": {
            "plan_id": "abc",
            "action_requests": [{"name": "patch_variable", "args": {"value": words}, "description": words}],
            "review_configs": [
                {
                    "action_name": "patch_variable",
                    "args_schema": {
                        "properties": {"value": {"type": "string"}, "wait": {"type": "number", "minimum": 0}},
                        "required": ["value", "wait"],
                    },
                }
            ],
        },
        "answer": None,
        "occurrences": [],
        "ledger": [
            {
                "attempt": 1,
                "position": 0,
                "key": words,
                "step": "failed",
                "action": action,
                "before": words,
                "after": {"x": words},
                "error": words,
                "at": AT,
            }
        ],
        "events": [make_event(data={"reason": words}).model_dump()],
        "answers": [
            {
                "version": 2,
                "kind": "reject",
                "by": words,
                "message": words,
                "plan_id": "",
                "args": None,
                "at": AT,
            }
        ],
        "feedback": [
            {
                "id": 1,
                "incident_id": 12,
                "at": AT,
                "by": words,
                "rating": 2,
                "cause_right": False,
                "cause": "timeout",
                "comment": words,
            }
        ],
        "plans": [],
    }
    return IncidentDetailOut.model_validate(fields | given)


def make_status(words: str = "plain", **given: Any) -> StatusOut:
    fields = {
        "airflow_id": words,
        "environment": words,
        "healing": "on",
        "policy": words,
        "airflow": {"ok": False, "detail": words, "asked_at": AT, "version": words},
        "incidents": {"waiting_decision": 2},
        "outcomes": {"healed": 3},
        "open": 2,
        "waiting_decision": 2,
        "seen": {"listener": AT},
        "polled_until": None,
        "health": [
            {"name": "airflow", "state": "unwell", "detail": words},
            {"name": "database", "state": "degraded", "detail": words},
        ],
        "findings": [
            {"kind": "drift", "subject": words, "severity": "low", "since": AT, "text": words},
        ],
        "pipelines": [
            {
                "dag_id": words,
                "is_paused": True,
                "tags": [words],
                "next_run": None,
                "runs": [{"run_id": words, "state": words, "run_type": words, "start": AT, "end": None}],
                "open_incidents": 2,
            }
        ],
    }
    return StatusOut.model_validate(fields | given)


ME = MeOut.model_validate({"name": "ada", "role": "admin"})


def make_summary(**given: Any) -> SummaryOut:
    spread = {"count": 3, "p50": 2.0, "p95": 90.0}
    queue = {"occurrences": 0, "due": 0, "deciding": 1}
    fields: dict[str, Any] = {
        "window": "day",
        "since": AT,
        "until": AT,
        "step": 3600,
        "complete": True,
        "pipeline": {"incidents": 4, "causes": {"timeout": 3, "tls_error": 1}, "success_rate": 0.9},
        "agent": {
            "outcomes": {"healed": 2},
            "open": 1,
            "heal_rate": 0.5,
            "approvals_asked": 2,
            "approvals_answered": 1,
            **dict.fromkeys(("detect", "diagnose", "fix", "recover", "decide"), spread),
        },
        "system": {
            **dict.fromkeys(("cpu_percent", "machine_cpu_percent"), 1.0),
            **dict.fromkeys(("memory", "memory_available", "memory_total", "disk_free", "disk_total"), 1),
            "queue": queue,
        },
        "business": {"model_asked": 2, "input_tokens": 10, "output_tokens": 5, "cost_usd": 0.25},
        "series": [{"start": AT, "opened": 3, "outcomes": {"healed": 2}, "causes": {"timeout": 3}}],
    }
    return SummaryOut.model_validate(fields | given)


def chat_drawn(words: str) -> list[Html]:
    """An answer with everything that can be in it, and what stands around it."""
    plan = {
        "id": "abc",
        "summary": words,
        "diff": words,
        "actions": [{"name": words, "target": {words: words}}],
    }
    turn = chat_page.Turn()
    events: tuple[tuple[str, Any], ...] = (
        ("tool", {"id": "1", "name": words, "args": {words: words}, "result": words}),
        ("token", {"text": words}),
        ("link", {"incident": 3, "task": words, "status": "open"}),
        ("ask", {"incident": 12, "version": 3, "task": words, "plan": plan, "why": [words], "may": True}),
        ("ask", {"incident": 13, "version": 3, "task": words, "plan": plan, "approvers": words}),
        ("error", {"message": words}),
        ("done", {"mode": words}),
    )
    for name, data in events:
        turn.take(name, data)
    turns: JsonValue = [{"role": "person", "text": words}, {"role": "airmedic", "text": words, "links": [1]}]
    return [
        chat_page.answer(turn),
        chat_page.history(turns, model=False),
        chat_page.hint_list({"items": [{"text": words, "detail": words}]}),
        chat_page.thread_list({"items": [{"thread": words, "title": words}]}, words),
    ]


def everything_drawn(words: str) -> Html:
    found = make_found(words)
    done = make_found(words, asks=False, status="escalated")
    events = [make_event(name, {"reason": words, "kind": words}) for name in ("noted", "answered", words)]
    return join(
        [
            incident_list(IncidentPage(items=[found], next="1"), shown="Open"),
            headline(found),
            headline(done),
            question(found),
            edit_form(found),
            story(found, [words] * 30),
            story(done),
            feedback_form(found),
            stored_log(f"one\n{words}\nthree", found.diagnosis),
            mode_line(make_status(words), ME),
            status_page(make_status(words), ME),
            figures_page(make_summary()),
            timeline(events),
            log_list(events, searched=False),
            notice(words, title=words),
            *chat_drawn(words),
        ]
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_from_outside_never_becomes_markup(attack: str) -> None:
    drawn = Tags(everything_drawn(attack))

    assert drawn.names <= OURS
    assert not {
        name for name in drawn.attributes if name.startswith("on") or name in {"href", "src", "style"}
    }
    assert attack in drawn.words


@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param("\x1b[31m", id="a terminal's escape"),
        pytest.param("\u202e", id="text that turns around"),
        pytest.param("\x00", id="NUL"),
    ],
)
def test_characters_that_hide_or_reorder_are_shown_as_replaced(hidden: str) -> None:
    assert hidden not in text(f"a{hidden}b")


def test_attributes_are_escaped() -> None:
    assert el("p", title='"><b>') == '<p title="&quot;&gt;&lt;b&gt;"></p>'


def test_a_question_shows_the_diff_and_what_would_be_done() -> None:
    shown = Tags(question(make_found("read email from email_address"))).words

    assert "read email from email_address" in shown
    assert "+read email" in shown
    assert "Nothing is touched before you approve." in shown


def test_nothing_is_asked_where_no_decision_is_wanted() -> None:
    assert question(make_found(asks=False, status="closed", outcome="healed")) == ""


def test_evidence_carries_its_line_number() -> None:
    assert "24plain" in Tags(story(make_found())).words


def test_the_lines_that_prove_the_cause_stand_out_in_the_log() -> None:
    log = "\n".join(f"line {n}" for n in range(1, 1001))

    drawn = stored_log(log, make_found().diagnosis)

    assert 'class="am-proof" value="24">line 24<' in drawn
    assert ">line 1000<" in drawn
    assert ">line 300<" not in drawn


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        pytest.param("For you", "Nothing waits for you", id="nothing for the person"),
        pytest.param("Open", "All quiet", id="nothing open"),
        pytest.param("All", "airmedic doctor", id="nothing ever"),
    ],
)
def test_an_empty_list_says_what_to_do(shown: str, words: str) -> None:
    assert words in incident_list(IncidentPage(items=[], next=None), shown=shown)


def test_what_asks_a_person_stands_first() -> None:
    quiet = make_found(id=13, asks=False, status="open")
    drawn = incident_list(IncidentPage(items=[quiet, make_found()], next=None), shown="All")

    assert drawn.index('data-incident="12"') < drawn.index('data-incident="13"')


def test_evidence_stands_among_its_neighbours() -> None:
    drawn = Tags(story(make_found(), [f"line {n}" for n in range(1, 41)])).words

    assert "22line 22" in drawn
    assert "26line 26" in drawn
    assert "27line 27" not in drawn


def test_an_empty_log_says_what_comes() -> None:
    assert "No line matches" in log_list([], searched=True)
    assert "The agent log is empty" in log_list([], searched=False)


@pytest.mark.parametrize(
    "name",
    ["opened", "intervened", "diagnosed", "decided", "answered", "checked", "ended", "control", "feedback"],
)
def test_an_event_without_its_values_is_still_told(name: str) -> None:
    event = make_event(name, {"checks": [{"ok": "?"}]})

    assert isinstance(sentence(name, data_of(event.data)), str)
    assert isinstance(details(name, {}), list)
    assert title(name)


@pytest.mark.parametrize(
    ("role", "buttons"),
    [
        pytest.param("viewer", [], id="a viewer has none"),
        pytest.param("operator", ["Stop everything"], id="an operator stops"),
        pytest.param("admin", ["Stop everything", "Let it heal"], id="an admin lets it heal"),
    ],
)
def test_switches_are_for_those_who_may(role: str, buttons: list[str]) -> None:
    me = MeOut.model_validate({"name": "x", "role": role})
    drawn = status_page(make_status(healing="shadow"), me)

    assert [words for words in ("Stop everything", "Let it heal") if words in drawn] == buttons


def test_a_tool_step_is_told_once_however_often_it_reports() -> None:
    turn = chat_page.Turn()
    turn.take("tool", {"id": "1", "name": "status"})
    turn.take("tool", {"id": "1", "name": "status", "result": "well"})

    assert chat_page.answer(turn).count("<details") == 1


def test_every_term_has_words() -> None:
    assert set(STATUS) == set(Status)
    assert set(OUTCOME) == set(Outcome)
    assert set(SEVERITY) == set(Severity)
    assert set(STEP) == set(Step)
    assert set(VERDICT) == set(Verdict)


def test_a_diff_keeps_its_lines_apart() -> None:
    assert [line in diff("+a\n-b\n c") for line in ("am-diff-add", "am-diff-del", "am-diff-same")] == [
        True
    ] * 3


def make_question(properties: dict[str, Any], args: dict[str, Any], required: tuple[str, ...] = ()) -> Any:
    schema = {"properties": properties, "required": list(required)}
    question = {
        "plan_id": "abc",
        "action_requests": [{"name": "act", "args": args, "description": "does it"}],
        "review_configs": [{"action_name": "act", "args_schema": schema}],
    }
    return make_found(question=question)


NULL = {"type": "null"}


@pytest.mark.parametrize(
    ("rules", "value", "wanted"),
    [
        pytest.param({"type": "boolean"}, True, 'type="checkbox" checked', id="a boolean is a box"),
        pytest.param(
            {"type": "integer", "minimum": 1}, 8, 'type="number" value="8" step="1" min="1"', id="bounds"
        ),
        pytest.param({"type": "number", "maximum": 9}, 2.5, 'step="any" max="9"', id="a number"),
        pytest.param({"enum": ["a", "b"], "type": "string"}, "b", "selected", id="an enum is a choice"),
        pytest.param({"anyOf": [{"type": "string"}, NULL]}, "db1", 'type="text" value="db1"', id="text"),
        pytest.param({"type": "string"}, '{"columns": {}}', "<textarea", id="a contract has room"),
        pytest.param({"type": "object"}, {"a": 1}, "<textarea", id="anything else is JSON"),
    ],
)
def test_a_field_is_made_from_its_schema(rules: dict[str, Any], value: Any, wanted: str) -> None:
    assert wanted in edit_form(make_question({"field": rules}, {"field": value}))


@pytest.mark.parametrize(
    ("rules", "before", "typed", "sent"),
    [
        pytest.param({"type": "boolean"}, True, False, {"f": False}, id="a box"),
        pytest.param({"type": "integer"}, 8, "16", {"f": 16}, id="a number"),
        pytest.param({"anyOf": [{"type": "string"}, NULL]}, "a", "", {}, id="what is emptied is not sent"),
        pytest.param(
            {"type": "string"}, '{"a":1}', '{\n  "a": 1\n}', {"f": '{"a":1}'}, id="layout is no change"
        ),
        pytest.param({"type": "string"}, '{"a":1}', '{"a": 2}', {"f": '{"a": 2}'}, id="a change is"),
        pytest.param({"type": "object"}, {}, '{"b": [1]}', {"f": {"b": [1]}}, id="JSON"),
    ],
)
def test_what_is_typed_comes_back_as_its_type(
    rules: dict[str, Any], before: Any, typed: JsonValue, sent: dict[str, Any]
) -> None:
    fields = fields_of(make_question({"f": rules}, {"f": before}))

    assert edited_args({"0.f": typed}, fields) == [sent]


@pytest.mark.parametrize(
    ("rules", "before", "typed"),
    [
        pytest.param({"type": "integer"}, 8, "many", id="no number"),
        pytest.param({"type": "object"}, {}, "{", id="no JSON"),
        pytest.param({"type": "string"}, '{"a":1}', "{", id="a contract that is none any more"),
    ],
)
def test_what_does_not_fit_names_its_field(rules: dict[str, Any], before: Any, typed: str) -> None:
    fields = fields_of(make_question({"slots": rules}, {"slots": before}))

    with pytest.raises(NotAValue, match="Slots"):
        edited_args({"0.slots": typed}, fields)


def test_a_plan_tells_in_numbers_what_it_reaches() -> None:
    radius = BlastRadius(task_instances=199, dag_runs=1, settings=1)
    clear = Action(name="clear_task", target={"dag_id": "orders", "run_id": "r", "tasks": []})
    assert "In all 199 task instances, 1 DAG run, 1 setting." in touched([clear], radius)
    assert "In all" not in touched([clear], BlastRadius())
    assert touched([Action(name="wait", args={"seconds": 5})], radius) == ""


def test_early_warnings_stand_on_the_status_page_while_they_last() -> None:
    shown = status_page(make_status("orders.load"), ME)
    assert "Early warnings" in shown
    assert "Early warnings" not in status_page(make_status(findings=[]), ME)
