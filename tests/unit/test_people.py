"""People are told of what they must know, through a whole service, and warned before a question expires."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from graph.domain import AirflowHealth, AnswerKind, Outcome, Severity, Status
from graph.errors import AirflowUnreachable, SettingsInvalid, StoreUnavailable
from server.people.inert import inert, inert_line
from server.people.looks import _performance
from server.people.notify_file import load_routing, split_urls
from server.record import IncidentRecord
from tests.factories import START, Clock, make_diagnosis, make_task
from tests.unit.healing_world import FAIL, Ward, make_airflow, open_ward
from tests.unit.receivers import Mailbox, open_mailbox

HOUR = timedelta(hours=1)


@asynccontextmanager
async def asking(
    tmp_path: Path, clock: Clock, summary: str = "refused", **given: Any
) -> AsyncIterator[tuple[Ward, Mailbox]]:
    """A service that asks a person, and the mailbox it tells."""
    airflow = make_airflow(clock, FAIL, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_mailbox() as box:
        settings = {"notify_urls": box.url, "public_url": "https://medic.example.org", **given}
        async with open_ward(tmp_path, airflow, clock, make_diagnosis(summary=summary), **settings) as ward:
            await ward.report()
            yield ward, box


async def deliver(ward: Ward, *, after: float = 3) -> int:
    ward.clock.forward(after)
    return await ward.service.outbox.deliver_due()


async def test_a_question_reaches_the_mailbox(tmp_path: Path, clock: Clock) -> None:
    async with asking(tmp_path, clock) as (ward, box):
        await deliver(ward)
        record = await ward.only()

    (mail,) = box.mails
    assert str(mail["subject"]).startswith("Airmedic: approval asked: orders.load, run manual__1 (incident 1")
    text = box.text()
    assert "what: " in text
    assert "why it asks: " in text
    assert record.expires_at is not None
    assert f"until: {record.expires_at:%Y-%m-%d %H:%M} UTC" in text
    assert "https://medic.example.org/api/incidents/1" in text


async def test_an_open_question_is_warned_of_once_before_it_expires(tmp_path: Path, clock: Clock) -> None:
    async with asking(tmp_path, clock, approval_timeout=7200) as (ward, box):
        await deliver(ward)
        assert await ward.service.people.warn_expiring() == 0
        clock.forward(7200 - 1800)
        assert await ward.service.people.warn_expiring() == 1
        assert await ward.service.people.warn_expiring() == 0
        await deliver(ward)
        assert "approval expires soon" in str(box.mails[-1]["subject"])
        assert "expiring" in [event.name for event in (await ward.detail()).events]

        await ward.pass_time(1900)
        await deliver(ward)
        record = await ward.only()

    assert (record.status, record.outcome) == (Status.ESCALATED, Outcome.EXPIRED)
    assert ["expired" in str(mail["subject"]) for mail in box.mails] == [False, False, True]


async def test_a_restart_tells_nothing_twice(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, FAIL, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_mailbox() as box:
        async with open_ward(tmp_path, airflow, clock, notify_urls=box.url) as ward:
            await ward.report()  # committed, and the process ends before anything was sent
        for _ in range(2):
            async with open_ward(tmp_path, airflow, clock, notify_urls=box.url) as ward:
                await ward.go_on()
                await deliver(ward)

    assert len(box.mails) == 1


async def test_a_rejected_question_leads_to_an_escalation(tmp_path: Path, clock: Clock) -> None:
    async with asking(tmp_path, clock) as (ward, box):
        while (await ward.only()).status is Status.WAITING_DECISION:
            await ward.answer(AnswerKind.REJECT, message="@channel click http://evil.example")
        await deliver(ward)

    (mail,) = box.mails  # the question was answered before anybody was told of it
    assert "a person must look" in str(mail["subject"])
    assert "@channel" not in box.text()
    assert "http://evil" not in box.text()


async def test_airflow_going_and_coming_back_is_told_once_each(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock)
    async with open_mailbox() as box, open_ward(tmp_path, airflow, clock, notify_urls=box.url) as ward:
        people = ward.service.people

        async def sick() -> AirflowHealth:
            raise AirflowUnreachable("no answer")

        well = airflow.health
        for health in (well, sick, well, sick, sick, sick, well, well, well):
            airflow.health = health  # type: ignore[method-assign]
            await people.round()
        clock.forward(3)
        await ward.service.outbox.deliver_due()

    assert [str(mail["subject"]) for mail in box.mails] == [
        "Airmedic: Airflow unwell",
        "Airmedic: Airflow well again",
    ]


async def test_a_database_that_is_gone_is_told_past_the_outbox(tmp_path: Path, clock: Clock) -> None:
    async with (
        open_mailbox() as box,
        open_ward(tmp_path, make_airflow(clock), clock, notify_urls=box.url) as ward,
    ):
        people = ward.service.people
        working = people.engine

        class Gone:
            def connect(self) -> None:
                raise StoreUnavailable("the database hung up")

        for _ in range(3):
            people.engine = Gone()  # type: ignore[assignment]
            with pytest.raises(StoreUnavailable):
                await people.round()
        people.engine = working
        await people.round()

    subjects = [str(mail["subject"]) for mail in box.mails]
    assert subjects == ["Airmedic: Airmedic's database unwell", "Airmedic: Airmedic's database well again"]


def make_record(number: int, outcome: Outcome) -> IncidentRecord:
    given: dict[str, Any] = dict.fromkeys(IncidentRecord.model_fields)
    given |= {"id": number, "task": make_task(), "attempt": 1, "outcome": outcome}
    return IncidentRecord.model_construct(**given)


@pytest.mark.parametrize(
    ("helped", "failed", "unwell"),
    [
        pytest.param(4, 6, True, id="less than half helped"),
        pytest.param(8, 2, False, id="most helped"),
        pytest.param(11, 9, None, id="in between: as it was"),
        pytest.param(0, 5, None, id="too few to judge"),
    ],
)
def test_performance_is_judged_by_the_heals_that_were_tried(
    helped: int, failed: int, unwell: bool | None
) -> None:
    recent = [make_record(n, Outcome.HEALED) for n in range(helped)]
    recent += [make_record(n, Outcome.ESCALATED) for n in range(failed)]

    seen = _performance(recent)

    assert (None if seen is None else seen.unwell) is unwell


# --- text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("@channel look", "(at)channel look", id="a mention"),
        pytest.param("<!here> <@U12>", "‹!here› ‹(at)U12›", id="Slack's mentions"),
        pytest.param(
            "[click](https://evil.example)", "[click] (https[:]//evil.example)", id="a markdown link"
        ),
        pytest.param("see www.evil.example", "see www[.]evil.example", id="a bare address"),
        pytest.param("javascript:alert(1)", "javascript[:]alert(1)", id="a script"),
        pytest.param("<b>bold</b>", "‹b›bold‹/b›", id="HTML"),
        pytest.param("# heading\n> quote", "· # heading\n› quote", id="markdown blocks"),
        pytest.param("a\u202eb\u200bc\x00d", "a b c d", id="invisible characters"),
        pytest.param("password=hunter2secret", "password=[password]", id="a secret"),
        pytest.param("orders.load_all @ run", "orders.load_all (at) run", id="names stay readable"),
    ],
)
def test_text_of_strangers_is_inert(text: str, shown: str) -> None:
    assert inert(text) == shown


def test_a_title_is_one_short_line() -> None:
    title = inert_line("a\r\nBcc: all@example.org\n" + "x" * 500)

    assert "\n" not in title
    assert len(title) == 160


# --- who is told ------------------------------------------------------------------------------------------


def test_urls_are_separated_by_commas_or_spaces() -> None:
    assert split_urls("json://a, mailto://b?to=x@y.z,u@v.w  slack://c/d") == (
        "json://a",
        "mailto://b?to=x@y.z,u@v.w",
        "slack://c/d",
    )


FILE = """
version: 1
targets: {oncall: 'json://${PAGER}', team: [json://b, json://c]}
routes:
  - {to: oncall, severity: [critical, high], events: [approval_asked, escalated]}
  - {to: team, dags: 'orders*', tags: 'team:*'}
"""


@pytest.mark.parametrize(
    ("event", "severity", "dag", "tags", "urls"),
    [
        pytest.param("escalated", Severity.HIGH, "x", (), ("json://a",), id="by event and severity"),
        pytest.param("escalated", Severity.LOW, "x", (), (), id="not this severity"),
        pytest.param(
            "healed", Severity.HIGH, "orders_eu", ("team:eu",), ("json://b", "json://c"), id="by DAG"
        ),
        pytest.param("healed", Severity.HIGH, "orders_eu", ("other",), (), id="not these tags"),
        pytest.param("healed", Severity.LOW, "orders", None, ("json://b", "json://c"), id="tags unknown"),
    ],
)
def test_routes_choose_targets(
    tmp_path: Path,
    event: str,
    severity: Severity,
    dag: str,
    tags: tuple[str, ...] | None,
    urls: tuple[str, ...],
) -> None:
    from server.people.notifier import Notice

    file = tmp_path / "notify.yaml"
    file.write_text(FILE)
    routing = load_routing(None, file, digest=HOUR, environ={"PAGER": "a"})
    assert routing is not None

    assert routing.targets(Notice(event=event, title="t", severity=severity, dag_id=dag), tags) == urls


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("- a", "must be a mapping", id="no mapping"),
        pytest.param("version: 1", "routes: Field required", id="no routes"),
        pytest.param(
            "version: 1\nroutes: [{to: a}]", "routes[0].to: 'a' is not among nothing", id="unknown target"
        ),
        pytest.param(
            "version: 1\ntargets: {a: json://a}\nroutes: [{to: a, events: escalate}]",
            "'escalate' is not among approval_asked",
            id="unknown event",
        ),
        pytest.param(
            "version: 1\ntargets: {a: 'x://${NOT_SET}'}\nroutes: [{to: a}]",
            "NOT_SET is not set",
            id="variable",
        ),
        pytest.param("version: 1\nversion: 1", "stands twice", id="a key twice"),
        pytest.param("version: 1\nroutes: [{to: a, when: b}]", "routes[0].when: Extra", id="unknown key"),
    ],
)
def test_a_mistake_in_the_file_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "notify.yaml"
    file.write_text(text)

    with pytest.raises(SettingsInvalid) as caught:
        load_routing(None, file, digest=HOUR, environ={})

    assert sentence in str(caught.value)


async def test_a_url_that_apprise_does_not_know_stops_the_start(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(SettingsInvalid, match=r"notification URL 2 \(slck://\.\.\.\)"):
        async with open_ward(
            tmp_path, make_airflow(clock), clock, notify_urls="json://a slck://secret/token"
        ):
            pass


def test_the_clock_of_the_factories_is_in_the_morning() -> None:
    assert START.hour == 3  # what the tests of quiet hours count on
