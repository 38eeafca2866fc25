"""Lists and searches of incidents, on both databases: what is found, in which order, page by page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.domain import Outcome, RootCause, Severity, Status
from graph.errors import QueryInvalid
from server import listing
from server.db.tables import IncidentRow
from server.listing import IncidentQuery, Listing
from tests.factories import START

BASE: dict[str, Any] = {
    "airflow": "default",
    "dag_id": "orders_daily",
    "task_id": "load",
    "kind": "failure",
    "map_index": -1,
    "try_number": 1,
    "operator": "PythonOperator",
    "severity": "high",
    "status": "closed",
    "outcome": "healed",
    "root_cause": "timeout",
    "reason": "all is well",
    "version": 1,
    "attempt": 1,
    "failures": 0,
    "epoch": 0,
}
ROWS: list[dict[str, Any]] = [
    {},
    {"dag_id": "billing", "severity": "low", "outcome": "escalated", "status": "escalated"},
    {"task_id": "publish", "root_cause": "rate_limited", "operator": "BashOperator"},
    {"status": "waiting_decision", "outcome": None, "reason": ""},
    {"dag_id": "Café.größe", "reason": "100% of 'rows' \\ lost; x"},
]


@pytest.fixture
async def incidents(engine: AsyncEngine) -> Listing:
    """Five incidents, an hour apart."""
    async with engine.begin() as connection:
        for number, given in enumerate(ROWS, 1):
            opened = START + timedelta(hours=number)
            values = {
                **BASE,
                "id": number,
                "run_id": f"manual__{number}",
                "opened_at": opened,
                "updated_at": opened + timedelta(hours=10 - 2 * number),
                "diagnosis": {"summary": f"host db{number}.internal refused"},
                **given,
            }
            await connection.execute(insert(IncidentRow).values(**values))
    return Listing(engine)


async def found(incidents: Listing, **given: Any) -> list[int]:
    query = IncidentQuery.model_validate(given)
    page = await incidents.page(query, cursor=None, limit=50)
    if query.sort != "updated":
        assert await incidents.count(query) == len(page.items)
    return [one.id for one in page.items]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, [5, 4, 3, 2, 1], id="newest first"),
        pytest.param({"sort": "oldest"}, [1, 2, 3, 4, 5], id="oldest first"),
        pytest.param({"sort": "updated"}, [1, 2, 3, 4, 5], id="last changed first"),
        pytest.param({"statuses": [Status.CLOSED]}, [5, 3, 1], id="a status"),
        pytest.param({"statuses": [Status.ESCALATED, Status.WAITING_DECISION]}, [4, 2], id="two statuses"),
        pytest.param({"outcomes": [Outcome.ESCALATED]}, [2], id="an outcome"),
        pytest.param({"severities": [Severity.LOW]}, [2], id="a severity"),
        pytest.param({"severities": [Severity.LOW], "sort": "updated"}, [2], id="a severity, last changed"),
        pytest.param({"causes": [RootCause.RATE_LIMITED]}, [3], id="a cause"),
        pytest.param({"dags": ["orders_daily"]}, [4, 3, 1], id="a dag"),
        pytest.param({"dags": ["orders"]}, [], id="a name is whole"),
        pytest.param({"dags": ["Café.größe"]}, [5], id="a name beyond ASCII"),
        pytest.param({"tasks": ["publish"], "dags": ["billing"]}, [], id="all filters hold"),
        pytest.param({"operators": ["BashOperator"]}, [3], id="an operator"),
        pytest.param({"since": START + timedelta(hours=3)}, [5, 4, 3], id="since"),
        pytest.param({"until": START + timedelta(hours=3)}, [2, 1], id="until"),
        pytest.param(
            {
                "since": START + timedelta(hours=2),
                "until": START + timedelta(hours=5),
                "dags": ["orders_daily"],
                "sort": "oldest",
            },
            [3, 4],
            id="a time and a filter",
        ),
        pytest.param({"text": "billing"}, [2], id="a word"),
        pytest.param({"text": "BILLING Refused"}, [2], id="words in any case"),
        pytest.param({"text": "orders_daily db3"}, [3], id="a name is its words"),
        pytest.param({"text": "manual__4"}, [4], id="a run"),
        pytest.param({"text": "intern"}, [5, 4, 3, 2, 1], id="the last word may be a beginning"),
        pytest.param({"text": "intern db1"}, [], id="only the last"),
        pytest.param({"text": "rate limited"}, [3], id="a cause in words"),
        pytest.param({"text": "größe"}, [5], id="a word beyond ASCII"),
        pytest.param({"text": "rows \\ ' \" lost* (x)"}, [5], id="signs mean nothing"),
        pytest.param({"text": "%"}, [5, 4, 3, 2, 1], id="only signs: everything"),
        pytest.param({"text": "NOT OR AND NEAR"}, [], id="no operators"),
        pytest.param(
            {"text": "refused", "statuses": [Status.CLOSED], "sort": "oldest"},
            [1, 3, 5],
            id="words and a filter",
        ),
        pytest.param({"text": "nowhere"}, [], id="what is nowhere"),
    ],
)
async def test_what_is_found(incidents: Listing, given: dict[str, Any], expected: list[int]) -> None:
    assert await found(incidents, **given) == expected


@pytest.mark.parametrize("sort", ["newest", "oldest", "updated"])
@pytest.mark.parametrize("words", ["", "refused"])
async def test_pages_hold_everything_once(incidents: Listing, sort: Any, words: str) -> None:
    if sort == "updated" and words:
        pytest.skip("a search is not sorted by update")
    query = IncidentQuery(sort=sort, text=words)
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(5):
        page = await incidents.page(query, cursor=cursor, limit=2)
        seen += [one.id for one in page.items]
        cursor = page.next
        if cursor is None:
            break

    assert cursor is None
    assert seen == await found(incidents, sort=sort, text=words)


async def test_a_far_match_is_found_beyond_the_first_rows_looked_at(
    incidents: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "NEAR", 2)

    assert await found(incidents, text="refused", dags=["orders_daily"]) == [4, 3, 1]
    assert await found(incidents, text="refused", sort="oldest") == [1, 2, 3, 4, 5]


async def test_a_walk_by_update_ends_short_and_goes_on(
    incidents: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "WALKED", 2)
    query = IncidentQuery(sort="updated", severities=(Severity.LOW,), dags=("billing",))
    first = await incidents.page(query, cursor=None, limit=5)
    second = await incidents.page(query, cursor=first.next, limit=5)

    assert ([one.id for one in first.items], [one.id for one in second.items]) == ([2], [])
    assert first.next is not None


async def test_counting_stops(incidents: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "COUNTED", 3)

    assert await incidents.count(IncidentQuery()) == 4
    assert await incidents.count(IncidentQuery(text="refused")) == 4


@pytest.mark.parametrize(
    ("given", "cursor"),
    [
        pytest.param({"sort": "updated", "text": "refused"}, None, id="a search by update"),
        pytest.param({"sort": "updated"}, "5", id="a cursor of ids, by update"),
        pytest.param({}, "5-5", id="a cursor of updates, by id"),
        pytest.param({"sort": "updated"}, "999999999999999999-1", id="a place beyond time"),
    ],
)
async def test_what_cannot_be_read_is_said(incidents: Listing, given: dict[str, Any], cursor: str) -> None:
    with pytest.raises(QueryInvalid):
        await incidents.page(IncidentQuery.model_validate(given), cursor=cursor, limit=5)


async def test_the_index_follows_what_changes(incidents: Listing, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        changed = {"status": "closed", "outcome": "healed", "diagnosis": {"summary": "disk of db9 full"}}
        await connection.execute(update(IncidentRow).where(IncidentRow.id == 4).values(**changed))  # type: ignore[arg-type]
        await connection.execute(delete(IncidentRow).where(IncidentRow.id == 1))  # type: ignore[arg-type]

    assert await found(incidents, statuses=[Status.WAITING_DECISION]) == []
    assert await found(incidents, statuses=[Status.CLOSED]) == [5, 4, 3]
    assert await found(incidents, text="db4") == []
    assert await found(incidents, text="disk full") == [4]
    assert await found(incidents, text="db1") == []


async def test_texts_of_any_length_are_indexed(incidents: Listing, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        long = {"reason": "ü" * 100_000, "task_id": "ä" * 1000, "diagnosis": {"summary": "ö" * 9000}}
        await connection.execute(update(IncidentRow).where(IncidentRow.id == 2).values(**long))  # type: ignore[arg-type]

    assert await found(incidents, tasks=["ä" * 1000]) == [2]


async def test_no_migration_loses_the_index(engine: AsyncEngine) -> None:
    """A table that a migration copies loses its triggers in SQLite; in Postgres a column could go."""
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            asked = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'incident'"
            assert (await connection.execute(text(asked))).scalar_one() == 3
        else:
            asked = "SELECT count(*) FROM pg_indexes WHERE indexname = 'incident_words'"
            assert (await connection.execute(text(asked))).scalar_one() == 1
