"""The people of the bench: they answer what Airmedic asks, as the catalogue's row says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from evals.faults import steps
from evals.faults.catalogue import FaultRow, Mode
from evals.faults.stage import Stage
from evals.faults.world import PIPELINE
from graph.domain import Answer, AnswerKind, Outcome
from graph.errors import DecisionConflict
from server.record import IncidentRecord

NAME = "bench"
THINKING = 8.0  # seconds a person takes who does not approve
FIRST = 1

Args = list[dict[str, Any]]
Reply = Callable[["People", Stage, IncidentRecord], Awaitable[None]]


class People:
    """Answers the questions of one played fault."""

    def __init__(self, row: FaultRow) -> None:
        self.row = row
        self.asked = 0

    async def answer(self, stage: Stage, incident: IncidentRecord) -> None:
        """What the row's person does now."""
        self.asked += 1
        await REPLIES.get(self.row.id, _as_told)(self, stage, incident)

    async def say(
        self, stage: Stage, incident: IncidentRecord, kind: AnswerKind, args: Args | None = None
    ) -> None:
        """Give this answer, as the API would."""
        given = Answer(kind=kind, by=NAME, plan_id=_plan_id(incident), args=tuple(args or ()))
        try:
            await stage.service.store.answer(incident.id, version=incident.version, answer=given)
        except DecisionConflict:
            return  # withdrawn meanwhile: the row's end will show it
        stage.service.runner.ring()


def _question(incident: IncidentRecord) -> dict[str, Any]:
    return incident.question if isinstance(incident.question, dict) else {}


def _plan_id(incident: IncidentRecord) -> str:
    return str(_question(incident).get("plan_id", ""))


def _args(incident: IncidentRecord) -> Args:
    return [dict(one["args"]) for one in _question(incident)["action_requests"]]


def _place(incident: IncidentRecord, name: str) -> int:
    names = [one["name"] for one in _question(incident)["action_requests"]]
    return names.index(name)


async def _as_told(people: People, stage: Stage, incident: IncidentRecord) -> None:
    """Approve, unless the row says that nobody should."""
    never = people.row.mode is Mode.ESCALATE and Outcome.HEALED not in people.row.ends_as
    await people.say(stage, incident, AnswerKind.REJECT if never else AnswerKind.APPROVE)


async def _renew(people: People, stage: Stage, incident: IncidentRecord) -> None:
    """Think first, so that a retry of Airmedic's own would show; then renew the token, then approve."""
    await asyncio.sleep(THINKING)
    await steps.mend_source(stage.world)
    await people.say(stage, incident, AnswerKind.APPROVE)


async def _give_path(people: People, stage: Stage, incident: IncidentRecord) -> None:
    args = _args(incident)
    args[_place(incident, "set_variable")] |= {"value": "/api/employees"}
    await people.say(stage, incident, AnswerKind.EDIT, args)


async def _refuse_late(people: People, stage: Stage, incident: IncidentRecord) -> None:
    """Say nothing for a while, then no."""
    await asyncio.sleep(THINKING)
    await people.say(stage, incident, AnswerKind.REJECT)


async def _wrong_first(people: People, stage: Stage, incident: IncidentRecord) -> None:
    """The first time read the e-mails from the wrong column, which cannot help; then as proposed."""
    if people.asked > FIRST:
        await people.say(stage, incident, AnswerKind.APPROVE)
        return
    args = _args(incident)
    place = _place(incident, "set_variable")
    contract = json.loads(args[place]["value"])
    contract["columns"]["email"]["source"] = "name"
    args[place] |= {"value": json.dumps(contract, indent=2)}
    await people.say(stage, incident, AnswerKind.EDIT, args)


async def _clear_by_hand(people: People, stage: Stage, incident: IncidentRecord) -> None:
    """Never answer: mend the source and run the task again in Airflow's own console."""
    if people.asked > FIRST:
        await people.say(stage, incident, AnswerKind.REJECT)
        return
    await steps.mend_source(stage.world)
    await stage.world.airflow.clear(PIPELINE, incident.task.run_id, ["fetch", "validate"])


REPLIES: Mapping[str, Reply] = MappingProxyType(
    {
        "F05": _renew,
        "F17": _give_path,
        "F34": _refuse_late,
        "F35": _wrong_first,
        "F40": _clear_by_hand,
    }
)
