"""Which notices go out together: nothing is lost, nothing is told twice, and a storm is one message."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.domain import IncidentKind, Outcome, Severity, Status
from server.people.bundling import CALM, LISTED, MINUTE, SINGLES, Message, Waiting, messages, text_of
from server.people.inert import LONGEST_BODY, inert
from server.people.notices import EVENTS, of_condition, of_outcome
from server.people.notifier import Notice
from server.record import IncidentRecord
from tests.factories import START, make_task

LINK = "https://airmedic.example"


def make_record(**given: Any) -> IncidentRecord:
    """A record with nothing in it but a failure of `load`."""
    known = {
        "id": 1,
        "kind": IncidentKind.FAILURE,
        "airflow": "default",
        "task": make_task(),
        "try_number": 1,
        "severity": Severity.HIGH,
        "status": Status.OPEN,
        "checklist": (),
        "opened_at": START,
        "updated_at": START,
        **dict.fromkeys(("operator", "reason"), ""),
        **dict.fromkeys(("version", "attempt", "failures"), 1),
    }
    return IncidentRecord(**{**dict.fromkeys(IncidentRecord.model_fields), **known, **given})


def waits(number: int = 1, *, event: str = "escalated", ago: float = 0, **given: Any) -> Waiting:
    notice = Notice(event=event, title=f"orders.load {number}", incident_id=number, key=f"{event}:{number}")
    fields = {"id": number, "notice": notice, "created_at": START - timedelta(seconds=ago), "attempts": 0}
    return Waiting(**{**fields, **given})


WAITING = st.builds(
    waits,
    event=st.sampled_from(["escalated", "healed", "unwell"]),
    ago=st.floats(-5, 90),
    attempts=st.integers(0, 2),
    ripe=st.booleans(),
    digest=st.booleans(),
)


@given(
    due=st.lists(WAITING, max_size=12),
    lately=st.dictionaries(st.sampled_from(["escalated", "healed", "unwell"]), st.integers(0, 5)),
)
def test_what_goes_out_is_what_waited_each_once(due: list[Waiting], lately: dict[str, int]) -> None:
    sent = [one for message in messages(due, lately=lately, now=START) for one in message.members]

    assert len(sent) == len({id(one) for one in sent})
    assert {id(one) for one in sent} <= {id(one) for one in due}


@given(due=st.lists(WAITING, max_size=12), lately=st.dictionaries(st.just("escalated"), st.integers(0, 9)))
def test_nothing_waits_for_ever(due: list[Waiting], lately: dict[str, int]) -> None:
    """A minute later all that is ripe by then is gone."""
    ripe = [waits(n, event=one.notice.event, ago=90, attempts=one.attempts) for n, one in enumerate(due)]

    sent = [one for message in messages(ripe, lately=lately, now=START) for one in message.members]

    assert len(sent) == len(ripe)


@pytest.mark.parametrize(
    ("count", "lately", "sizes"),
    [
        pytest.param(SINGLES, 0, [1, 1, 1], id="a few, one by one"),
        pytest.param(SINGLES + 1, 0, [4], id="more, together"),
        pytest.param(1, SINGLES - 1, [1], id="one more within the minute"),
        pytest.param(1, SINGLES, [1], id="beyond that it comes as a bundle of one"),
        pytest.param(100, 0, [100], id="a storm is one message"),
    ],
)
def test_more_than_a_few_of_one_kind_come_together(count: int, lately: int, sizes: list[int]) -> None:
    due = [waits(n, ago=30) for n in range(count)]

    sent = messages(due, lately={"escalated": lately}, now=START)

    assert [len(one.members) for one in sent] == sizes


@pytest.mark.parametrize(
    ("oldest", "newest", "sent"),
    [
        pytest.param(20, 9.9, False, id="more may come"),
        pytest.param(20, 10, True, id="no more came for a while"),
        pytest.param(59, 0, False, id="they still come"),
        pytest.param(60, 0, True, id="a minute is long enough"),
        pytest.param(20, -300, True, id="one was written before the clock was put back"),
    ],
)
def test_a_bundle_waits_for_more_but_not_for_long(oldest: float, newest: float, sent: bool) -> None:
    due = [waits(n, ago=oldest) for n in range(SINGLES)] + [waits(99, ago=newest)]

    assert bool(messages(due, lately={}, now=START)) is sent
    assert (timedelta(seconds=10), timedelta(seconds=60)) == (CALM, MINUTE)


def test_a_digest_goes_when_the_first_of_it_is_due() -> None:
    young, old = waits(1, digest=True, ripe=False), waits(2, digest=True)

    assert messages([young], lately={}, now=START) == []
    assert messages([young, old], lately={}, now=START) == [Message((young, old), digest=True)]


def test_what_failed_before_is_told_apart_from_what_is_new() -> None:
    again = [waits(n, attempts=1) for n in range(SINGLES + 1)]

    sent = messages([*again, waits(99)], lately={}, now=START)

    assert sorted(len(one.members) for one in sent) == [1, SINGLES + 1]


@pytest.mark.parametrize(
    ("severity", "digest", "grave"),
    [
        pytest.param(Severity.CRITICAL, False, True, id="critical"),
        pytest.param(Severity.HIGH, False, True, id="high"),
        pytest.param(Severity.MEDIUM, False, False, id="medium"),
        pytest.param(Severity.CRITICAL, True, False, id="a digest never is"),
    ],
)
def test_one_grave_notice_makes_the_message_grave(severity: Severity, digest: bool, grave: bool) -> None:
    mild = waits(1, notice=waits(1).notice.model_copy(update={"severity": Severity.LOW}))
    other = waits(2, notice=waits(2).notice.model_copy(update={"severity": severity}))

    assert Message((mild, other), digest=digest).grave is grave


# --- the words --------------------------------------------------------------------------------------------


def test_one_notice_says_what_where_and_how_bad() -> None:
    title, body = text_of([waits(12)], digest=False, link=LINK)

    assert title == f"Airmedic: {EVENTS['escalated'].words}: orders.load 12 (incident 12, high)"
    assert LINK in body


def test_a_condition_is_its_own_title() -> None:
    notice = of_condition("Airflow", "unwell", number=1, detail="no answer", severity=Severity.CRITICAL)

    title, body = text_of([waits(1, notice=notice)], digest=False, link=LINK)

    assert title == "Airmedic: Airflow unwell"
    assert body.splitlines() == ["no answer", f"{LINK}/console"]


def test_a_bundle_counts_kinds_and_lists_the_first() -> None:
    due = [waits(n) for n in range(1, LISTED + 3)] + [waits(99, event="expired")]

    title, body = text_of(due, digest=False, link=LINK, footer="head 3:abc")

    assert title == "Airmedic: 22 × a person must look, 1 × approval expired, nothing was done"
    lines = body.splitlines()
    assert lines[0].startswith("#1 orders.load 1 (high)")
    assert lines[LISTED:] == ["… and 3 more", f"all of them: {LINK}/console", "head 3:abc"]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        pytest.param(Outcome.ESCALATED, "escalated", id="a person must look"),
        pytest.param(Outcome.HEALED, "healed", id="healed"),
        pytest.param(Outcome.RECOVERED_UNVERIFIED, "healed", id="healed as far as is known"),
        pytest.param(Outcome.SELF_RECOVERED, None, id="nobody needs to know"),
        pytest.param(Outcome.DISMISSED, None, id="no failure"),
    ],
)
def test_ends_that_people_are_told_of(outcome: Outcome, told: str | None) -> None:
    notice = of_outcome(make_record(task=make_task(map_index=3)), outcome, "because\nBcc: all@example.org")

    assert (notice.event if notice is not None else None) == told
    if notice is not None:
        assert "load[3]" in notice.title
        assert "why: because Bcc: " in notice.body


@given(
    st.text(max_size=400), st.sampled_from(["http://a.b/c", "<b>", "@all", "`x`", "[a](b)", "\u202e", "# h"])
)
def test_what_strangers_wrote_is_inert_and_stays_so(text: str, trap: str) -> None:
    made = inert(text + trap + text)

    assert not set(made) & set("<>@`|\u202e\x1b")
    assert "://" not in made
    assert "](" not in made
    assert "][" not in made
    assert len(made) <= LONGEST_BODY
    assert inert(made) == made
