"""What a checkpoint gives back: our types, and nothing that is not listed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import get_type_hints

import pytest
from pydantic import BaseModel

from graph import domain
from graph.checkpoint import STORED_TYPES, CarriedSaver, checkpoint_serializer
from graph.domain import (
    Answer,
    AnswerKind,
    Decision,
    Diagnosis,
    FixPlan,
    Incident,
    RootCause,
    TaskSnapshot,
    Verdict,
)
from graph.state import HealState
from server.record import Lease
from tests.factories import START, Clock, make_diagnosis, make_plan, make_snapshot, make_task
from tests.unit.healing_world import make_airflow, open_ward

CHECKPOINTS = Path(__file__).parent / "checkpoints"

LISTED = [
    make_diagnosis(),
    make_plan(),
    make_snapshot(),
    Decision(verdict=Verdict.ASK, rule="r", reasons=("because",)),
    Incident(id=1, airflow="default", task=make_task(), try_number=1, opened_at=START),
    Answer(kind=AnswerKind.APPROVE, by="ada"),
]


class Stranger(BaseModel):
    """A type that no checkpoint of ours should hold."""

    name: str = "x"


@pytest.mark.parametrize("value", LISTED, ids=lambda value: type(value).__name__)
def test_a_listed_type_comes_back_as_itself(value: object) -> None:
    serializer = checkpoint_serializer()
    assert serializer.loads_typed(serializer.dumps_typed(value)) == value


def test_an_unlisted_type_is_not_rebuilt() -> None:
    serializer = checkpoint_serializer()
    assert not isinstance(serializer.loads_typed(serializer.dumps_typed(Stranger())), Stranger)


def test_every_type_of_the_state_is_listed() -> None:
    """What hangs below a state key, to the last field, is either plain or listed."""
    plain = (str, int, float, bool, bytes, datetime, type(None))
    seen: set[object] = set()

    def walk(hint: object) -> None:
        if hint in seen:
            return
        seen.add(hint)
        for part in getattr(hint, "__args__", ()):
            walk(part)
        if isinstance(hint, type) and hint.__module__ == domain.__name__ and not issubclass(hint, plain):
            assert hint in STORED_TYPES, hint
            for field in getattr(hint, "model_fields", {}).values():
                walk(field.annotation)

    for hint in get_type_hints(HealState).values():
        walk(hint)


def test_stored_types_keep_the_name_that_checkpoints_know() -> None:
    """They are written in several files; what is stored names none of those."""
    for stored in STORED_TYPES:
        assert stored.__module__ == "graph.domain"
        assert getattr(domain, stored.__name__) is stored


def test_a_checkpoint_of_the_version_before_is_read() -> None:
    """Written when all types stood in one module; an incident that waits for a person may be that old."""
    saver = CarriedSaver()
    saver.take_up("1", (CHECKPOINTS / "waiting_decision.bin").read_bytes())

    values = saver.values("1")
    (waits,) = saver.interrupts("1")
    assert waits.value["status"] == "waiting_decision"
    kinds = {key: type(values[key]) for key in ("incident", "failure", "diagnosis", "plan", "decision")}
    assert kinds == {
        "incident": Incident,
        "failure": TaskSnapshot,
        "diagnosis": Diagnosis,
        "plan": FixPlan,
        "decision": Decision,
    }
    assert values["diagnosis"].root_cause is RootCause.NETWORK_UNREACHABLE
    assert values["incident"].task == make_task()


async def test_a_paused_incident_resumes_with_real_types(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        record = await ward.only()
        leases = [Lease(incident_id=record.id, epoch=1, owner="test", since=clock())]
        stored = (await ward.service.store.taken(leases))[record.id].checkpoint
    assert stored is not None
    saver = CarriedSaver()
    saver.take_up("1", stored)

    values = saver.values("1")
    (waits,) = saver.interrupts("1")
    assert waits.value["status"] == "waiting_decision"
    assert isinstance(values["plan"], FixPlan)
    assert isinstance(values["failure"], TaskSnapshot)
    assert values["failure"].end == START.astimezone(UTC)
