"""The forms in which people and their tools answer a question, and the one domain answer they become."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag

from graph.domain import Answer, AnswerKind
from graph.errors import DecisionInvalid
from tools.json_text import json_of
from tools.redaction import redact

MESSAGE_LIMIT = 4000  # characters

T = TypeVar("T")


def plain(value: T) -> T:
    """Only what every database and Airflow can keep: no NaN, no NUL, no half characters."""
    try:
        spelled = json.dumps(value, allow_nan=False, ensure_ascii=False)
        spelled.encode()
    except ValueError as exc:
        raise ValueError("holds a number or a character that cannot be stored") from exc
    if "\\u0000" in spelled:
        raise ValueError("holds a NUL character")
    return value


Args = Annotated[dict[str, JsonValue], AfterValidator(plain)]
Message = Annotated[str, Field(max_length=MESSAGE_LIMIT), AfterValidator(plain)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]


class BodyType(BaseModel):
    """A request body: closed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DecisionIn(BodyType):
    """Airmedic's own form. `args` holds one object per action of the plan, for `edit` only."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"type": "approve", "version": 2},
                {"type": "reject", "version": 2, "message": "the source is down for the night"},
                {"type": "respond", "version": 2, "message": "the password was changed at noon"},
                {"type": "edit", "version": 2, "args": [{"slots": 8}, {"downstream": True}]},
            ]
        }
    )

    type: Literal["approve", "edit", "reject", "respond"]
    version: Version | None = None
    message: Message = ""
    args: list[Args] | None = Field(None, max_length=20)
    plan_id: Annotated[str, Field(max_length=32), AfterValidator(plain)] = ""


class EditedAction(BodyType):
    """One action with its edited arguments."""

    name: Annotated[str, Field(max_length=100)]
    args: Args


class HitlDecision(BodyType):
    """One decision as LangChain's human-in-the-loop middleware spells it."""

    type: Literal["approve", "edit", "reject", "respond"]
    edited_action: EditedAction | None = None
    message: Message = ""


class HitlDecisions(BodyType):
    """LangChain's form: one decision per action request, in their order."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"decisions": [{"type": "approve"}], "version": 2}]}
    )

    decisions: list[HitlDecision] = Field(min_length=1, max_length=20)
    version: Version | None = None


class InboxAction(BodyType):
    """What Agent Inbox sends back for an edit: values arrive as text."""

    action: Annotated[str, Field(max_length=100)]
    args: Args


class InboxAnswer(BodyType):
    """Agent Inbox's form."""

    type: Literal["accept", "ignore", "response", "edit"]
    args: InboxAction | Message | None = None


def _form_of(given: Any) -> str:
    if isinstance(given, list):
        return "inbox"
    return "langchain" if isinstance(given, dict) and "decisions" in given else "decision"


InboxAnswers = Annotated[list[InboxAnswer], Field(min_length=1, max_length=1)]
DecisionBody = Annotated[
    Annotated[DecisionIn, Tag("decision")]
    | Annotated[HitlDecisions, Tag("langchain")]
    | Annotated[InboxAnswers, Tag("inbox")],
    Discriminator(_form_of),
]


class ActionRequest(BaseModel):
    """One action of the question."""

    name: str
    args: dict[str, JsonValue] = {}


class Question(BaseModel):
    """The part of a stored question that an answer must fit."""

    action_requests: list[ActionRequest]
    plan_id: str
    allowed: list[list[str]] = []

    @classmethod
    def of(cls, stored: JsonValue) -> Question:
        """The stored question; its review configs say what is allowed."""
        question = stored if isinstance(stored, dict) else {}
        configs = question.get("review_configs")
        allowed = [
            one["allowed_decisions"]
            for one in (configs if isinstance(configs, list) else [])
            if isinstance(one, dict) and "allowed_decisions" in one
        ]
        return cls.model_validate({**question, "allowed": allowed})


def to_answer(body: DecisionIn | HitlDecisions | list[InboxAnswer], question: Question, *, by: str) -> Answer:
    """The domain answer that a body of any form means. Raises `DecisionInvalid`."""
    match body:
        case DecisionIn():
            kind, message, args = AnswerKind(body.type), body.message, body.args
            if body.plan_id and body.plan_id != question.plan_id:
                raise DecisionInvalid(f"plan_id: the question is about plan {question.plan_id}")
        case HitlDecisions():
            kind, message, args = _from_hitl(body.decisions, question)
        case _:
            kind, message, args = _from_inbox(body[0], question)
    _check(kind, message, args, question)
    return Answer(kind=kind, by=by, message=redact(message), plan_id=question.plan_id, args=tuple(args or ()))


Parts = tuple[AnswerKind, str, list[dict[str, JsonValue]] | None]


def _check(
    kind: AnswerKind, message: str, args: list[dict[str, JsonValue]] | None, question: Question
) -> None:
    if any(kind.value not in allowed for allowed in question.allowed):
        raise DecisionInvalid(f"type: {kind.value!r} is not allowed for this question")
    if kind is AnswerKind.RESPOND and not message.strip():
        raise DecisionInvalid("message: respond needs words")
    if kind is AnswerKind.EDIT and not args:
        raise DecisionInvalid("args: edit needs the arguments, one object per action")
    if kind is not AnswerKind.EDIT and args is not None:
        raise DecisionInvalid(f"args: they belong to edit, not to {kind.value}")
    if args is not None and len(args) != len(question.action_requests):
        wanted = len(question.action_requests)
        raise DecisionInvalid(f"args: the plan has {wanted} actions, {len(args)} objects were given")


def _from_hitl(decisions: list[HitlDecision], question: Question) -> Parts:
    """A plan is carried out whole or not at all, so its decisions must agree; approve and edit may mix."""
    if len(decisions) != len(question.action_requests):
        raise DecisionInvalid(f"decisions: the question has {len(question.action_requests)} action requests")
    kinds = {one.type for one in decisions}
    message = "\n".join(one.message for one in decisions if one.message)
    if kinds <= {"approve", "edit"} and "edit" in kinds:
        pairs = zip(decisions, question.action_requests, strict=True)
        return AnswerKind.EDIT, message, [_edited(one, request) for one, request in pairs]
    if len(kinds) != 1:
        raise DecisionInvalid("decisions: a plan is answered as a whole; they must be of one type")
    if any(one.edited_action is not None for one in decisions):
        raise DecisionInvalid("edited_action: it belongs to edit")
    return AnswerKind(kinds.pop()), message, None


def _edited(decision: HitlDecision, request: ActionRequest) -> dict[str, JsonValue]:
    if decision.type == "approve":
        return dict(request.args)
    if decision.edited_action is None:
        raise DecisionInvalid("edited_action: edit needs it")
    if decision.edited_action.name != request.name:
        raise DecisionInvalid(f"edited_action.name: the action is {request.name!r} and cannot become another")
    return dict(decision.edited_action.args)


INBOX_KINDS = {"accept": AnswerKind.APPROVE, "ignore": AnswerKind.REJECT, "response": AnswerKind.RESPOND}


def _from_inbox(answer: InboxAnswer, question: Question) -> Parts:
    if answer.type != "edit":
        # Agent Inbox repeats the action request in an accept; only an edit may change it.
        return INBOX_KINDS[answer.type], answer.args if isinstance(answer.args, str) else "", None
    if not isinstance(answer.args, InboxAction):
        raise DecisionInvalid("args: edit needs the action and its args")
    places = [n for n, one in enumerate(question.action_requests) if one.name == answer.args.action]
    if len(places) != 1:
        raise DecisionInvalid(f"args.action: {answer.args.action!r} does not name one action of the question")
    args = [dict(request.args) for request in question.action_requests]
    args[places[0]] = {
        name: plain_value(value, args[places[0]].get(name)) for name, value in answer.args.args.items()
    }
    return AnswerKind.EDIT, "", args


def plain_value(value: JsonValue, before: JsonValue) -> JsonValue:
    """Agent Inbox returns edited values as text: bring back the type the argument had."""
    if not isinstance(value, str) or isinstance(before, str) or before is None:
        return value
    try:
        typed: JsonValue = plain(json_of(value))
    except ValueError:
        return value
    return typed
