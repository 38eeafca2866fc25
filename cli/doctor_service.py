"""`airmedic doctor`, the part about the service itself: tokens, probes, early warnings, the queue, traces."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from cli.doctor import Finding, fail, ok, warn
from graph.errors import AirmedicError, SettingsInvalid
from server.access.doorkeeper import Doorkeeper
from server.access.entry import api_token, cors_origins
from server.access.tokens import TokenStore
from server.backlog import LATE, TOO_LATE, Backlog
from server.db.checkup import look_at_database
from server.db.database import engine_url
from server.observe.telemetry import wants_langsmith, wants_spans
from server.settings import Settings
from server.store import IncidentStore
from server.watch.findings import Findings
from tools.knowledge import KnowledgeBase
from tools.probes import Probes, parse_probes

SOON = timedelta(days=7)  # before a token expires


def _now() -> datetime:
    return datetime.now(UTC)


async def check_service(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Finding]:
    """What needs the database only when it is there, and changes nothing in it."""
    if await _ours(settings):
        engine = create_async_engine(engine_url(settings.database_url))
        try:
            yield await _tokens(settings, engine)
            yield await _queue(engine)
            yield await _warnings(engine)
        except AirmedicError as exc:
            yield fail("database", str(exc), "check that it runs, and what its own log says")
        finally:
            await engine.dispose()
    yield await _start(settings)
    async for finding in _probes(settings):
        yield finding
    yield _traces(os.environ if environ is None else environ)


async def _ours(settings: Settings) -> bool:
    try:
        state = await look_at_database(settings.database_url)
    except AirmedicError:
        return False
    return state.schema == state.newest


async def has_good_token(settings: Settings) -> bool:
    """Whether somebody could sign in with a token of the database, which is left as it is."""
    if not await _ours(settings):
        return False
    engine = create_async_engine(engine_url(settings.database_url))
    try:
        return await TokenStore(engine, clock=_now).let_in()
    except AirmedicError:
        return False  # the database is told of by its own findings
    finally:
        await engine.dispose()


async def _tokens(settings: Settings, engine: AsyncEngine) -> Finding:
    name, now = "tokens", _now()
    live = [one for one in await TokenStore(engine, clock=_now).listed() if one.revoked_at is None]
    good = [one for one in live if one.expires_at is None or one.expires_at > now]
    soon = [one.name for one in good if one.expires_at is not None and one.expires_at <= now + SOON]
    if live and not good and api_token(settings) is None:
        return fail(name, "all of them have expired", "make a new one: `airmedic token create`")
    if soon:
        todo = "make new ones with `airmedic token create`, and revoke these"
        return warn(name, f"expire within {SOON.days} days: {', '.join(soon)}", todo)
    if not good:
        return ok(name, "none; whoever may call is said under access")
    return ok(name, f"{len(good)} in use, roles: {', '.join(sorted({one.role.value for one in good}))}")


async def _queue(engine: AsyncEngine) -> Finding:
    store = IncidentStore(engine, clock=_now)
    waits = await Backlog(engine, store=store, clock=_now).look()
    queue = waits.queue
    seen = f"{queue.occurrences} failures to look at, {queue.due} incidents due, {queue.deciding} questions"
    if waits.oldest > LATE:
        seen += f"; the oldest has waited for {waits.oldest / 60:.0f} minutes"
        todo = "is `airmedic serve` running? Its /readyz says which job hangs"
        return fail("queue", seen, todo) if waits.oldest > TOO_LATE else warn("queue", seen, todo)
    return ok("queue", seen)


async def _warnings(engine: AsyncEngine) -> Finding:
    lasting = await Findings(engine, clock=_now).listed(lasting=True, limit=100)
    if not lasting:
        return ok("early warnings", "none lasts")
    first = "; ".join(one.text for one in lasting[:3])
    more = f"; and {len(lasting) - 3} more" if len(lasting) > 3 else ""
    return warn("early warnings", f"{first}{more}", "look at these before they become failures")


async def _start(settings: Settings) -> Finding:
    """What `airmedic serve` reads before it listens, and no other check does."""
    try:
        cors_origins(settings)
        KnowledgeBase.load(settings.knowledge)
        await Doorkeeper(settings).close()
    except SettingsInvalid as exc:
        return fail("start", str(exc), "mend it: `airmedic serve` does not start with it")
    return ok("start", "rates, sign-in, origins and knowledge can be read")


async def _probes(settings: Settings) -> AsyncIterator[Finding]:
    name = "probes"
    try:
        probes = parse_probes(settings.probes)
    except SettingsInvalid as exc:
        yield fail(name, str(exc), "mend AIRMEDIC_PROBES: host:port or URLs, comma-separated")
        return
    if not probes:
        todo = "name what your tasks depend on in AIRMEDIC_PROBES: a retry then waits until it answers"
        yield warn(name, "none: a retry after an outage waits a fixed time", todo)
    for probe in probes:
        reading = await Probes((probe,)).look([probe.host])
        if reading is None or reading.up:
            yield ok(f"probe: {probe.url}", "answers")
        else:
            todo = "if it should be up, look there; else it is spelled wrongly, or not reachable from here"
            yield warn(f"probe: {probe.url}", reading.detail, todo)


def _traces(environ: Mapping[str, str]) -> Finding:
    on = [
        words
        for words, wanted in (
            ("OpenTelemetry spans are sent", wants_spans(environ)),
            ("LangSmith runs are sent, redacted", wants_langsmith(environ)),
        )
        if wanted
    ]
    if wants_langsmith(environ) and not environ.get("LANGSMITH_API_KEY"):
        return warn(
            "traces", "LANGSMITH_TRACING is on without LANGSMITH_API_KEY", "set the key, or turn it off"
        )
    return ok("traces", ", ".join(on) or "none are sent")
