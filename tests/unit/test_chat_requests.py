"""What people ask for: in the store on both databases, in the planner, and under policy."""

from __future__ import annotations

from datetime import timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel

import server.db.tables_chat  # noqa: F401  fills the metadata
from graph.domain import DagInfo, IncidentKind, RootCause, Status, Verdict
from graph.errors import DecisionConflict
from server.chat.threads import MOST, Threads
from server.requests import Requests
from server.store import IncidentStore
from tests.factories import START, Clock, make_diagnosis, make_snapshot, make_task
from tools.actions import ActionCatalogue
from tools.policy import Question, decide
from tools.policy_file import load_policy
from tools.requested import Request, Wish, as_asked, asked_for, confirmed_first, request_ref
from tools.situation import Situation


@pytest.fixture
def requests(engine: AsyncEngine, store: IncidentStore, clock: Clock) -> Requests:
    return Requests(engine, store=store, airflow_id="default", clock=clock)


async def test_a_request_opens_an_incident_and_is_found_by_it(
    requests: Requests, store: IncidentStore
) -> None:
    number = await requests.retry(make_snapshot(), by="ada", confirm=True)

    record = await store.incident(number)
    request = await requests.of(number)
    assert (record.kind, record.status) == (IncidentKind.FAILURE, Status.OPEN)
    assert request is not None
    assert (request.wish, request.by, request.confirm) == (Wish.RETRY, "ada", True)
    found = await requests.open_on(make_task())
    assert found is not None
    assert found.id == number
    assert [one.name for one in await store.events(incident_id=number)] == ["opened", "requested"]


async def test_what_airmedic_works_on_is_left_alone(requests: Requests, store: IncidentStore) -> None:
    await requests.retry(make_snapshot(), by="ada", confirm=False)

    with pytest.raises(DecisionConflict, match="Airmedic works on it"):
        await requests.retry(make_snapshot(), by="bob", confirm=False)
    assert len(await store.incidents()) == 1


async def test_what_is_with_people_is_given_back(requests: Requests, store: IncidentStore) -> None:
    number = await requests.retry(make_snapshot(), by="ada", confirm=False)
    (lease,) = await store.claim_due(owner="me", limit=1)
    await store.settle(lease, wake_at=None, status=Status.ESCALATED.value, outcome="escalated")

    again = await requests.retry(make_snapshot(), by="bob", confirm=False)

    record = await store.incident(number)
    request = await requests.of(number)
    assert again == number
    assert (record.status, record.outcome, record.version) == (Status.OPEN, None, 2)
    assert request is not None
    assert request.by == "bob"


async def test_each_switch_is_an_incident_of_its_own(requests: Requests, clock: Clock) -> None:
    until = clock() + timedelta(hours=2)
    first = await requests.switch("orders", Wish.PAUSE, paused=False, by="ada", until=until, confirm=False)
    clock.forward(1)
    second = await requests.switch("orders", Wish.UNPAUSE, paused=True, by="ada", until=None, confirm=False)

    request = await requests.of(first)
    assert first != second
    assert request is not None
    assert request.until == until


async def test_old_threads_are_named_to_be_forgotten(engine: AsyncEngine, clock: Clock) -> None:
    threads = Threads(engine, clock=clock)
    gone: list[str] = []
    for number in range(MOST + 2):
        clock.forward(1)
        gone = await threads.touch("ada", f"t{number}", title="hello")

    assert gone == ["t1", "t0"]
    assert len(await threads.listed("ada")) == MOST
    assert await threads.listed("bob") == []


async def test_the_migration_makes_the_tables(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[str]:
        context = MigrationContext.configure(connection)
        found = [str(one) for one in compare_metadata(context, SQLModel.metadata)]
        return [one for one in found if "chat_thread" in one or "'request'" in one]

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


# --- planner and policy -----------------------------------------------------------------------------------


def make_request(wish: Wish = Wish.RETRY, **given: object) -> Request:
    return Request.model_validate(
        {"id": 7, "incident_id": 1, "wish": wish, "by": "ada", "at": START, **given}
    )


def retry_situation(**dag: object) -> Situation:
    return Situation(
        task=make_snapshot(dag_version=1), dag=DagInfo.model_validate({"dag_id": "orders", **dag})
    )


def test_a_retry_takes_up_mended_code() -> None:
    (old,) = as_asked(make_request(), retry_situation(latest_version=1), now=START)
    (new,) = as_asked(make_request(), retry_situation(latest_version=2), now=START)

    assert old.actions[0].args == {"downstream": True}
    assert new.actions[0].args == {"downstream": True, "latest_version": True}


def test_asked_anew_it_is_another_plan() -> None:
    (first,) = as_asked(make_request(), retry_situation(), now=START)
    (second,) = as_asked(make_request(id=8), retry_situation(), now=START)

    assert first.actions == second.actions
    assert first.id != second.id


def test_a_pause_turns_into_an_unpause_when_its_time_has_come() -> None:
    ref = request_ref("orders", START)
    until = START + timedelta(hours=2)
    request = make_request(Wish.PAUSE, until=until)
    situation = Situation(task=asked_for(ref, paused=False), dag=DagInfo(dag_id="orders"))

    (before,) = as_asked(request, situation, now=START)
    (after,) = as_asked(request, situation, now=until)

    assert (before.actions[0].name, after.actions[0].name) == ("pause_dag", "unpause_dag")


@pytest.mark.parametrize(
    ("cause", "transient", "tags", "verdict"),
    [
        pytest.param(RootCause.CODE_ERROR, False, (), Verdict.ASK, id="mended code is a person's word"),
        pytest.param(
            RootCause.CODE_ERROR, False, ("airmedic:rerun-safe",), Verdict.ASK, id="safe to run is not enough"
        ),
        pytest.param(RootCause.WORKER_LOST, True, (), Verdict.ASK, id="nothing says it may run again"),
        pytest.param(
            RootCause.WORKER_LOST, True, ("airmedic:rerun-safe",), Verdict.AUTO, id="what policy allows"
        ),
        pytest.param(RootCause.UNKNOWN, False, ("airmedic:rerun-safe",), Verdict.ASK, id="unknown cause"),
    ],
)
def test_policy_on_a_retry_that_a_person_asks_for(
    cause: RootCause, transient: bool, tags: tuple[str, ...], verdict: Verdict
) -> None:
    situation = retry_situation(tags=tags)
    (plan,) = as_asked(make_request(), situation, now=START)
    question = Question(
        diagnosis=make_diagnosis(root_cause=cause, transient=transient),
        plan=plan,
        task=situation.task,
        dag=situation.dag,
        radius={"task_instances": 1, "dag_runs": 1, "dags": 1},
        now=START,
    )

    found = decide(question, load_policy(None), ActionCatalogue.default([]))

    assert found.verdict is verdict
    assert confirmed_first(found).verdict is Verdict.ASK
