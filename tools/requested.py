"""What a person asked for, and the plan that does it.

A retry is asked for on a failed task instance. Pausing and unpausing need no failure: there the request
itself stands where a failed task instance stands otherwise.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from graph.domain import (
    Action,
    Decision,
    DiagnosedBy,
    Diagnosis,
    DomainType,
    FixPlan,
    Remediation,
    RootCause,
    TaskRef,
    TaskSnapshot,
    Verdict,
)

if TYPE_CHECKING:
    from tools.situation import Situation

REQUEST = "(request)"  # stands for the task: no task of Airflow's can be called that
PREFIX = "request__"


class Wish(StrEnum):
    """What can be asked for."""

    RETRY = "retry"
    PAUSE = "pause"
    UNPAUSE = "unpause"


class Request(DomainType):
    """One thing one person asked for, on one incident."""

    id: int
    incident_id: int
    wish: Wish
    by: str
    at: datetime
    until: datetime | None = None  #: a pause that is to end then
    confirm: bool = False  #: a language model read the person's words: asked about in any case


def request_ref(dag_id: str, at: datetime) -> TaskRef:
    """The subject of a request that is about a DAG."""
    return TaskRef(dag_id=dag_id, run_id=f"{PREFIX}{at.isoformat()}", task_id=REQUEST)


def is_request(ref: TaskRef) -> bool:
    """Whether this stands for a request and not for a task instance."""
    return ref.task_id == REQUEST and ref.run_id.startswith(PREFIX)


def asked_for(ref: TaskRef, *, paused: bool) -> TaskSnapshot:
    """The request where a failed task instance stands otherwise; its state is the DAG's."""
    return TaskSnapshot(task=ref, state="paused" if paused else "active", operator="request")


def wants_pause(request: Request, *, now: datetime) -> bool:
    """Whether the DAG is to be paused at this moment."""
    return request.wish is Wish.PAUSE and (request.until is None or now < request.until)


def diagnosis_of(request: Request, dag_id: str, *, now: datetime) -> Diagnosis:
    """Nothing is wrong: a person wants it so."""
    what = "pause" if wants_pause(request, now=now) else "unpause"
    when = f" until {request.until:%Y-%m-%d %H:%M} UTC" if request.until and what == "pause" else ""
    over = f"; {request.until:%H:%M} UTC has come" if request.until and what == "unpause" else ""
    return Diagnosis(
        root_cause=RootCause.UNKNOWN,
        transient=False,
        confidence=1.0,
        remediation=Remediation.ESCALATE,
        by=DiagnosedBy.PERSON,
        summary=f"{request.by} asked to {request.wish} {dag_id!r}{when}{over}",
    )


def as_asked(request: Request, situation: Situation, *, now: datetime) -> list[FixPlan]:
    """The plan for it; none when it does not fit what stands there now."""
    ref = situation.task.task
    if request.wish is Wish.RETRY:
        return [] if is_request(ref) or situation.task.state != "failed" else [_retry(request, situation)]
    if not is_request(ref):
        return []
    pause = wants_pause(request, now=now)
    action = Action(name="pause_dag" if pause else "unpause_dag", target={"dag_id": ref.dag_id})
    till = f"; at {request.until:%Y-%m-%d %H:%M} UTC unpausing is proposed" if pause and request.until else ""
    verb = "pause" if pause else "unpause"
    return [_plan(request, Remediation.ESCALATE, action, f"{verb} {ref.dag_id!r}, as asked{till}")]


def _retry(request: Request, situation: Situation) -> FixPlan:
    ref, dag = situation.task.task, situation.dag
    refs = situation.batch or (ref,)
    version, newest = situation.task.dag_version, dag.latest_version
    newer = version is not None and newest is not None and newest > version
    clear = Action(
        name="clear_task",
        target={
            "dag_id": ref.dag_id,
            "run_id": ref.run_id,
            "tasks": [{"task_id": one.task_id, "map_index": one.map_index} for one in refs],
        },
        # Mended code helps only when the run takes it up.
        args={"downstream": True, **({"latest_version": True} if newer else {})},
    )
    many = f"{len(refs)} failed instances of {ref.task_id!r}" if len(refs) > 1 else repr(ref.task_id)
    code = f" with version {newest} of the DAG" if newer else ""
    return _plan(request, Remediation.RETRY, clear, f"clear {many}{code}, as asked")


def _plan(request: Request, remediation: Remediation, action: Action, summary: str) -> FixPlan:
    return FixPlan(
        remediation=remediation,
        actions=(action,),
        summary=f"{summary} by {request.by}",
        requested_by=request.by,
        request=request.id,
    )


def confirmed_first(decision: Decision) -> Decision:
    """What a language model understood is done by nobody's word but a person's."""
    if decision.verdict is not Verdict.AUTO:
        return decision
    told = "a language model read the request, so a person confirms it"
    return decision.model_copy(update={"verdict": Verdict.ASK, "rule": "read by a model", "reasons": (told,)})
