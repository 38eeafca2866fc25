"""The demo's live view: what a pipeline logs is shown as words, whatever it holds."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydantic import JsonValue
from rich.console import Console

from cli.demo import Show, chosen, table_of
from cli.words import line_of
from evals.faults.catalogue import CATALOGUE
from evals.faults.oracle import DataVerdict
from evals.faults.play import Played, Timings
from evals.faults.sandbox import Sandbox
from evals.faults.stage import stage_settings
from evals.faults.world import Layout
from graph.domain import Outcome
from graph.errors import SettingsInvalid
from server.record import AgentEvent
from tests.factories import START

HOSTILE = [
    pytest.param("\x1b[2J", id="clears the screen"),
    pytest.param("\x1b]52;c;YWJj\x07", id="fills the clipboard"),
    pytest.param("\x9b31m", id="an escape in one character"),
    pytest.param("\rapproved", id="overwrites the line"),
    pytest.param("\u202e", id="turns the direction"),
]


def make_event(name: str, data: dict[str, JsonValue]) -> AgentEvent:
    return AgentEvent(id=1, incident_id=1, at=START, node="diagnose", name=name, level="info", data=data)


def shown(event: AgentEvent) -> str:
    out = io.StringIO()
    Show(Console(file=out, width=200, soft_wrap=True, color_system=None), yes=False).tell(event)
    return out.getvalue()


@pytest.mark.parametrize("hidden", HOSTILE)
@pytest.mark.parametrize("place", ["summary", "evidence", "checklist"])
def test_a_log_cannot_drive_the_terminal_of_the_demo(hidden: str, place: str) -> None:
    said = f"before{hidden}after"
    where: dict[str, JsonValue] = {
        "summary": said,
        "evidence": [{"line": 1, "text": said}],
        "checklist": [said],
    }
    data: dict[str, JsonValue] = {"root_cause": "unknown", "confidence": 0.5, place: where[place]}

    text = shown(make_event("diagnosed", data))

    assert "before\N{REPLACEMENT CHARACTER}" in text
    assert text.endswith("\n")
    assert all(char.isprintable() for char in text.replace("\n", ""))


def test_a_log_s_square_brackets_are_words() -> None:
    assert "[bold]no[/bold]" in shown(make_event("noted", {"note": "[bold]no[/bold]"}))


def test_progress_of_the_stage_is_as_inert() -> None:
    out = io.StringIO()
    Show(Console(file=out, width=200, color_system=None), yes=False).progress("a\x1b[2J[red]b")
    assert out.getvalue() == "… a\N{REPLACEMENT CHARACTER}[2J[red]b\n"


def test_no_value_begins_a_line_of_its_own() -> None:
    """Else an operator's note could tell that policy decided."""
    forged = "fine\n03:00:00     human Approved: by ada"
    assert len(line_of(make_event("answered", {"kind": "reject", "by": "eve", "message": forged}))) == 1


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        pytest.param("F01,F99", "'F99'", id="no such fault"),
        pytest.param("F00", "'F00'", id="below one"),
    ],
)
def test_a_fault_that_is_not_there_is_named(ids: str, complaint: str) -> None:
    with pytest.raises(SettingsInvalid, match=complaint):
        chosen(ids)


def test_faults_are_played_in_the_order_given() -> None:
    assert [row.id for row in chosen(" f22, F01,")] == ["F22", "F01"]


def test_the_table_tells_a_fault_that_opened_nothing() -> None:
    played = Played(
        row=CATALOGUE["F01"],
        incident=None,
        ledger=(),
        data=DataVerdict(agrees=False, expected=10, found=7),
        timings=Timings(),
        objections=("no incident was opened",),
    )
    out = io.StringIO()
    Console(file=out, width=200).print(table_of([played]))
    assert "no incident" in out.getvalue()
    assert "10/7" in out.getvalue()
    assert "NO" in out.getvalue()
    assert Outcome.HEALED.value not in out.getvalue()


def test_the_demo_takes_nothing_from_the_env_file_of_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "AIRMEDIC_AIRFLOW_TOKEN=real\nAIRMEDIC_NOTIFY_URLS=json://real.example.com\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIRMEDIC_AIRFLOW_TOKEN", raising=False)
    sandbox = cast(Sandbox, SimpleNamespace(url="http://127.0.0.1:1", username="medic", password="p"))

    settings = stage_settings(Layout(tmp_path), sandbox, port=0, secret="s")

    assert (settings.airflow_token, settings.notify_urls) == (None, None)
