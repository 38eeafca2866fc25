"""What the console draws: untrusted text stays inert, and what a person needs is said."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from pydantic import JsonValue

from gradio_ui.edit_form import NotJson, action_forms, edited_args
from gradio_ui.incident_detail import headline, question, stored_log, story
from gradio_ui.incident_list import incident_list
from gradio_ui.markup import Html, diff, el, join, notice, text
from gradio_ui.status_page import mode_line, status_page
from gradio_ui.timeline import log_list, sentence, timeline
from gradio_ui.wording import OUTCOME, SEVERITY, STATUS, STEP, VERDICT
from graph.domain import Outcome, Severity, Status, Step, Verdict
from server.schemas import AgentEventOut, IncidentDetailOut, IncidentPage
from server.schemas_overview import StatusOut

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
    *("code", "pre", "time", "button", "section", "header", "wbr"),
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
    }
    return StatusOut.model_validate(fields | given)


def everything_drawn(words: str) -> Html:
    found = make_found(words)
    done = make_found(words, asks=False, status="escalated")
    forms = [part for form in action_forms(found) for part in (form.hints,)]
    events = [make_event(name, {"reason": words, "kind": words}) for name in ("noted", "answered", words)]
    return join(
        [
            incident_list(IncidentPage(items=[found], next="1"), selected=12, shown="Open"),
            headline(found),
            headline(done),
            question(found),
            story(found),
            story(done),
            stored_log(f"one\n{words}\nthree", found.diagnosis),
            mode_line(make_status(words)),
            status_page(make_status(words)),
            timeline(events),
            log_list(events, words="", level="All"),
            notice(words, title=words),
            *forms,
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
    assert words in incident_list(IncidentPage(items=[], next=None), selected=None, shown=shown)


def test_what_asks_a_person_stands_first() -> None:
    quiet = make_found(id=13, asks=False, status="open")
    drawn = incident_list(IncidentPage(items=[quiet, make_found()], next=None), selected=None, shown="All")

    assert drawn.index('data-incident="12"') < drawn.index('data-incident="13"')


def test_the_agent_log_finds_what_matches_every_word() -> None:
    events = [
        make_event("diagnosed", {"root_cause": "timeout", "summary": "slow"}, id=1),
        make_event("ended", {"outcome": "healed", "reason": "fine"}, id=2, incident_id=13, level="warning"),
    ]

    assert "fine" in log_list(events, words="HEALED #13", level="All")
    assert "slow" not in log_list(events, words="healed #13", level="All")
    assert "slow" not in log_list(events, words="", level="Warning")
    assert "No line matches" in log_list(events, words="nowhere", level="All")


@pytest.mark.parametrize(
    "name", ["opened", "intervened", "diagnosed", "decided", "answered", "checked", "ended"]
)
def test_an_event_without_its_values_is_still_drawn(name: str) -> None:
    assert isinstance(sentence(make_event(name, {"checks": [{"ok": "?"}]})), str)


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


def test_the_edit_form_holds_the_arguments_and_names_what_is_missing() -> None:
    (form,) = action_forms(make_found("x"))

    assert json.loads(form.text) == {"value": "x", "wait": None}
    assert "at least 0" in Tags(form.hints).words


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        pytest.param("{", "Action 1: this is not JSON", id="not JSON"),
        pytest.param("[1]", "an object in braces", id="not an object"),
    ],
)
def test_what_is_not_an_object_is_refused_in_words(typed: str, complaint: str) -> None:
    with pytest.raises(NotJson, match=complaint):
        edited_args([typed], 1)
