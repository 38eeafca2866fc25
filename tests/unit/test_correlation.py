"""What is one cause, and what never is."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph.domain import DiagnosedBy, RootCause, TaskLog
from server.correlation import CauseLook, ReadOnce
from tests.factories import Clock, make_diagnosis
from tests.unit.storm_world import EVENT, LOG, Source, open_storm, storm, tell
from tools.correlation import FAMILIES, cause_of, kernel, names_one, resource_of
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

ROOT = Path(__file__).parents[2]
REFUSED = 'OperationalError: connection to server at "{host}", port {port} failed: Connection refused'
POOLED = "ConnectionError: HTTPConnectionPool(host='{host}', port={port}): Max retries: with url: /x?page=3"
HOSTS = st.from_regex(r"[a-z][a-z0-9]{1,8}(\.[a-z]{2,6}){1,2}", fullmatch=True)
PORTS = st.integers(1024, 65535)
NAMING = st.sampled_from(
    (
        REFUSED.format(host="db1.internal", port=5432),
        "refused by localhost:5432",
        "no slot left in pool='etl'",
        "no heartbeat from hostname: 'node-7'",
        "failed with conn_id='orders_db'",
        "no route from a.example:80 to b.example:443",
    )
)


@pytest.fixture(scope="module")
def knowledge() -> KnowledgeBase:
    return KnowledgeBase.load()


@pytest.mark.parametrize(
    ("error", "resource"),
    [
        pytest.param(EVENT, "db17.internal:5432", id="postgres"),
        pytest.param(POOLED.format(host="api.example", port=443), "api.example:443", id="urllib3"),
        pytest.param(
            "HTTPError: 503 Server Error: Service Unavailable for url: https://api.example.com/v1/items?page=3",
            "api.example.com:443",
            id="a URL has a port",
        ),
        pytest.param("(2003, \"Can't connect to MySQL server on 'db:3306' (111)\")", "db:3306", id="mysql"),
        pytest.param('could not translate host name "db9" to address', "db9", id="a name that is not found"),
        pytest.param("Connection refused by db17.internal, port 5432", "db17.internal:5432", id="in words"),
        pytest.param("AccessDenied on s3://landing/2026/x.parquet", "s3://landing", id="a bucket"),
        pytest.param("failed with conn_id='orders_db'", "conn:orders_db", id="a connection"),
        pytest.param("boom: connection refused", None, id="names nothing"),
        pytest.param("no route from a.example:80 to b.example:443", None, id="names two"),
        pytest.param("refused by localhost:5432", None, id="each machine has its own localhost"),
        pytest.param(
            "Process terminated by signal. For more information, see https://airflow.apache.org/docs/x.html",
            None,
            id="a page to read is no place",
        ),
        pytest.param(
            f"{EVENT} (Background on this error at: https://sqlalche.me/e/20/e3q8)",
            "db17.internal:5432",
            id="a page to read hides no place",
        ),
        pytest.param('File "/opt/dags/load.py:41"', None, id="a file with a line is no place"),
    ],
)
def test_the_thing_that_failed(error: str, resource: str | None) -> None:
    assert resource_of(error, "network") == resource


def test_one_machine_may_say_so() -> None:
    assert resource_of("refused by localhost:5432", "network", loopback=True) == "localhost:5432"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('[2026-03-01T03:00:04.000Z] ERROR - psycopg2.errors.X: at "h", port 1', id="a log line"),
        pytest.param('psycopg2.errors.X: at "h", port 2', id="another port number"),
        pytest.param("X: at 'h', port 1\nand more below", id="another quote, more lines"),
    ],
)
def test_the_doors_spell_one_error_alike(text: str) -> None:
    assert kernel(text) == kernel('X: at "h", port 1')


@given(HOSTS, PORTS, HOSTS, PORTS, st.sampled_from([REFUSED, POOLED]), st.sampled_from(list(FAMILIES)))
def test_different_things_never_fold(
    host: str, port: int, other: str, other_port: int, error: str, cause: RootCause
) -> None:
    one = cause_of("default", cause, error.format(host=host, port=port))
    two = cause_of("default", cause, error.format(host=other, port=other_port))

    assert one is not None
    assert two is not None
    assert (one.key == two.key) == ((host, port) == (other, other_port))


@given(st.sampled_from([cause for cause in RootCause if cause not in FAMILIES]), HOSTS, PORTS)
def test_data_and_code_never_reach_beyond_a_task(cause: RootCause, host: str, port: int) -> None:
    assert cause_of("default", cause, REFUSED.format(host=host, port=port)) is None


@given(HOSTS, PORTS, st.sampled_from(["a", "b"]))
def test_another_airflow_is_another_world(host: str, port: int, airflow: str) -> None:
    error = REFUSED.format(host=host, port=port)
    here = cause_of("a", RootCause.NETWORK_UNREACHABLE, error)
    there = cause_of(airflow, RootCause.NETWORK_UNREACHABLE, error)

    assert here is not None
    assert there is not None
    assert (here.key == there.key) == (airflow == "a")


@given(st.text(max_size=400), st.sampled_from(list(FAMILIES)))
def test_any_text_can_be_read(text: str, cause: RootCause) -> None:
    found = cause_of("default", cause, text, loopback=True)

    assert found is None or found.resource


@given(st.text(max_size=200) | NAMING, st.sampled_from(list(FAMILIES)), st.booleans())
def test_an_error_that_names_nothing_has_no_cause_to_share(
    error: str, cause: RootCause, loopback: bool
) -> None:
    if cause_of("default", cause, error, loopback=loopback) is not None:
        assert names_one(error, loopback=loopback)


async def test_event_and_log_name_the_same_cause(knowledge: KnowledgeBase) -> None:
    look = CauseLook(ReadOnce(knowledge))
    case = Case.model_validate({"log": {"text": LOG}})

    of_event = look.of_error("default", EVENT)
    of_log = await look.of_case("default", case)

    assert of_event is not None
    assert of_event.key in {one.key for one in of_log}


@pytest.mark.parametrize(
    ("line", "parted"),
    [
        pytest.param("ValueError: invalid literal for int() with base 10: 'x'", True, id="the data"),
        pytest.param("ConnectionError: refused by api.example:443", True, id="another host"),
        pytest.param("ConnectionResetError: reset by peer at db17.internal:5432", False, id="the same host"),
        pytest.param("ConnectionResetError: [Errno 104] Connection reset by peer", False, id="no host"),
        pytest.param("TimeoutError: timed out", False, id="time that ran out"),
        pytest.param("it went wrong", False, id="unknown"),
    ],
)
async def test_what_parts_a_task_from_those_that_joined_it(
    knowledge: KnowledgeBase, line: str, parted: bool
) -> None:
    look = CauseLook(ReadOnce(knowledge))
    log = TaskLog(text=f"[2026-03-01T03:00:04.000Z] ERROR - Task failed with exception\n{line}\n")

    assert await look.parted(Case(log=log), {"db17.internal:5432": "network"}) is parted


def test_what_is_not_sure_takes_nobody_in(knowledge: KnowledgeBase) -> None:
    look = CauseLook(ReadOnce(knowledge))
    doubtful = make_diagnosis(confidence=0.4)
    by_model = make_diagnosis(by=DiagnosedBy.MODEL)

    assert look._of("default", doubtful, EVENT) is None
    assert look._of("default", by_model, EVENT) is None
    assert look._of("default", make_diagnosis(), EVENT) is not None


def test_the_document_names_the_families() -> None:
    text = (ROOT / "docs" / "correlation.md").read_text()
    for cause, family in FAMILIES.items():
        assert f"`{cause.value}` | {family}" in text


ERRORS = (
    REFUSED.format(host="db1.internal", port=5432),
    REFUSED.format(host="db2.internal", port=5432),
    POOLED.format(host="api.example", port=443),
    "ValueError: invalid literal for int() with base 10: 'x'",
    "",
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ERRORS), min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_each_failure_is_in_one_incident_and_only_with_its_like(
    knowledge: KnowledgeBase, errors: list[str], rng: object
) -> None:
    """In any order: by the same cause together, by data or code alone."""

    async def run(order: list[int]) -> set[frozenset[int]]:
        clock = Clock()
        airflow, tasks = await storm(clock, Source(), len(errors))
        for number, error in enumerate(errors):
            row = airflow._row(tasks[number])
            row.logs[1] = row.logs[1].__class__(state="failed", log=f"ERROR - {error or ERRORS[0]}")
        with tempfile.TemporaryDirectory() as folder:
            async with open_storm(Path(folder), airflow, clock, knowledge, healing="shadow") as ward:
                for number in order:
                    await tell(ward, [tasks[number]], error=errors[number])
                store = ward.service.store
                groups = []
                for record in await store.incidents():
                    held = (await store.detail(record.id)).occurrences
                    groups.append([tasks.index(one.task) for one in held])
        flat = [number for group in groups for number in group]
        assert sorted(flat) == list(range(len(errors)))  # each in exactly one
        return {frozenset(group) for group in groups if group}

    order = list(range(len(errors)))
    straight = asyncio.run(run(order))
    rng.shuffle(order)  # type: ignore[attr-defined]
    assert asyncio.run(run(order)) == straight
    for group in straight:
        kinds = {errors[number] or ERRORS[0] for number in group}
        assert len(kinds) == 1
        assert len(group) == 1 or not kinds & {ERRORS[3]}
