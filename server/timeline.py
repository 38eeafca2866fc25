"""What happened to one incident, in the order in which it happened, whoever did it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import JsonValue

from server.record import AgentEvent, IncidentDetail
from server.schemas import AnswerBody
from server.telling import title

TELLING = ("summary", "reason", "message", "outcome", "root_cause", "by")  # the first that is there is told

Kind = Literal["occurrence", "event", "write", "answer", "feedback"]


class Moment(AnswerBody):
    """One thing that happened."""

    at: datetime
    kind: Kind
    node: str  #: the graph's node for the agent's own steps; empty for others
    name: str
    title: str
    detail: str
    data: JsonValue


class TimelineOut(AnswerBody):
    """A page of moments, oldest first. Go on with `cursor=<next>`; null at the end."""

    items: list[Moment]
    next: int | None


def timeline_of(detail: IncidentDetail) -> list[Moment]:
    """Everything that is known, oldest first."""
    moments = [*_occurrences(detail), *_events(detail), *_writes(detail), *_people(detail)]
    # Sorting is stable: what happened in the same instant stays in the order above.
    return sorted(moments, key=lambda moment: moment.at)


def _moment(at: datetime, kind: Kind, name: str, title: str, detail: str = "", **data: JsonValue) -> Moment:
    return Moment(at=at, kind=kind, node="", name=name, title=title, detail=detail, data=data)


def _occurrences(detail: IncidentDetail) -> list[Moment]:
    return [
        _moment(
            one.received_at,
            "occurrence",
            one.kind.value,
            f"{one.kind.value.replace('_', ' ')} seen",
            one.error or str(one.task),
            door=one.door.value,
            map_index=one.task.map_index,
            try_number=one.try_number,
        )
        for one in detail.occurrences
    ]


def _events(detail: IncidentDetail) -> list[Moment]:
    # Answers have a place of their own, with what was said.
    return [
        Moment(
            at=one.at,
            kind="event",
            node=one.node,
            name=one.name,
            title=title(one.name),
            detail=_told(one),
            data=one.data,
        )
        for one in detail.events
        if one.name != "answered"
    ]


def _told(event: AgentEvent) -> str:
    data = event.data if isinstance(event.data, dict) else {}
    return next((str(data[name]) for name in TELLING if data.get(name)), "")


def _writes(detail: IncidentDetail) -> list[Moment]:
    return [
        _moment(
            one.at or datetime.min.replace(tzinfo=UTC),
            "write",
            one.action.name,
            f"{one.action.name.replace('_', ' ')}: {one.step.value}",
            one.error,
            attempt=one.attempt,
            position=one.position,
            key=one.key,
            target=one.action.target,
            args=one.action.args,
            before=one.before,
            after=one.after,
        )
        for one in detail.ledger
    ]


def _people(detail: IncidentDetail) -> list[Moment]:
    answers = [
        _moment(
            one.at,
            "answer",
            one.kind.value,
            f"{one.by}: {one.kind.value}",
            one.message,
            by=one.by,
            version=one.version,
            plan_id=one.plan_id,
        )
        for one in detail.answers
    ]
    feedback = [
        _moment(
            one.at,
            "feedback",
            "feedback",
            f"{one.by} rated it {one.rating} of 5",
            one.comment,
            by=one.by,
            rating=one.rating,
            cause_right=one.cause_right,
            cause=None if one.cause is None else one.cause.value,
        )
        for one in detail.feedback
    ]
    return [*answers, *feedback]
