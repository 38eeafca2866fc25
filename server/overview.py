"""The whole at one look: pipelines, the model's health, and the figures of a window."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Literal

from graph.domain import Outcome, Status
from server.listing import IncidentQuery
from server.observe.figures import TIMES, Story, buckets, spread
from server.observe.machine import MachineWatch
from server.pipelines import Pipelines, success_rate
from server.record import LogQuery
from server.schemas_overview import (
    AgentFigures,
    BucketOut,
    BusinessFigures,
    HealthOut,
    PipelineFigures,
    PipelineOut,
    QueueOut,
    SpreadOut,
    SummaryOut,
    SystemFigures,
)
from server.service import Service

# Of these none could have been healed by a fix of ours.
NOTHING_TO_HEAL = (Outcome.DISMISSED, Outcome.SELF_RECOVERED, Outcome.JOINED)
SILENT = ("failed", "over_limit")  # how asking the model ends when nothing came back
OPEN = tuple(one for one in Status if one is not Status.CLOSED)


class Overview:
    """Remembers what may not be asked at every look."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pipelines = Pipelines(store=service.store, airflow=service.airflow, clock=service.clock)
        self._machine = MachineWatch(service.settings.database_url)

    async def pipelines(self, *, ask: bool) -> tuple[list[PipelineOut], float | None]:
        """Each pipeline with its last runs and open incidents; and the share of runs that succeeded."""
        known = await self._pipelines.read(ask=ask)
        page = await self._service.store.listing.page(IncidentQuery(statuses=OPEN), cursor=None, limit=200)
        still = Counter(one.task.dag_id for one in page.items)
        shown = [
            PipelineOut.model_validate({**one.model_dump(), "open_incidents": still[one.dag_id]})
            for one in known
        ]
        return shown, success_rate(known)

    async def model(self) -> HealthOut:
        """How the language model did when it was asked last."""
        if self._service.settings.llm_model is None:
            return HealthOut(name="model", state="off", detail="no language model is configured")
        last, _ = await self._service.store.log_page(
            LogQuery(node="diagnose", newest=True), cursor=0, limit=50
        )
        for event in last:
            told = event.data.get("model") if isinstance(event.data, dict) else None
            if isinstance(told, dict):
                failed = told.get("outcome") in SILENT
                return HealthOut(
                    name="model", state="unwell" if failed else "well", detail=str(told.get("error") or "")
                )
        return HealthOut(name="model", state="unknown", detail="not asked lately")

    async def summary(
        self, window: Literal["day", "week", "month"], *, length: timedelta, step: timedelta
    ) -> SummaryOut:
        """The figures of the window that ends now."""
        now = self._service.clock()
        since = now - length
        counted = await self._service.store.figures.count(since=since, now=now)
        stories, model = counted.stories, counted.model
        known = await self._pipelines.read()
        series = buckets(stories, since=since, now=now, step=step)
        return SummaryOut(
            window=window,
            since=since,
            until=now,
            step=step.total_seconds(),
            complete=counted.complete,
            pipeline=PipelineFigures(
                incidents=len(stories),
                causes=dict(Counter(one.cause for one in stories if one.cause is not None)),
                success_rate=success_rate(known),
            ),
            agent=agent_figures(stories),
            system=SystemFigures(
                **self._machine.look().model_dump(), queue=QueueOut.model_validate(counted.queue)
            ),
            business=BusinessFigures(
                model_asked=model.asked,
                input_tokens=model.input_tokens,
                output_tokens=model.output_tokens,
                cost_usd=model.cost_usd,
            ),
            series=[BucketOut.model_validate(one) for one in series],
        )


def agent_figures(stories: tuple[Story, ...]) -> AgentFigures:
    """What became of these incidents, and how long it took."""
    outcomes = Counter(one.outcome for one in stories if one.outcome is not None)
    to_heal = sum(number for outcome, number in outcomes.items() if outcome not in NOTHING_TO_HEAL)
    took = {name: SpreadOut.model_validate(spread(one.took(name) for one in stories)) for name in TIMES}
    return AgentFigures(
        outcomes=dict(outcomes),
        open=sum(one.outcome is None for one in stories),
        heal_rate=round(outcomes[Outcome.HEALED] / to_heal, 4) if to_heal else None,
        approvals_asked=sum("asked" in one.moments for one in stories),
        approvals_answered=sum("answered" in one.moments for one in stories),
        **took,
    )
