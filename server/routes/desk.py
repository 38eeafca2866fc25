"""What people ask and say beside incidents: a diagnosis on demand, feedback, the policy."""

from __future__ import annotations

import asyncio
import time

import structlog
from fastapi import APIRouter

from graph.domain import TaskRef, TaskSnapshot
from graph.errors import AirflowUnreachable, StoreUnavailable
from server.access.entry import OperatorDep, ServiceDep, ViewerDep
from server.problems import documented
from server.schemas import FeedbackIn, FeedbackOut
from server.schemas_overview import DiagnoseIn, DiagnoseOut, PolicyOut
from server.service import Service
from tools.diagnosis import Case, Context
from tools.evidence_lines import excerpt_of
from tools.gathering import gather_context
from tools.log_file import read_log
from tools.policy import in_words
from tools.policy_file import DEFAULT
from tools.redaction import redact

log = structlog.get_logger("desk")

PATIENCE = 30.0  # seconds Airflow has to tell everything about a task

router = APIRouter(tags=["desk"])


@router.post(
    "/diagnose",
    summary="Diagnose a log or a task",
    responses=documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 502, 503),
)
async def diagnose(body: DiagnoseIn, service: ServiceDep, _by: OperatorDep) -> DiagnoseOut:
    """Name the cause of a failure on demand. Nothing is changed in Airflow, and nothing is kept."""
    begin = time.monotonic()
    if body.task is None:
        text = excerpt_of([(body.log or "").encode()])
        given = read_log(text)
        case = Case(log=given.log)
        diagnosis = given.counted(await service.diagnostician.diagnose(case))
    else:
        case = await _case(body.task, body.try_number, service)
        text, diagnosis = case.log.text, await service.diagnostician.diagnose(case)
    return DiagnoseOut(
        diagnosis=diagnosis,
        task=case.task,
        log_lines=text.count("\n") + bool(text),
        seconds=round(time.monotonic() - begin, 3),
    )


async def _case(ref: TaskRef, try_number: int | None, service: Service) -> Case:
    try:
        async with asyncio.timeout(PATIENCE):
            task = await service.airflow.task(ref)
            if try_number is not None and try_number != task.try_number:
                task = await _earlier(task, try_number, service)
            told = await service.airflow.log(ref, task.try_number)
            context: Context = await gather_context(service.airflow, task, ())
    except TimeoutError as exc:
        raise AirflowUnreachable(f"Airflow did not tell all of it within {PATIENCE:.0f} s") from exc
    return Case(log=told, task=task, context=context)


async def _earlier(task: TaskSnapshot, number: int, service: Service) -> TaskSnapshot:
    """The try that is asked for; as far as Airflow remembers it, else the present one under its number."""
    for one in await service.airflow.tries(task.task):
        if one.try_number == number:
            return one
    return task.model_copy(update={"try_number": number})


@router.post(
    "/feedback",
    status_code=201,
    summary="Rate an incident's handling",
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
)
async def give_feedback(body: FeedbackIn, service: ServiceDep, by: OperatorDep) -> FeedbackOut:
    """It shows on the incident, and memory hears it: of the same failure the next time, a cause that was
    said to be wrong is no longer answered from memory, and a cause that was named instead is."""
    record = await service.store.incident(body.incident)
    given = await service.store.feedback.add(
        record.id,
        by=by.name,
        rating=body.rating,
        cause_right=body.cause_right,
        cause=body.cause,
        comment=redact(body.comment),
    )
    data = {"by": by.name, "rating": given.rating, "cause_right": given.cause_right, "cause": given.cause}
    try:
        await service.store.add_event("feedback", incident_id=record.id, node="human", data=data)
    except StoreUnavailable as exc:
        # The feedback itself is committed already.
        log.warning("note_lost", incident_id=record.id, error=str(exc))
    return FeedbackOut.model_validate(given)


@router.get("/policy", summary="Read the policy in force", responses=documented(401, 403, 429, 503))
async def read_policy(service: ServiceDep, _by: ViewerDep) -> PolicyOut:
    """Its digest, in sentences, and whole. Every decision names the digest and the rule."""
    policy, path = service.policy, service.settings.policy
    return PolicyOut(
        digest=policy.digest,
        source=DEFAULT if path is None else path.name,
        words=list(in_words(policy)),
        rules=[rule.name for rule in policy.rules],
        policy=policy.model_dump(mode="json", by_alias=True, exclude_none=True),
    )
