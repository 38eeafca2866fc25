"""What people decide: the answer to a question, and closing what was escalated."""

from __future__ import annotations

import re
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Response

from graph.domain import Answer, AnswerKind
from graph.errors import ActionRefused, DecisionConflict, DecisionInvalid, StoreUnavailable
from server.access.entry import OperatorDep, ServiceDep, check_approver
from server.answers import DecisionBody, DecisionIn, HitlDecisions, InboxAnswer, Question, to_answer
from server.problems import documented
from server.record import IncidentRecord
from server.routes.incidents import IncidentId, etag
from server.schemas import CloseIn, IncidentOut
from server.service import Service
from tools.redaction import redact

log = structlog.get_logger("decisions")

router = APIRouter(prefix="/incidents", tags=["decisions"])

ENDING = documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
ETAG = re.compile(r'(?:W/)?"([1-9][0-9]{0,8})"')
IfMatch = Annotated[str | None, Header(description="the version shown, as the incident's ETag spells it")]


@router.post(
    "/{incident_id}/decision",
    status_code=202,
    summary="Answer a question",
    responses=ENDING,
)
async def decide(
    incident_id: IncidentId,
    body: DecisionBody,
    service: ServiceDep,
    by: OperatorDep,
    response: Response,
    if_match: IfMatch = None,
) -> IncidentOut:
    """Answer the question an incident is waiting on. The first answer to a version wins.

    Three forms are understood: Airmedic's own, LangChain's `{"decisions": [...]}` and Agent Inbox's
    `[{"type": "accept"}]`. The version that was shown must be named, in the body or in `If-Match`.
    """
    version = _version(body, if_match)
    record = await service.store.incident(incident_id)
    try:
        question = _asked(record, version)
        await check_approver(by, record, service)
        answer = to_answer(body, question, by=by.name).model_copy(update={"role": by.role})
        _check_plan(answer, record, service)
        record = await service.store.answer(incident_id, version=version, answer=answer)
    except (DecisionInvalid, DecisionConflict) as exc:
        await service.audit.note("refused", by=by.name, incident_id=incident_id, what="answer", why=str(exc))
        raise
    service.runner.ring()
    await _note(answer, incident_id, service)
    response.headers["etag"] = etag(record.version)
    return IncidentOut.of(record)


def _version(body: DecisionIn | HitlDecisions | list[InboxAnswer], if_match: str | None) -> int:
    named = None if isinstance(body, list) else body.version
    found = ETAG.fullmatch(if_match.strip()) if if_match is not None else None
    if if_match is not None and found is None:
        raise DecisionInvalid("If-Match: must be the incident's version in quotes")
    matched = int(found.group(1)) if found is not None else None
    if named is not None and matched is not None and named != matched:
        raise DecisionInvalid(f"version: the body says {named}, If-Match says {matched}")
    version = named or matched
    if version is None:
        raise DecisionInvalid("version: name the version that was shown, in the body or in If-Match")
    return version


def _asked(record: IncidentRecord, version: int) -> Question:
    """The question of this version; the store checks again, atomically, when the answer is stored."""
    if record.version != version:
        raise DecisionConflict(
            f"incident {record.id} moved on: it is at version {record.version}, not {version}"
        )
    if record.question is None:
        raise DecisionConflict(f"incident {record.id} asks nothing now; it is {record.status}")
    question = Question.of(record.question)
    if record.plan is None or record.plan.id != question.plan_id:
        raise DecisionConflict(f"incident {record.id} has another plan in hand by now; read it again")
    return question


def _check_plan(answer: Answer, record: IncidentRecord, service: Service) -> None:
    """Say now, not later in the log, that arguments are out of bounds or still missing."""
    plan = record.plan
    if plan is None or answer.kind not in {AnswerKind.APPROVE, AnswerKind.EDIT}:
        return
    try:
        if answer.kind is AnswerKind.EDIT:
            plan = service.catalogue.with_args(plan, answer.args)
        missing = service.catalogue.missing(plan)
    except ActionRefused as exc:
        raise DecisionInvalid(f"args: {exc}") from exc
    if missing:
        raise DecisionInvalid(f"args: the plan needs {', '.join(missing)} from you; answer with edit")


async def _note(answer: Answer, incident_id: int, service: Service) -> None:
    """A line for the agent log. The answer itself is committed already: failing here must not undo that."""
    data = {"kind": answer.kind.value, "by": answer.by, "message": answer.message}
    log.info("answered", incident_id=incident_id, **data)
    try:
        await service.store.add_event("answered", incident_id=incident_id, node="human", data=data)
    except StoreUnavailable as exc:
        log.warning("note_lost", incident_id=incident_id, error=str(exc))


@router.post(
    "/{incident_id}/close",
    summary="Close an escalated incident",
    responses=ENDING,
)
async def close(
    incident_id: IncidentId,
    service: ServiceDep,
    by: OperatorDep,
    response: Response,
    body: CloseIn | None = None,
) -> IncidentOut:
    """Close an incident that was escalated to people."""
    reason = redact(body.reason) if body is not None else ""
    record = await service.store.close(incident_id, by=by.name, reason=reason)
    response.headers["etag"] = etag(record.version)
    return IncidentOut.of(record)


@router.post(
    "/{incident_id}/reopen",
    summary="Give an escalated incident back",
    responses=ENDING,
)
async def reopen(
    incident_id: IncidentId,
    service: ServiceDep,
    by: OperatorDep,
    response: Response,
    body: CloseIn | None = None,
) -> IncidentOut:
    """Give an escalated incident back to Airmedic: it is looked at afresh."""
    reason = redact(body.reason) if body is not None else ""
    record = await service.store.reopen(incident_id, by=by.name, reason=reason)
    service.runner.ring()
    response.headers["etag"] = etag(record.version)
    return IncidentOut.of(record)
