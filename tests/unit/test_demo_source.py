"""The demo source: deterministic when healthy, wrong in exactly the way a fault says."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from server.demo.source import (
    EMPLOYEES,
    Row,
    SourceFaults,
    SourceServer,
    SourceState,
    create_source,
    healthy_rows,
    rows,
)


def client(state: SourceState) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_source(state)), base_url="http://source")


async def test_pages_add_up_to_the_declared_total() -> None:
    async with client(SourceState()) as source:
        pages = [(await source.get("/api/employees", params={"offset": o})).json() for o in (0, 50, 100)]

    assert {page["total"] for page in pages} == {EMPLOYEES}
    assert [row for page in pages for row in page["employees"]] == healthy_rows()


def test_keys_and_mails_are_unique() -> None:
    given = healthy_rows()

    assert len({row["id"] for row in given}) == EMPLOYEES
    assert len({row["email"] for row in given}) == EMPLOYEES


@pytest.mark.parametrize(
    ("faults", "holds"),
    [
        pytest.param(
            SourceFaults(renamed={"email": "email_address"}),
            lambda given: "email" not in given[0] and "@" in given[0]["email_address"],
            id="a renamed column keeps its values",
        ),
        pytest.param(
            SourceFaults(extra=("nickname",)),
            lambda given: given[0]["nickname"] is None and given[1]["nickname"],
            id="a new column is nullable",
        ),
        pytest.param(
            SourceFaults(dropped=("email",)),
            lambda given: "email" not in given[0],
            id="a dropped column is gone",
        ),
        pytest.param(
            SourceFaults(separators=True), lambda given: given[0]["salary"] == "53,700", id="salaries as text"
        ),
        pytest.param(
            SourceFaults(date_format="%d/%m/%Y"),
            lambda given: given[0]["hired_on"] == "30/01/2015",
            id="dates in another format",
        ),
        pytest.param(
            SourceFaults(lacking="email", lacking_fraction=0.02),
            lambda given: sum(row["email"] is None for row in given) == 2,
            id="two per cent of 120 rows lack a value",
        ),
        pytest.param(
            SourceFaults(lacking="email", lacking_fraction=0.4),
            lambda given: sum(row["email"] is None for row in given) == 48,
            id="forty per cent lack a value",
        ),
        pytest.param(SourceFaults(duplicates=5), lambda given: len(given) == 125, id="rows that come twice"),
        pytest.param(SourceFaults(empty=True), lambda given: given == [], id="no rows"),
    ],
)
def test_a_fault_changes_the_rows(faults: SourceFaults, holds: Callable[[list[Row]], bool]) -> None:
    assert holds(rows(faults))


async def test_a_status_fault_answers_with_its_header_and_is_logged() -> None:
    state = SourceState(faults=SourceFaults(status=429, retry_after=20))
    async with client(state) as source:
        answer = await source.get("/api/employees")

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "20")
    assert [(seen.path, seen.status) for seen in state.requests] == [("/api/employees", 429)]


async def test_a_stopped_server_refuses_and_comes_back_on_the_same_port() -> None:
    async with SourceServer(SourceState()) as server, httpx.AsyncClient(trust_env=False) as source:
        url = f"http://127.0.0.1:{server.port}/api/departments"
        assert (await source.get(url)).status_code == 200

        await server.stop()
        with pytest.raises(httpx.ConnectError):
            await source.get(url)

        await server.start()
        assert (await source.get(url)).status_code == 200
