"""A month behind us: incidents that came and ended, made by the real graph with the clock turned back."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

from graph.domain import Answer, AnswerKind, Door, FailureId, Role, Status, TaskRef
from server.people.notifier import SilentNotifier
from server.service import Service, open_service
from server.settings import Settings
from tests.browser.world import ATTACK, BROKEN, LIMITED, LOCKED, RENAMED, UNSAFE, make_airflow
from tools.airflow_memory import MemoryAirflow, Ticking

DAYS = 28
WEIGHTS = {LIMITED: 8, LOCKED: 7, UNSAFE: 5, RENAMED: 2, BROKEN: 1, ATTACK: 0}


async def make_history(settings: Settings, *, count: int, seed: int = 5) -> None:
    """`count` incidents, most of them in the last week."""
    rng = random.Random(seed)
    now = datetime.now(UTC)
    ages = sorted((rng.random() ** 2.2 * DAYS * 86_400 + 7200 for _ in range(count)), reverse=True)
    clock = Ticking(now - timedelta(seconds=ages[0] + 60))
    airflow = make_airflow(clock)

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    async with open_service(
        settings, airflow=airflow, notifier=SilentNotifier(), clock=clock, sleep=sleep, background=False
    ) as service:
        for number, age in enumerate(ages):
            at = now - timedelta(seconds=age)
            clock.now = max(clock.now, at)
            dag = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            await _play(service, airflow, clock, dag, f"scheduled__{at:%Y-%m-%dT%H:%M}_{number}", rng)


async def _play(
    service: Service, airflow: MemoryAirflow, clock: Ticking, dag: str, run: str, rng: random.Random
) -> None:
    airflow.start(dag, run, run_type="scheduled")
    await airflow.settle()
    task = TaskRef(dag_id=dag, run_id=run, task_id="load")
    failure = FailureId(airflow=service.settings.airflow_id, task=task, try_number=1)
    clock.advance(rng.uniform(0.5, 6))
    await service.store.accept([failure], door=Door.LISTENER)
    for _ in range(12):
        await service.intake.admit()
        await service.runner.settle_all()
        (record,) = (await service.store.incidents())[:1]
        if record.status in {Status.CLOSED, Status.ESCALATED}:
            break
        if record.status is Status.WAITING_DECISION:
            clock.advance(rng.uniform(60, 2400))
            kind = AnswerKind.APPROVE if rng.random() < 0.85 else AnswerKind.REJECT
            plan = record.plan.id if record.plan is not None else ""
            answer = Answer(kind=kind, by=rng.choice(["ada", "bo"]), plan_id=plan, role=Role.OPERATOR)
            await service.store.answer(record.id, version=record.version, answer=answer)
            continue
        wake = record.wake_at or clock()
        clock.advance(max(1.0, (wake - clock()).total_seconds()))
    if record.status is Status.ESCALATED and rng.random() < 0.9:
        await service.store.close(record.id, by="ada", reason="mended in the DAG's repository")
    await asyncio.sleep(0)
