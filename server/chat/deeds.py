"""What a person decides or asks for: every deed goes through the decision route or through a request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from fastapi import HTTPException, Response
from pydantic import JsonValue, ValidationError

from graph.domain import FixPlan, Role, Status, TaskSnapshot
from graph.errors import DecisionConflict, DecisionInvalid
from server.answers import DecisionIn
from server.chat.desk import Desk
from server.chat.reads import said_of
from server.chat.resolve import dag_in, failed_task_in, numbered
from server.chat.say import Said, Unclear, ended, line
from server.chat.times import UNTIL, moment_of
from server.chat.words import Verb
from server.record import IncidentRecord
from server.routes.control import read_switches
from server.routes.decisions import decide
from tools.requested import Wish

LOOK = 0.1  # seconds between two looks at an incident whose plan is awaited
NUMBERED = re.compile(r"#?(?P<number>\d{1,9})(?:\s+v?(?P<version>\d{1,9})\b)?(?P<rest>.*)", re.DOTALL)
SETTING = re.compile(
    r"(?:(?P<action>\d{1,2}|[a-z_]{1,100})\.)?(?P<name>[A-Za-z_]{1,100})=(?P<value>.*)", re.DOTALL
)
WORDS = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")


async def check_may(desk: Desk) -> None:
    """Raises `Unclear` for who may only look, and the audit trail knows of the try."""
    if desk.caller.may(Role.OPERATOR):
        return
    why = f"this needs the role operator; {desk.caller.name!r} is {desk.caller.role.value}"
    await desk.service.audit.note("refused", by=desk.caller.name, what="chat", why=why)
    raise Unclear(f"{why}. You may look at everything.")


# --- answers to questions ---------------------------------------------------------------------------------


async def answer(desk: Desk, verb: Verb, rest: str) -> Said:
    """Approve, edit, reject or answer the question that this thread showed."""
    await check_may(desk)
    found = NUMBERED.fullmatch(rest.strip())
    if found is None:
        raise Unclear(f"which incident? Say: /{verb.value} N")
    record = await numbered(desk, int(found.group("number")))
    tail, version = found.group("rest").strip(), found.group("version")
    if verb in (Verb.REJECT, Verb.ANSWER, Verb.EDIT) and version is not None:
        # "/reject 12 3 columns are missing": those are words; the version is the one that was shown.
        tail, version = f"{version} {tail}".strip(), None
    shown = int(version) if version is not None else desk.shown.get(record.id)
    if record.status is not Status.WAITING_DECISION:
        raise Unclear(
            f"incident {record.id} asks nothing now; {line(said_of(record, desk).text)}", links=[record.id]
        )
    if shown is None:
        told = said_of(record, desk)
        return Said(
            f"you have not seen this question yet; here it is:\n{told.text}", links=told.links, asks=told.asks
        )
    return await _decide(desk, record, _body(verb, tail, record, shown), shown)


def _body(verb: Verb, tail: str, record: IncidentRecord, version: int) -> DecisionIn:
    kinds = {Verb.APPROVE: "approve", Verb.EDIT: "edit", Verb.REJECT: "reject", Verb.ANSWER: "respond"}
    if verb is Verb.APPROVE and tail:
        raise Unclear(
            f"/approve {record.id} takes no words; to change something: /edit {record.id} argument=value"
        )
    args = _edits(tail, record.plan) if verb is Verb.EDIT else None
    given = {
        "type": kinds[verb],
        "version": version,
        "message": "" if verb is Verb.EDIT else tail,
        "args": args,
    }
    try:
        return DecisionIn.model_validate(given)
    except ValidationError as exc:
        raise Unclear(f"that cannot be sent: {exc.errors()[0]['msg']}") from exc


def _edits(text: str, plan: FixPlan | None) -> list[dict[str, JsonValue]]:
    """`argument=value`, or `2.argument=value` for the second action; as text, numbers or JSON."""
    actions = plan.actions if plan is not None else ()
    edited: list[dict[str, JsonValue]] = [{} for _ in actions]
    for word in WORDS.findall(text):
        found = SETTING.fullmatch(word)
        if found is None:
            raise Unclear(f"{line(word)!r} is not argument=value")
        places = [n for n, one in enumerate(actions, 1) if _fits(n, one.name, one.args, found)]
        if len(places) != 1:
            listed = ", ".join(f"{n}.{name}" for n, one in enumerate(actions, 1) for name in one.args)
            raise Unclear(f"{found.group('name')!r} is not clear; there are: {listed or 'no arguments'}")
        edited[places[0] - 1][found.group("name")] = _value(found.group("value"))
    if not any(edited):
        raise Unclear("say what to change: /edit N argument=value")
    return edited


def _fits(number: int, name: str, args: Mapping[str, JsonValue], found: re.Match[str]) -> bool:
    action = found.group("action")
    if action is not None:
        return action in (str(number), name)
    return found.group("name") in args


def _value(text: str) -> JsonValue:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d{1,15}", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d{1,15}\.\d{1,15}", text) else text


async def _decide(desk: Desk, record: IncidentRecord, body: DecisionIn, shown: int) -> Said:
    """Through the decision route: the same checks, the same audit."""
    try:
        await decide(record.id, body, desk.service, desk.caller, Response())
    except DecisionConflict as exc:
        now = said_of(await numbered(desk, record.id), desk)
        told = f"not done: {exc}. You were shown version {shown}; this is how it stands:\n{now.text}"
        return Said(told, links=now.links, asks=now.asks)
    except DecisionInvalid as exc:
        raise Unclear(f"not done: {line(str(exc))}", links=[record.id]) from exc
    except HTTPException as exc:
        raise Unclear(f"not done: {line(str(exc.detail))}", links=[record.id]) from exc
    words = {"approve": "approved", "edit": "approved as edited", "reject": "rejected", "respond": "answered"}
    told = f"incident {record.id}: {words[body.type]} by {desk.caller.name}"
    return await _followed(desk, record.id, told)


# --- requests ---------------------------------------------------------------------------------------------


async def retry(desk: Desk, text: str, *, strict: bool, confirm: bool) -> Said:
    """Ask for another try of the failed task that the words name."""
    await check_may(desk)
    failure = await failed_task_in(desk, text, strict=strict)
    await _check_switches(desk, f"clear {failure.task}")
    known = await desk.service.requests.open_on(failure.task)
    if known is not None and known.status is not Status.ESCALATED:
        return await _joined(desk, known)
    return await _retried(desk, failure, confirm=confirm)


async def _joined(desk: Desk, known: IncidentRecord) -> Said:
    told = said_of(known, desk)
    if known.status is Status.WAITING_DECISION:
        head = f"incident {known.id} is about it and asks already; decide there"
    else:
        head = f"Airmedic works on it already, as incident {known.id}"
    return Said(f"{head}:\n{told.text}", links=told.links, asks=told.asks)


async def _retried(desk: Desk, failure: TaskSnapshot, *, confirm: bool) -> Said:
    try:
        number = await desk.service.requests.retry(failure, by=desk.caller.name, confirm=confirm)
    except DecisionConflict as exc:
        raise Unclear(f"not asked for: {line(str(exc))}") from exc
    desk.service.runner.ring()
    return await _followed(desk, number, f"asked for another try of {failure.task}: incident {number}")


async def switch(desk: Desk, text: str, wish: Wish, *, strict: bool, confirm: bool) -> Said:
    """Ask for a DAG to be paused, perhaps until a moment, or unpaused."""
    await check_may(desk)
    try:
        until = moment_of(text, now=desk.now, zone=desk.zone) if wish is Wish.PAUSE else None
    except ValueError as exc:
        raise Unclear(f"{exc}; nothing is asked for") from exc
    dag = await dag_in(desk, UNTIL.sub("", text) if wish is Wish.PAUSE else text, strict=strict)
    if dag.is_paused is (wish is Wish.PAUSE):
        more = "; no timer is set on a pause that stands already" if until is not None else ""
        return Said(f"{dag.dag_id!r} is {'paused' if dag.is_paused else 'not paused'} already{more}")
    await _check_switches(desk, f"{wish.value} {dag.dag_id!r}")
    known = await desk.service.requests.open_switch(dag.dag_id)
    if known is not None and known.status is Status.WAITING_DECISION:
        return await _joined(desk, known)
    number = await desk.service.requests.switch(
        dag.dag_id, wish, paused=dag.is_paused, by=desk.caller.name, until=until, confirm=confirm
    )
    desk.service.runner.ring()
    when = f" until {until.astimezone(desk.zone):%a %d %b %H:%M} ({desk.zone.key})" if until else ""
    told = f"asked to {wish.value} {dag.dag_id!r}{when}: incident {number}"
    if until is not None:
        told += "; when that time comes, Airmedic proposes to unpause it"
    return await _followed(desk, number, told)


async def _check_switches(desk: Desk, what: str) -> None:
    switches = await read_switches(desk.service)
    if switches.paused:
        raise Unclear(f"the kill switch is on, so nothing is asked for; it would have been: {what}")
    if switches.shadow:
        raise Unclear(
            f"shadow mode is on: nothing is touched, so nothing is asked for; it would have been: {what}"
        )


async def _followed(desk: Desk, number: int, head: str) -> Said:
    """Wait a little for what becomes of it, and say so."""
    record = await numbered(desk, number)
    try:
        async with asyncio.timeout(desk.patience):
            while record.status in (Status.OPEN, Status.WATCHING):
                await asyncio.sleep(LOOK)
                record = await numbered(desk, number)
    except TimeoutError:
        return Said(f"{head}\nit is being worked on; /show {number} tells how it goes", links=[number])
    told = said_of(record, desk)
    if record.outcome is not None:
        return Said(f"{head}\n{ended(record.outcome)}: {line(record.reason)}", links=[number])
    return Said(f"{head}\n{told.text}", links=told.links, asks=told.asks)
