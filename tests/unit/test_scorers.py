"""Scorers, cases and baselines of the diagnosis evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import diagnose, eval
from evals import baselines, scorers
from evals.cases import CasesInvalid, EvalCase, read_cases
from evals.scorers import Prediction
from graph.domain import EvidenceLine, Remediation, RootCause
from tests.factories import make_diagnosis

RUN = CliRunner()


def labelled(number: int, cause: RootCause, **changes: object) -> EvalCase:
    data = {"id": f"c{number}", "log": "one\ntwo", "root_cause": cause, "transient": False, **changes}
    return EvalCase.model_validate(data)


def said(number: int, cause: RootCause, *evidence: EvidenceLine, confidence: float = 0.9) -> Prediction:
    return Prediction(
        id=f"c{number}", root_cause=cause, transient=False, remediation=Remediation.ESCALATE,
        confidence=confidence, evidence=evidence,
    )  # fmt: skip


def test_macro_f1_counts_a_rare_cause_as_much_as_a_frequent_one() -> None:
    true = [RootCause.TIMEOUT] * 9 + [RootCause.TLS_ERROR]
    assert scorers.macro_f1(true, [RootCause.TIMEOUT] * 10) == pytest.approx((18 / 19) / 2)


def test_unknown_abstains_and_a_second_label_is_lenient() -> None:
    cases = [
        labelled(1, RootCause.TIMEOUT),
        labelled(2, RootCause.TIMEOUT),
        labelled(3, RootCause.SCHEMA_DRIFT, alt_root_cause="code_error"),
    ]
    scores = scorers.score(
        cases, [said(1, RootCause.TIMEOUT), said(2, RootCause.UNKNOWN), said(3, RootCause.CODE_ERROR)]
    )
    assert scores.coverage == pytest.approx(2 / 3)
    assert (scores.precision_answered, scores.precision_answered_lenient) == (0.5, 1.0)


def test_an_endless_line_is_quoted_whole() -> None:
    endless = "psycopg.errors.DiskFull: " + "x" * 9_000
    quoted = EvidenceLine(line=2, text=endless[:4_000])
    diagnosis = make_diagnosis(evidence=(quoted, EvidenceLine(line=1, text="of another log")))

    row = Prediction.of("c1", diagnosis, f"one\n{endless}\r\n")

    assert [line.text for line in row.evidence] == [endless, "of another log"]


@pytest.mark.parametrize(
    ("line", "text", "exists"),
    [
        pytest.param(2, "two", True, id="as printed"),
        pytest.param(1, "two", False, id="another line's text"),
        pytest.param(9, "two", False, id="no such line"),
    ],
)
def test_citations_are_checked(line: int, text: str, exists: bool) -> None:
    prediction = said(1, RootCause.TIMEOUT, EvidenceLine(line=line, text=text))
    assert scorers.cites_existing_lines("one\ntwo", prediction) is exists


def test_an_answer_without_evidence_is_not_grounded() -> None:
    assert not scorers.cites_existing_lines("one", said(1, RootCause.TIMEOUT))
    assert scorers.cites_existing_lines("", said(1, RootCause.UNKNOWN))


def test_calibration_error_is_the_gap() -> None:
    assert scorers.calibration_error([0.9] * 10, [True] * 9 + [False]) == pytest.approx(0.0)
    assert scorers.calibration_error([0.9] * 10, [False] * 10) == pytest.approx(0.9)


def test_baselines_answer_every_case() -> None:
    assert (
        baselines.majority([RootCause.TIMEOUT, RootCause.TIMEOUT, RootCause.TLS_ERROR])[2]
        is RootCause.TIMEOUT
    )
    assert baselines.keywords(["x certificate y", "nothing"]) == [RootCause.TLS_ERROR, RootCause.UNKNOWN]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param('{"id": "a"}\n{oops', "line 2: not JSON", id="not JSON"),
        pytest.param('{"log": "x"}', "line 1: id", id="no id"),
        pytest.param('{"id": "a", "root_cause": "gremlins"}', "line 1: root_cause", id="an unknown cause"),
        pytest.param('{"id": "a"}\n\n{"id": "a"}', "line 3: id 'a' is also on line 1", id="twice"),
        pytest.param("\n", "holds no case", id="empty"),
    ],
)
def test_a_bad_file_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    with pytest.raises(CasesInvalid, match=words):
        read_cases(path)
    assert RUN.invoke(eval.app, ["diagnosis", "--cases", str(path)]).exit_code == eval.WRONG_USE


def test_cases_without_labels_are_predicted_and_not_scored(tmp_path: Path) -> None:
    path, out = tmp_path / "cases.jsonl", tmp_path / "out.jsonl"
    path.write_text(json.dumps({"id": "a", "log": "No space left on device"}) + "\n")
    result = RUN.invoke(eval.app, ["diagnosis", "--cases", str(path), "--predictions", str(out)])
    assert result.exit_code == 0, result.output
    row = json.loads(out.read_text())
    assert set(row) == {"id", "root_cause", "transient", "remediation", "confidence", "evidence", "by"}
    assert row["root_cause"] == "storage_exhausted"
    assert row["evidence"] == [{"line": 1, "text": "No space left on device"}]


def test_a_report_holds_tables_and_figures(tmp_path: Path) -> None:
    path, folder = tmp_path / "cases.jsonl", tmp_path / "report"
    rows = [
        {"id": f"a{n}", "log": "No space left on device", "root_cause": "storage_exhausted"} for n in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = RUN.invoke(eval.app, ["diagnosis", "--cases", str(path), "--report", str(folder)])
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "scores.json").read_text())["figures"]["macro-F1"] == 1.0
    assert "baselines" in (folder / "report.md").read_text()


def test_without_a_key_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANGSMITH_API_KEY", raising=False)
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": "a", "log": "x"}\n')
    result = RUN.invoke(eval.app, ["diagnosis", "--cases", str(path), "--langsmith"])
    assert "nothing was sent" in result.output


def test_diagnose_reads_standard_input() -> None:
    result = RUN.invoke(diagnose.app, ["-", "--json"], input="bash: jq: command not found\n")
    assert json.loads(result.output)["root_cause"] == "dependency_error"


def test_diagnose_tells_a_person(tmp_path: Path) -> None:
    path = tmp_path / "task.log"
    path.write_text("ERROR: deadlock detected\n")
    result = RUN.invoke(diagnose.app, [str(path)])
    assert result.exit_code == 0
    for words in ("lock_contention", "deadlock detected", "retry"):
        assert words in result.output
    assert RUN.invoke(diagnose.app, [str(tmp_path / "none")]).exit_code == diagnose.WRONG_USE
