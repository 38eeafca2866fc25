"""The audit trail is written with what it records, in one order, and shows whoever tampers with it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col
from typer.testing import CliRunner

from cli.audit import app
from graph.checkpoint import CarriedSaver
from graph.domain import AnswerKind, EvidenceLine, Step
from graph.errors import LeaseLost, PolicyInvalid, SettingsInvalid
from server.audit.chain import AuditEntry, AuditKeys, Break
from server.audit.trail import AuditTrail
from server.db.database import open_database
from server.db.tables_people import AuditRow
from server.draft import Draft
from server.ledger import StoreLedger
from server.record import Lease
from server.store import LEASE, IncidentStore
from tests.factories import Clock, make_clear, make_diagnosis, make_task
from tests.unit.healing_world import FAIL, GOOD, make_airflow, open_ward
from tests.unit.test_store import APPROVE, ask, open_one

KEY = "a-key-outside-the-database-0123456789"
KEYS = AuditKeys([KEY])


@pytest.fixture
def trail(engine: AsyncEngine, clock: Clock) -> AuditTrail:
    return AuditTrail(engine, keys=KEYS, clock=clock)


@pytest.fixture
def store(engine: AsyncEngine, clock: Clock, trail: AuditTrail) -> IncidentStore:
    return IncidentStore(engine, clock=clock, audit=trail)


async def told(trail: AuditTrail) -> list[dict[str, object]]:
    return [json.loads(entry.body) async for entry in trail.entries()]


def drive(engine: AsyncEngine, store: IncidentStore, lease: Lease, clock: Clock) -> tuple[Draft, StoreLedger]:
    draft = Draft(store, lease, saver=CarriedSaver(), clock=clock)
    return draft, StoreLedger(engine, draft, make_task(), clock=clock, quiet=frozenset())


async def tamper(engine: AsyncEngine, *statements: str) -> None:
    """As the database's owner would: the triggers away first."""
    drops = ["DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete"]
    if engine.dialect.name != "sqlite":
        drops = ["DROP TRIGGER audit_append_only ON audit"]
    async with engine.begin() as connection:
        for statement in (*drops, *statements):
            await connection.execute(text(statement))


@pytest.mark.parametrize("statement", ["UPDATE audit SET body = '{}'", "DELETE FROM audit"])
async def test_the_database_itself_refuses_changes(
    engine: AsyncEngine, trail: AuditTrail, statement: str
) -> None:
    await trail.note("control", by="ada", paused=True)

    with pytest.raises(DBAPIError, match="append-only"):
        async with engine.begin() as connection:
            await connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statements", "seq", "words"),
    [
        pytest.param(
            ["UPDATE audit SET body = replace(body, 'entry 3', 'entry x') WHERE seq = 3"],
            3,
            "changed",
            id="edit",
        ),
        pytest.param(["UPDATE audit SET kind = 'x' WHERE seq = 2"], 2, "columns", id="a copy of a column"),
        pytest.param(["DELETE FROM audit WHERE seq = 4"], 4, "missing", id="removal"),
        pytest.param(["DELETE FROM audit WHERE seq = 1"], 1, "missing", id="removal of the first"),
        pytest.param(["DELETE FROM audit WHERE seq > 4"], 5, "cut off", id="truncation"),
        pytest.param(
            [
                "UPDATE audit SET seq = 99 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 3",
                "UPDATE audit SET seq = 3 WHERE seq = 99",
            ],
            2,
            "changed",
            id="reorder",
        ),
        pytest.param(["DELETE FROM audit_head"], 7, "head is missing", id="the head removed"),
    ],
)
async def test_tampering_is_found_and_the_entry_named(
    engine: AsyncEngine, trail: AuditTrail, statements: list[str], seq: int, words: str
) -> None:
    for number in range(1, 7):
        await trail.note("decided", by="rule", why=f"entry {number}")
    await tamper(engine, *statements)

    _, broken = await trail.verify()

    assert broken is not None
    assert (broken.seq, words in broken.why) == (seq, True), broken


@pytest.mark.parametrize("edit", [("entry 3", "entry x"), ('"rule"', '"Rule"')])
async def test_an_entry_written_anew_in_the_databases_own_form_is_found(
    engine: AsyncEngine, trail: AuditTrail, edit: tuple[str, str]
) -> None:
    for number in range(1, 5):
        await trail.note("decided", by="rule", why=f"entry {number}")
    await tamper(engine)
    async with engine.begin() as connection:
        query = select(col(AuditRow.body)).where(col(AuditRow.seq) == 3)
        body = (await connection.execute(query)).scalar_one()
        changed = update(AuditRow).where(col(AuditRow.seq) == 3).values(body=body.replace(*edit))
        await connection.execute(changed)

    _, broken = await trail.verify()

    assert broken == Break(3, "entry 3 was changed, or another was put in its place")


async def test_a_tail_cut_together_with_the_head_shows_against_a_kept_one(
    engine: AsyncEngine, trail: AuditTrail
) -> None:
    heads = [await trail.note("decided", by="rule", why=str(number)) for number in range(4)]
    await tamper(
        engine,
        "DELETE FROM audit WHERE seq > 2",
        f"UPDATE audit_head SET seq = 2, mac = '{heads[1].mac}'",
    )

    assert (await trail.verify())[1] is None  # nothing in the database can show it
    _, broken = await trail.verify([heads[3]])
    assert broken is not None
    assert (broken.seq, "cut off" in broken.why) == (3, True)


async def test_a_write_leads_to_its_evidence_rule_policy_and_person(
    engine: AsyncEngine, store: IncidentStore, trail: AuditTrail, clock: Clock
) -> None:
    incident_id = await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=1)
    decision = {"verdict": "ask", "rule": "clear", "reasons": ["not known safe"], "policy": "feed"}
    line = EvidenceLine(line=3, text="password=hunter2secret")
    diagnosis = make_diagnosis(evidence=(line,)).model_dump(mode="json")
    await store.record(lease, decision=decision, diagnosis=diagnosis)
    version = await ask(store, lease, clock)
    await store.answer(incident_id, version=version, answer=APPROVE)
    (lease,) = await store.claim_due(owner="a", limit=1)
    draft, ledger = drive(engine, store, lease, clock)

    entry = await ledger.intend(1, 0, make_clear(), {"state": "failed"})
    entry = await ledger.advance(entry, Step.SENT)
    await ledger.advance(entry, Step.CONFIRMED, after={"state": "success"})
    await draft.flush()

    answered, intent, sent, confirmed = await told(trail)
    assert (answered["kind"], answered["by"]) == ("answered", "ada")
    assert (intent["kind"], intent["by"], intent["incident"]) == ("write_intent", "ada", incident_id)
    data = intent["data"]
    assert isinstance(data, dict)
    assert (data["rule"], data["policy"], data["before"]) == ("clear", "feed", {"state": "failed"})
    assert data["evidence"] == [{"line": 3, "text": "password=[password]"}]
    assert sent["kind"] == "write_sent"
    assert confirmed["data"] == {"key": data["key"], "action": "clear_task", "after": {"state": "success"}}
    assert (await trail.verify())[1] is None


async def test_what_is_not_committed_is_not_in_the_trail(
    engine: AsyncEngine, store: IncidentStore, trail: AuditTrail, clock: Clock
) -> None:
    await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=1)
    draft, ledger = drive(engine, store, lease, clock)
    entry = await ledger.intend(1, 0, make_clear(), None)
    await draft.flush()
    clock.forward(LEASE.total_seconds() + 1)
    await store.claim_due(owner="b", limit=1)

    with pytest.raises(LeaseLost):
        await ledger.advance(entry, Step.SENT)
    with pytest.raises(LeaseLost):
        await store.record(lease, events=[{"name": "decided", "data": {"rule": "x"}}])

    assert [one["kind"] for one in await told(trail)] == ["write_intent"]


async def test_a_switch_and_its_entry_are_one_transaction(store: IncidentStore, trail: AuditTrail) -> None:
    await store.remember("control", {"paused": True}, entry=AuditEntry(kind="control", by="ada"))
    await store.remember("poll_watermark", "2026")

    assert [(one["kind"], one["by"]) for one in await told(trail)] == [("control", "ada")]


async def _append(database_url: str, who: str, count: int) -> None:
    async with open_database(database_url) as engine:
        trail = AuditTrail(engine, keys=KEYS, clock=Clock())
        await asyncio.gather(*(trail.note("decided", by=who, number=number) for number in range(count)))


PROGRAM = """
import asyncio, sys
from tests.unit.test_audit import _append
asyncio.run(_append(sys.argv[1], sys.argv[2], 25))
"""


async def test_several_processes_keep_one_order(database_url: str, trail: AuditTrail) -> None:
    running = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, database_url, f"process {number}")
        for number in range(3)
    ]
    await asyncio.gather(*(_append(database_url, "here", 25), *(one.wait() for one in running)))

    assert [one.returncode for one in running] == [0, 0, 0]
    check, broken = await trail.verify()
    assert (check.seq, broken) == (100, None)


async def test_the_key_may_not_be_forgotten(engine: AsyncEngine, trail: AuditTrail, clock: Clock) -> None:
    await trail.note("started", by="x")

    await trail.check_key()
    with pytest.raises(SettingsInvalid, match="AIRMEDIC_AUDIT_KEY"):
        await AuditTrail(engine, keys=AuditKeys(), clock=clock).check_key()


async def test_a_key_that_comes_later_is_taken(engine: AsyncEngine, trail: AuditTrail, clock: Clock) -> None:
    await AuditTrail(engine, keys=AuditKeys(), clock=clock).note("started", by="x")
    await trail.note("started", by="x")

    check, broken = await trail.verify()

    assert (check.seq, check.unkeyed, broken) == (2, 1, None)


async def test_a_large_image_is_named_by_its_digest(trail: AuditTrail) -> None:
    await trail.note("write_intent", by="rule", before={"contract": "x" * 100_000})

    (entry,) = [one async for one in trail.entries()]
    assert len(entry.body) < 1500
    assert '"characters":100015' in entry.body


# --- through the whole service ----------------------------------------------------------------------------


async def test_a_healed_incident_is_told_whole(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, FAIL, GOOD, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, audit_key=KEY) as ward:
        await ward.report()
        await ward.answer(AnswerKind.APPROVE)
        for _ in range(12):
            await ward.pass_time(10)
        record = await ward.only()
        entries = await told(ward.service.audit)
        _, broken = await ward.service.audit.verify()

    kinds = [str(one["kind"]) for one in entries]
    assert broken is None
    assert kinds[:4] == ["started", "decided", "answered", "approved"]
    assert {"write_intent", "write_sent", "write_confirmed"} <= set(kinds)
    assert kinds[-1] == "ended"
    assert {one["by"] for one in entries if one["kind"] == "write_intent"} == {"ada"}
    size = sum(len(json.dumps(one)) for one in entries if one["incident"] == record.id)
    assert size < 6000  # bytes


async def test_a_policy_that_does_not_load_leaves_an_entry(tmp_path: Path, clock: Clock) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nruels: []\n")

    with pytest.raises(PolicyInvalid):
        async with open_ward(tmp_path, make_airflow(clock), clock, policy=policy, audit_key=KEY):
            pass

    async with open_database(f"sqlite:///{tmp_path / 'ward.db'}") as engine:
        (entry,) = await told(AuditTrail(engine, keys=KEYS, clock=clock))
    assert (entry["kind"], entry["data"]["what"]) == ("refused", "policy")  # type: ignore[index]


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A trail of four entries in a SQLite file, and the settings that name it."""
    url = f"sqlite:///{tmp_path / 'audited.db'}"

    async def fill() -> None:
        async with open_database(url) as engine:
            trail = AuditTrail(engine, keys=KEYS, clock=Clock())
            for number in range(1, 5):
                await trail.note("decided", by="=rule", incident_id=number, why=f"entry {number}")

    asyncio.run(fill())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRMEDIC_DATABASE_URL", url)
    monkeypatch.setenv("AIRMEDIC_AUDIT_KEY", KEY)
    return url


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(args))
    return result.exit_code, result.output


def break_it(url: str, statement: str) -> None:
    async def doing() -> None:
        async with open_database(url) as engine:
            await tamper(engine, statement)

    asyncio.run(doing())


def test_a_whole_chain_verifies_against_its_head(database: str, tmp_path: Path) -> None:
    status, head = run("head")
    log = tmp_path / "pipeline.log"
    log.write_text(f'{{"event": "audit_head", "head": "{head.strip()}"}}\n')

    assert status == 0
    assert re.fullmatch(r"4:[0-9a-f]{64}\n", head)
    assert run("verify")[0] == 0
    assert run("verify", "--head", head.strip(), "--log", str(log))[0] == 0


def test_a_broken_chain_is_named_with_exit_status_1(database: str) -> None:
    break_it(database, "UPDATE audit SET body = replace(body, 'entry 2', 'entry x') WHERE seq = 2")

    status, output = run("verify")

    assert status == 1
    assert output.startswith("BROKEN at entry 2: entry 2 was changed")
    assert "entries 1 to 1 are as they were written" in output


def test_the_trail_is_exported(database: str) -> None:
    lines = [json.loads(line) for line in run("export")[1].splitlines()]
    rows = run("export", "--format", "csv", "--incident", "3")[1].splitlines()

    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    assert rows[0] == "seq,at,kind,by,incident,key,data,mac"
    assert len(rows) == 2
    assert ",'=rule," in rows[1]  # no formula for a spreadsheet
    assert run("export", "--since", "2030-01-01")[1] == ""


def test_no_database_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRMEDIC_DATABASE_URL", "sqlite:///nowhere.db")

    status, output = run("verify")

    assert (status, output) == (2, "airmedic: AIRMEDIC_DATABASE_URL names nowhere.db, which does not exist\n")
