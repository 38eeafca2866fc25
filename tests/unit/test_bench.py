"""The fault bench without an Airflow: how it counts, what it keeps, how it cuts off and answers."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.eval_faults import chosen
from evals.faults.catalogue import CATALOGUE
from evals.faults.ground import Front
from evals.faults.injections import INJECTIONS
from evals.faults.lanes import in_lanes, longest_first
from evals.faults.notebook import Notebook, forget
from evals.faults.playing import Order, as_writes
from evals.faults.relay import Relay, is_clear, open_relay
from evals.faults.report import page, write
from evals.faults.results import Result, figures, percentile
from evals.faults.twists import expired_certificate
from graph.domain import Outcome, RootCause
from graph.errors import SandboxFailed, SettingsInvalid
from server.demo.source import SourceServer, SourceState

AT = datetime(2026, 1, 1, tzinfo=UTC)


def make_result(fault: str = "F01", **given: Any) -> Result:
    row = CATALOGUE[fault]
    right = {
        "outcome": row.ends_as[0] if row.ends_as else None,
        "root_cause": row.causes[0] if row.causes else None,
        "actions": row.actions,
        "data_agrees": True,
    }
    return Result(**{"fault": fault, "repetition": 1, "at": AT, **right, **given})


# --- the figures ------------------------------------------------------------------------------------------


def test_a_run_in_which_everything_is_right() -> None:
    found = figures([make_result("F01"), make_result("F07"), make_result("F26"), make_result("F43")])

    assert (found.right, found.faults) == (4, 4)
    assert (found.cause_accuracy, found.macro_f1, found.right_action_rate) == (1, 1, 1)
    assert (found.verified_heal_rate, found.healable, found.false_heals) == (1, 2, 0)
    assert (found.abstained_rightly, found.abstained_wrongly, found.harmful_actions) == (1, 0, 0)


@pytest.mark.parametrize(
    ("given", "figure", "value"),
    [
        pytest.param({"root_cause": RootCause.TIMEOUT}, "cause_accuracy", 0.5, id="a wrong cause"),
        pytest.param({"root_cause": None}, "cause_accuracy", 0.5, id="no cause at all"),
        pytest.param({"actions": ("delete_dag",)}, "right_action_rate", 0.5, id="a wrong action"),
        pytest.param({"actions": ()}, "right_action_rate", 0.5, id="nothing done where it could heal"),
        pytest.param({"harmful": ("pause_dag is wrong",)}, "harmful_actions", 1, id="a harmful action"),
        pytest.param({"data_agrees": False}, "verified_heal_rate", 0.5, id="the data deny the heal"),
        pytest.param({"data_agrees": False}, "false_heals", 1, id="healed is claimed, the data deny it"),
        pytest.param(
            {"outcome": Outcome.RECOVERED_UNVERIFIED}, "verified_heal_rate", 0.5, id="green is no heal"
        ),
        pytest.param({"outcome": Outcome.ESCALATED}, "abstained_wrongly", 0.5, id="given up too early"),
        pytest.param({"failed": "the stage fell", "outcome": None}, "right", 1, id="not played to its end"),
    ],
)
def test_one_wrong_result_of_two(given: dict[str, Any], figure: str, value: float) -> None:
    found = figures([make_result("F01", **given), make_result("F03")])

    assert getattr(found, figure) == pytest.approx(value)


def test_what_recovered_before_a_diagnosis_needs_none() -> None:
    found = figures([make_result("F39", root_cause=None, actions=())])

    assert (found.cause_accuracy, found.per_class) == (1, {})


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [
        pytest.param([], 0.95, None, id="nothing measured"),
        pytest.param([1.0], 0.95, 1.0, id="one value"),
        pytest.param([float(n) for n in range(100)], 0.95, 95.0, id="of a hundred"),
    ],
)
def test_percentile(values: list[float], share: float, value: float | None) -> None:
    assert percentile(values, share) == value


# --- what is kept -----------------------------------------------------------------------------------------


def test_what_is_done_is_not_played_again(tmp_path: Path) -> None:
    book = Notebook(tmp_path)
    book.add(make_result("F01"))
    book.add(make_result("F03", failed="Airflow ended"))

    assert Notebook(tmp_path).done() == {("F01", 1)}


def test_the_newest_record_of_a_repetition_counts(tmp_path: Path) -> None:
    book = Notebook(tmp_path)
    book.add(make_result(failed="Airflow ended"))
    book.add(make_result())

    assert [one.failed for one in book.results()] == [""]


def test_a_fresh_start_forgets_results_and_keeps_symptoms(tmp_path: Path) -> None:
    book = Notebook(tmp_path)
    book.add(make_result("F01"))
    book.add(make_result("F03"))
    book.note_symptom("F01", AT)

    forget(tmp_path, [CATALOGUE["F01"]])

    assert [one.fault for one in book.results()] == ["F03"]
    assert list(book.shown()) == ["F01"]


def test_a_variable_made_after_a_refused_change_is_one_write() -> None:
    listed = [
        {"event": event, "dag_id": None, "run_id": None, "when": AT.isoformat()}
        for event in ("patch_variable", "post_variable", "post_clear_task_instances", "patch_pool")
    ]

    assert [one.event for one in as_writes(listed)] == [
        "post_variable",
        "post_clear_task_instances",
        "patch_pool",
    ]


def test_the_report_stands_alone_and_prints_strange_text_inert(tmp_path: Path) -> None:
    results = [make_result("F01", own=0.4, total=30), make_result("F26", objections=("<script>x</script>",))]
    write(results, tmp_path)

    html, data = (tmp_path / "report.html").read_text(), json.loads((tmp_path / "faults.json").read_text())

    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<svg") == 4
    assert data["figures"]["faults"] == 2
    assert "Not played in this run" in page(results, figures(results))


@pytest.mark.parametrize(
    "ids", [pytest.param("F99", id="no such fault"), pytest.param(" , ", id="none named")]
)
def test_what_cannot_be_chosen(ids: str) -> None:
    with pytest.raises(SettingsInvalid, match="--ids"):
        chosen(ids)


def test_without_a_choice_everything_that_can_be_played_is() -> None:
    assert {row.id for row in chosen(None)} == set(INJECTIONS)


# --- lanes ------------------------------------------------------------------------------------------------


def test_lanes_begin_with_what_takes_longest_repetition_by_repetition(tmp_path: Path) -> None:
    book = Notebook(tmp_path)
    book.add(make_result("F08", total=300))
    asked = [Order(fault=fault, repetition=number) for number in (1, 2) for fault in ("F01", "F37", "F08")]

    ordered = longest_first(asked, book.seconds())

    assert [f"{one.fault}.{one.repetition}" for one in ordered] == [
        "F08.1",
        "F37.1",
        "F01.1",
        "F08.2",
        "F37.2",
        "F01.2",
    ]


async def test_a_lane_that_cannot_start_says_why_and_loses_no_order(tmp_path: Path) -> None:
    (tmp_path / "lane-1").mkdir()
    (tmp_path / "lane-1" / "dags").write_text("a file where a folder has to be")
    told: list[str] = []
    todo = [Order(fault="F01", repetition=1)]
    played = in_lanes(todo, home=tmp_path, book=Notebook(tmp_path), tell=told.append, lanes=1)

    with pytest.raises(SandboxFailed, match="lane 1 has ended"):
        await anext(played)

    assert len(told) == 2, "it was tried again before it was given up"


# --- what has to be shown ---------------------------------------------------------------------------------


def test_exhibits_get_files_of_their_own_and_a_place_on_the_page(tmp_path: Path) -> None:
    same, other = '{"pools/p":{"slots":2}}', '{"pools/p":{"slots":0}}'
    entry = {"attempt": 1, "position": 0, "action": {"name": "clear_task"}, "step": "confirmed", "key": "k"}
    logged = [{"when": AT.isoformat(), "event": "post_clear_task_instances", "owner": "airmedic"}]
    results = [
        make_result("F01", exhibits={"policy_auto": "auto, decided by <rule>"}),
        make_result("F42", exhibits={"ledger": [entry], "airflow_event_log": logged, "tries": []}),
        make_result("F35", exhibits={"world": {"before": same, "question 2": same, "after": other}}),
    ]
    write([one.model_copy(update={"lanes": 2}) for one in results], tmp_path)

    html = (tmp_path / "report.html").read_text()
    assert (tmp_path / "policy_auto.txt").read_text() == "auto, decided by <rule>\n"
    assert json.loads((tmp_path / "f42_ledger.json").read_text())["ledger"] == [entry]
    assert "auto, decided by &lt;rule&gt;" in html
    assert "question 2 (byte for byte as before)" in html
    assert "after (not as before)" in html
    assert "post_clear_task_instances" in html
    assert "2 at the same time" in html


# --- the relay --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "clear"),
    [
        pytest.param(b'POST /d/clearTaskInstances\r\n\r\n{"dry_run": false}', True, id="in earnest"),
        pytest.param(b'POST /d/clearTaskInstances\r\n\r\n{"dry_run": true}', False, id="a dry run"),
        pytest.param(b'PATCH /variables/x\r\n\r\n{"dry_run": false}', False, id="another write"),
    ],
)
def test_a_clear_is_known(request_bytes: bytes, clear: bool) -> None:
    assert is_clear(request_bytes) is clear


async def test_a_lost_answer_was_given_and_then_nobody_is_there() -> None:
    async with (
        SourceServer(SourceState()) as source,
        open_relay(source.port, cut_on=lambda seen: b"/api/departments" in seen, away=0.2) as relay,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{relay.port}", trust_env=False) as client,
    ):
        first = await client.get("/api/employees?limit=1")
        with pytest.raises(httpx.TransportError):
            await client.get("/api/departments")
        with pytest.raises(httpx.TransportError):
            await client.get("/api/employees?limit=1")
        assert relay.back is not None
        await relay.back
        last = await client.get("/api/departments")
        seen = [one.path for one in source.state.requests]

    assert (first.status_code, last.status_code, relay.cuts) == (200, 200, 1)
    assert seen == ["/api/employees", "/api/departments", "/api/departments"]


async def test_the_expired_certificate_is_refused_for_its_age(tmp_path: Path) -> None:
    made, key = expired_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    async with SourceServer(SourceState()) as source:
        relay = Relay(source.port, tls=context)
        await relay.start()
        trusting = ssl.create_default_context(cafile=str(made))
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            with pytest.raises(httpx.ConnectError, match="certificate has expired"):
                await client.get(f"https://127.0.0.1:{relay.port}/api/departments")
        await relay.aclose()


async def test_while_airmedic_is_off_what_is_told_is_taken_and_forgotten() -> None:
    transport = httpx.ASGITransport(app=Front())
    async with httpx.AsyncClient(transport=transport, base_url="http://airmedic") as client:
        answer = await client.post("/webhook", json={"event": "task_instance_failed"})

    assert answer.status_code == 202
