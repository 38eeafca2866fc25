"""One campaign: failures come in without end, everything is broken, and then everything must come right."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from evals.benchmarks.crash.fleet import Child, FakeAirflow, Fleet, open_fake, open_fleet
from evals.benchmarks.crash.judge import Event, Findings, Judging, audit_break, details_of
from evals.benchmarks.crash.zygote import Start
from graph.errors import AirmedicError, StoreUnavailable
from server.db.database import open_database, store_errors
from server.service import utc_now
from server.store import IncidentStore

MIX = {"heals": 0.75, "asks": 0.1, "again": 0.05, "broken": 0.1}  # kinds of failures, and their shares
IN_TIME = 30.0  # seconds after the last fault in which everything must have come to its end
LOOK, RETRY = 0.05, 0.05  # seconds
QUIET = 2.0  # seconds a server may take for one answer before the sender tries again


@dataclass
class Tried:
    """What the sender met with."""

    accepted: dict[Event, float] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    unproblematic: list[str] = field(default_factory=list)  #: refusals that are no problem+json
    decided: int = 0


class Campaign:
    """Failures, servers and a judge on one database."""

    def __init__(
        self,
        fleet: Fleet,
        fake: FakeAirflow,
        store: IncidentStore,
        engine: AsyncEngine,
        http: httpx.AsyncClient,
        *,
        start: Start,
        seed: int,
    ) -> None:
        self.fleet, self.fake = fleet, fake
        self.chance = random.Random(seed)
        self.start = start
        self.tried = Tried()
        self.workers = 1 if start.database_url.startswith("sqlite") else 3
        self.open = 16  #: incidents that are kept under way
        self.offset = 0.0  #: seconds the injected clock is off
        self._full = False
        self.settled_in = 0.0
        self.in_time = IN_TIME
        self._store, self._engine, self._http = store, engine, http
        self._planted = 0
        self._planting = True
        self._jobs: list[asyncio.Task[None]] = []

    # --- the world goes on ---

    async def run_world(self) -> None:
        """Failures, their telling, and people, until `close`."""
        self._jobs = [
            asyncio.create_task(job, name=name)
            for name, job in (
                ("plant", self._plant()),
                ("tell", self._tell()),
                ("decide", self._decide()),
            )
        ]

    async def close(self) -> None:
        """Nothing comes any more."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def check(self) -> None:
        """A defect of the harness is not to be waited for."""
        for job in self._jobs:
            if job.done():
                job.result()

    async def _plant(self) -> None:
        while True:
            ((ended,),) = await self.rows("SELECT count(*) FROM incident WHERE outcome IS NOT NULL")
            while self._planting and self._planted - ended < self.open:
                kind = self.chance.choices(list(MIX), list(MIX.values()))[0]
                self._planted += 1
                await self.fake.order("plant", name=f"{kind}_{self._planted}", kind=kind)
            await asyncio.sleep(LOOK)

    async def _tell(self) -> None:
        """The listener plugin: tells each event until it is answered 202, many at once."""
        heard, telling = 0, set[asyncio.Task[None]]()
        try:
            while True:
                for event in await self.fake.order("news", after=heard):
                    heard += 1
                    telling.add(task := asyncio.create_task(self._deliver(event)))
                    task.add_done_callback(telling.discard)
                await asyncio.sleep(LOOK)
        finally:
            for task in telling:
                task.cancel()

    async def _deliver(self, event: dict[str, Any]) -> None:
        while True:
            try:
                answer = await self._http.post("/webhook", json={**event, "sent_at": time.time()})
            except httpx.TransportError:
                await asyncio.sleep(RETRY)
                continue
            self.tried.answers[answer.status_code] += 1
            if answer.status_code == httpx.codes.ACCEPTED:
                if event["event"] == "task_instance_failed":
                    self.tried.accepted[event["dag_id"], event["try_number"]] = time.monotonic()
                return
            if "application/problem+json" not in answer.headers.get("content-type", ""):
                self.tried.unproblematic.append(f"{answer.status_code}: {answer.text[:200]}")
            await asyncio.sleep(RETRY)

    async def _decide(self) -> None:
        """A person who approves whatever is asked."""
        while True:
            await asyncio.sleep(0.2)
            try:
                asking = await self._store.asking()
            except AirmedicError:
                continue
            for record in asking:
                body = {"type": "approve", "version": record.version}
                try:
                    answer = await self._http.post(f"/api/incidents/{record.id}/decision", json=body)
                except httpx.TransportError:
                    continue
                self.tried.decided += answer.status_code == httpx.codes.ACCEPTED

    async def rows(self, query: str, **given: object) -> list[Any]:
        """Read the database beside the servers, when it is there again."""
        while True:
            try:
                with store_errors("looking"):
                    async with self._engine.connect() as connection:
                        return list((await connection.execute(text(query), given)).all())
            except StoreUnavailable:
                await asyncio.sleep(LOOK)

    # --- weather ---

    def forward(self, seconds: float) -> None:
        """Bend the clock of every server."""
        self.offset += seconds
        self._bend()

    @property
    def full(self) -> bool:
        """Whether the database file may not grow."""
        return self._full

    @full.setter
    def full(self, full: bool) -> None:
        self._full = full
        self._bend()

    def _bend(self) -> None:
        self.fleet.weather.bend(offset=self.offset, pages=1 if self._full else 0)

    # --- servers ---

    async def fill(self, at: str = "", *, after: int = 0) -> Child:
        """One more server, and as many as there should be; a file has one process, as it should have."""
        for other in list(self.fleet.children.values()) if self.workers == 1 else ():
            self.fleet.send(other, signal.SIGKILL)
            await self.fleet.gone(other)
        child = await self.fleet.start(at, after=after)
        while len(self.fleet.children) < self.workers:
            await self.fleet.start()
        return child

    async def settle(self) -> list[Event]:
        """The faults have stopped. The events that had no outcome in time."""
        self.full = False
        await self.fake.order("faults")
        self._planting = False
        began = time.monotonic()
        while len(self.fleet.children) < self.workers:
            await self.fleet.start()
        while True:
            self.check()
            left = await self._left()
            self.settled_in = time.monotonic() - began
            if not left or self.settled_in > self.in_time:
                return left
            await asyncio.sleep(LOOK * 4)

    def go_on(self) -> None:
        """Failures come in again."""
        self._planting = True

    async def _left(self) -> list[Event]:
        query = (
            "SELECT o.dag_id, o.try_number FROM occurrence o LEFT JOIN incident i ON i.id = o.incident_id"
            " WHERE o.status <> 'rejected' AND (i.outcome IS NULL)"
        )
        found = [(str(dag), int(number)) for dag, number in await self.rows(query)]
        told = self._planted - len({dag for dag, _ in self.tried.accepted})
        return found or ([("untold", told)] if told else [])

    async def judge(self, late: list[Event]) -> Findings:
        """Hold every promise against what is."""
        self.fleet.end()
        truth = await self.fake.order("truth")
        details = await details_of(self._store, self._engine)
        judging = Judging(truth, details, self.start.home / "history.jsonl")
        found = judging.find(accepted=list(self.tried.accepted), late=late)
        found.broken += await audit_break(self._engine, self.start.settings())
        return found


@asynccontextmanager
async def open_campaign(
    home: Path, database_url: str, *, seed: int, mutation: str = ""
) -> AsyncIterator[Campaign]:
    """Everything of one campaign, its database migrated, the world going on, no server started yet."""
    async with open_fake(seed) as fake, open_database(database_url) as engine:
        start = Start(home, database_url, fake.url, mutation)
        given = {"home": str(home), "database_url": database_url, "airflow_url": fake.url}
        async with open_fleet(given | {"mutation": mutation}, home) as fleet:
            url = f"http://127.0.0.1:{await fleet.port()}"
            limits = httpx.Limits(max_connections=64, max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=url, timeout=QUIET, limits=limits, trust_env=False) as http:
                store = IncidentStore(engine, clock=utc_now)
                campaign = Campaign(fleet, fake, store, engine, http, start=start, seed=seed)
                await campaign.run_world()
                try:
                    yield campaign
                finally:
                    await campaign.close()
