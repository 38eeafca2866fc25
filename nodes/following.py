"""What became of a wave, what follows from it, and how the incident ends for all of its members."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from graph.domain import (
    Check,
    DataReport,
    Group,
    MemberCounts,
    Outcome,
    Part,
    Status,
    TaskRef,
    TaskSnapshot,
    Verification,
)
from graph.errors import NotFound
from graph.state import HealState
from nodes.deps import UNVERIFIED, Deps, Fate, Member
from nodes.waiting import wait_for
from tools.reports import read_report
from tools.verification import SILENT, accounted, data_checks, usual_rows

LOOK_AT_LEAST, LOOK_AT_MOST = timedelta(seconds=2), timedelta(minutes=1)  # between two looks at a wave
UNKNOWN_FOR = timedelta(minutes=2)  # a second failure of unknown cause counts as the same after that
STRAGGLERS = 0.2  # of a wave may still be at work when the next one leaves
FAILED_AGAIN = 0.2  # of a wave may fail again of the same cause
STARTS = timedelta(seconds=30)  # in which a cleared task has begun

AT_ONCE = 8  # reports that are read at the same time
# What becomes of a green member, by what is known of its data.
DATA = {
    True: (Part.HEALED, ""),
    False: (Part.GIVEN_UP, "it is green, and its data are not right by its own report"),
    None: (Part.HEALED, UNVERIFIED),
}


async def follow(state: HealState, deps: Deps) -> HealState:
    """See how the last wave went: wait for it, send the next, stop, ask, or be done."""
    group = state.get("group") or Group()
    moving = await _look(group, state, deps)
    await deps.members.flush()
    fates = await deps.members.fates(group.wave)
    now = deps.clock()
    since = now - (group.sent_at or now)
    pause = min(max(since / 4, LOOK_AT_LEAST), LOOK_AT_MOST)
    if moving > STRAGGLERS * group.size or (fates[Fate.UNKNOWN] and since < UNKNOWN_FOR):
        wait_for(Status.WAITING_OUTCOME, until=now + pause)
        return {"release": "watch"}
    again = len(fates[Fate.SAME]) + len(fates[Fate.UNKNOWN])
    deps.members.mark(fates[Fate.SAME], Part.AGAIN, reason="its newer failure waits for a wave")
    if group.size and again > FAILED_AGAIN * group.size:
        return _stop(group, again, deps)
    counts = await deps.members.counts()
    if counts.waiting:
        changed = {"due": _next(group, deps), "stops": 0}
        return {"release": "send", "group": group.model_copy(update=changed)}
    if counts.released:
        wait_for(Status.WAITING_OUTCOME, until=now + pause)
        return {"release": "watch"}
    if counts.ask:
        return {"release": "ask", "group": await shown(group, deps)}
    return {"release": ""}


def _next(group: Group, deps: Deps) -> datetime | None:
    if group.sent_at is None:
        return None
    return group.sent_at + timedelta(minutes=group.size / deps.pace.per_minute)


def gave_up(state: HealState, deps: Deps) -> bool:
    """Whether the waves have failed too often: those that come late go to a person with the others."""
    return (state.get("group") or Group()).stops > deps.pace.stops


def _stop(group: Group, again: int, deps: Deps) -> HealState:
    """Nothing is hammered: the cause is not gone after all, or is back."""
    stops = group.stops + 1
    if stops > deps.pace.stops:
        deps.members.move(Part.WAITING, Part.GIVEN_UP, upto=2**62, reason="the waves before did not help")
        deps.members.move(Part.ASK, Part.GIVEN_UP, upto=2**62, reason="the waves before did not help")
        return {"release": "", "group": group.model_copy(update={"stops": stops, "size": 0})}
    due = deps.clock() + deps.pace.pause * 2.0 ** (stops - 1)
    told = f"{again} of {group.size} failed again of the same cause: the next wave waits"
    changed = {"stops": stops, "size": 0, "due": due}
    return {"release": "send", "group": group.model_copy(update=changed), "reason": told}


async def _look(group: Group, state: HealState, deps: Deps) -> int:
    """Mark those that have come to rest; how many are still at work."""
    moving, after = 0, 0
    while page := await deps.members.page(Part.RELEASED, after=after, limit=1000):
        after = page[-1].id
        now = {one.task: one for one in await deps.airflow.tasks([one.task for one in page])}
        found: dict[tuple[Part, str], list[Member]] = defaultdict(list)
        for member in page:
            verdict = _fate(member, now.get(member.task), group, deps)
            if verdict is None:
                moving += 1
            else:
                found[verdict].append(member)
        if not any(check.name == SILENT for check in state["verification"].checks):
            await _check_data(found, deps)
        for (part, reason), members in found.items():
            deps.members.mark([one.id for one in members], part, reason=reason)
    return moving


async def _check_data(found: dict[tuple[Part, str], list[Member]], deps: Deps) -> None:
    """Green is not enough where tasks report their data: all are looked at in DAGs whose first one does."""
    well = found.pop((Part.HEALED, ""), [])
    by_dag: dict[str, list[Member]] = defaultdict(list)
    for member in well:
        by_dag[member.task.dag_id].append(member)
    for members in by_dag.values():
        first = await read_report(deps.airflow, members[0].task)
        others = members[1:] if first is not None else []
        reports = [first, *await _reports([one.task for one in others], deps)]
        said = [(one, report) for one, report in zip(members, reports, strict=False) if report is not None]
        usual = await _usual(said, deps)
        right = {one.id: data_right(report, usual.get(one.task.task_id, ())) for one, report in said}
        for member in members:
            # No newer failure will tell of wrong data: they go to a person with the incident.
            found[DATA[right.get(member.id)]].append(member)


async def _reports(tasks: Sequence[TaskRef], deps: Deps) -> list[DataReport | None]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def read(task: TaskRef) -> DataReport | None:
        async with turn:
            return await read_report(deps.airflow, task)

    return list(await asyncio.gather(*(read(one) for one in tasks)))


async def _usual(said: Sequence[tuple[Member, DataReport]], deps: Deps) -> dict[str, tuple[int, ...]]:
    """Rows of good runs before, by task of one DAG, read once for all of its runs."""
    usual: dict[str, tuple[int, ...]] = {}
    for member, report in said:
        task = member.task
        if task.task_id not in usual and task.map_index < 0 and accounted(report) is not None:
            usual |= await usual_rows(deps.airflow, task, {task.task_id: report})
    return usual


def data_right(report: DataReport, usual: Sequence[int] = ()) -> bool | None:
    """Whether what a task says of its own data is as it should be; None when nothing tells."""
    known = [check.ok for check in data_checks("", report, usual) if check.ok is not None]
    return all(known) if known else None


def _fate(member: Member, now: TaskSnapshot | None, group: Group, deps: Deps) -> tuple[Part, str] | None:
    if now is None:
        return Part.LEFT, "Airflow knows no such task instance any more"
    fresh = now.try_number > member.try_number
    if now.state == "success":
        return Part.HEALED, ""
    if now.state == "failed" and fresh:
        return Part.FAILED, f"failed again on try {now.try_number}"
    if fresh and now.final:
        return Part.LEFT, f"it ran again and is {now.state}"
    since = deps.clock() - (group.sent_at or deps.clock())
    if not fresh and since > STARTS and now.state in {"failed", "upstream_failed", "skipped", "removed"}:
        return Part.LEFT, f"it is {now.state} and was not run again"
    if since > deps.limits.outcome_timeout:
        return Part.FAILED, f"has not ended within {deps.limits.outcome_timeout}"
    return None


# --- numbers ----------------------------------------------------------------------------------------------


async def shown(group: Group, deps: Deps) -> Group:
    """The numbers that a person is shown now; what comes later is not in them."""
    deps.members.supersede()
    await deps.members.flush()
    counts = await deps.members.counts(dags=True)
    changed = {
        "members": counts.total,
        "dags": counts.dags,
        "upto": counts.upto,
        "safe": await _safe(deps),
        "asked": counts.ask,
    }
    return group.model_copy(update=changed)


MANY = 20  # DAGs: from here on their tags are read by the page
SAFE, UNSAFE = "airmedic:rerun-safe", "airmedic:rerun-unsafe"


async def _safe(deps: Deps) -> int:
    """Of how many members their DAGs say that they may run again."""
    tasks = await deps.members.tasks()
    tags = await _tags({dag for dag, _ in tasks}, deps)
    return sum(number for (dag, task), number in tasks.items() if declared_safe(tags.get(dag, ()), task))


def declared_safe(tags: Sequence[str], task_id: str) -> bool:
    """Whether a DAG's tags say that this task may run again."""
    unsafe = {UNSAFE, f"{UNSAFE}={task_id}"} & set(tags)
    return not unsafe and bool({SAFE, f"{SAFE}={task_id}"} & set(tags))


async def _tags(dags: set[str], deps: Deps) -> dict[str, tuple[str, ...]]:
    if len(dags) <= MANY:
        return {name: await _tags_of(name, deps) for name in sorted(dags)}
    found: dict[str, tuple[str, ...]] = {}
    offset = 0
    while page := await deps.airflow.dags(offset=offset):
        found |= {one.dag_id: one.tags for one in page if one.dag_id in dags}
        offset += len(page)
    return found


async def _tags_of(dag_id: str, deps: Deps) -> tuple[str, ...]:
    try:
        return (await deps.airflow.dag(dag_id)).tags
    except NotFound:
        return ()  # deleted since: nobody says that it may run again


# --- the end ----------------------------------------------------------------------------------------------


async def for_all(found: Verification, deps: Deps) -> Verification:
    """What holds for the incident's own task, as it holds for all; each task instance is counted once."""
    deps.members.supersede()
    await deps.members.flush()
    outcome, check = judged(await deps.members.counts(), found.outcome or Outcome.ESCALATED)
    return found.model_copy(update={"outcome": outcome, "checks": (*found.checks, check)})


def judged(counts: MemberCounts, outcome: Outcome) -> tuple[Outcome, Check]:
    """The outcome for all of them: healed only when every one is; the rest goes to a person as one."""
    total = counts.total + 1
    well = counts.healed + 1
    rest = counts.never + counts.declined + counts.given_up + counts.waiting + counts.ask + counts.released
    words = [f"{well:,} of {total:,} task instances succeeded"]
    for number, what in (
        (counts.left, "were left to others"),
        (counts.failed, "failed again"),
        (counts.never, "may not be run again by policy"),
        (counts.declined, "were declined"),
        (counts.given_up + counts.waiting + counts.ask + counts.released, "did not recover"),
    ):
        if number:
            words.append(f"{number:,} {what}")
    if counts.unverified:
        words.append(f"of the data of {counts.unverified:,} nothing is known")
    check = Check(name="members", ok=rest + counts.failed == 0, detail="; ".join(words))
    if rest or outcome is Outcome.ESCALATED:
        return Outcome.ESCALATED, check
    return (Outcome.RECOVERED_UNVERIFIED if counts.failed or counts.unverified else outcome), check
