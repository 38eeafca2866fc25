"""Looks at what Airmedic depends on: Airflow and its parts, the model, the breaker, its own success."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

from graph.domain import Outcome, Severity
from graph.errors import AirmedicError
from server.people.conditions import Seen
from server.record import IncidentRecord
from server.records import HELPED, StoreRecords
from server.store import IncidentStore
from tools.gateway import AirflowGateway
from tools.policy import Policy

PATIENCE = 10.0  # seconds Airflow has to answer
LOOKED_BACK = 50  # incidents
MODEL_FAILURES = 3  # in a row that make the model unwell
FEWEST = 10  # tried heals below which no rate is judged
DEGRADED, RESTORED = 0.5, 0.6  # share of tried heals that helped
FAILED_HEAL = (Outcome.ESCALATED, Outcome.NOT_HEALED)
NO_ANSWER = ("failed", "unusable")
WORSE = {"worse": "breaker_open", "better": "breaker_closed"}


class Looks:
    """One round of looks; what could not be judged is left out."""

    def __init__(
        self,
        *,
        store: IncidentStore,
        airflow: AirflowGateway,
        records: StoreRecords,
        policy: Policy,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._airflow = airflow
        self._records = records
        self._policy = policy
        self._clock = clock

    async def all(self) -> AsyncIterator[Seen]:
        """Everything, one after the other. Raises `StoreUnavailable` when the database does not answer."""
        async for seen in self._airflow_parts():
            yield seen
        recent = await self._store.incidents(limit=LOOKED_BACK)
        for found in (_model(recent), _performance(recent)):
            if found is not None:
                yield found
        async for seen in self._breakers(recent):
            yield seen

    async def _airflow_parts(self) -> AsyncIterator[Seen]:
        try:
            async with asyncio.timeout(PATIENCE):
                health = await self._airflow.health()
        except (AirmedicError, TimeoutError) as exc:
            yield Seen(name="Airflow", unwell=True, detail=str(exc) or "no answer in time")
            return
        yield Seen(name="Airflow", unwell=False, detail="it answers")
        parts = {
            "Airflow's metadata database": (health.metadatabase, Severity.CRITICAL),
            "Airflow's scheduler": (health.scheduler, Severity.CRITICAL),
            "Airflow's triggerer": (health.triggerer, Severity.HIGH),
            "Airflow's DAG processor": (health.dag_processor, Severity.HIGH),
        }
        for name, (well, severity) in parts.items():
            if well is not None:
                words = "healthy" if well else "Airflow calls it unhealthy"
                yield Seen(name=name, unwell=not well, detail=words, severity=severity)

    async def _breakers(self, recent: list[IncidentRecord]) -> AsyncIterator[Seen]:
        """The breakers as policy would find them at this moment."""
        tried = {one.task.dag_id: one.task for one in recent if one.attempt > 0 and one.outcome is not None}
        breaker, now = self._policy.breaker, self._clock()
        cooldown = timedelta(minutes=breaker.cooldown_minutes)
        overall = False
        for dag_id, task in tried.items():
            used = await self._records.counters(task)
            last, last_dag = used.last_failed_heal, used.last_failed_heal_dag
            cooling = last is not None and now < last + cooldown
            if not overall:
                overall = True
                yield Seen(
                    name="circuit breaker (overall)",
                    unwell=used.failed_heals >= breaker.failed_heals and cooling,
                    detail=_in_a_row(used.failed_heals, breaker.failed_heals),
                    **WORSE,
                )
            cooling = last_dag is not None and now < last_dag + cooldown
            yield Seen(
                name=f"circuit breaker (DAG {dag_id})"[:300],
                unwell=used.failed_heals_dag >= breaker.failed_heals_per_dag and cooling,
                detail=_in_a_row(used.failed_heals_dag, breaker.failed_heals_per_dag),
                **WORSE,
            )


def _in_a_row(count: int, most: int) -> str:
    return f"{count} failed heals in a row, {most} open it"


def _model(recent: list[IncidentRecord]) -> Seen | None:
    """The model is unwell when the last few incidents got nothing usable from it."""
    asked = [
        one.diagnosis.cost
        for one in recent
        if one.diagnosis is not None and one.diagnosis.cost is not None and one.diagnosis.cost.calls > 0
    ]
    last = asked[:MODEL_FAILURES]
    if not last:
        return None
    failed = [cost for cost in last if cost.outcome in NO_ANSWER]
    if len(failed) == MODEL_FAILURES:
        words = f"{MODEL_FAILURES} incidents in a row without a usable answer; knowledge diagnoses alone"
        return Seen(name="language model", unwell=True, detail=f"{words} ({failed[0].error})")
    return Seen(name="language model", unwell=False, detail="it answers") if not failed else None


def _performance(recent: list[IncidentRecord]) -> Seen | None:
    """How many of the heals that were tried lately helped."""
    tried = [one.outcome for one in recent if one.attempt > 0 and one.outcome in (*HELPED, *FAILED_HEAL)]
    if len(tried) < FEWEST:
        return None
    share = sum(outcome in HELPED for outcome in tried) / len(tried)
    if DEGRADED <= share < RESTORED:
        return None
    return Seen(
        name="heal rate",
        unwell=share < DEGRADED,
        detail=f"{share:.0%} of the last {len(tried)} tried heals helped",
        severity=Severity.MEDIUM,
        worse="performance_degraded",
        better="performance_restored",
    )
