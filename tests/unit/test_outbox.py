"""Each notice is told once, never before its state is committed, to receivers that misbehave too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import Severity
from server.audit.chain import AuditKeys
from server.audit.trail import AuditTrail
from server.db.tables_people import NoticeRow
from server.people.apprise_door import AppriseDoor, Sent
from server.people.notifier import Notice
from server.people.notify_file import Routing, load_routing
from server.people.outbox import BACKOFF, GIVE_UP, LEASE, Outbox
from server.store import IncidentStore
from tests.factories import Clock
from tests.unit.receivers import Hook, Mailbox, open_hook, open_mailbox
from tests.unit.test_store import ask, open_one
from tools.airflow_memory import MemoryAirflow

MakeOutbox = Callable[..., Outbox]


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with open_hook() as hook:
        yield hook


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with open_mailbox() as mailbox:
        yield mailbox


class Recorder:
    """A door that only writes down; `down` names the targets that fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.down: set[str] = set()

    def name(self, url: str) -> str:
        return url

    async def send(self, url: str, *, title: str, body: str, grave: bool) -> Sent:
        if url in self.down:
            return Sent(False, "down")
        self.sent.append((url, title, body))
        return Sent(True)


@pytest.fixture
def make_outbox(engine: AsyncEngine, clock: Clock) -> MakeOutbox:
    def make(
        *urls: str, door: object = None, owner: str = "here:1", routing: Routing | None = None
    ) -> Outbox:
        chosen = routing or load_routing(" ".join(urls), None, digest=timedelta(hours=1))
        assert chosen is not None
        return Outbox(
            engine,
            routing=chosen,
            door=door or AppriseDoor(chosen.urls, limit=3),  # type: ignore[arg-type]
            airflow=MemoryAirflow(clock=clock),
            clock=clock,
            link="https://medic.example.org",
            owner=owner,
            audit=AuditTrail(engine, keys=AuditKeys(["k" * 32]), clock=clock),
        )

    return make


def make_notice(number: int = 1, event: str = "escalated", **given: object) -> Notice:
    return Notice.model_validate(
        {
            "event": event,
            "key": f"{event}:{number}:2",
            "incident_id": number,
            "title": "orders.load",
            "body": "outcome: escalated",
            "severity": Severity.HIGH,
            "dag_id": "orders",
            **given,
        }
    )


async def post(engine: AsyncEngine, outbox: Outbox, *notices: Notice) -> None:
    async with engine.begin() as connection:
        for notice in notices:
            await outbox.post(connection, notice)


async def deliver(outbox: Outbox, clock: Clock, *, after: float = 3) -> int:
    clock.forward(after)
    return await outbox.deliver_due()


async def test_mail_and_webhook_receive_it_once(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox, hook: Hook, mailbox: Mailbox
) -> None:
    outbox = make_outbox(hook.url, mailbox.url)
    await post(engine, outbox, make_notice(), make_notice())

    assert await deliver(outbox, clock) == 2
    assert await deliver(outbox, clock, after=3600) == 0

    assert hook.titles == ["Airmedic: a person must look: orders.load (incident 1, high)"]
    (mail,) = mailbox.mails
    assert "orders.load" in str(mail["subject"])
    assert "https://medic.example.org/api/incidents/1" in mailbox.text()
    assert (await outbox.state()).sent == 1


async def test_nothing_is_told_of_what_was_not_committed(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox
) -> None:
    outbox = make_outbox("json://a", door=(door := Recorder()))
    async with engine.connect() as connection:
        await outbox.post(connection, make_notice())
        await connection.rollback()  # what a crash before the commit comes to

    assert await deliver(outbox, clock) == 0
    assert door.sent == []


@pytest.mark.parametrize("mode", ["500", "hang", "drop", "redirect"])
async def test_a_receiver_that_misbehaves_is_tried_again(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox, hook: Hook, mode: str
) -> None:
    outbox = make_outbox(hook.url)
    hook.mode = mode
    await post(engine, outbox, make_notice())

    assert await deliver(outbox, clock) == 0
    state = await outbox.state()
    assert (state.waiting, state.failing, hook.elsewhere) == (1, 1, 0)
    assert state.last_error.startswith(f"json://127.0.0.1:{hook.port}/hook: ")

    hook.mode = "ok"
    hook.got.clear()
    assert await deliver(outbox, clock, after=1) == 0  # not before its time
    await asyncio.sleep(0.1)
    assert await deliver(outbox, clock, after=BACKOFF[0]) == 1
    assert len(hook.got) == 1


async def test_a_receiver_that_refuses_is_given_up_and_counted(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox
) -> None:
    outbox = make_outbox("json://127.0.0.1:1/?cto=1")
    await post(engine, outbox, make_notice())

    for _ in range(GIVE_UP):
        await deliver(outbox, clock, after=BACKOFF[-1] + 1)

    state = await outbox.state()
    assert (state.waiting, state.given_up) == (0, 1)
    assert "json://127.0.0.1:1" in state.last_error


async def test_a_target_that_works_is_not_told_again_for_one_that_fails(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox
) -> None:
    outbox = make_outbox("json://a json://b", door=(door := Recorder()))
    door.down = {"json://a"}
    await post(engine, outbox, make_notice())

    await deliver(outbox, clock)
    door.down = set()
    await deliver(outbox, clock, after=BACKOFF[0])

    assert [url for url, _, _ in door.sent] == ["json://b", "json://a"]


async def test_a_hundred_escalations_in_a_minute_are_one_message(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox, hook: Hook
) -> None:
    outbox = make_outbox(hook.url)
    for number in range(100):
        await post(engine, outbox, make_notice(number + 1))
        await deliver(outbox, clock, after=0.6)
    for _ in range(20):
        await deliver(outbox, clock)

    assert hook.titles == ["Airmedic: 100 × a person must look"]
    assert str(hook.got[0]["message"]).count("#") == 20
    assert "… and 80 more" in str(hook.got[0]["message"])
    assert (await outbox.state()).sent == 100


async def test_a_few_are_told_one_by_one(engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox) -> None:
    outbox = make_outbox("json://a", door=(door := Recorder()))
    await post(engine, outbox, make_notice(1), make_notice(2), make_notice(3))

    assert await deliver(outbox, clock) == 3
    assert len(door.sent) == 3


async def test_what_went_well_comes_as_a_digest_with_the_audit_head(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox
) -> None:
    outbox = make_outbox("json://a", door=(door := Recorder()))
    await post(engine, outbox, make_notice(1, "healed"))
    await deliver(outbox, clock, after=1800)
    await post(engine, outbox, make_notice(2, "healed"))

    assert await deliver(outbox, clock, after=1000) == 0
    assert await deliver(outbox, clock, after=801) == 1

    ((_, title, body),) = door.sent
    assert title == "Airmedic digest: 2 × healed"
    assert "audit trail head: 0:" in body


async def test_two_processes_tell_it_once(engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox) -> None:
    door = Recorder()
    outboxes = [make_outbox("json://a", door=door, owner=f"here:{number}") for number in range(4)]
    await post(engine, outboxes[0], *(make_notice(number) for number in range(1, 4)))
    clock.forward(3)

    await asyncio.gather(*(outbox.deliver_due() for outbox in outboxes))

    assert len(door.sent) == 3


async def test_after_a_crash_between_commit_and_send_it_is_told_once(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox
) -> None:
    """The first process commits and dies; another is there at the next start."""
    await post(engine, make_outbox("json://a", door=Recorder(), owner="here:1"), make_notice())
    outbox = make_outbox("json://a", door=(door := Recorder()), owner="here:2")

    assert await deliver(outbox, clock) == 1
    assert await deliver(outbox, clock, after=3600) == 0
    assert len(door.sent) == 1


async def test_what_a_clock_ahead_wrote_holds_no_notice_back(
    engine: AsyncEngine, clock: Clock, store: IncidentStore, make_outbox: MakeOutbox
) -> None:
    """A claim, a time to try again, messages that were sent: all of them hours from now today."""
    outbox = make_outbox("json://a", door=(door := Recorder()))
    clock.forward(7200)
    for number in range(40):
        await post(engine, outbox, make_notice(key=f"before {number}"))
        await deliver(outbox, clock)
    before = len(door.sent)
    await post(engine, outbox, make_notice(key="late"))
    async with engine.begin() as connection:
        held = update(NoticeRow).where(col(NoticeRow.status) == "due")
        await connection.execute(held.values(claim="gone/abc", lease_until=clock() + LEASE))
    clock.forward(-2 * 7200)

    await store.wake_sleepers()
    assert await deliver(outbox, clock) == 1
    assert len(door.sent) == before + 1


async def test_a_claim_of_a_dead_process_is_freed(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox
) -> None:
    """It died with the message in hand: nobody knows whether it went out, so it goes (again)."""
    outbox = make_outbox("json://a", door=(door := Recorder()), owner="here:2")
    await post(engine, outbox, make_notice())
    async with engine.begin() as connection:
        held = update(NoticeRow).values(claim="here:1/abc", lease_until=clock() + LEASE)
        await connection.execute(held)

    assert await deliver(outbox, clock) == 0
    await outbox.free_claims(dead=lambda owner: owner == "here:1")
    assert await deliver(outbox, clock, after=0) == 1
    assert len(door.sent) == 1


async def test_a_question_that_was_answered_is_not_asked_any_more(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox
) -> None:
    store = IncidentStore(engine, clock=clock)
    incident_id = await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=1)
    version = await ask(store, lease, clock)
    outbox = make_outbox("json://a", door=(door := Recorder()))
    fresh = make_notice(incident_id, "approval_asked", version=version, key="fresh")
    old = make_notice(incident_id, "approval_asked", version=version - 1, key="old")
    await post(engine, outbox, fresh, old)

    assert await deliver(outbox, clock) == 1
    async with engine.connect() as connection:
        rows = await connection.execute(select(NoticeRow.key, NoticeRow.status))  # type: ignore[call-overload]
        assert dict(rows.all()) == {"fresh": "sent", "old": "moot"}
    assert len(door.sent) == 1


async def test_quiet_hours_let_only_grave_things_through(
    engine: AsyncEngine, clock: Clock, make_outbox: MakeOutbox, tmp_path: Path
) -> None:
    file = tmp_path / "notify.yaml"
    file.write_text(
        "version: 1\ntargets: {team: 'json://a'}\nroutes: [{to: team}]\n"
        "quiet: {hours: {from: '22:00', to: '07:00'}}\n"
    )
    routing = load_routing(None, file, digest=timedelta(hours=1))
    outbox = make_outbox(routing=routing, door=(door := Recorder()))
    await post(engine, outbox, make_notice(1), make_notice(2, severity=Severity.CRITICAL))

    await deliver(outbox, clock)  # at three in the morning
    assert [title for _, title, _ in door.sent] == [
        "Airmedic: a person must look: orders.load (incident 2, critical)"
    ]
    await deliver(outbox, clock, after=4 * 3600 + 600)
    assert len(door.sent) == 2


async def test_a_provider_that_hangs_holds_up_nothing(
    clock: Clock, engine: AsyncEngine, make_outbox: MakeOutbox, hook: Hook
) -> None:
    hook.mode = "hang"
    door = AppriseDoor([hook.url], limit=0.3)
    began = asyncio.get_running_loop().time()

    first = await door.send(hook.url, title="t", body="b", grave=True)
    second = await door.send(hook.url, title="t", body="b", grave=True)

    assert (first.ok, second.why) == (False, "the message before this one still hangs")
    assert asyncio.get_running_loop().time() - began < 1.5
