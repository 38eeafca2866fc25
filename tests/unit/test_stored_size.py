"""What a closed incident leaves behind: little, whatever the size of its log, and all of it still found."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from evals.benchmarks.herd import LOG, heal_all, open_herd
from graph.domain import Outcome
from server.audit.chain import AuditKeys
from server.audit.trail import AuditTrail
from server.db.database import MIGRATIONS, open_database
from server.db.packed import ENTRY, pack
from server.db.tables import EventRow
from server.record import LogQuery
from server.store import IncidentStore
from tests.factories import Clock

LONG_LOG = (
    "".join(f"[2026-03-01T02:59:00.000Z] INFO - row {n} of the table read\n" for n in range(9000)) + LOG
)
MOST = 6400  # bytes
SAID = "everything that was said of it " * 10
LINES: list[Any] = [
    pytest.param({"reason": SAID}, bytes, id="a long line"),
    pytest.param({"reason": "short"}, str, id="a short line"),
    pytest.param(
        {"outcome": "healed", "checks": [{"detail": SAID}]}, str, id="a check, found by its outcome"
    ),
    pytest.param({"model": {"model": "m"}, "summary": SAID}, str, id="a diagnosis that used the model"),
]


@pytest.mark.parametrize(
    ("count", "log"), [pytest.param(60, LOG, id="short logs"), pytest.param(12, LONG_LOG, id="512 kB of log")]
)
async def test_a_closed_incident_takes_little_apart_from_its_log(
    count: int, log: str, tmp_path: Path
) -> None:
    file = tmp_path / "store.db"
    async with open_herd(f"sqlite:///{file}", tmp_path) as (service, herd, clock):
        await heal_all(service, clock, [await herd.add(f"before_{n}", n) for n in range(20)])
        before = used(file)
        await heal_all(service, clock, [await herd.add(f"dag_{n}", n, log=log) for n in range(count)])
        healed = (await service.store.outcomes())[Outcome.HEALED]

    assert healed == 20 + count
    assert (used(file) - before) / count <= MOST


def used(file: Path) -> int:
    """Bytes that are in use in all tables and indexes but the logs', which are there once, compressed.

    The search index merges its parts now and then: it counts as it is when that is done.
    """
    copy = file.with_suffix(".copy")
    with closing(sqlite3.connect(file)) as raw, closing(sqlite3.connect(copy)) as other:
        raw.backup(other)
        other.execute("DELETE FROM log")
        other.execute("INSERT INTO incident_words(incident_words) VALUES('optimize')")
        other.commit()
        other.execute("VACUUM")
    size = copy.stat().st_size
    copy.unlink()
    return size


@pytest.mark.parametrize(("data", "kind"), LINES)
async def test_a_line_of_the_log_is_packed_and_found(data: Any, kind: type, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    clock = Clock()
    async with open_database(f"sqlite:///{file}") as engine:
        store = IncidentStore(engine, clock=clock)
        async with engine.begin() as connection:
            await connection.execute(
                insert(EventRow).values(at=clock(), name="line", level="info", data=data)
            )
        for word in ("everything THAT", "short", "nowhere"):
            found, _ = await store.log_page(LogQuery(text=word))
            assert [one.data for one in found] == ([data] if word.lower() in str(data) else [])

    with closing(sqlite3.connect(file)) as raw:
        ((stored,),) = raw.execute("SELECT data FROM event").fetchall()
    assert type(stored) is kind


def migrate(connection: Connection, version: str) -> None:
    """To this version, either way."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    (command.downgrade if version == "0011" else command.upgrade)(config, version)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_store_of_before_goes_on_and_goes_back(kind: str, new_database: Any) -> None:
    async with open_database(new_database(kind)) as engine:
        line = {"at": Clock()(), "name": "line", "level": "info"}
        trail = AuditTrail(engine, keys=AuditKeys(), clock=Clock())
        await trail.note("decided", by="rule", why=SAID)
        async with engine.begin() as connection:
            await connection.execute(insert(EventRow).values(**line, data={"reason": SAID}))
            await connection.run_sync(migrate, "0011")
            for stored in ("SELECT data FROM event", "SELECT body FROM audit"):
                # as the program of before reads it
                assert SAID.strip() in str((await connection.execute(text(stored))).scalar_one())
            with pytest.raises(DBAPIError, match="append-only"):
                async with connection.begin_nested():
                    await connection.execute(text("UPDATE audit SET kind = 'x'"))
        async with engine.begin() as connection:
            await connection.run_sync(migrate, "head")
            await connection.execute(insert(EventRow).values(**line, data={"reason": SAID + "again"}))
            read = await connection.execute(select(col(EventRow.data)).order_by(col(EventRow.id)))
            assert list(read.scalars()) == [{"reason": SAID}, {"reason": SAID + "again"}]
        await trail.note("decided", by="rule", why="later")
        check, broken = await trail.verify()
        assert (check.seq, broken) == (2, None)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x02\x00\xff\x13", id="packed text that is none"),
        pytest.param(pack("{}", ENTRY)[:-1], id="cut off"),
        pytest.param(pack("{}", ENTRY) + b"more", id="something behind it"),
        pytest.param(b"\x07whatever", id="of no known version"),
        pytest.param(b'{"seq":2}', id="bytes that were never packed"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_an_audit_entry_that_was_tampered_with_goes_back_as_it_is(body: bytes, tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path}/store.db") as engine:
        trail = AuditTrail(engine, keys=AuditKeys(), clock=Clock())
        for number in (1, 2, 3):
            await trail.note("decided", by="rule", why=f"{number}: {SAID}")
        async with engine.begin() as connection:
            guard = await connection.execute(
                text("SELECT sql FROM sqlite_master WHERE name = 'audit_no_update'")
            )
            await connection.execute(text("DROP TRIGGER audit_no_update"))
            await connection.execute(text("UPDATE audit SET body = :body WHERE seq = 2"), {"body": body})
            await connection.execute(text(guard.scalar_one()))
        async with engine.begin() as connection:
            await connection.run_sync(migrate, "0011")
            bodies = await connection.execute(text("SELECT body FROM audit ORDER BY seq"))
            first, second, third = bodies.scalars()
        async with engine.begin() as connection:
            await connection.run_sync(migrate, "head")
        _, broken = await trail.verify()

    assert (json.loads(first)["seq"], second, json.loads(third)["seq"]) == (1, body, 3)
    assert broken is not None
    assert broken.seq == 2
