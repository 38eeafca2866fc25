"""What Prometheus reads from `GET /metrics`.

Counters come from the store (`server.observe.tally`): they survive a restart, and servers that share a
database tell the same numbers, so take `max`, not `sum`, over them. What begins with `process_` is of one
process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from graph.domain import DomainType
from graph.errors import StoreUnavailable
from server.audit.chain import AuditHead
from server.backlog import Waiting
from server.observe.pulse import Part, Pulse
from server.observe.tally import BOUNDS, Counts
from server.observe.vitals import rooms
from server.people.outbox import OutboxState
from server.service import Service

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "occurrences": ("failures that an incident took up", ("door", "kind")),
    "incidents": ("ends of incidents; only healed is a heal", ("class", "outcome")),
    "dag_incidents": ("ends of incidents by DAG (AIRMEDIC_METRICS_DAGS)", ("dag_id", "outcome")),
    "decisions": ("what policy decided", ("verdict", "mode")),
    "actions": ("writes to Airflow that came to an end", ("action", "mode", "result")),
    "verifications": ("checks after a fix", ("result",)),
    "rollbacks": ("fixes that were undone", ()),
    "step_failures": ("steps that failed and are tried again", ()),
    "early_warnings": ("what the watch warned of", ("kind",)),
    "events_dropped": ("events that the plugin had to drop", ()),
    "reconcile_missed": ("failures that only the poll found", ()),
    "llm_requests": ("calls to the language model", ("model", "outcome")),
    "llm_tokens": ("tokens", ("model", "direction")),
    "llm_cost_usd": ("what the model cost, where its price is known", ("model",)),
}
SPREADS = {
    "time_to_detect": "from the failure to its incident",
    "time_to_diagnose": "from the incident to a diagnosis",
    "time_to_recover": "from the failure to the first check that found all well",
    "approval_wait": "from a question to a person's answer",
}
PREFIX_DIGITS = 12  # of the audit trail's head; as many as a sample holds exactly
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Snapshot(DomainType):
    """What the store told for one scrape."""

    waiting: Waiting
    outbox: OutboxState
    head: AuditHead | None
    findings: dict[str, int]
    breakers: dict[str, bool]  #: by scope: overall, dag


class Metrics:
    """One application's registry."""

    def __init__(self, service: Service, pulse: Pulse) -> None:
        self._service = service
        self._pulse = pulse
        self._lock = asyncio.Lock()
        self._page = _Page(service)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._page)
        ProcessCollector(registry=self._registry)

    async def render(self) -> bytes:
        """The page. What the store does not tell now is left out."""
        async with self._lock:
            self._page.parts = await self._pulse.parts()
            try:
                self._page.counts = await self._service.observing.tally.read()
                self._page.snapshot = await self._look()
            except StoreUnavailable:
                self._page.snapshot = None
            return generate_latest(self._registry)

    async def _look(self) -> Snapshot:
        service = self._service
        findings: dict[str, int] = {}
        for one in await service.watch.findings.listed(lasting=True, limit=1000):
            findings[one.kind] = findings.get(one.kind, 0) + 1
        unwell = await service.people.conditions.unwell()
        open_ = [name for name in unwell if name.startswith("circuit breaker")]
        return Snapshot(
            waiting=await service.observing.backlog.look(),
            outbox=await service.outbox.state(),
            head=await service.audit.head(),
            findings=findings,
            breakers={
                "overall": any("overall" in name for name in open_),
                "dag": any("overall" not in name for name in open_),
            },
        )


class _Page(Collector):
    """Turns the last look into metric families."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.counts = Counts()
        self.parts: tuple[Part, ...] = ()
        self.snapshot: Snapshot | None = None

    def collect(self) -> Iterator[Metric]:
        """Everything."""
        yield InfoMetricFamily(
            "airmedic_build",
            "this Airmedic",
            value={
                "version": version("airmedic"),
                "healing": self._service.settings.healing,
                "airflow": self._service.settings.airflow_id,
            },
        )
        yield from self._counters()
        yield from self._spreads()
        yield from self._of_the_process()
        if self.snapshot is not None:
            yield from _of_the_store(self.snapshot)

    def _counters(self) -> Iterator[Metric]:
        for name, (words, labels) in COUNTERS.items():
            held = self.counts.totals.get(name, {})
            if name == "dag_incidents" and not held:
                continue
            family = CounterMetricFamily(f"airmedic_{name}", words, labels=labels)
            for key, value in sorted(held.items()):
                family.add_metric(json.loads(key), value)
            if not labels and not held:
                family.add_metric([], 0)
            yield family

    def _spreads(self) -> Iterator[Metric]:
        for name, words in SPREADS.items():
            if (spread := self.counts.spreads.get(name)) is None:
                continue
            reached, buckets = 0, []
            for bound, number in zip((*map(str, BOUNDS), "+Inf"), spread.buckets, strict=True):
                reached += number
                buckets.append((bound, reached))
            family = HistogramMetricFamily(f"airmedic_{name}_seconds", words)
            family.add_metric([], buckets, spread.total)
            yield family

    def _of_the_process(self) -> Iterator[Metric]:
        observing = self._service.observing
        up = GaugeMetricFamily("airmedic_part_up", "1 when this part is well enough to work", labels=["part"])
        slow = GaugeMetricFamily(
            "airmedic_part_degraded", "1 when it works, but not as it should", labels=["part"]
        )
        took = GaugeMetricFamily("airmedic_part_answer_seconds", "its last answer took", labels=["part"])
        for part in self.parts:
            up.add_metric([part.name], float(part.ok))
            slow.add_metric([part.name], float(part.degraded))
            if part.seconds is not None:
                took.add_metric([part.name], part.seconds)
        silent = GaugeMetricFamily(
            "airmedic_job_silent_seconds", "since a background job came round last", labels=["job"]
        )
        for name, seconds in observing.beats.silence().items():
            silent.add_metric([name], seconds)
        free = GaugeMetricFamily("airmedic_disk_free_bytes", "left on the disk under it", labels=["holds"])
        for room in rooms(self._service.settings):
            free.add_metric([room.name], room.free)
        lag = GaugeMetricFamily(
            "airmedic_event_loop_lag_seconds", "the longest that a timer was late in the last minute"
        )
        lag.add_metric([], observing.vitals.lag)
        yield from (up, slow, took, silent, free, lag)


def _gauge(name: str, words: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(f"airmedic_{name}", words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _of_the_store(seen: Snapshot) -> Iterator[Metric]:
    queue, outbox = seen.waiting.queue, seen.outbox
    pending = GaugeMetricFamily("airmedic_approvals_pending", "incidents that wait for a person")
    pending.add_metric([], queue.deciding)
    yield pending
    waits = {
        "occurrences": float(queue.occurrences),
        "incidents": float(queue.due),
        "notices": float(outbox.waiting),
    }
    yield _gauge("queue_depth", "what waits to be worked on", "queue", waits)
    oldest = GaugeMetricFamily("airmedic_queue_oldest_seconds", "since the oldest of it was due")
    oldest.add_metric([], seen.waiting.oldest)
    yield oldest
    told = {"failing": float(outbox.failing), "given_up": float(outbox.given_up)}
    yield _gauge("notices_unsent", "notices that did not reach people", "state", told)
    breakers = {scope: float(on) for scope, on in seen.breakers.items()}
    yield _gauge("breaker_state", "1 when a circuit breaker is open", "scope", breakers)
    findings = {kind: float(number) for kind, number in seen.findings.items()}
    yield _gauge("findings", "early warnings that last", "kind", findings)
    if seen.head is not None:
        # A cut tail shows as a number that fell, or a beginning that changed under the same number.
        entries = GaugeMetricFamily(
            "airmedic_audit_head_entries", "the number of the audit trail's last entry"
        )
        entries.add_metric([], seen.head.seq)
        begins = GaugeMetricFamily(
            "airmedic_audit_head_mac_prefix",
            f"its mac's first {PREFIX_DIGITS} hexadecimal digits as a number",
        )
        begins.add_metric([], int(seen.head.mac[:PREFIX_DIGITS], 16))
        yield from (entries, begins)
