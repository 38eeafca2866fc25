"""The people of the bench: they answer what Airmedic asks, as the catalogue's row says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import JsonValue

from evals.faults import steps
from evals.faults.catalogue import FaultRow, Mode
from evals.faults.stage import Arena
from evals.faults.world import PIPELINE, SOURCE_AT
from graph.domain import Answer, AnswerKind
from graph.errors import DecisionConflict
from server.record import IncidentRecord

NAME = "bench"
THINKING = 8.0  # seconds of a person who is not quick: an act of Airmedic's own would show meanwhile
RUN_WITHIN = 30.0  # seconds until the failed run has ended
SLOW = frozenset({"F05", "F34"})

Args = list[dict[str, Any]]

# Whoever does not simply approve, question by question; the last one stands for all that follow.
ANSWERS: Mapping[str, tuple[AnswerKind, ...]] = MappingProxyType(
    {
        "F17": (AnswerKind.EDIT,),
        "F34": (AnswerKind.REJECT,),
        "F35": (AnswerKind.EDIT, AnswerKind.APPROVE),
        "F40": (AnswerKind.REJECT,),
    }
)


class People:
    """Answers the questions of one played fault."""

    def __init__(self, row: FaultRow) -> None:
        self.row = row
        self.asked = 0

    async def answer(self, stage: Arena, incident: IncidentRecord) -> None:
        """What the row's person does now."""
        self.asked += 1
        if self.row.id == "F35":
            await stage.world.picture(f"question {self.asked}")
        if self.row.id in SLOW:
            await stage.world.sleep(THINKING)
        if self.row.id == "F05":
            await steps.mend_source(stage.world)  # the token is renewed
        if self.row.id == "F40" and self.asked == 1:
            # Mended and run again in Airflow's own console; the question is never answered.
            await steps.mend_source(stage.world)
            # Airflow forgets a clear that comes in the instant in which the scheduler ends the run.
            await stage.world.airflow.wait_run(PIPELINE, incident.task.run_id, within=RUN_WITHIN)
            await stage.world.airflow.clear(PIPELINE, incident.task.run_id, ["fetch"])
            return
        await self._say(stage, incident)

    def kind_for(self) -> AnswerKind:
        """Yes, no, or other values, to the present question."""
        never = self.row.mode is Mode.ESCALATE
        kinds = ANSWERS.get(self.row.id, (AnswerKind.REJECT if never else AnswerKind.APPROVE,))
        return kinds[min(self.asked, len(kinds)) - 1]

    async def _say(self, stage: Arena, incident: IncidentRecord) -> None:
        question = incident.question if isinstance(incident.question, dict) else {}
        kind = self.kind_for()
        args = tuple(edited(question, self.row.id)) if kind is AnswerKind.EDIT else ()
        given = Answer(kind=kind, by=NAME, plan_id=str(question.get("plan_id", "")), args=args)
        try:
            await stage.service.store.answer(incident.id, version=incident.version, answer=given)
        except DecisionConflict:
            return  # withdrawn meanwhile: the row's end will show it
        stage.service.runner.ring()


def edited(question: Mapping[str, JsonValue], fault: str) -> Args:
    """The arguments of the plan's actions with another value for the Variable that it sets."""
    requests: Any = question["action_requests"]
    args = [dict(one["args"]) for one in requests]
    place = [one["name"] for one in requests].index("set_variable")
    args[place]["value"] = SOURCE_AT if fault == "F17" else _spoilt(args[place]["value"])
    return args


def _spoilt(contract: str) -> str:
    """E-mails read from the wrong column: allowed, and no help."""
    changed = json.loads(contract)
    changed["columns"]["email"]["source"] = "name"
    return json.dumps(changed, indent=2)
