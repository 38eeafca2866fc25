"""`airmedic doctor`, the part about people being told and the audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import create_async_engine

from cli.doctor import Finding, fail, ok, warn
from graph.errors import AirmedicError, SettingsInvalid, StoreUnavailable
from server.audit.read import open_trail
from server.db.checkup import look_at_database
from server.db.database import engine_url
from server.people.apprise_door import AppriseDoor
from server.people.outbox import read_state
from server.people.people import audit_keys, routing_of
from server.settings import Settings


async def check_people(settings: Settings) -> AsyncIterator[Finding]:
    """Whom notices reach and whether they do, and whether the audit trail is whole."""
    known = await _ours(settings)
    yield _targets(settings)
    if known:
        async for finding in _delivery(settings):
            yield finding
    yield await _trail(settings, known=known)


async def _ours(settings: Settings) -> bool:
    """Whether the database has the tables of this version."""
    try:
        state = await look_at_database(settings.database_url)
    except AirmedicError:
        return False
    return state.schema == state.newest


def _targets(settings: Settings) -> Finding:
    name = "notifications"
    try:
        routing = routing_of(settings)
        if routing is None:
            todo = "set AIRMEDIC_NOTIFY_URLS to Apprise URLs, so that a question does not wait unseen"
            return warn(name, "nobody is told of questions and escalations", todo)
        door = AppriseDoor(routing.urls)
    except SettingsInvalid as exc:
        return fail(name, str(exc), "mend AIRMEDIC_NOTIFY_URLS, or the file that AIRMEDIC_NOTIFY names")
    names = ", ".join(door.name(url) for url in routing.urls)
    if settings.public_url is None:
        todo = "set AIRMEDIC_PUBLIC_URL, so that links in messages work on other machines"
        return warn(name, f"go to {names}; their links lead to this machine", todo)
    return ok(name, f"go to {names}")


async def _delivery(settings: Settings) -> AsyncIterator[Finding]:
    engine = create_async_engine(engine_url(settings.database_url))
    try:
        state = await read_state(engine)
    except StoreUnavailable:
        return  # the database's own check says so
    finally:
        await engine.dispose()
    if state.given_up or state.failing:
        seen = f"{state.failing} messages fail, {state.given_up} were given up; the last: {state.last_error}"
        yield warn("delivery", seen, "check the target's address and whether it can be reached from here")
    else:
        yield ok("delivery", f"{state.sent} notices sent, {state.waiting} waiting")


async def _trail(settings: Settings, *, known: bool) -> Finding:
    name = "audit trail"
    todo = "set AIRMEDIC_AUDIT_KEY (`openssl rand -hex 32`) and keep it away from the database"
    try:
        keyed = audit_keys(settings).keyed
        seen = "not begun yet"
        if known:
            async with open_trail(settings) as trail:
                check, broken = await trail.verify()
            if broken is not None:
                return fail(
                    name, f"broken at entry {broken.seq}: {broken.why}", "see `airmedic audit verify`"
                )
            seen = f"whole, {check.seq} entries at {datetime.now(UTC):%H:%M} UTC"
    except AirmedicError as exc:
        return fail(name, str(exc), "mend AIRMEDIC_AUDIT_KEY, or see `airmedic audit verify`")
    if not keyed:
        return warn(name, f"{seen}, without a key: who can write the database can rewrite it unseen", todo)
    return ok(name, f"{seen}, under a key")
