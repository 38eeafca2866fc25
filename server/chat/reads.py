"""Answers about incidents, from the store. They read only; both modes of the chat use them."""

from __future__ import annotations

from graph.domain import Status
from server.chat.desk import Desk
from server.chat.resolve import incident_in
from server.chat.say import STATES, Said, clean, clock, ended, line, one_line, plan_words
from server.chat.words import line_range
from server.record import IncidentRecord
from server.schemas import GroupOut
from server.telling import together
from server.timeline import timeline_of

AROUND = 3  # lines before and after each line of evidence
MOST_LINES = 120
MOST_CHARS = 8000
TAIL = 30
STEPS = 30


async def show(desk: Desk, rest: str) -> Said:
    """Where an incident stands, and what it asks."""
    record = await incident_in(desk, rest)
    return said_of(record, desk)


def said_of(record: IncidentRecord, desk: Desk) -> Said:
    """One incident in words; its question goes along when it asks."""
    lines = [one_line(record, desk.zone), f"{record.task}, try {record.try_number}, {record.severity}"]
    if record.diagnosis is not None:
        lines.append(f"cause: {_cause(record)}")
    if record.plan is not None and record.outcome is None:
        lines += plan_words(record.plan, record.decision)
    if record.reason:
        lines.append(f"reason: {line(record.reason)}")
    lines += [f"to do: {line(one)}" for one in record.checklist[:8]] if record.plan is None else []
    asks = record.status is Status.WAITING_DECISION
    if asks:
        until = f", until {clock(record.expires_at, desk.zone)}" if record.expires_at else ""
        lines.append(
            f"it asks for a decision on version {record.version}{until}: /approve {record.id}, or the button"
        )
    return Said("\n".join(lines), links=[record.id], asks=[record.id] if asks else [])


def _cause(record: IncidentRecord) -> str:
    found = record.diagnosis
    if found is None:
        return "no cause has been named yet"
    kind = "passes by itself" if found.transient else "does not pass by itself"
    sure = f"{found.confidence:.0%} sure, by {found.by.value}"
    return f"{found.root_cause.value} ({kind}, {sure}): {line(found.summary)}"


async def why(desk: Desk, rest: str) -> Said:
    """The cause, the lines that prove it, and what was ruled out."""
    record = await incident_in(desk, rest)
    found = record.diagnosis
    if found is None:
        told = f"{one_line(record, desk.zone)}\nno cause has been named yet"
        return Said(f"{told}: {line(record.reason)}" if record.reason else told, links=[record.id])
    lines = [f"#{record.id} {record.task}", _cause(record)]
    if (group := GroupOut.of(await desk.service.store.member_counts(record.id, dags=True))) is not None:
        lines.append(together(group.model_dump()))
    if found.evidence:
        lines.append("the log says:")
        lines += [f"{one.line:>6} | {line(one.text)}" for one in found.evidence]
    if found.location is not None:
        lines.append(f"raised in {line(found.location.file)}, line {found.location.line}")
    if found.ruled_out:
        lines.append("ruled out:")
        lines += [f"  {one.root_cause.value}: {line(one.why)}" for one in found.ruled_out[:6]]
    lines += [f"Airflow adds: {line(one)}" for one in found.context[:6]]
    return Said("\n".join(lines), links=[record.id])


async def log(desk: Desk, rest: str) -> Said:
    """Lines of the stored log: those asked for, else those around the evidence, else the last ones."""
    record = await incident_in(desk, rest)
    text = await desk.service.store.get_log(record.log) if record.log is not None else None
    if not text:
        return Said(f"#{record.id} {record.task}: no log is stored", links=[record.id])
    lines = text.splitlines()
    wanted = line_range(rest)
    if wanted is not None:
        numbers = list(range(wanted[0], min(wanted[1], len(lines)) + 1))
        if not numbers:
            return Said(f"the log of #{record.id} has {len(lines)} lines", links=[record.id])
    else:
        numbers = _around(record, len(lines))
    shown, spent = [f"#{record.id} {record.task}: log, {len(lines)} lines"], 0
    before: int | None = None
    for number in numbers[:MOST_LINES]:
        told = f"{number:>6} | {line(lines[number - 1], longest=500)}"
        spent += len(told)
        if spent > MOST_CHARS:
            shown.append(f"… /log {record.id} {number}-{number + TAIL} goes on")
            break
        if before is not None and number > before + 1:
            shown.append("       …")
        shown.append(told)
        before = number
    else:
        if len(numbers) > MOST_LINES:
            shown.append(f"… /log {record.id} {numbers[MOST_LINES]}-{numbers[-1]} goes on")
    return Said("\n".join(shown), links=[record.id])


def _around(record: IncidentRecord, count: int) -> list[int]:
    evidence = record.diagnosis.evidence if record.diagnosis is not None else ()
    near = {one.line + step for one in evidence for step in range(-AROUND, AROUND + 1)}
    found = sorted(number for number in near if 1 <= number <= count)
    return found or list(range(max(1, count - TAIL + 1), count + 1))


async def timeline(desk: Desk, rest: str) -> Said:
    """What happened to an incident, in order."""
    record = await incident_in(desk, rest)
    moments = timeline_of(await desk.service.store.detail(record.id))
    head = [f"#{record.id} {record.task}: {len(moments)} steps"]
    if len(moments) > STEPS:
        head.append(f"the last {STEPS} of them:")
    told = [
        f"{clock(one.at, desk.zone)}  {one.title}" + (f": {line(one.detail)}" if one.detail else "")
        for one in moments[-STEPS:]
    ]
    return Said("\n".join([*head, *told]), links=[record.id])


async def plan(desk: Desk, rest: str) -> Said:
    """What Airmedic would do about an incident, how far it reaches, and what policy says of it."""
    record = await incident_in(desk, rest)
    lines = [f"#{record.id} {record.task}"]
    if record.outcome is not None and record.status is Status.CLOSED:
        lines.append(f"it is over: {ended(record.outcome)}; {line(record.reason)}")
        return Said("\n".join(lines), links=[record.id])
    if record.plan is None:
        lines.append("there is no plan that policy allows" if record.diagnosis else "the cause comes first")
        lines += [f"reason: {line(record.reason)}"] if record.reason else []
        lines += [f"to do: {line(one)}" for one in record.checklist[:8]]
        return Said("\n".join(lines), links=[record.id])
    lines += plan_words(record.plan, record.decision)
    preview = await desk.service.catalogue.preview(desk.service.airflow, record.plan)
    lines += [f"Airflow's dry run: {line(one)}" for one in preview.words]
    radius = preview.radius
    lines.append(
        f"it touches {radius.task_instances} task instances of {radius.dag_runs} runs in {radius.dags} DAGs"
        f" and {radius.settings} settings"
    )
    lines.append(f"now: {STATES[record.status]}")
    asks = [record.id] if record.status is Status.WAITING_DECISION else []
    return Said(clean("\n".join(lines)), links=[record.id], asks=asks)
