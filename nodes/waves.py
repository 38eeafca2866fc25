"""Members follow the incident's own task in waves: each larger than the last, and none when the last failed.

The incident's own task is the canary: it is well by now, so the cause has passed. A wave is put into the
ledger whole, with its members' rows and before any of it is sent; whoever comes after a crash goes on from
there and reads Airflow back.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from pydantic import JsonValue

from graph.domain import (
    Action,
    Decision,
    Diagnosis,
    FixPlan,
    Group,
    Part,
    Remediation,
    Role,
    Status,
    TaskRef,
    TaskSnapshot,
    Verdict,
)
from graph.errors import NotFound, OnHold
from graph.state import HealState
from nodes.choosing import ask_policy
from nodes.deps import REFUSED, Deps, Member
from nodes.holding import check_held, held, wait_until_allowed
from nodes.probing import not_back
from nodes.waiting import wait_for
from tools.actions.running import has_teardown, images_of
from tools.carry_out import carry_each
from tools.gathering import settled_run
from tools.ledger import WAVES
from tools.policy import paused_since, touched_dags

PAGE = 200  # members that Airflow is asked about at a time
AT_ONCE = 8  # DAG runs that policy and Airflow are asked about at the same time
LONG_AGO = timedelta(minutes=1)  # what failed before that, its run has come to rest

Run = tuple[str, str]
Seen = tuple[Member, TaskSnapshot]


@dataclass
class _Wave:
    """What is being put together."""

    members: list[Member] = field(default_factory=list)
    actions: list[tuple[Action, JsonValue]] = field(default_factory=list)  #: each with its before-image
    reasons: list[str] = field(default_factory=list)  #: why a person is to be asked about others
    approvers: Role = Role.VIEWER


async def release(state: HealState, deps: Deps) -> HealState:
    """Send the next wave, or go on with one that was begun."""
    group = state.get("group") or Group()
    now = deps.clock()
    if group.due is not None and now < group.due:
        wait_for(Status.WAITING_TIMER, until=group.due)
        return {"release": "send"}
    attempt = WAVES + group.wave + 1
    wave = _Wave()
    if not await deps.ledger.entries(attempt=attempt):
        if why := await held(deps, ()):
            wait_until_allowed(deps, why)
            return {"release": "send"}
        if gone := await not_back(state, deps, since=group.due or group.sent_at):
            return gone
        wave = await _put_together(state, group, deps)
        group = _asking(group, wave)
        if not wave.actions:
            await deps.members.flush()
            return {"release": "watch", "group": group}
        await _begin(wave, attempt, group.wave + 1, deps)
    try:
        sent = await _send(attempt, deps)
    except OnHold as exc:
        # What was sent is in the ledger; the resumed node goes on behind it.
        wait_until_allowed(deps, str(exc))
        return {"release": "send"}
    changed = {"wave": group.wave + 1, "size": sent, "sent_at": deps.clock(), "due": None}
    return {"release": "watch", "group": group.model_copy(update=changed)}


async def _begin(wave: _Wave, attempt: int, number: int, deps: Deps) -> None:
    """The whole wave is on the record, with its members, in one transaction."""
    for position, (action, before) in enumerate(wave.actions):
        await deps.ledger.intend(attempt, position, action, before)
    deps.members.mark([one.id for one in wave.members], Part.RELEASED, wave=number)
    await deps.members.flush()


async def _send(attempt: int, deps: Deps) -> int:
    """How many task instances were cleared. Those that were not are looked at again by the next wave."""
    entries = await deps.ledger.entries(attempt=attempt)
    dags = touched_dags(entry.action for entry in entries)
    results = await carry_each(
        attempt,
        airflow=deps.airflow,
        ledger=deps.ledger,
        catalogue=deps.catalogue,
        guard=partial(check_held, deps, dags),
        sleep=deps.sleep,
    )
    cleared = 0
    members = {one.task: one for one in await deps.members.page(Part.RELEASED, limit=10 * deps.pace.largest)}
    for entry, why in results:
        refs = deps.catalogue.get(entry.action.name).reruns(entry.action)
        if not why:
            cleared += len(refs)
            continue
        # Somebody was at work in the run: once more, as the world is then; after that a person has them.
        back = [members[ref] for ref in refs if ref in members]
        once, twice = [one.id for one in back if not one.refused], [one.id for one in back if one.refused]
        deps.members.mark(once, Part.WAITING, reason=f"{REFUSED}: {why}")
        deps.members.mark(twice, Part.GIVEN_UP, reason=why)
    return cleared


# --- who goes ---------------------------------------------------------------------------------------------


async def _put_together(state: HealState, group: Group, deps: Deps) -> _Wave:
    """The next members in the order in which they came, as Airflow and policy see them now."""
    wave, size, after = _Wave(), size_of(group, deps), 0
    done: set[str] = set()
    turn = asyncio.Semaphore(AT_ONCE)

    async def decide(members: list[Seen]) -> None:
        async with turn:
            await _decide(members, state=state, group=group, wave=wave, deps=deps)

    while len(wave.members) < size:
        page = await deps.members.page(Part.WAITING, after=after, limit=PAGE)
        if not page:
            break
        after = page[-1].id
        chosen = await _with_their_dags(page, done, size - len(wave.members), deps)
        runs = await _still_failed(chosen, deps)
        await asyncio.gather(*(decide(members) for members in runs.values()))
    return wave


async def _with_their_dags(page: Sequence[Member], done: set[str], most: int, deps: Deps) -> list[Member]:
    """The others of the same DAG go with those whose turn it is: what Airflow says of a DAG is read once."""
    chosen: list[Member] = []
    for member in page:
        if len(chosen) >= most:
            break
        if member.task.dag_id not in done:
            done.add(member.task.dag_id)
            chosen += await deps.members.in_dag(member.task.dag_id, limit=most - len(chosen))
    return chosen


def size_of(group: Group, deps: Deps) -> int:
    """How many go next: twice as many as the last time; few after a wave that failed."""
    if not group.size:
        return min(deps.pace.first, deps.pace.largest)
    return min(2 * group.size, deps.pace.largest)


async def _still_failed(page: Sequence[Member], deps: Deps) -> dict[Run, list[Seen]]:
    """Those that stand as they failed, by run; the others are left alone, and it is said why."""
    now = {one.task: one for one in await deps.airflow.tasks([member.task for member in page])}
    found: dict[Run, list[Seen]] = defaultdict(list)
    left: dict[str, list[Member]] = defaultdict(list)
    taken: set[TaskRef] = set()
    for member in page:
        snapshot = now.get(member.task)
        if why := _moved(member, snapshot) or ("named twice" if member.task in taken else ""):
            left[why].append(member)
        elif snapshot is not None:
            taken.add(member.task)
            found[member.task.dag_id, member.task.run_id].append((member, snapshot))
    for why, members in left.items():
        deps.members.mark([one.id for one in members], Part.LEFT, reason=why)
    return found


async def sweep(deps: Deps) -> None:
    """The incident's own task is well without our doing: so may others be. Those that are not stay."""
    after = 0
    while page := await deps.members.page(Part.WAITING, after=after, limit=PAGE):
        after = page[-1].id
        await _still_failed(page, deps)
    await deps.members.flush()


def _moved(member: Member, now: TaskSnapshot | None) -> str:
    if now is None:
        return "Airflow knows no such task instance"
    if now.state == "success":
        return "it succeeded without our doing"
    if now.state != "failed":
        return f"it is {now.state} without our doing"
    if now.try_number != member.try_number:
        return f"it was run again by others: try {now.try_number}"
    return ""


async def _decide(
    members: list[Seen],
    *,
    state: HealState,
    group: Group,
    wave: _Wave,
    deps: Deps,
) -> None:
    """Policy's word on the members in one run: into the wave, to a person, or left."""
    members.sort(key=lambda one: (one[0].task.task_id, one[0].task.map_index))
    refs = tuple(one.task for one, _ in members)
    plan = _plan(refs)
    mine = [member for member, _ in members]
    ids = [one.id for one in mine]
    try:
        decision = await ask_policy(
            deps,
            plan,
            diagnosis=_passed(state["diagnosis"]),
            failure=members[0][1],
            spent=[],
            members=refs,
        )
    except NotFound as exc:
        deps.members.mark(ids, Part.GIVEN_UP, reason=str(exc))  # the others do not wait for it
        return
    if decision.verdict is Verdict.NEVER:
        deps.members.mark(ids, Part.NEVER, reason="; ".join(decision.reasons))
    elif decision.verdict is Verdict.AUTO or _approved(decision, mine, group):
        if any(now.end is None or now.end > deps.clock() - LONG_AGO for _, now in members):
            await settled_run(deps.airflow, refs[0], deps.sleep)
        wave.members += mine
        wave.actions.append((plan.actions[0], await _before(plan.actions[0], members, deps)))
    else:
        deps.members.mark(ids, Part.ASK, reason="; ".join(decision.reasons))
        wave.reasons += decision.reasons
        wave.approvers = max(wave.approvers, decision.approvers, key=list(Role).index)


async def _before(clear: Action, members: Sequence[Seen], deps: Deps) -> JsonValue:
    """The clear's before-image, from what was just read wherever that is all of it."""
    if await has_teardown(deps.airflow, members[0][0].task.dag_id):
        image: JsonValue = await deps.catalogue.get(clear.name).capture(deps.airflow, clear)
        return image
    return images_of([now for _, now in members])


def _approved(decision: Decision, members: Sequence[Member], group: Group) -> bool:
    """Whether somebody was shown all of these, and may; a DAG that is paused is told of before."""
    if paused_since(decision, group.told):
        return False
    shown = all(one.id <= group.approved_upto for one in members)
    return shown and bool(group.approved_by) and group.approved_role.includes(decision.approvers)


def _plan(refs: Sequence[TaskRef]) -> FixPlan:
    dag_id, run_id = refs[0].dag_id, refs[0].run_id
    target = {
        "dag_id": dag_id,
        "run_id": run_id,
        "tasks": [{"task_id": one.task_id, "map_index": one.map_index} for one in refs],
    }
    action = Action(name="clear_task", target=target, args={"downstream": True})
    summary = f"clear {len(refs)} task instances of {dag_id!r} that failed of the same cause"
    return FixPlan(remediation=Remediation.RETRY, actions=(action,), summary=summary)


def _passed(diagnosis: Diagnosis) -> Diagnosis:
    """The cause has passed, or was mended: the incident's own task ran into it and is well now."""
    return diagnosis.model_copy(update={"transient": True, "remediation": Remediation.RETRY})


def _asking(group: Group, wave: _Wave) -> Group:
    """Why a person will be asked, in few words however many there are."""
    if not wave.reasons:
        return group
    reasons = tuple(dict.fromkeys([*group.reasons, *wave.reasons]))[:5]
    approvers = max(group.approvers, wave.approvers, key=list(Role).index)
    return group.model_copy(update={"reasons": reasons, "approvers": approvers})
