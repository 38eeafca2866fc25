"""The forms of an answer: each means one domain answer, and a plan is answered as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from graph.domain import Answer
from graph.errors import DecisionInvalid
from server.answers import DecisionBody, Question, to_answer

BODY: TypeAdapter[Any] = TypeAdapter(DecisionBody)

QUESTION: dict[str, Any] = {
    "action_requests": [
        {"name": "wait", "args": {"seconds": 30}},
        {"name": "set_variable", "args": {"value": {"limit": 5}}},
    ],
    "review_configs": [
        {"action_name": "wait", "allowed_decisions": ["approve", "edit", "reject", "respond"]},
        {"action_name": "set_variable", "allowed_decisions": ["approve", "edit", "reject", "respond"]},
    ],
    "plan_id": "abc",
}


def answer_to(body: Any, question: dict[str, Any] | None = None) -> Answer:
    return to_answer(BODY.validate_python(body), Question.of(question or QUESTION), by="ada")


@pytest.mark.parametrize(
    ("body", "kind", "message", "args"),
    [
        pytest.param({"type": "approve"}, "approve", "", (), id="approve"),
        pytest.param(
            {"decisions": [{"type": "approve"}, {"type": "approve"}]}, "approve", "", (), id="approve all"
        ),
        pytest.param(
            {
                "decisions": [
                    {"type": "approve"},
                    {"type": "edit", "edited_action": {"name": "set_variable", "args": {"value": 1}}},
                ]
            },
            "edit",
            "",
            ({"seconds": 30}, {"value": 1}),
            id="an edit of one keeps the other's arguments",
        ),
        pytest.param(
            {"decisions": [{"type": "reject", "message": "no"}, {"type": "reject", "message": "neither"}]},
            "reject",
            "no\nneither",
            (),
            id="words are joined",
        ),
        pytest.param(
            [{"type": "edit", "args": {"action": "wait", "args": {"seconds": "60"}}}],
            "edit",
            "",
            ({"seconds": 60}, {"value": {"limit": 5}}),
            id="Agent Inbox's text becomes a number again",
        ),
        pytest.param(
            [{"type": "edit", "args": {"action": "set_variable", "args": {"value": '{"limit": 9}'}}}],
            "edit",
            "",
            ({"seconds": 30}, {"value": {"limit": 9}}),
            id="and an object again",
        ),
        pytest.param(
            [{"type": "response", "args": "try later"}], "respond", "try later", (), id="an inbox response"
        ),
        pytest.param(
            [{"type": "accept", "args": {"action": "wait", "args": {"seconds": 30}}}],
            "approve",
            "",
            (),
            id="an inbox accept repeats the request",
        ),
    ],
)
def test_every_form_means_one_answer(body: Any, kind: str, message: str, args: tuple[Any, ...]) -> None:
    answer = answer_to(body)

    assert (answer.kind, answer.message, answer.args) == (kind, message, args)
    assert (answer.by, answer.plan_id) == ("ada", "abc")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(
            {"decisions": [{"type": "approve"}, {"type": "reject"}]}, "as a whole", id="half a plan"
        ),
        pytest.param({"decisions": [{"type": "approve"}]}, "2 action requests", id="too few decisions"),
        pytest.param(
            {
                "decisions": [
                    {"type": "edit", "edited_action": {"name": "mark_task", "args": {}}},
                    {"type": "approve"},
                ]
            },
            "cannot become another",
            id="another action",
        ),
        pytest.param(
            {"decisions": [{"type": "approve", "edited_action": {"name": "wait", "args": {}}}] * 2},
            "belongs to edit",
            id="an approval with an edit",
        ),
        pytest.param(
            [{"type": "edit", "args": {"action": "clear_task", "args": {}}}],
            "does not name",
            id="inbox: unknown",
        ),
        pytest.param([{"type": "response", "args": None}], "needs words", id="inbox: no words"),
        pytest.param({"type": "edit", "args": [{}]}, "2 actions", id="arguments for one of two"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(body: Any, words: str) -> None:
    with pytest.raises(DecisionInvalid, match=words):
        answer_to(body)


def test_only_what_the_question_allows_is_accepted() -> None:
    closed = {**QUESTION, "review_configs": [{"action_name": "wait", "allowed_decisions": ["reject"]}]}

    with pytest.raises(DecisionInvalid, match="not allowed"):
        answer_to({"type": "approve"}, closed)
